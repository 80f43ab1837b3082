"""Cross-entropy plus the expected cost of a decision drawn from the predicted probabilities.

    L = 1/B Σ_b ( -log p[b, y_b] + λ Σ_c K[y_b, c] p[b, c] ),     p[b, c] = exp o[b, c] / Σ_k exp o[b, k]

Shapes: logits o ``B C``, labels y ``B`` in [0, C), costs K ``C C``, K >= 0: K[y, c] is what it costs to decide c where y is
true, so a row belongs to a true class and the diagonal is usually zero.  The strength λ >= 0 is one number.
Costs of zero leave the cross-entropy alone.  The mean of an empty batch is 0.

Source: the expected cost, Elkan, The Foundations of Cost-Sensitive Learning, IJCAI 2001, section 1 (who writes the predicted
class first); beside cross-entropy, Galdran et al., Cost-Sensitive Regularization for Diabetic Retinopathy Grading from Eye
Fundus Images, MICCAI 2020, section 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from harness import domains, laws
from harness.declare.annotations import Context
from harness.declare.declared import ErrorInput
from harness.declare.dims import Size, shape
from harness.declare.spec import LossSpec

from ._checks import check_classes, check_reduction, check_tensor, check_values, positions
from ._reduction import SAMPLE_REDUCTIONS, SampleReduction, naive_reduce, nothing_of, reduce_samples
from ._row_loss import row_losses, wide


def naive_cost_matrix_cross_entropy(
    logits: Annotated[Float[Tensor, "B C"], domains.logits()],
    labels: Annotated[Int64[Tensor, "B"], domains.index("C")],
    costs: Annotated[Float[Tensor, "C C"], Context, domains.nonnegative()],
    strength: float = 1.0,
    reduction: SampleReduction = "mean",
) -> Float[Tensor, ""]:
    """The formula of this module as loops, in float64, so that the order of the sum does not show in lower precision."""
    check_reduction(reduction, SAMPLE_REDUCTIONS)
    _check_costs(costs, strength)
    _check_call(logits, labels, costs)
    table = costs.double().tolist()
    zero = nothing_of(logits)
    losses = []
    for row, label in zip(logits.double(), positions("labels", labels, logits.shape[1]), strict=True):
        largest = row.detach().max()  # exp(o - max) / Σ exp(o - max) = exp o / Σ exp o, and nothing overflows
        total = sum(((o - largest).exp() for o in row), start=zero)
        expected = sum(((o - largest).exp() / total * table[label][c] for c, o in enumerate(row)), start=zero)
        losses.append(total.log() + largest - row[label] + strength * expected)
    return naive_reduce(losses, [1.0] * len(losses), logits[:, 0], reduction)


class CostMatrixCrossEntropyLoss(nn.Module):
    """The same number as `naive_cost_matrix_cross_entropy`, from one softmax.

    Args:
        costs: ``C C``, one row for each true class; from zero up.  Copied.
        strength: the factor λ of the expected cost; from zero up.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"`` for one loss for each sample.

    Raises:
        TypeError: costs that are not a tensor.
        ValueError: an unknown reduction, costs that are not square, or costs or a strength below zero or not finite.  Costs
            that are loaded or written into the buffer later are not looked at.
    """

    costs: Tensor

    def __init__(
        self,
        costs: Annotated[Float[Tensor, "C C"], domains.nonnegative()],
        strength: float = 1.0,
        reduction: SampleReduction = "mean",
    ) -> None:
        super().__init__()
        check_reduction(reduction, SAMPLE_REDUCTIONS)
        _check_costs(costs, strength)
        check_values("costs", costs, lowest=0)
        self.strength = strength
        self.reduction = reduction
        self.register_buffer("costs", costs.detach().clone())  # load_state_dict writes into it

    def forward(
        self,
        logits: Annotated[Float[Tensor, "B C"], domains.logits()],
        labels: Annotated[Int64[Tensor, "B"], domains.index("C")],
    ) -> Float[Tensor, ""]:
        """The loss, in the logits' dtype.

        Args:
            logits: ``B C``.
            labels: integers ``B`` in [0, C).

        Raises:
            ValueError: shapes that do not belong together; the message names both.
            TypeError: logits that are not floating, or labels that are not an integer tensor.
            IndexError, RuntimeError: a label outside the classes, also one below zero; torch chooses which.
        """
        _check_call(logits, labels, self.costs)
        losses = row_losses(_ExpectedCost(self.strength), logits, labels.long(), self.costs)
        return reduce_samples(losses, self.reduction)

    def extra_repr(self) -> str:
        """Shape, strength and reduction, for printing."""
        return f"costs={list(self.costs.shape)}, strength={self.strength}, reduction={self.reduction!r}"


@dataclass(frozen=True)
class _ExpectedCost:
    """-log p_y + λ E with E = Σ_c K_yc p_c, whose gradient is p_k (1 + λ (K_yk - E)) - [k = y]."""

    strength: float

    def value(self, logits: Tensor, labels: Tensor, table: Tensor) -> Tensor:
        log_p = torch.log_softmax(wide(logits), -1)
        cross_entropy = -log_p.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        expected = (log_p.exp() * _costs_of(labels, table, log_p)).sum(-1)
        return (cross_entropy + self.strength * expected).to(logits.dtype)

    def value_and_gradient(self, logits: Tensor, labels: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        # The two terms share one softmax; it and the rows of costs are the only tensors of the logits' size that are ever
        # made, and the gradient overwrites the second.
        log_p = torch.log_softmax(wide(logits), -1)
        label = labels.unsqueeze(-1)
        cross_entropy = -log_p.gather(-1, label)
        p = log_p.exp_()
        weighted = _costs_of(labels, table, p).mul_(p)
        expected = weighted.sum(-1, keepdim=True)
        gradient = weighted.mul_(self.strength).addcmul_(p, 1 - self.strength * expected)
        gradient.scatter_add_(-1, label, torch.full_like(cross_entropy, -1))
        losses = (cross_entropy + self.strength * expected).squeeze(-1)
        return losses.to(logits.dtype), gradient.to(logits.dtype)

    def gradient(self, logits: Tensor, labels: Tensor, table: Tensor) -> Tensor:
        p = torch.softmax(wide(logits), -1)
        costs = _costs_of(labels, table, p)
        expected = (p * costs).sum(-1, keepdim=True)
        gradient = p * (1 + self.strength * (costs - expected))
        label = labels.unsqueeze(-1)
        return gradient.scatter_add(-1, label, torch.full_like(expected, -1)).to(logits.dtype)


def _costs_of(labels: Tensor, table: Tensor, like: Tensor) -> Tensor:
    return table.to(like.dtype).index_select(0, labels)


def two_softmaxes(
    logits: Tensor, labels: Tensor, costs: Tensor, strength: float = 1.0, reduction: SampleReduction = "mean"
) -> Tensor:
    """The usual way: torch's cross-entropy beside a second softmax, which is multiplied by the rows of costs and summed.

    Beside what is usual it refuses shapes that do not belong together, since costs ``C 1`` would be broadcast.
    """
    check_reduction(reduction, SAMPLE_REDUCTIONS)
    _check_costs(costs, strength)
    _check_call(logits, labels, costs)
    rows = costs[labels].to(logits.dtype)
    expected = (rows * logits.softmax(dim=1)).sum(1)
    losses = functional.cross_entropy(logits, labels, reduction="none") + strength * expected
    return reduce_samples(losses, reduction)


def _check_costs(costs: Tensor, strength: float) -> None:
    check_tensor("costs", costs)
    if costs.ndim != 2 or costs.shape[0] != costs.shape[1]:
        raise ValueError(f"costs has shape {list(costs.shape)}, expected square, [C, C]: one row for each true class")
    if not 0 <= strength < math.inf:
        raise ValueError(f"strength={strength}, expected a finite number from zero up")


def _check_call(logits: Tensor, labels: Tensor, costs: Tensor) -> None:
    check_classes(logits, labels)
    if costs.shape[0] != logits.shape[1]:
        raise ValueError(
            f"costs has shape {list(costs.shape)}, but logits has shape {list(logits.shape)}, whose second axis should be the "
            f"classes of costs"
        )


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """What remains where nothing costs anything."""
    return functional.cross_entropy(logits, labels)


def least_bytes(sizes: Mapping[str, Size], dtype: torch.dtype) -> int:
    """Logits and costs are read once each, and the int64 labels."""
    read = {"logits": "B C", "costs": "C C"}
    return dtype.itemsize * sum(math.prod(shape(dims, sizes)) for dims in read.values()) + 8 * math.prod(
        shape("B", sizes)
    )


def _longer(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return {"labels": torch.cat([tensors["labels"], tensors["labels"]])}


SPEC = LossSpec(
    name="cost_matrix_cross_entropy",
    implementations={
        "naive": naive_cost_matrix_cross_entropy,
        "vectorized": CostMatrixCrossEntropyLoss,
        "two_softmaxes": two_softmaxes,
    },
    laws=(
        laws.mean_over("B"),
        laws.permutation("B"),
        laws.permutation("C"),
        laws.translation_invariant("logits"),
        laws.nonnegative(),
        laws.reduces_to(cross_entropy, costs=0.0),
    ),
    bench_sizes=({"B": 16, "C": 5}, {"B": 512, "C": 100}, {"B": 4096, "C": 1000}),
    bytes_bound=least_bytes,
    error_inputs=(
        ErrorInput("labels of a larger batch", _longer, match=r"labels has shape .* expected shape"),
        ErrorInput(
            "logits with a unit axis",
            lambda t: {"logits": t["logits"].unsqueeze(0)},
            match=r"logits has shape .* \[B, C\]",
        ),
        ErrorInput(
            "costs that are not square",
            lambda t: {"costs": torch.cat([t["costs"], t["costs"]])},
            match=r"costs has shape .* square",
        ),
    ),
)
