"""Cross-entropy of logits that are adjusted by the priors of the classes.

    L = 1/B Σ_b -log ( π[y_b]^τ exp o[b, y_b] / Σ_k π[k]^τ exp o[b, k] )

Shapes: logits o ``B C``, labels y ``B`` in [0, C), priors π ``C``, π >= 0; shares or counts, as a common factor cancels.
The temperature τ > 0 is one number.  Logits of some classes of a larger table take their priors at ``classes`` ``C``:
π[classes[k]]; labels then count the columns of the logits.
A class whose prior is zero is removed: no sum has its logits, which should be finite, and a sample with its label, whose loss
would be infinite, counts 0 with gradient 0; the mean is over all B samples.  The mean of an empty batch is 0.

Source: Menon, Jayasumana, Rawat, Jain, Veit & Kumar, Long-tail Learning via Logit Adjustment, ICLR 2021, equation 10.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from harness import domains, laws
from harness.declare.annotations import Context
from harness.declare.declared import ErrorInput
from harness.declare.dims import Size, shape
from harness.declare.spec import LossSpec
from harness.declare.tensor_spec import TensorSpec

from ._checks import check_classes, check_index, check_reduction, check_tensor, check_values, positions
from ._reduction import SAMPLE_REDUCTIONS, SampleReduction, naive_reduce, nothing_of, reduce_samples
from ._row_loss import row_losses, wide

REMOVED = (
    -1e30
)  # for the logarithm of zero: exp of it is 0 beside every logit, but where all are removed nothing is 0/0


def naive_logit_adjustment(
    logits: Annotated[Float[Tensor, "B C"], domains.logits()],
    labels: Annotated[Int64[Tensor, "B"], domains.index("C")],
    priors: Annotated[Float[Tensor, "C"], Context, domains.nonnegative()],
    classes: Tensor | None = None,
    tau: float = 1.0,
    reduction: SampleReduction = "mean",
) -> Float[Tensor, ""]:
    """The formula of this module as loops, in float64, so that the order of the sum does not show in lower precision."""
    check_reduction(reduction, SAMPLE_REDUCTIONS)
    _check_priors(priors, tau)
    _check_call(logits, labels, priors, classes)
    columns = range(len(priors)) if classes is None else positions("classes", classes, len(priors))
    table = priors.detach().double().tolist()
    prior = [table[column] for column in columns]
    removed = nothing_of(logits)
    losses = []
    for row, label in zip(logits.double(), positions("labels", labels, logits.shape[1]), strict=True):
        if prior[label] == 0:
            losses.append(removed)
            continue
        adjusted = [o + tau * math.log(share) for o, share in zip(row, prior, strict=True) if share > 0]
        largest = max(o.item() for o in adjusted)  # log Σ exp o = max + log Σ exp(o - max), and nothing overflows
        total = sum(((o - largest).exp() for o in adjusted), start=removed)
        losses.append(largest + total.log() - (row[label] + tau * math.log(prior[label])))
    return naive_reduce(losses, [1.0] * len(losses), logits[:, 0], reduction)


class LogitAdjustmentLoss(nn.Module):
    """The same number as `naive_logit_adjustment`, from one softmax.

    Args:
        priors: ``C``, or one for each class of a larger table; from zero up, shares or counts.  Their logarithms are kept.
        tau: the exponent τ of the priors, above zero.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for one loss for each sample.

    Raises:
        TypeError: priors that are not a tensor.
        ValueError: an unknown reduction, priors that have not one axis, are below zero or not finite, or a tau that is not
            above zero and finite.  Logarithms that are loaded or written into the buffer later are not looked at.
    """

    log_priors: Tensor

    def __init__(
        self,
        priors: Annotated[Float[Tensor, "C"], domains.nonnegative()],
        tau: float = 1.0,
        reduction: SampleReduction = "mean",
    ) -> None:
        super().__init__()
        check_reduction(reduction, SAMPLE_REDUCTIONS)
        _check_priors(priors, tau)
        check_values("priors", priors, lowest=0)
        self.tau = tau
        self.reduction = reduction
        # Counts of millions pass the range of float16, their logarithms do not.
        self.register_buffer("log_priors", priors.detach().log())

    def forward(
        self,
        logits: Annotated[Float[Tensor, "B C"], domains.logits()],
        labels: Annotated[Int64[Tensor, "B"], domains.index("C")],
        classes: Tensor | None = None,
    ) -> Float[Tensor, ""]:
        """The loss, in the logits' dtype.

        Args:
            logits: ``B C``.
            labels: integers ``B`` in [0, C), the column of each sample's class.
            classes: int64 ``C``, the position of each column in priors that are those of more classes.

        Raises:
            ValueError: shapes that do not belong together; the message names both.
            TypeError: logits that are not floating, or labels or classes that are not an integer tensor.
            IndexError, RuntimeError: a label or class outside, also one below zero; torch chooses which.
        """
        _check_call(logits, labels, self.log_priors, classes)
        log_priors = self.log_priors if classes is None else self.log_priors.index_select(0, classes)
        labels = labels.long()
        # log(π^τ exp o) = o + τ log π, and classes are removed by so low a number that no sum of exponentials has them.
        adjustment = (self.tau * wide(log_priors)).clamp(min=REMOVED)
        losses = row_losses(_ADJUSTED, logits, labels, adjustment)
        losses = losses.masked_fill(adjustment.index_select(0, labels) == REMOVED, 0)
        return reduce_samples(losses, self.reduction)

    def extra_repr(self) -> str:
        """Shape, tau and reduction, for printing."""
        return f"priors={list(self.log_priors.shape)}, tau={self.tau}, reduction={self.reduction!r}"


class _AdjustedCrossEntropy:
    """-log p_y with p = softmax(o + adjustment), whose gradient is p - [k = y]."""

    def value(self, logits: Tensor, labels: Tensor, table: Tensor) -> Tensor:
        adjusted = wide(logits) + table.to(wide(logits).dtype)
        return functional.cross_entropy(adjusted, labels, reduction="none").to(logits.dtype)

    def value_and_gradient(self, logits: Tensor, labels: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        # The largest probability p_m is at least 1/C, so that log Σ exp o = o_m - log p_m comes from the one softmax that
        # the gradient needs too, and no tensor of log-probabilities is made.
        adjusted = wide(logits) + table.to(wide(logits).dtype)
        p = torch.softmax(adjusted, -1)
        label = labels.unsqueeze(-1)
        losses = adjusted.amax(-1, keepdim=True) - adjusted.gather(-1, label) - p.amax(-1, keepdim=True).log()
        gradient = p.scatter_add_(-1, label, torch.full_like(losses, -1))
        return losses.squeeze(-1).to(logits.dtype), gradient.to(logits.dtype)

    def gradient(self, logits: Tensor, labels: Tensor, table: Tensor) -> Tensor:
        p = torch.softmax(wide(logits) + table.to(wide(logits).dtype), -1)
        label = labels.unsqueeze(-1)
        return p.scatter_add(-1, label, torch.full_like(p[..., :1], -1)).to(logits.dtype)


_ADJUSTED = _AdjustedCrossEntropy()


def added(
    logits: Tensor,
    labels: Tensor,
    priors: Tensor,
    classes: Tensor | None = None,
    tau: float = 1.0,
    reduction: SampleReduction = "mean",
) -> Tensor:
    """The usual way: the logarithm of the priors added to the logits, and torch's cross-entropy.

    Beside what is usual it refuses shapes that do not belong together, since priors ``1`` would be broadcast, and removes
    the classes whose prior is zero: their samples would have an infinite loss.
    """
    check_reduction(reduction, SAMPLE_REDUCTIONS)
    _check_priors(priors, tau)
    _check_call(logits, labels, priors, classes)
    priors = (priors if classes is None else priors[classes]).to(logits.dtype)
    shares = torch.where((priors > 0).any(), priors, torch.ones_like(priors))
    losses = functional.cross_entropy(logits + tau * torch.log(shares), labels, reduction="none")
    return reduce_samples(losses.masked_fill(priors[labels] == 0, 0), reduction)


def _check_priors(priors: Tensor, tau: float) -> None:
    check_tensor("priors", priors)
    if priors.ndim != 1:
        raise ValueError(f"priors has shape {list(priors.shape)}, expected one axis, [C]: one prior per class")
    if not 0 < tau < math.inf:
        raise ValueError(
            f"tau={tau}, expected a finite number above zero; without adjustment use torch's cross_entropy"
        )


def _check_call(logits: Tensor, labels: Tensor, priors: Tensor, classes: Tensor | None) -> None:
    check_classes(logits, labels)
    if classes is not None:
        check_index("classes", classes, tuple(logits.shape[1:]), f"one for each column of logits {list(logits.shape)}")
    elif priors.shape[0] != logits.shape[1]:
        raise ValueError(
            f"priors has shape {list(priors.shape)}, but logits has shape {list(logits.shape)}, whose second axis should be "
            f"the priors'; for some classes of a larger table pass classes, one for each column"
        )


def cross_entropy(logits: Tensor, labels: Tensor, classes: Tensor | None = None) -> Tensor:
    """What remains where every class has the same prior, wherever the priors are read from."""
    del classes
    return functional.cross_entropy(logits, labels)


def least_bytes(sizes: Mapping[str, Size], dtype: torch.dtype) -> int:
    """Logits and priors are read once each, and the int64 labels."""
    read = math.prod(shape("B C", sizes)) + math.prod(shape("C", sizes))
    return dtype.itemsize * read + torch.int64.itemsize * math.prod(shape("B", sizes))


_LONGER_LABELS = ErrorInput(
    "labels of a larger batch",
    lambda t: {"labels": torch.cat([t["labels"], t["labels"]])},
    match=r"labels has shape .* expected shape",
)

SPEC = LossSpec(
    name="logit_adjustment",
    implementations={"naive": naive_logit_adjustment, "vectorized": LogitAdjustmentLoss, "added": added},
    laws=(
        laws.mean_over("B"),
        laws.permutation("B"),
        laws.permutation("C"),
        laws.translation_invariant("logits"),
        laws.scale_invariant("priors"),
        laws.nonnegative(),
        laws.reduces_to(cross_entropy, priors=1.0),
    ),
    bench_sizes=({"B": 16, "C": 5}, {"B": 256, "C": 1000}, {"B": 512, "C": 8142}),
    bytes_bound=least_bytes,
    error_inputs=(
        _LONGER_LABELS,
        ErrorInput(
            "logits with a unit axis",
            lambda t: {"logits": t["logits"].unsqueeze(0)},
            match=r"logits has shape .* \[B, C\]",
        ),
        ErrorInput("priors as a column", lambda t: {"priors": t["priors"].unsqueeze(-1)}, match=r"priors has .* \[C\]"),
        ErrorInput(
            "priors of more classes",
            lambda t: {"priors": torch.cat([t["priors"], t["priors"]])},
            match="priors has shape .* logits has shape",
        ),
    ),
)

SPEC_INDEXED = LossSpec(
    name="logit_adjustment_indexed",
    implementations={"naive": naive_logit_adjustment, "vectorized": LogitAdjustmentLoss, "added": added},
    inputs={
        "logits": TensorSpec("B C", domains.logits()),
        "labels": TensorSpec("B", domains.index("C")),
        "classes": TensorSpec("C", domains.index("N")),
    },
    context={"priors": TensorSpec("N", domains.nonnegative())},
    output=TensorSpec(""),
    laws=(
        laws.mean_over("B"),
        laws.permutation("B"),
        laws.permutation("C"),
        laws.translation_invariant("logits"),
        laws.scale_invariant("priors"),
        laws.nonnegative(),
        laws.reduces_to(cross_entropy, priors=1.0),
    ),
    bench_sizes=({"B": 16, "C": 5, "N": 100}, {"B": 512, "C": 1000, "N": 100_000}),
    error_inputs=(
        _LONGER_LABELS,
        ErrorInput(
            "classes of more columns",
            lambda t: {"classes": torch.cat([t["classes"], t["classes"]])},
            match="classes has shape .* expected shape",
        ),
    ),
)
