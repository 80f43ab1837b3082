"""Mean squared error with one weight per sample.

    L = 1/n Σ_{b,...} w[b] (p[b, ...] - y[b, ...])²,     n = number of elements of p

Shapes: predictions p and labels y ``B *rest`` with any number of trailing axes, weights w ``B``, w >= 0.
Weights of a whole data set are read at the batch's ``indices``: w[indices[b]].  No weights (``None``) are weights of one.
A sample whose weight is zero is removed: neither the value nor any gradient depends on it, even where it is NaN.

Source: weighted sum of squares, Bishop, Pattern Recognition and Machine Learning, exercise 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

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
    positions,
)
from ._known_weights import WeightedLoss
from ._reduction import REDUCTIONS, Reduction, mean_squared_error, naive_reduce, nothing_of
from ._weighted_squares import elementwise, weighted_squared_error


def naive_dynamic_weighted(
    predictions: Float[Tensor, "B *rest"],
    labels: Float[Tensor, "B *rest"],
    weights: Annotated[Float[Tensor, "B"] | None, Context, domains.nonnegative()],
    indices: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, ""]:
    """The formula of this module as loops, in float64, so that the order of the sum does not show in lower precision."""
    check_reduction(reduction, REDUCTIONS)
    _check_weights(weights)
    _check_call(predictions, labels, weights, indices)
    w = [1.0] * len(predictions) if weights is None else weights.double().tolist()
    samples = range(len(w)) if indices is None else positions("indices", indices, len(w))
    errors, repeated, removed = [], [], nothing_of(predictions)
    for sample, p, y in zip(samples, predictions.double(), labels.double(), strict=True):
        for p_element, y_element in zip(p.flatten(), y.flatten(), strict=True):
            errors.append(removed if w[sample] == 0 else w[sample] * (p_element - y_element) ** 2)
            repeated.append(w[sample])
    return naive_reduce(errors, repeated, predictions, reduction)


class DynamicWeightedLoss(WeightedLoss):
    """The same number as `naive_dynamic_weighted`, in few passes over memory.

    Args:
        weights: one per sample of the batch, or of the data set where ``indices`` are given; from zero up.  Copied.
            ``None``: no sample has a weight, and all count alike.
        reduction: ``"mean"`` over all elements, ``"sum"``, ``"none"``, or ``"weighted_mean"`` = Σ w e / Σ w, both sums
            over all elements.

    Raises:
        TypeError: weights that are not a tensor.
        ValueError: an unknown reduction, or weights that have not one axis, are below zero or not finite.  Weights that
            are loaded or written into the buffer later are not looked at: they may give a negative loss or NaN.
    """

    weights: Tensor | None

    def __init__(
        self, weights: Annotated[Float[Tensor, "B"] | None, domains.nonnegative()], reduction: Reduction = "mean"
    ) -> None:
        check_reduction(reduction, REDUCTIONS)
        _check_weights(weights)
        if weights is not None:
            check_values("weights", weights, lowest=0)
        super().__init__("weights", weights)
        self.reduction = reduction

    def forward(
        self,
        predictions: Float[Tensor, "B *rest"],
        labels: Float[Tensor, "B *rest"],
        indices: Tensor | None = None,
    ) -> Float[Tensor, ""]:
        """The loss, in the predictions' dtype.

        Args:
            predictions: ``B *rest``.
            labels: ``B *rest``; no axis is broadcast.
            indices: int64 ``B``, the position of each sample in weights that are those of a whole data set.

        Raises:
            ValueError: shapes that do not belong together; the message names both.
            TypeError: predictions that are not floating, or indices that are not an integer tensor.
            IndexError, RuntimeError: an index outside the weights, also one below zero; torch chooses which.
        """
        _check_call(predictions, labels, self.weights, indices)
        return self._reduced(predictions, labels, self._chosen(predictions, indices))

    def _reduced(self, predictions: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        return weighted_squared_error(
            predictions, labels, weights, self.reduction, zeros=self._zeros(predictions.dtype)
        )

    def _chosen(self, predictions: Tensor, indices: Tensor | None) -> Tensor:
        """The weights of the batch as B x 1 x ... x 1: the rest of the axes share them by stride 0, and none is expanded."""
        if self.weights is None:
            return predictions.new_ones([1] * predictions.ndim)
        weights = self.weights if indices is None else self.weights.index_select(0, indices)
        return weights.reshape(-1, *[1] * (predictions.ndim - 1))

    def extra_repr(self) -> str:
        """Shape and reduction, for printing."""
        shown = None if self.weights is None else list(self.weights.shape)
        return f"weights={shown}, reduction={self.reduction!r}"


class ElementwiseDynamicWeightedLoss(DynamicWeightedLoss):
    """The usual way of writing it: torch's errors of all elements, times the weights as a column, and their mean.

    Keeps NaN and infinity in samples of weight zero.
    """

    def _reduced(self, predictions: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        return elementwise(predictions, labels, weights, self.reduction)


def _check_weights(weights: Tensor | None) -> None:
    if weights is None:
        return
    check_tensor("weights", weights)
    if weights.ndim != 1:
        raise ValueError(f"weights has shape {list(weights.shape)}, expected one axis, [B]: one weight per sample")


def _check_call(predictions: Tensor, labels: Tensor, weights: Tensor | None, indices: Tensor | None) -> None:
    check_floating("predictions", predictions)
    check_same_shape(labels, predictions)
    if predictions.ndim == 0:
        raise ValueError("predictions has shape [], expected [B, ...] with one sample for each weight")
    if indices is not None:
        if weights is None:
            raise ValueError("indices came, but weights=None; pass the weights of the data set, or no indices")
        check_index(
            "indices",
            indices,
            tuple(predictions.shape[:1]),
            f"one for each sample of predictions {list(predictions.shape)}",
        )
    elif weights is not None and weights.shape[0] != predictions.shape[0]:
        raise ValueError(
            f"weights has shape {list(weights.shape)}, but predictions has shape {list(predictions.shape)}, whose first axis "
            f"should be the weights'; for weights of a whole data set pass indices, one for each sample"
        )


def least_bytes(sizes: Mapping[str, Size], dtype: torch.dtype) -> int:
    """Predictions, labels and the batch's weights are read once each."""
    read = {"predictions": "B *rest", "labels": "B *rest", "weights": "B"}
    return dtype.itemsize * sum(math.prod(shape(dims, sizes)) for dims in read.values())


_IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "naive": naive_dynamic_weighted,
    "vectorized": DynamicWeightedLoss,
    "elementwise": ElementwiseDynamicWeightedLoss,
}

_PAIRWISE = (
    laws.symmetric("predictions", "labels"),
    laws.translation_invariant("predictions", "labels"),
    laws.nonnegative(),
    laws.zero_when_equal("predictions", "labels"),
    laws.reduces_to(mean_squared_error, weights=1.0),
    laws.zero_weight_removes("weights"),
    laws.permutation("B"),
)

SPEC = LossSpec(
    name="dynamic_weighted",
    implementations=_IMPLEMENTATIONS,
    laws=(*_PAIRWISE, laws.mean_over("B"), laws.linear_in("weights")),
    bench_sizes=(
        {"B": 64, "rest": ()},
        {"B": 128, "rest": (8, 8)},
        {"B": 1024, "rest": (1024,)},
    ),
    bytes_bound=least_bytes,
    error_inputs=(
        ErrorInput(
            "labels with a unit axis",
            lambda t: {"labels": t["labels"].unsqueeze(-1)},
            match="labels has shape .* predictions has shape",
        ),
        ErrorInput(
            "weights as a column", lambda t: {"weights": t["weights"].unsqueeze(-1)}, match=r"weights has .* \[B\]"
        ),
        ErrorInput(
            "weights of another batch",
            lambda t: {"weights": torch.cat([t["weights"], t["weights"]])},
            match="weights has shape .* predictions has shape",
        ),
    ),
)

SPEC_WEIGHTED_MEAN = SPEC.replace(
    name="dynamic_weighted_mean",
    options={"reduction": "weighted_mean"},
    laws=(*_PAIRWISE, laws.scale_invariant("weights"), laws.repeats("weights")),
    bench_sizes=({"B": 64, "rest": (8,)}, {"B": 1024, "rest": (1024,)}),
)

SPEC_INDEXED = LossSpec(
    name="dynamic_weighted_indexed",
    implementations=_IMPLEMENTATIONS,
    inputs={
        "predictions": TensorSpec("B *rest"),
        "labels": TensorSpec("B *rest"),
        "indices": TensorSpec("B", domains.index("N")),
    },
    context={"weights": TensorSpec("N", domains.nonnegative())},
    output=TensorSpec(""),
    laws=(*_PAIRWISE, laws.mean_over("B"), laws.linear_in("weights")),
    bench_sizes=({"B": 64, "rest": (8,), "N": 60_000}, {"B": 1024, "rest": (1024,), "N": 1_000_000}),
    bytes_bound=least_bytes,
    error_inputs=(
        ErrorInput(
            "indices of a larger batch",
            lambda t: {"indices": torch.cat([t["indices"], t["indices"]])},
            match="indices has shape .* expected shape",
        ),
    ),
)
