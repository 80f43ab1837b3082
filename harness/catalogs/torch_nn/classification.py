"""torch's losses between scores and classes: cross-entropies of classes, of probabilities and of labels.

Formulas are those of the documentation of torch.nn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs.torch_nn._shared import (
    CLASSES,
    SAMPLEWISE,
    SCALAR,
    classes_along_axis_1,
    in_double,
    reduce,
    same_shape,
)

_SAME_FOR_ALL_CLASSES = laws.permutation("C")
_LABELS = {"input": TensorSpec("B C", domains.logits()), "target": TensorSpec("B C", domains.binary())}
_PROBABILITIES = {
    "input": TensorSpec("B C", domains.logits()),
    "target": TensorSpec("B C", domains.simplex(axis=1)),
}
_IGNORED = {"input": TensorSpec("B C", domains.logits()), "target": TensorSpec("B", domains.index("C", ignore=-100))}
_GRID = {"input": TensorSpec("B C H W", domains.logits()), "target": TensorSpec("B H W", domains.index("C"))}
_CLASS_WEIGHT = {"weight": TensorSpec("C", domains.positive())}


@in_double
def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | float = 1.0, reduction: str = "mean"
) -> Tensor:
    """-w (y log x + (1 - y) log(1 - x)), logarithms no less than -100; one weight for each element."""
    same_shape(input, target, *([weight] if isinstance(weight, Tensor) else []))
    logarithm, of_rest = (x.clamp(min=math.exp(-100)).log() for x in (input, 1 - input))
    return reduce(weight * -(target * logarithm + (1 - target) * of_rest), reduction)


def binary_cross_entropy_by_row(input: Tensor, target: Tensor, weight: Tensor, reduction: str = "mean") -> Tensor:
    """`binary_cross_entropy` with one weight for each sample."""
    same_shape(input[:, 0], weight)
    return binary_cross_entropy(
        input=input, target=target, weight=weight.unsqueeze(1).expand_as(input), reduction=reduction
    )


@in_double
def logistic(
    input: Tensor,
    target: Tensor,
    weight: Tensor | float = 1.0,
    pos_weight: Tensor | float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """-w (p y log σ(x) + (1 - y) log σ(-x)); one weight for each element, and one p for each class."""
    same_shape(input, target, *([weight] if isinstance(weight, Tensor) else []))
    if isinstance(pos_weight, Tensor):
        same_shape(pos_weight, input[0])
    errors = pos_weight * target * functional.softplus(-input) + (1 - target) * functional.softplus(input)
    return reduce(weight * errors, reduction)


@in_double
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """-Σ_c w_c y_c log softmax(x)_c along axis 1.

    A class index y stands for its one-hot row, and its mean is over the weights of the classes that are there; a mean over
    rows of probabilities is over their number.  Smoothing by ε makes (1 - ε) y + ε / C of each row.
    """
    classes_along_axis_1(input, target, weight)
    logarithm = input.log_softmax(1).movedim(1, -1)
    weights = input.new_ones(input.shape[1]) if weight is None else weight
    is_index = not target.is_floating_point()
    kept = target != ignore_index if is_index else torch.ones_like(logarithm[..., 0], dtype=torch.bool)
    classes = target.where(kept, 0) if is_index else target
    rows = functional.one_hot(classes, input.shape[1]).to(input) if is_index else target.movedim(1, -1)
    smoothed = (1 - label_smoothing) * rows + label_smoothing / input.shape[1]
    errors = -(weights * smoothed * logarithm).sum(-1) * kept
    counted = weights[classes] * kept if is_index else kept
    return errors.sum() / counted.sum() if reduction == "mean" else reduce(errors, reduction)


@in_double
def likelihood(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """-w_y x_y of log-probabilities x along axis 1; the mean is over the weights of the classes that are there."""
    classes_along_axis_1(input, target, weight)
    kept = target != ignore_index
    classes = target.where(kept, 0)
    counted = (input.new_ones(input.shape[1]) if weight is None else weight)[classes]
    errors = -counted * kept * input.gather(1, classes.unsqueeze(1)).squeeze(1)
    return errors.sum() / (counted * kept).sum() if reduction == "mean" else reduce(errors, reduction)


BCE = LossSpec(
    "nn.BCELoss",
    {"formula": binary_cross_entropy, "torch": nn.BCELoss},
    inputs={
        "input": TensorSpec("B *rest", domains.probability()),
        "target": TensorSpec("B *rest", domains.probability()),
    },
    output=SCALAR,
    laws=(laws.nonnegative(), *SAMPLEWISE),
)
# As documented: one weight for each sample of the batch.
BCE_WEIGHTED = LossSpec(
    "nn.BCELoss-weighted",
    {"formula": binary_cross_entropy_by_row, "torch": nn.BCELoss},
    inputs={"input": TensorSpec("B C", domains.probability()), "target": TensorSpec("B C", domains.probability())},
    context={"weight": TensorSpec("B", domains.nonnegative())},
    output=SCALAR,
    laws=(laws.linear_in("weight"), laws.zero_weight_removes("weight"), laws.permutation("B")),
)
BCE_WEIGHTED_ELEMENTS = BCE_WEIGHTED.replace(
    name="nn.BCELoss-weighted_elements",
    implementations=BCE.implementations,
    context={"weight": TensorSpec("B C", domains.nonnegative())},
)
LOGISTIC = LossSpec(
    "nn.BCEWithLogitsLoss",
    {"formula": logistic, "torch": nn.BCEWithLogitsLoss},
    inputs=_LABELS,
    output=SCALAR,
    laws=(laws.nonnegative(), *SAMPLEWISE),
)
LOGISTIC_WEIGHTED = LOGISTIC.replace(
    name="nn.BCEWithLogitsLoss-weighted",
    context={"weight": TensorSpec("B C", domains.nonnegative())},
    laws=(laws.linear_in("weight"), laws.zero_weight_removes("weight"), laws.permutation("B")),
)
LOGISTIC_POSITIVE = LOGISTIC.replace(
    name="nn.BCEWithLogitsLoss-pos_weight",
    context={"pos_weight": TensorSpec("C", domains.positive())},
    laws=(laws.nonnegative(), _SAME_FOR_ALL_CLASSES, *SAMPLEWISE),
)
_CROSS_ENTROPY: dict[str, Callable[..., Any]] = {"formula": cross_entropy, "torch": nn.CrossEntropyLoss}
CROSS_ENTROPY = LossSpec(
    "nn.CrossEntropyLoss",
    _CROSS_ENTROPY,
    inputs=CLASSES,
    output=SCALAR,
    laws=(laws.nonnegative(), laws.translation_invariant("input"), _SAME_FOR_ALL_CLASSES, *SAMPLEWISE),
)
CROSS_ENTROPY_WEIGHTED = LossSpec(
    "nn.CrossEntropyLoss-weighted",
    _CROSS_ENTROPY,
    inputs=CLASSES,
    context=_CLASS_WEIGHT,
    output=SCALAR,
    laws=(
        laws.nonnegative(),
        laws.translation_invariant("input"),
        laws.scale_invariant("weight"),
        laws.permutation("B"),
        _SAME_FOR_ALL_CLASSES,
    ),
)
CROSS_ENTROPY_IGNORED = LossSpec(
    "nn.CrossEntropyLoss-ignore_index",
    _CROSS_ENTROPY,
    inputs=_IGNORED,
    output=SCALAR,
    laws=(laws.translation_invariant("input"), laws.permutation("B")),
)
CROSS_ENTROPY_IGNORED_WEIGHTED = CROSS_ENTROPY_WEIGHTED.replace(
    name="nn.CrossEntropyLoss-ignore_index_weighted",
    inputs=_IGNORED,
    laws=(laws.scale_invariant("weight"), laws.permutation("B")),
)
CROSS_ENTROPY_SMOOTHED = CROSS_ENTROPY.replace(
    name="nn.CrossEntropyLoss-label_smoothing", options={"label_smoothing": 0.1}
)
CROSS_ENTROPY_SMOOTHED_WEIGHTED = CROSS_ENTROPY_WEIGHTED.replace(
    name="nn.CrossEntropyLoss-label_smoothing_weighted", options={"label_smoothing": 0.1}
)
CROSS_ENTROPY_PROBABILITIES = LossSpec(
    "nn.CrossEntropyLoss-probabilities",
    _CROSS_ENTROPY,
    inputs=_PROBABILITIES,
    output=SCALAR,
    laws=(laws.nonnegative(), laws.translation_invariant("input"), _SAME_FOR_ALL_CLASSES, *SAMPLEWISE),
)
CROSS_ENTROPY_PROBABILITIES_WEIGHTED = CROSS_ENTROPY_PROBABILITIES.replace(
    name="nn.CrossEntropyLoss-probabilities_weighted",
    context=_CLASS_WEIGHT,
    laws=(laws.nonnegative(), laws.linear_in("weight"), _SAME_FOR_ALL_CLASSES, *SAMPLEWISE),
)
CROSS_ENTROPY_GRID = CROSS_ENTROPY.replace(name="nn.CrossEntropyLoss-grid", inputs=_GRID)
# Log-probabilities have no special points of their own, and the formula holds for all numbers.
_LOG_PROBABILITIES = {**CLASSES, "input": TensorSpec("B C")}
NLL = LossSpec(
    "nn.NLLLoss",
    {"formula": likelihood, "torch": nn.NLLLoss},
    inputs=_LOG_PROBABILITIES,
    output=SCALAR,
    laws=(laws.linear_in("input"), _SAME_FOR_ALL_CLASSES, *SAMPLEWISE),
)
NLL_WEIGHTED = NLL.replace(
    name="nn.NLLLoss-weighted",
    context=_CLASS_WEIGHT,
    laws=(laws.linear_in("input"), laws.scale_invariant("weight"), laws.permutation("B"), _SAME_FOR_ALL_CLASSES),
)
NLL_IGNORED = NLL.replace(
    name="nn.NLLLoss-ignore_index",
    inputs={**_LOG_PROBABILITIES, "target": _IGNORED["target"]},
    laws=(laws.linear_in("input"), laws.permutation("B")),
)
NLL_GRID = NLL.replace(name="nn.NLLLoss-grid", inputs={**_GRID, "input": TensorSpec("B C H W")})

SPECS = (
    BCE,
    BCE_WEIGHTED,
    BCE_WEIGHTED_ELEMENTS,
    LOGISTIC,
    LOGISTIC_WEIGHTED,
    LOGISTIC_POSITIVE,
    CROSS_ENTROPY,
    CROSS_ENTROPY_WEIGHTED,
    CROSS_ENTROPY_IGNORED,
    CROSS_ENTROPY_IGNORED_WEIGHTED,
    CROSS_ENTROPY_SMOOTHED,
    CROSS_ENTROPY_SMOOTHED_WEIGHTED,
    CROSS_ENTROPY_PROBABILITIES,
    CROSS_ENTROPY_PROBABILITIES_WEIGHTED,
    CROSS_ENTROPY_GRID,
    NLL,
    NLL_WEIGHTED,
    NLL_IGNORED,
    NLL_GRID,
)
