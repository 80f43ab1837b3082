"""Mean squared error on a grid, weighted by a mask over the grid.

    L = 1/n Σ_{b,h,w} m[h, w] (p[b, h, w] - y[b, h, w])²,     n = number of elements of p

Shapes: predictions p and labels y ``*batch H W`` with any number of leading axes, mask m ``H W``, m >= 0.
A mask that is larger than the batch's crop is read from ``corner = (row, column)`` on: m[row + h, column + w].
An element whose weight is zero is removed: neither the value nor any gradient depends on it, even where it is NaN.

Source: weighted sum of squares, Bishop, Pattern Recognition and Machine Learning, exercise 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness import domains, laws
from harness.annotations import Context
from harness.dims import Size, shape
from harness.spec import ErrorInput, LossSpec, TensorSpec
from losses._checks import check_floating, check_index, check_reduction, check_same_shape
from losses._reduction import REDUCTIONS, Reduction, mean_squared_error, naive_reduce, nothing_of, reduce


def naive_weighted_mse(
    predictions: Float[Tensor, "*batch H W"],
    labels: Float[Tensor, "*batch H W"],
    mask: Annotated[Float[Tensor, "H W"], Context, domains.nonnegative()],
    corner: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, ""]:
    """The formula of this module as loops, in float64, so that the order of the sum does not show in lower precision."""
    check_reduction(reduction, REDUCTIONS)
    _check_mask(mask)
    _check_call(predictions, labels, mask, corner)
    row, column = (0, 0) if corner is None else corner.tolist()
    *batch, height, width = predictions.shape
    if min(row, column) < 0 or row + height > mask.shape[0] or column + width > mask.shape[1]:
        raise IndexError(
            f"corner={[row, column]}, but a crop of shape {[height, width]} there leaves the mask of shape {list(mask.shape)}"
        )
    m = mask.double().tolist()
    p, y = (images.double().reshape(math.prod(batch), height, width) for images in (predictions, labels))
    errors, weights, removed = [], [], nothing_of(predictions)
    for p_image, y_image in zip(p, y, strict=True):
        for h, (p_row, y_row) in enumerate(zip(p_image, y_image, strict=True)):
            for w, (p_element, y_element) in enumerate(zip(p_row, y_row, strict=True)):
                weight = m[row + h][column + w]
                errors.append(removed if weight == 0 else weight * (p_element - y_element) ** 2)
                weights.append(weight)
    return naive_reduce(errors, weights, predictions, reduction)


class WeightedMSELoss(nn.Module):
    """The same number as `naive_weighted_mse`, from whole tensors.

    Args:
        mask: weights ``H W``, from zero up; boolean and integer masks are read as numbers.  Copied.
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"``, or ``"weighted_mean"`` = Σ m e / Σ m.

    Raises:
        ValueError: an unknown reduction, or a mask that has not two axes.
    """

    mask: Tensor

    def __init__(
        self, mask: Annotated[Float[Tensor, "H W"], domains.nonnegative()], reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        check_reduction(reduction, REDUCTIONS)
        _check_mask(mask)
        self.reduction = reduction
        self.register_buffer("mask", mask.detach().clone())  # load_state_dict writes into it

    def forward(
        self,
        predictions: Float[Tensor, "*batch H W"],
        labels: Float[Tensor, "*batch H W"],
        corner: Tensor | None = None,
    ) -> Float[Tensor, ""]:
        """The loss, in the predictions' dtype.

        Args:
            predictions: ``*batch H W``.
            labels: ``*batch H W``; no axis is broadcast.
            corner: int64 ``(row, column)`` of the predictions' first element in a mask that is larger than them.

        Raises:
            ValueError: shapes that do not belong together; the message names both.
            TypeError: predictions that are not floating, or a corner that is not an integer tensor.
            IndexError, RuntimeError: the crop leaves the mask; torch chooses which.
        """
        _check_call(predictions, labels, self.mask, corner)
        # Elementwise, so the same sum: the mask stays H x W and is expanded over the batch by stride 0.
        mask = self._crop(predictions, corner).to(predictions.dtype)
        difference = predictions - labels.to(predictions.dtype)
        difference = difference.masked_fill(mask == 0, 0)  # 0 * NaN and 0 * inf would stay in value and gradient
        return reduce(mask * difference.square(), mask, self.reduction)

    def _crop(self, predictions: Tensor, corner: Tensor | None) -> Tensor:
        if corner is None:
            return self.mask
        # index_select refuses what lies outside, also below zero, without reading the corner back to the host.
        rows, columns = (torch.arange(size, device=corner.device) for size in predictions.shape[-2:])
        return self.mask.index_select(0, corner[0] + rows).index_select(1, corner[1] + columns)

    def extra_repr(self) -> str:
        """Shape and reduction, for printing."""
        return f"mask={list(self.mask.shape)}, reduction={self.reduction!r}"


def _check_mask(mask: Tensor) -> None:
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {list(mask.shape)}, but should have two axes, [H, W]")


def _check_call(predictions: Tensor, labels: Tensor, mask: Tensor, corner: Tensor | None) -> None:
    check_floating("predictions", predictions)
    check_same_shape(labels, predictions)
    grid = tuple(predictions.shape[-2:])
    if corner is None:
        if grid != tuple(mask.shape):
            raise ValueError(
                f"mask has shape {list(mask.shape)}, but predictions has shape {list(predictions.shape)}, whose last two axes "
                f"should be the mask's; for a crop of a larger mask pass corner=torch.tensor([row, column])"
            )
        return
    check_index("corner", corner, (2,), "the row and column of the crop's first element")
    if len(grid) != 2 or grid[0] > mask.shape[0] or grid[1] > mask.shape[1]:
        raise ValueError(
            f"mask has shape {list(mask.shape)}, but predictions has shape {list(predictions.shape)}; "
            f"its last two axes should be a crop of the mask and no larger than it"
        )


def least_bytes(sizes: Mapping[str, Size], dtype: torch.dtype) -> int:
    """Predictions, labels and mask are read once each."""
    grids = {"predictions": "*batch H W", "labels": "*batch H W", "mask": "H W"}
    return dtype.itemsize * sum(math.prod(shape(dims, sizes)) for dims in grids.values())


SPEC = LossSpec(
    name="weighted_mse",
    implementations={"naive": naive_weighted_mse, "vectorized": WeightedMSELoss},
    laws=(
        laws.mean_over("H"),
        laws.mean_over("W"),
        laws.permutation("H"),
        laws.permutation("W"),
        laws.linear_in("mask"),
        laws.symmetric("predictions", "labels"),
        laws.translation_invariant("predictions", "labels"),
        laws.nonnegative(),
        laws.zero_when_equal("predictions", "labels"),
        laws.reduces_to(mean_squared_error, mask=1.0),
        laws.zero_weight_removes("mask"),
    ),
    bench_sizes=(
        {"batch": (4,), "H": 8, "W": 8},
        {"batch": (16,), "H": 16, "W": 16},
        {"batch": (8,), "H": 32, "W": 32},
    ),
    bytes_bound=least_bytes,
    error_inputs=(
        ErrorInput(
            "labels with a unit axis",
            lambda t: {"labels": t["labels"].unsqueeze(-1)},
            match="labels has shape .* predict",
        ),
        ErrorInput(
            "mask with a unit axis", lambda t: {"mask": t["mask"].unsqueeze(0)}, match=r"mask has shape .* \[H, W\]"
        ),
        ErrorInput(
            "mask of a larger grid",
            lambda t: {"mask": torch.cat([t["mask"], t["mask"]])},
            match="mask has shape .* predictions has shape",
        ),
    ),
)

# Both coordinates are below R, so every corner leaves room for the crop in a mask of R - 1 more rows and columns.
SPEC_CROPPED = LossSpec(
    name="weighted_mse_cropped",
    implementations={"naive": naive_weighted_mse, "vectorized": WeightedMSELoss},
    inputs={
        "predictions": TensorSpec("*batch H W"),
        "labels": TensorSpec("*batch H W"),
        "corner": TensorSpec("2", domains.index("R")),
    },
    context={"mask": TensorSpec("H+R-1 W+R-1", domains.nonnegative())},
    output=TensorSpec(""),
    laws=(
        laws.linear_in("mask"),
        laws.symmetric("predictions", "labels"),
        laws.translation_invariant("predictions", "labels"),
        laws.nonnegative(),
        laws.zero_when_equal("predictions", "labels"),
        laws.reduces_to(mean_squared_error, mask=1.0),
        laws.zero_weight_removes("mask"),
    ),
    bench_sizes=({"batch": (4,), "H": 8, "W": 8, "R": 9}, {"batch": (16,), "H": 16, "W": 16, "R": 17}),
    error_inputs=(
        ErrorInput("corner of three", lambda t: {"corner": t["corner"][[0, 1, 1]]}, match=r"corner has shape \[3\]"),
    ),
)
