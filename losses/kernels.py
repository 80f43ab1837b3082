"""Two losses as Triton kernels, beside the forms that they are held to: weighted squared error and weighted cross-entropy.

    weighted_mse              L = 1/n Σ_{b,g} m[g] (p[b, g] - y[b, g])²,                see `losses.weighted_mse`
    weighted_cross_entropy    L = Σ_b w[y_b] ℓ_b / Σ_b w[y_b],     ℓ_b = log Σ_k exp o[b, k] - o[b, y_b]

Shapes: logits o ``B C``, labels y ``B`` in [0, C) or ``ignore_index``, class weights w ``C``, w >= 0.  A row with the ignored
label is removed: it is in neither sum, and its gradient is zero.  Both sums are over rows that count; where their weights are
all zero, the loss is 0 with gradient zero.

Kernels accumulate in float32, in float64 where the inputs are, and read tensors by their strides.  They need a GPU, or Triton's
interpreter: ``loss-harness verify losses.kernels --triton-interpret``.  They have a first derivative alone.

Source: `torch.nn.functional.cross_entropy`; the softmax in one pass, Milakov & Gimelshein, Online normalizer calculation for
softmax, arXiv:1805.02867; https://triton-lang.org/main/getting-started/tutorials.
"""

# mypy: disable-error-code="no-untyped-def"
# The arguments of a kernel have no types but `constexpr`: it is compiled by what it is given.

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from harness import domains, laws
from harness.catalogs import require
from harness.declare.annotations import Context
from harness.declare.declared import ErrorInput
from harness.declare.dims import Size, shape
from harness.declare.spec import LossSpec

from . import weighted_mse
from ._checks import check_classes, check_reduction, check_tensor, check_values
from ._reduction import naive_reduce, normalize, nothing_of
from .weighted_mse import WeightedMSELoss, naive_weighted_mse

triton: Any = require("triton", "'loss-harness[kernels]'")
tl: Any = require("triton.language", "'loss-harness[kernels]'")

BLOCK = 1024  # elements that one program holds at a time
ClassReduction = Literal["none", "mean", "sum"]
CLASS_REDUCTIONS: tuple[ClassReduction, ...] = ("none", "mean", "sum")


# Weighted squared error.  One program has one block of one grid; a program id is an int32, whose product with a stride is not.


@triton.jit  # type: ignore[untyped-decorator]
def _squares(
    p, y, m, out, grid, p_row, p_step, y_row, y_step, m_step, out_row, out_step,
    BLOCK: tl.constexpr, SUMS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1).to(tl.int64)
    at = block * BLOCK + tl.arange(0, BLOCK)
    inside = at < grid
    weight = tl.load(m + at * m_step, mask=inside, other=0).to(WIDE)
    d = tl.load(p + row * p_row + at * p_step, mask=inside, other=0).to(WIDE)
    d -= tl.load(y + row * y_row + at * y_step, mask=inside, other=0).to(WIDE)
    error = tl.where(weight == 0, 0.0, weight * d * d)
    if SUMS:
        tl.store(out + row * out_row + block * out_step, tl.sum(error))
    else:
        tl.store(out + row * out_row + at * out_step, error, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _squares_backward(
    p, y, m, upstream, out, grid, p_row, p_step, y_row, y_step, m_step, up_row, up_step, out_row, out_step,
    BLOCK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < grid
    weight = tl.load(m + at * m_step, mask=inside, other=0).to(WIDE)
    up = tl.load(upstream + row * up_row + at * up_step, mask=inside, other=0).to(WIDE)
    d = tl.load(p + row * p_row + at * p_step, mask=inside, other=0).to(WIDE)
    d -= tl.load(y + row * y_row + at * y_step, mask=inside, other=0).to(WIDE)
    slope = tl.where(weight == 0, 0.0, 2 * up * weight * d)
    tl.store(out + row * out_row + at * out_step, slope, mask=inside)


class _Squares(Function):
    """Errors w d² of every element, ``rows grid``, or their sum."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, y: Tensor, m: Tensor, by_element: bool) -> Tensor:
        ctx.save_for_backward(p, y, m)
        (rows, grid), wide = p.shape, _wide(p)
        blocks = triton.cdiv(grid, BLOCK)
        out = p.new_empty((rows, grid)) if by_element else p.new_empty((rows, blocks), dtype=wide)
        strides = *p.stride(), *y.stride(), *m.stride(), *out.stride()
        if p.numel():
            _squares[rows, blocks](p, y, m, out, grid, *strides, BLOCK=BLOCK, SUMS=not by_element, WIDE=_WIDE[wide])
        return out if by_element else out.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        p, y, m = ctx.saved_tensors
        rows, grid = p.shape
        upstream, out = upstream.expand(rows, grid), p.new_empty((rows, grid))
        strides = *p.stride(), *y.stride(), *m.stride(), *upstream.stride(), *out.stride()
        if p.numel():
            _squares_backward[rows, triton.cdiv(grid, BLOCK)](
                p, y, m, upstream, out, grid, *strides, BLOCK=BLOCK, WIDE=_WIDE[_wide(p)]
            )
        return out, -out if ctx.needs_input_grad[1] else None, None, None


_WIDE = {torch.float32: tl.float32, torch.float64: tl.float64}


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


class TritonWeightedMSELoss(WeightedMSELoss):
    """`losses.weighted_mse.WeightedMSELoss` in one kernel for each pass; a mask that is trained takes its formula."""

    def _reduced(self, predictions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        if mask.requires_grad:
            return super()._reduced(predictions, labels, mask)
        grid = predictions.shape[predictions.ndim - mask.ndim :]
        flat, size = mask.expand(grid).reshape(-1), math.prod(grid)
        rows = predictions.numel() // max(size, 1)
        p, y = predictions.reshape(rows, size), labels.to(predictions.dtype).reshape(rows, size)
        total = _Squares.apply(p, y, flat.to(_wide(p)), self.reduction == "none")
        if self.reduction == "none":
            return total.reshape(predictions.shape)  # type: ignore[no-any-return]
        return normalize(total, mask, predictions.numel(), self.reduction).to(predictions.dtype)


# Weighted cross-entropy.  One program has one row, and goes through its classes block by block.


@triton.jit  # type: ignore[untyped-decorator]
def _rows(
    logits, labels, weights, out, log_sums, classes, ignored, o_row, o_step, y_step, w_step,
    BLOCK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    label = tl.load(labels + row * y_step)
    largest = tl.full((), float("-inf"), WIDE)
    total = tl.full((), 0.0, WIDE)
    for first in range(0, classes, BLOCK):
        at = first + tl.arange(0, BLOCK).to(tl.int64)
        o = tl.load(logits + row * o_row + at * o_step, mask=at < classes, other=float("-inf")).to(WIDE)
        higher = tl.maximum(largest, tl.max(o))
        total = total * tl.exp(largest - higher) + tl.sum(tl.exp(o - higher))
        largest = higher
    log_sum = largest + tl.log(total)
    counts = label != ignored
    weight = tl.load(weights + label * w_step, mask=counts, other=0).to(WIDE)
    of_label = tl.load(logits + row * o_row + label * o_step, mask=counts, other=0).to(WIDE)
    tl.store(out + row, tl.where(weight == 0, 0.0, weight * (log_sum - of_label)))
    tl.store(log_sums + row, log_sum)


@triton.jit  # type: ignore[untyped-decorator]
def _rows_backward(
    logits, labels, weights, log_sums, upstream, out, classes, ignored, o_row, o_step, y_step, w_step, up_step,
    out_row, out_step,
    BLOCK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < classes
    label = tl.load(labels + row * y_step)
    counts = label != ignored
    weight = tl.load(weights + label * w_step, mask=counts, other=0).to(WIDE)
    up = tl.load(upstream + row * up_step).to(WIDE)
    o = tl.load(logits + row * o_row + at * o_step, mask=inside, other=float("-inf")).to(WIDE)
    p = tl.exp(o - tl.load(log_sums + row))
    slope = tl.where(weight == 0, 0.0, up * weight * (p - tl.where(at == label, 1.0, 0.0)))
    tl.store(out + row * out_row + at * out_step, slope, mask=inside)


class _Rows(Function):
    """w[y_b] ℓ_b of every row, at least in float32."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, weights: Tensor, ignored: int) -> Tensor:
        rows, classes = logits.shape
        wide = _wide(logits)
        out, log_sums = (logits.new_empty(rows, dtype=wide) for _ in range(2))
        ctx.save_for_backward(logits, labels, weights, log_sums)
        ctx.ignored = ignored
        strides = *logits.stride(), *labels.stride(), *weights.stride()
        if rows:
            _rows[(rows,)](
                logits, labels, weights, out, log_sums, classes, ignored, *strides, BLOCK=BLOCK, WIDE=_WIDE[wide]
            )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        logits, labels, weights, log_sums = ctx.saved_tensors
        rows, classes = logits.shape
        out = logits.new_empty((rows, classes))
        strides = *logits.stride(), *labels.stride(), *weights.stride(), *upstream.stride(), *out.stride()
        if rows:
            _rows_backward[rows, triton.cdiv(classes, BLOCK)](
                logits, labels, weights, log_sums, upstream, out, classes, ctx.ignored, *strides,
                BLOCK=BLOCK, WIDE=_WIDE[_wide(logits)],
            )  # fmt: skip
        return out, None, None, None


def naive_weighted_cross_entropy(
    logits: Annotated[Float[Tensor, "B C"], domains.logits()],
    labels: Annotated[Int64[Tensor, "B"], domains.index("C", ignore=-100)],
    weights: Annotated[Float[Tensor, "C"], Context, domains.nonnegative()],
    ignore_index: int = -100,
    reduction: ClassReduction = "mean",
) -> Float[Tensor, ""]:
    """The formula of this module as loops, in float64, so that the order of the sum does not show in lower precision."""
    check_reduction(reduction, CLASS_REDUCTIONS)
    _check_weights(weights)
    _check_call(logits, labels, weights)
    zero, table = nothing_of(logits), weights.double().tolist()
    losses, shares = [], []
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        share = 0.0 if label == ignore_index else table[label]
        largest = row.detach().max()
        total = sum((row - largest).exp(), start=zero)  # exp(o - max), and nothing overflows
        losses.append(zero if share == 0 else share * (total.log() + largest - row[label]))
        shares.append(share)
    kind = "weighted_mean" if reduction == "mean" else reduction
    return naive_reduce(losses, shares, logits[:, 0], kind)


class WeightedCrossEntropyLoss(nn.Module):
    """The same number as `naive_weighted_cross_entropy`, by `torch.nn.functional.cross_entropy`.

    Args:
        weights: ``C``, one for each class, from zero up.  Copied.
        ignore_index: the label of rows that are removed.
        reduction: ``"mean"``, weighted, over the rows that count, ``"sum"``, or ``"none"`` for one loss for each row.

    Raises:
        TypeError: weights that are not a tensor.
        ValueError: an unknown reduction, or weights that have not one axis, are below zero or not finite.
    """

    weights: Tensor

    def __init__(
        self,
        weights: Annotated[Float[Tensor, "C"], domains.nonnegative()],
        ignore_index: int = -100,
        reduction: ClassReduction = "mean",
    ) -> None:
        super().__init__()
        check_reduction(reduction, CLASS_REDUCTIONS)
        _check_weights(weights)
        check_values("weights", weights, lowest=0)
        self.ignore_index, self.reduction = ignore_index, reduction
        self.register_buffer("weights", weights.detach().clone())

    def forward(
        self,
        logits: Annotated[Float[Tensor, "B C"], domains.logits()],
        labels: Annotated[Int64[Tensor, "B"], domains.index("C", ignore=-100)],
    ) -> Float[Tensor, ""]:
        """The loss, in the logits' dtype.

        Args:
            logits: ``B C``.
            labels: integers ``B`` in [0, C), or ``ignore_index``.

        Raises:
            ValueError: shapes that do not belong together; the message names both.
            TypeError: logits that are not floating, or labels that are not an integer tensor.
            IndexError: a label outside the classes, on the CPU and without a kernel.
        """
        _check_call(logits, labels, self.weights)
        losses = self._losses(logits, labels)
        if self.reduction == "none":
            return losses.to(logits.dtype)
        total = losses.sum()
        if self.reduction == "mean":
            counts = labels != self.ignore_index
            shares = self.weights.to(losses.dtype)[labels.where(counts, 0)].where(counts, 0).sum()
            total = total / shares.masked_fill(shares == 0, 1)
        return total.to(logits.dtype)

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        o = logits.to(_wide(logits))
        weights = self.weights.to(o.dtype)
        return functional.cross_entropy(o, labels.long(), weights, ignore_index=self.ignore_index, reduction="none")


class TritonWeightedCrossEntropyLoss(WeightedCrossEntropyLoss):
    """The same in one kernel for each pass; weights that are trained take torch's form."""

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.weights.requires_grad:
            return super()._losses(logits, labels)
        return _Rows.apply(logits, labels, self.weights.to(_wide(logits)), self.ignore_index)  # type: ignore[no-any-return]


def _check_weights(weights: Tensor) -> None:
    check_tensor("weights", weights)
    if weights.ndim != 1:
        raise ValueError(f"weights has shape {list(weights.shape)}, expected [C], one for each class")


def _check_call(logits: Tensor, labels: Tensor, weights: Tensor) -> None:
    check_classes(logits, labels)
    if len(weights) != logits.shape[1]:
        raise ValueError(
            f"weights has shape {list(weights.shape)}, but logits has shape {list(logits.shape)}, whose second axis should be "
            f"the classes of weights"
        )


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """What remains where all classes weigh one: 0 where every row is ignored."""
    losses = functional.cross_entropy(logits, labels, reduction="none")
    return losses.sum() / (labels != -100).sum().clamp(min=1)


def least_bytes(sizes: Mapping[str, Size], dtype: torch.dtype) -> int:
    """Logits and weights are read once each, and the int64 labels."""
    read = {"logits": "B C", "weights": "C"}
    return dtype.itemsize * sum(math.prod(shape(dims, sizes)) for dims in read.values()) + 8 * math.prod(
        shape("B", sizes)
    )


WEIGHTED_MSE = weighted_mse.SPEC.replace(
    name="weighted_mse_kernel",
    implementations={"naive": naive_weighted_mse, "vectorized": WeightedMSELoss, "triton": TritonWeightedMSELoss},
)

WEIGHTED_CROSS_ENTROPY = LossSpec(
    name="weighted_cross_entropy_kernel",
    implementations={
        "naive": naive_weighted_cross_entropy,
        "torch": WeightedCrossEntropyLoss,
        "triton": TritonWeightedCrossEntropyLoss,
    },
    laws=(
        laws.permutation("B"),
        laws.permutation("C"),
        laws.translation_invariant("logits"),
        laws.nonnegative(),
        laws.scale_invariant("weights"),
        laws.reduces_to(cross_entropy, weights=1.0),
    ),
    bench_sizes=({"B": 16, "C": 10}, {"B": 4096, "C": 1000}, {"B": 2048, "C": 32000}),
    bytes_bound=least_bytes,
    error_inputs=(
        ErrorInput(
            "weights of more classes",
            lambda t: {"weights": torch.cat([t["weights"], t["weights"]])},
            match="weights has shape .* logits has shape",
        ),
    ),
)

SPECS = (WEIGHTED_MSE, WEIGHTED_CROSS_ENTROPY)
