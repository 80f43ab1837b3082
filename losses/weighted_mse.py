"""Mean squared error on a grid, weighted by a mask over the grid.

    L = 1/n Σ_{b,g} m[g] (p[b, g] - y[b, g])²,     n = number of elements of p

Shapes: mask m ``H W``, predictions p and labels y ``*batch H W`` with any number of leading axes, m >= 0.  Grids of another
number of axes (a series ``T``, a volume ``D H W`` ...) are declared with ``grid_axes``.
A mask that is larger than the batch's crop is read from ``corner`` on, one position for each axis of the grid:
m[corner + g].  A mask that is declared to broadcast may have axes of size one, and is never expanded in memory.
An element whose weight is zero is removed: neither the value nor any gradient depends on it, even where it is NaN.

Source: weighted sum of squares, Bishop, Pattern Recognition and Machine Learning, exercise 3.3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from harness import domains, laws
from harness.declare.annotations import Context
from harness.declare.declared import ErrorInput
from harness.declare.dims import Size, shape
from harness.declare.spec import LossSpec
from harness.declare.tensor_spec import TensorSpec

from ._checks import (
    check_floating,
    check_index,
    check_reduction,
    check_same_shape,
    check_tensor,
    check_values,
)
from ._known_weights import WeightedLoss
from ._reduction import REDUCTIONS, Reduction, mean_squared_error, naive_reduce, normalize, nothing_of
from ._weighted_squares import elementwise, weighted_squared_error


def naive_weighted_mse(
    predictions: Float[Tensor, "*batch H W"],
    labels: Float[Tensor, "*batch H W"],
    mask: Annotated[Float[Tensor, "H W"], Context, domains.nonnegative()],
    corner: Tensor | None = None,
    reduction: Reduction = "mean",
    grid_axes: int = 2,
    broadcast: bool = False,
) -> Float[Tensor, ""]:
    """The formula of this module as loops, in float64, so that the order of the sum does not show in lower precision."""
    check_reduction(reduction, REDUCTIONS)
    _check_mask(mask, grid_axes)
    _check_call(predictions, labels, mask, corner, broadcast)
    shared = _shared_axes(mask, broadcast)
    start = [0] * mask.ndim if corner is None else corner.tolist()
    grid = predictions.shape[predictions.ndim - mask.ndim :]
    for first, size, available, one in zip(start, grid, mask.shape, shared, strict=True):
        if not one and not 0 <= first <= available - size:
            raise IndexError(
                f"corner={start}, but a crop of shape {list(grid)} there leaves the mask of shape {list(mask.shape)}"
            )
    m = mask.double().flatten().tolist()
    p, y = predictions.double().flatten(), labels.double().flatten()
    errors, weights, removed = [], [], nothing_of(predictions)
    for position, p_element, y_element in zip(_positions(predictions), p, y, strict=True):
        on_grid = zip(position[-mask.ndim :], start, shared, strict=True)
        place = 0  # in the order of rows, of what may be far larger than the predictions
        for (step, first, one), size in zip(on_grid, mask.shape, strict=True):
            place = place * size + (0 if one else first + step)
        weight = m[place]
        errors.append(removed if weight == 0 else weight * (p_element - y_element) ** 2)
        weights.append(weight)
    return naive_reduce(errors, weights, predictions, reduction)


def _positions(tensor: Tensor) -> itertools.product[tuple[int, ...]]:
    return itertools.product(*map(range, tensor.shape))


class WeightedMSELoss(WeightedLoss):
    """The same number as `naive_weighted_mse`, in few passes over memory.

    Args:
        mask: weights over the grid, from zero up; boolean and integer masks are read as numbers.  Copied.
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"``, or ``"weighted_mean"`` = Σ m e / Σ m, both sums over
            all elements.
        grid_axes: how many axes the mask has, the last ones of the predictions.  Stated, because a mask that lost an axis
            would fit the predictions too, and weigh other elements.
        broadcast: an axis of the mask that has size one is one weight for all positions of the grid along it; otherwise
            it must meet an axis of size one.

    Raises:
        ValueError: an unknown reduction, a mask of another number of axes, or one that holds NaN, infinity or numbers below
            zero; what is loaded later is not looked at.
        TypeError: a mask that is no tensor.
    """

    mask: Tensor

    def __init__(
        self,
        mask: Annotated[Float[Tensor, "H W"], domains.nonnegative()],
        reduction: Reduction = "mean",
        grid_axes: int = 2,
        broadcast: bool = False,
    ) -> None:
        check_reduction(reduction, REDUCTIONS)
        _check_mask(mask, grid_axes)
        check_values("mask", mask, lowest=0)
        super().__init__("mask", mask)
        self.reduction = reduction
        self.broadcast = broadcast

    def forward(
        self,
        predictions: Float[Tensor, "*batch H W"],
        labels: Float[Tensor, "*batch H W"],
        corner: Tensor | None = None,
    ) -> Float[Tensor, ""]:
        """The loss, in the predictions' dtype.

        Args:
            predictions: ``*batch H W``, or the axes of another grid.
            labels: in the shape of the predictions; no axis is broadcast.
            corner: int64, one position for each axis of the grid: that of the predictions' first element in a mask that is
                larger than them.  A position along an axis that broadcasts is not read.

        Raises:
            ValueError: shapes that do not belong together; the message names both.
            TypeError: predictions that are not floating, or a corner that is not an integer tensor.
            IndexError, RuntimeError: the crop leaves the mask; torch chooses which.
        """
        _check_call(predictions, labels, self.mask, corner, self.broadcast)
        return self._reduced(predictions, labels, self._crop(predictions, corner))

    def _reduced(self, predictions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        return weighted_squared_error(predictions, labels, mask, self.reduction, zeros=self._zeros(predictions.dtype))

    def _crop(self, predictions: Tensor, corner: Tensor | None) -> Tensor:
        mask = self.mask
        if corner is None:
            return mask
        # index_select refuses what lies outside, also below zero, without reading the corner back to the host.
        grid = predictions.shape[predictions.ndim - mask.ndim :]
        for axis, (size, shared) in enumerate(zip(grid, _shared_axes(mask, self.broadcast), strict=True)):
            if not shared:
                mask = mask.index_select(axis, corner[axis] + torch.arange(size, device=corner.device))
        return mask

    def extra_repr(self) -> str:
        """Shape and options, for printing."""
        return f"mask={list(self.mask.shape)}, reduction={self.reduction!r}, broadcast={self.broadcast}"


class ElementwiseWeightedMSELoss(WeightedMSELoss):
    """The usual way of writing it: torch's errors of all elements, times the mask, and their mean.

    Keeps NaN and infinity in what the mask removes.
    """

    def _reduced(self, predictions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        return elementwise(predictions, labels, mask, self.reduction)


class LibraryWeightedMSELoss(WeightedMSELoss):
    """torch's own loss with ``weight=``, which wants one weight for each element.

    Only its sum is used: its mean divides by the sum of the weights and is NaN where all of them are zero.
    Keeps NaN and infinity in what the mask removes.
    """

    def _reduced(self, predictions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        mask = mask.to(predictions.dtype)
        total = functional.mse_loss(
            predictions,
            labels.to(predictions.dtype),
            reduction="none" if self.reduction == "none" else "sum",
            weight=mask.expand_as(predictions),  # type: ignore[call-arg]  # torch's own stub does not have it yet
        )
        return normalize(total, mask, predictions.numel(), self.reduction)


def _shared_axes(mask: Tensor, broadcast: bool) -> list[bool]:
    """For each axis of the mask, whether it holds one weight for all positions."""
    return [broadcast and size == 1 for size in mask.shape]


def _check_mask(mask: Tensor, grid_axes: int) -> None:
    check_tensor("mask", mask)
    if grid_axes < 1:
        raise ValueError(f"grid_axes={grid_axes}, expected 1 for a series, 2 for an image, 3 for a volume ...")
    if mask.ndim != grid_axes:
        raise ValueError(
            f"mask has shape {list(mask.shape)}, expected grid_axes={grid_axes} axes; a grid of another number of "
            f"axes is declared with it, such as grid_axes=3 for [D, H, W]"
        )


def _check_call(predictions: Tensor, labels: Tensor, mask: Tensor, corner: Tensor | None, broadcast: bool) -> None:
    check_floating("predictions", predictions)
    check_same_shape(labels, predictions)
    grid = predictions.shape[max(predictions.ndim - mask.ndim, 0) :]
    if corner is None and grid == mask.shape:
        return
    came = f"mask has shape {list(mask.shape)}, but predictions has shape {list(predictions.shape)}"
    if len(grid) < mask.ndim:
        raise ValueError(f"{came}, whose last axes should be those of the mask")
    if corner is not None:
        check_index("corner", corner, (mask.ndim,), "where the crop begins along each axis of the mask")
    for size, available, shared in zip(grid, mask.shape, _shared_axes(mask, broadcast), strict=True):
        if shared or size == available or (corner is not None and size < available):
            continue
        if corner is not None:
            raise ValueError(f"{came}, whose last axes should be a crop of the mask and no larger than it")
        raise ValueError(
            f"{came}, whose last axes should be the mask's; for a crop of a larger mask pass corner=torch.tensor(...), "
            f"for axes of size one that hold one weight for all positions broadcast=True"
        )


def least_bytes(sizes: Mapping[str, Size], dtype: torch.dtype) -> int:
    """Predictions, labels and mask are read once each."""
    grids = {"predictions": "*batch H W", "labels": "*batch H W", "mask": "H W"}
    return dtype.itemsize * sum(math.prod(shape(dims, sizes)) for dims in grids.values())


_TWO: dict[str, Callable[..., Any]] = {"naive": naive_weighted_mse, "vectorized": WeightedMSELoss}
_ALL = _TWO | {"elementwise": ElementwiseWeightedMSELoss, "library": LibraryWeightedMSELoss}

_PAIRWISE = (
    laws.symmetric("predictions", "labels"),
    laws.translation_invariant("predictions", "labels"),
    laws.nonnegative(),
    laws.zero_when_equal("predictions", "labels"),
    laws.reduces_to(mean_squared_error, mask=1.0),
    laws.zero_weight_removes("mask"),
)

_PERMUTATIONS = (laws.permutation("H"), laws.permutation("W"))

SPEC = LossSpec(
    name="weighted_mse",
    implementations=_ALL,
    laws=(*_PAIRWISE, *_PERMUTATIONS, laws.mean_over("H"), laws.mean_over("W"), laws.linear_in("mask")),
    bench_sizes=(
        {"batch": (4,), "H": 8, "W": 8},
        {"batch": (16,), "H": 16, "W": 16},
        {"batch": (), "H": 1024, "W": 1024},
    ),
    bytes_bound=least_bytes,
    error_inputs=(
        ErrorInput(
            "labels with a unit axis",
            lambda t: {"labels": t["labels"].unsqueeze(-1)},
            match="labels has shape .* predict",
        ),
        ErrorInput(
            "mask with a unit axis", lambda t: {"mask": t["mask"].unsqueeze(0)}, match=r"mask has shape .* grid_axes=2"
        ),
        ErrorInput(
            "mask of a larger grid",
            lambda t: {"mask": torch.cat([t["mask"], t["mask"]])},
            match="mask has shape .* predictions has shape",
        ),
    ),
)

SPEC_WEIGHTED_MEAN = SPEC.replace(
    name="weighted_mse_mean",
    options={"reduction": "weighted_mean"},
    laws=(*_PAIRWISE, *_PERMUTATIONS, laws.scale_invariant("mask")),
    bench_sizes=({"batch": (2,), "H": 8, "W": 8}, {"batch": (), "H": 1024, "W": 1024}),
)

SPEC_SERIES = LossSpec(
    name="weighted_mse_series",
    implementations=_TWO,
    options={"grid_axes": 1},
    inputs={"predictions": TensorSpec("*batch T"), "labels": TensorSpec("*batch T")},
    context={"mask": TensorSpec("T", domains.nonnegative())},
    output=TensorSpec(""),
    laws=(*_PAIRWISE, laws.mean_over("T"), laws.permutation("T"), laws.linear_in("mask")),
    bench_sizes=({"batch": (4,), "T": 64}, {"batch": (1024,), "T": 1024}),
    error_inputs=(SPEC.error_inputs[0],),
)

SPEC_VOLUME = LossSpec(
    name="weighted_mse_volume",
    implementations=_TWO,
    options={"grid_axes": 3},
    inputs={"predictions": TensorSpec("*batch D H W"), "labels": TensorSpec("*batch D H W")},
    context={"mask": TensorSpec("D H W", domains.nonnegative())},
    output=TensorSpec(""),
    laws=(*_PAIRWISE, laws.mean_over("D"), laws.permutation("D"), laws.linear_in("mask")),
    bench_sizes=({"batch": (2,), "D": 4, "H": 8, "W": 8}, {"batch": (4,), "D": 64, "H": 64, "W": 64}),
    error_inputs=(SPEC.error_inputs[0],),
)

SPEC_BROADCAST = LossSpec(
    name="weighted_mse_broadcast",
    implementations=_ALL,
    options={"grid_axes": 3, "broadcast": True},
    inputs={"predictions": TensorSpec("*batch C H W"), "labels": TensorSpec("*batch C H W")},
    context={"mask": TensorSpec("#C #H #W", domains.nonnegative())},
    output=TensorSpec(""),
    laws=(*_PAIRWISE, laws.linear_in("mask")),
    bench_sizes=({"batch": (1,), "C": 2, "H": 8, "W": 8}, {"batch": (4,), "C": 4, "H": 256, "W": 256}),
    error_inputs=(SPEC.error_inputs[0],),
)

# Both coordinates are below R, so every corner leaves room for the crop in a mask of R - 1 more rows and columns.
SPEC_CROPPED = LossSpec(
    name="weighted_mse_cropped",
    implementations=_TWO,
    inputs={
        "predictions": TensorSpec("*batch H W"),
        "labels": TensorSpec("*batch H W"),
        "corner": TensorSpec("2", domains.index("R")),
    },
    context={"mask": TensorSpec("H+R-1 W+R-1", domains.nonnegative())},
    output=TensorSpec(""),
    laws=(*_PAIRWISE, laws.linear_in("mask")),
    bench_sizes=(
        {"batch": (4,), "H": 8, "W": 8, "R": 9},
        {"batch": (16,), "H": 256, "W": 256, "R": 769},
    ),
    error_inputs=(
        ErrorInput("corner of three", lambda t: {"corner": t["corner"][[0, 1, 1]]}, match=r"corner has shape \[3\]"),
    ),
)
