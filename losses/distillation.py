"""Knowledge distillation: the divergence of a model from a teacher whose logits are stored for the whole data set.

    L = 1/B Σ_b (1 - w) T² KL(p_b || q_b) + w (-log softmax(z_b)[y_b])
    p_b = softmax(t[indices[b]] / T),     q_b = softmax(z_b / T),     KL(p || q) = Σ_c p_c log(p_c / q_c)

Shapes: logits z ``B C``, teacher's logits t ``N C``, indices ``B`` in [0, N), and where w > 0 labels y ``B`` in [0, C).
The temperature T > 0 and the share w of the hard labels, 0 <= w <= 1, are numbers.  No gradient goes into the teacher.

Source: Hinton, Vinyals & Dean, Distilling the Knowledge in a Neural Network, arXiv:1503.02531, 2015, section 2; its
cross-entropy with soft targets has the gradient of KL, and T² keeps the size of that gradient when T changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness import domains, laws
from harness.declare.declared import ErrorInput
from harness.declare.dims import Size, shape
from harness.declare.spec import LossSpec
from harness.declare.tensor_spec import TensorSpec

from ._checks import check_classes, check_floating, check_index, check_reduction, check_tensor, positions
from ._reduction import SAMPLE_REDUCTIONS, SampleReduction, naive_reduce, nothing_of, reduce_samples
from ._row_loss import row_losses, wide

CHUNK_BYTES = 2**19  # rows that stay in the cache between the steps from logits to gradient


def naive_distillation(
    logits: Tensor,
    indices: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    temperature: float = 2.0,
    hard_weight: float = 0.0,
    reduction: SampleReduction = "mean",
) -> Tensor:
    """The formula of this module as loops, in float64, so that the order of the sum does not show in lower precision."""
    check_reduction(reduction, SAMPLE_REDUCTIONS)
    _check_context(teacher_logits, temperature, hard_weight)
    _check_call(logits, indices, labels, teacher_logits, hard_weight)
    stored = teacher_logits.detach().double()
    chosen = positions("indices", indices, len(stored))
    hard = None if labels is None else positions("labels", labels, logits.shape[1])
    losses = []
    for b, (row, index) in enumerate(zip(logits.double(), chosen, strict=True)):
        mine, theirs = _log_softmax(row, temperature), _log_softmax(stored[index], temperature)
        divergence = sum((t.exp() * (t - m) for t, m in zip(theirs, mine, strict=True)), start=nothing_of(logits))
        loss = (1 - hard_weight) * temperature**2 * divergence
        losses.append(loss if hard is None else loss - hard_weight * _log_softmax(row, 1.0)[hard[b]])
    return naive_reduce(losses, [1.0] * len(losses), logits[:, 0], reduction)


def _log_softmax(row: Tensor, temperature: float) -> list[Tensor]:
    largest = max(logit.item() for logit in row)  # so that no exponential overflows
    total = sum((((logit - largest) / temperature).exp() for logit in row), start=nothing_of(row))
    return [(logit - largest) / temperature - total.log() for logit in row]


class DistillationLoss(nn.Module):
    """The same number as `naive_distillation`, from two softmaxes; computed in float32 or wider.

    Args:
        teacher_logits: ``N C``, one row for each sample of the data set.  Copied.
        temperature: T, above zero.
        hard_weight: the share w of the cross-entropy with the hard labels, from 0 to 1.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for one loss for each sample.

    Raises:
        TypeError: a teacher that is not a tensor.
        ValueError: an unknown reduction, a teacher that is not [N, C], or a temperature or share that is not allowed.
    """

    teacher_logits: Tensor

    def __init__(
        self,
        teacher_logits: Tensor,
        temperature: float = 2.0,
        hard_weight: float = 0.0,
        reduction: SampleReduction = "mean",
    ) -> None:
        super().__init__()
        check_reduction(reduction, SAMPLE_REDUCTIONS)
        _check_context(teacher_logits, temperature, hard_weight)
        self.temperature = temperature
        self.hard_weight = hard_weight
        self.reduction = reduction
        self.register_buffer("teacher_logits", teacher_logits.detach().clone())  # load_state_dict writes into it

    def forward(self, logits: Tensor, indices: Tensor, labels: Tensor | None = None) -> Tensor:
        """The loss, in the logits' dtype.

        Args:
            logits: ``B C``.
            indices: int64 ``B``, the row of each sample in the teacher's table.
            labels: integers ``B`` in [0, C), where the hard labels have a share.

        Raises:
            ValueError: shapes that do not belong together, the message names both; or labels without a share, or a share
                without labels.
            TypeError: logits that are not floating, or indices or labels that are not an integer tensor.
            IndexError, RuntimeError: an index or label outside, also one below zero; torch chooses which.
        """
        _check_call(logits, indices, labels, self.teacher_logits, self.hard_weight)
        losses = (1 - self.hard_weight) * self._divergence(logits, indices)
        if labels is not None:
            hard = functional.cross_entropy(wide(logits), labels.long(), reduction="none").to(logits.dtype)
            losses = losses + self.hard_weight * hard
        return reduce_samples(losses, self.reduction)

    def _divergence(self, logits: Tensor, indices: Tensor) -> Tensor:
        return row_losses(_Divergence(self.temperature), logits, indices, self.teacher_logits)

    def extra_repr(self) -> str:
        """Shape and numbers, for printing."""
        shares = f"temperature={self.temperature:g}, hard_weight={self.hard_weight:g}"
        return f"teacher_logits={list(self.teacher_logits.shape)}, {shares}, reduction={self.reduction!r}"


class KLDivDistillationLoss(DistillationLoss):
    """The usual way of writing it: `torch.nn.functional.kl_div` of a log-softmax and the softmax of the gathered rows."""

    def _divergence(self, logits: Tensor, indices: Tensor) -> Tensor:
        mine = functional.log_softmax(logits / self.temperature, -1)
        theirs = functional.softmax(self.teacher_logits[indices].to(logits.dtype) / self.temperature, -1)
        return functional.kl_div(mine, theirs, reduction="none").sum(-1) * self.temperature**2


class _Divergence:
    """T² KL(p || q), whose gradient is T (q - p)."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def value(self, logits: Tensor, labels: Tensor, table: Tensor) -> Tensor:
        mine, theirs = (scaled.log_softmax(-1) for scaled in self._scaled(logits, labels, table))
        return ((theirs.exp() * (theirs - mine)).sum(-1) * self.temperature**2).to(logits.dtype)

    def value_and_gradient(self, logits: Tensor, labels: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        gradient, losses = torch.empty_like(logits), logits.new_empty(logits.shape[0])
        rows = max(1, CHUNK_BYTES // (wide(logits[:0]).dtype.itemsize * logits.shape[1]))
        for part in zip(*(tensor.split(rows) for tensor in (logits, labels, losses, gradient)), strict=True):
            self._fill(table, *part)
        return losses, gradient

    def _fill(self, table: Tensor, logits: Tensor, indices: Tensor, losses: Tensor, gradient: Tensor) -> None:
        # KL = <p, t - z> / T + log Σ exp(z/T) - log Σ exp(t/T), where a log-sum-exp is the largest exponent less the
        # logarithm of the largest probability: no logarithm of a probability is made for every class.
        mine, theirs = self._scaled(logits, indices, table)
        q, p = mine.softmax(-1), theirs.softmax(-1)
        log_totals = (mine.amax(-1) - q.amax(-1).log()) - (theirs.amax(-1) - p.amax(-1).log())
        gradient.copy_(q.sub_(p).mul_(self.temperature))
        losses.copy_((p.mul_(theirs.sub_(mine)).sum(-1) + log_totals) * self.temperature**2)

    def gradient(self, logits: Tensor, labels: Tensor, table: Tensor) -> Tensor:
        mine, theirs = self._scaled(logits, labels, table)
        return (self.temperature * (mine.softmax(-1) - theirs.softmax(-1))).to(logits.dtype)

    def _scaled(self, logits: Tensor, indices: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        mine = wide(logits) / self.temperature
        return mine, table.index_select(0, indices).to(mine.dtype) / self.temperature


def _check_context(teacher_logits: Tensor, temperature: float, hard_weight: float) -> None:
    check_tensor("teacher_logits", teacher_logits)
    if teacher_logits.ndim != 2 or teacher_logits.shape[1] == 0:
        raise ValueError(
            f"teacher_logits has shape {list(teacher_logits.shape)}, expected [N, C] with C >= 1: one row for each "
            f"sample of the data set"
        )
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature!r}, expected above zero, such as 2.0")
    if not 0 <= hard_weight <= 1:
        raise ValueError(f"hard_weight={hard_weight!r}, expected from 0 to 1: the share of the hard labels")


def _check_call(
    logits: Tensor, indices: Tensor, labels: Tensor | None, teacher_logits: Tensor, hard_weight: float
) -> None:
    check_floating("logits", logits)
    if logits.ndim != 2 or logits.shape[1] != teacher_logits.shape[1]:
        raise ValueError(
            f"logits has shape {list(logits.shape)}, but teacher_logits has shape {list(teacher_logits.shape)}, and logits "
            f"should be [B, C] with the same C"
        )
    check_index("indices", indices, tuple(logits.shape[:1]), f"one for each row of logits {list(logits.shape)}")
    if (labels is not None) != (hard_weight > 0):
        came = "no labels came" if labels is None else "labels came"
        raise ValueError(
            f"{came} with hard_weight={hard_weight:g}; labels are used where hard_weight > 0, and only there"
        )
    if labels is not None:
        check_classes(logits, labels)


def least_bytes(sizes: Mapping[str, Size], dtype: torch.dtype) -> int:
    """Logits, the teacher's rows and the indices are read once each."""
    return 2 * dtype.itemsize * math.prod(shape("B C", sizes)) + torch.int64.itemsize * math.prod(shape("B", sizes))


_IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "naive": naive_distillation,
    "vectorized": DistillationLoss,
    "kl_div": KLDivDistillationLoss,
}
_ERROR_INPUTS = (
    ErrorInput(
        "logits of more classes",
        lambda t: {"logits": torch.cat([t["logits"], t["logits"]], dim=1)},
        match="logits has shape .* teacher_logits has shape .* same C",
    ),
    ErrorInput(
        "indices of a larger batch",
        lambda t: {"indices": torch.cat([t["indices"], t["indices"]])},
        match="indices has shape .* expected shape",
    ),
    ErrorInput(
        "a teacher with a unit axis",
        lambda t: {"teacher_logits": t["teacher_logits"].unsqueeze(0)},
        match=r"teacher_logits has shape .* \[N, C\]",
    ),
)
_LAWS = (
    laws.nonnegative(),
    laws.mean_over("B"),
    laws.translation_invariant("logits"),
    laws.translation_invariant("teacher_logits"),
    laws.permutation("B"),
    laws.permutation("N"),
    laws.permutation("C"),
)

SPEC = LossSpec(
    name="distillation",
    implementations=_IMPLEMENTATIONS,
    inputs={"logits": TensorSpec("B C", domains.logits()), "indices": TensorSpec("B", domains.index("N"))},
    context={"teacher_logits": TensorSpec("N C", domains.logits())},
    output=TensorSpec(""),
    laws=_LAWS,
    bench_sizes=(
        {"B": 32, "C": 10, "N": 1_000},
        {"B": 256, "C": 1_000, "N": 10_000},
        {"B": 256, "C": 32_000, "N": 512},
    ),
    bytes_bound=least_bytes,
    error_inputs=_ERROR_INPUTS,
)

SPEC_WITH_LABELS = LossSpec(
    name="distillation_with_labels",
    implementations=_IMPLEMENTATIONS,
    inputs={**SPEC.inputs, "labels": TensorSpec("B", domains.index("C"))},
    context=SPEC.context,
    output=TensorSpec(""),
    options={"hard_weight": 0.25},
    laws=_LAWS,
    bench_sizes=({"B": 16, "C": 10, "N": 1_000}, {"B": 256, "C": 1_000, "N": 10_000}),
    bytes_bound=least_bytes,
    error_inputs=_ERROR_INPUTS,
)
