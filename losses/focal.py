"""Focal loss: cross-entropy that fades for samples which are classified well already, with one weight per class.

    L = 1/B Σ_b -α[y_b] (1 - p_b)^γ log p_b,     p_b = softmax(z_b)[y_b]

Shapes: logits z ``B C``, labels y ``B`` in [0, C), weights α ``C``, α >= 0; the focusing parameter γ >= 0 is one number.
With γ = 0 it is the cross-entropy with class weights.
A sample whose class has weight zero is removed: neither the value nor any gradient depends on it, even where it is NaN.
At p = 1 value and gradient are 0, their limits, although for γ < 1 the power alone has an infinite slope there.

Source: Lin, Goyal, Girshick, He & Dollár, Focal Loss for Dense Object Detection, ICCV 2017, equation 5, for the softmax.
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

from ._checks import check_classes, check_reduction, check_tensor, check_values, positions
from ._reduction import REDUCTIONS, Reduction, naive_reduce, nothing_of, reduce_samples
from ._row_loss import row_losses, wide


def naive_focal(
    logits: Annotated[Float[Tensor, "B C"], domains.logits()],
    labels: Annotated[Int64[Tensor, "B"], domains.index("C")],
    alpha: Annotated[Float[Tensor, "C"], Context, domains.nonnegative()],
    gamma: float = 2.0,
    reduction: Reduction = "mean",
) -> Float[Tensor, ""]:
    """The formula of this module as loops, in float64, so that the order of the sum does not show in lower precision."""
    check_reduction(reduction, REDUCTIONS)
    _check_context(alpha, gamma)
    _check_call(logits, labels, alpha)
    weights, removed = alpha.double().tolist(), nothing_of(logits)
    chosen = positions("labels", labels, len(weights))
    losses = []
    for row, label in zip(logits.double(), chosen, strict=True):
        largest = max(logit.item() for logit in row)  # so that no exponential overflows
        log_total = sum(((logit - largest).exp() for logit in row), start=removed).log() + largest
        log_probability = row[label] - log_total
        if weights[label] == 0 or log_probability == 0:
            losses.append(removed)
        else:
            losses.append(-weights[label] * (1 - log_probability.exp()) ** gamma * log_probability)
    return naive_reduce(losses, [weights[label] for label in chosen], logits[:, 0], reduction)


class FocalLoss(nn.Module):
    """The same number as `naive_focal`, from one softmax; computed in float32 or wider.

    Args:
        alpha: ``C``, one weight per class, from zero up.  Copied.
        gamma: the focusing parameter γ, from zero up.
        reduction: ``"mean"`` over the batch, ``"sum"``, ``"none"``, or ``"weighted_mean"`` = Σ_b L_b / Σ_b α[y_b].

    Raises:
        TypeError: weights that are not a tensor.
        ValueError: an unknown reduction, weights that have not one axis, are below zero or not finite, or a gamma below
            zero.  Weights that are loaded or written into the buffer later are not looked at.
    """

    alpha: Tensor

    def __init__(
        self,
        alpha: Annotated[Float[Tensor, "C"], domains.nonnegative()],
        gamma: float = 2.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_reduction(reduction, REDUCTIONS)
        _check_context(alpha, gamma)
        check_values("alpha", alpha, lowest=0)
        self.gamma = gamma
        self.reduction = reduction
        self.register_buffer("alpha", alpha.detach().clone())  # load_state_dict writes into it

    def forward(
        self,
        logits: Annotated[Float[Tensor, "B C"], domains.logits()],
        labels: Annotated[Int64[Tensor, "B"], domains.index("C")],
    ) -> Float[Tensor, ""]:
        """The loss, in the logits' dtype.

        Args:
            logits: ``B C``.
            labels: integers ``B`` in [0, C), the class of each sample.

        Raises:
            ValueError: shapes that do not belong together; the message names both.
            TypeError: logits that are not floating, or labels that are not an integer tensor.
            IndexError, RuntimeError: a label outside [0, C), also one below zero; torch chooses which.
        """
        _check_call(logits, labels, self.alpha)
        labels = labels.long()
        losses = self._per_sample(logits, labels)
        if self.reduction != "weighted_mean":
            return reduce_samples(losses, self.reduction)
        total_weight = self.alpha.index_select(0, labels).sum(dtype=wide(logits).dtype)
        return (wide(losses).sum() / total_weight.masked_fill(total_weight == 0, 1)).to(logits.dtype)

    def _per_sample(self, logits: Tensor, labels: Tensor) -> Tensor:
        return row_losses(_Focal(self.gamma), logits, labels, self.alpha)

    def extra_repr(self) -> str:
        """Shape, gamma and reduction, for printing."""
        return f"alpha={list(self.alpha.shape)}, gamma={self.gamma:g}, reduction={self.reduction!r}"


class CrossEntropyFocalLoss(FocalLoss):
    """The usual way of writing it: p is exp(-cross-entropy).  For γ < 1 its gradient is NaN at p = 1."""

    def _per_sample(self, logits: Tensor, labels: Tensor) -> Tensor:
        cross_entropy = functional.cross_entropy(logits, labels, reduction="none")
        probability = torch.exp(-cross_entropy)
        return self.alpha.to(logits.dtype)[labels] * (1 - probability) ** self.gamma * cross_entropy


class OneHotFocalLoss(FocalLoss):
    """The other usual way: the factors of every class, times a one-hot of the labels."""

    def _per_sample(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_probabilities = functional.log_softmax(logits, -1)
        factors = -self.alpha.to(logits.dtype) * (1 - log_probabilities.exp()) ** self.gamma
        one_hot = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
        return (factors * log_probabilities * one_hot).sum(-1)


class _Focal:
    """L = α φ(l) of the label's log-probability l, with dl/dz_k = [k = y] - p_k: C numbers a row are made once."""

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma

    def value(self, logits: Tensor, labels: Tensor, table: Tensor) -> Tensor:
        weights, kept = _kept(logits, labels, table)
        log_probability = kept.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        certain = log_probability == 0
        faded, _ = self._faded_and_slope(log_probability.masked_fill(certain, -1))
        return (-weights * faded * log_probability).masked_fill(certain, 0).to(logits.dtype)

    def value_and_gradient(self, logits: Tensor, labels: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        z, label = wide(logits), labels.unsqueeze(-1)
        weights = table.to(z.dtype).index_select(0, labels).unsqueeze(-1)
        p = z.softmax(-1)
        # The largest probability p_m is at least 1/C, so that log Σ exp z = z_m - log p_m takes no exponential again.
        log_probability = z.gather(-1, label) - z.amax(-1, keepdim=True) + p.amax(-1, keepdim=True).log()
        nothing = (log_probability >= 0) | (weights == 0)
        log_probability, counted = log_probability.masked_fill(nothing, -1), weights.masked_fill(nothing, 0)
        faded, slope = (counted * factor for factor in self._faded_and_slope(log_probability))
        gradient = _clear_rows(p.mul_(slope), weights == 0).scatter_add_(-1, label, -slope)
        return -(faded * log_probability).squeeze(-1).to(logits.dtype), gradient.to(logits.dtype)

    def gradient(self, logits: Tensor, labels: Tensor, table: Tensor) -> Tensor:
        label = labels.unsqueeze(-1)
        weights, kept = _kept(logits, labels, table)
        log_probabilities = kept.log_softmax(-1)
        log_probability = log_probabilities.gather(-1, label)
        certain = log_probability == 0
        _, slope = self._faded_and_slope(log_probability.masked_fill(certain, -1))
        slope = weights.unsqueeze(-1) * slope.masked_fill(certain, 0)
        return (slope * log_probabilities.exp()).scatter_add(-1, label, -slope).to(logits.dtype)

    def _faded_and_slope(self, log_probability: Tensor) -> tuple[Tensor, Tensor]:
        """(1 - p)^γ and -dφ/dl = (1 - p)^γ - γ (1 - p)^(γ - 1) p l, for l below zero."""
        missing = -torch.expm1(log_probability)  # without the cancellation of 1 - p
        power = missing ** (self.gamma - 1)
        return power * missing, power * (missing - self.gamma * (1 - missing) * log_probability)


def _clear_rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """Zero in every bit of some rows, in place: 0 * NaN is NaN, and masked_fill_ by one mask a row takes ten times as long."""
    bits = torch.int64 if tensor.dtype == torch.float64 else torch.int32
    tensor.view(bits).bitwise_and_(torch.where(rows, 0, -1).to(bits))
    return tensor


def _kept(logits: Tensor, labels: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """The weight of each sample, and the logits with zeros in samples of weight zero: 0 * NaN would stay."""
    z = wide(logits)
    weights = alpha.to(z.dtype).index_select(0, labels)
    return weights, z.masked_fill((weights == 0).unsqueeze(-1), 0)


def _check_context(alpha: Tensor, gamma: float) -> None:
    check_tensor("alpha", alpha)
    if alpha.ndim != 1:
        raise ValueError(f"alpha has shape {list(alpha.shape)}, expected one axis, [C]: one weight per class")
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma={gamma!r}, expected from zero up, such as 2.0")


def _check_call(logits: Tensor, labels: Tensor, alpha: Tensor) -> None:
    check_classes(logits, labels)
    if logits.shape[1] != alpha.shape[0]:
        raise ValueError(
            f"logits has shape {list(logits.shape)}, but alpha has shape {list(alpha.shape)}, and each class needs one weight"
        )


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """What remains with γ = 0 where every class weighs one."""
    return functional.cross_entropy(logits, labels)


def least_bytes(sizes: Mapping[str, Size], dtype: torch.dtype) -> int:
    """Logits, labels and weights are read once each."""
    numbers = dtype.itemsize * sum(math.prod(shape(dims, sizes)) for dims in ("B C", "C"))
    return numbers + torch.int64.itemsize * math.prod(shape("B", sizes))


SPEC = LossSpec(
    name="focal",
    implementations={
        "naive": naive_focal,
        "vectorized": FocalLoss,
        "cross_entropy": CrossEntropyFocalLoss,
        "one_hot": OneHotFocalLoss,
    },
    laws=(
        laws.nonnegative(),
        laws.mean_over("B"),
        laws.linear_in("alpha"),
        laws.translation_invariant("logits"),
        laws.permutation("B"),
        laws.permutation("C"),
    ),
    bench_sizes=({"B": 32, "C": 10}, {"B": 256, "C": 1000}, {"B": 8192, "C": 128}),
    bytes_bound=least_bytes,
    error_inputs=(
        ErrorInput(
            "logits of more classes",
            lambda t: {"logits": torch.cat([t["logits"], t["logits"]], dim=1)},
            match="logits has shape .* alpha has shape",
        ),
        ErrorInput(
            "labels as a column",
            lambda t: {"labels": t["labels"].unsqueeze(-1)},
            match="labels has shape .* expected shape",
        ),
        ErrorInput("alpha as a row", lambda t: {"alpha": t["alpha"].unsqueeze(0)}, match=r"alpha has shape .* \[C\]"),
    ),
)

SPEC_GAMMA_ZERO = SPEC.replace(
    name="focal_gamma_zero",
    options={"gamma": 0.0},
    laws=(*SPEC.laws, laws.reduces_to(cross_entropy, alpha=1.0)),
    bench_sizes=({"B": 32, "C": 10}, {"B": 256, "C": 1000}),
)
