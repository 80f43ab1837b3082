"""What the formulas and the specs of this catalog share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

from harness import TensorSpec, domains, laws

SCALAR = TensorSpec("")
ANY_SHAPE = {"input": TensorSpec("B *rest"), "target": TensorSpec("B *rest")}
CLASSES = {"input": TensorSpec("B C", domains.logits()), "target": TensorSpec("B", domains.index("C"))}
SAMPLEWISE = (laws.permutation("B"), laws.mean_over("B"))


def in_double(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Evaluate a formula in float64 and round once, to the dtype of its first floating tensor.

    What is then seen in low precision is the rounding of the loss that is held to the formula, not that of the formula.
    """

    @functools.wraps(formula)
    def rounded(**arguments: Any) -> Tensor:
        floating = [v for v in arguments.values() if isinstance(v, Tensor) and v.is_floating_point()]
        raised = {k: v.double() if any(v is tensor for tensor in floating) else v for k, v in arguments.items()}
        return formula(**raised).to(floating[0].dtype)

    return rounded


def reduce(errors: Tensor, reduction: str) -> Tensor:
    """The mean or the sum of all errors, or the errors themselves.

    Raises:
        ValueError: another reduction.
    """
    if reduction == "none":
        return errors
    if reduction in ("mean", "sum"):
        return errors.mean() if reduction == "mean" else errors.sum()
    raise ValueError(f"reduction={reduction!r}, expected 'none', 'mean' or 'sum'")


def same_shape(*tensors: Tensor) -> None:
    """Refuse what would be broadcast.

    Raises:
        ValueError: tensors of different shapes; the message names them.
    """
    shapes = [list(tensor.shape) for tensor in tensors]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"shapes {shapes}, but all of them should be equal")


def classes_along_axis_1(input: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
    """Refuse scores that are not one row of classes, along axis 1, for each class index or each row of probabilities.

    Raises:
        ValueError: shapes that do not belong together; the message names them.
    """
    wanted = input.shape if target.is_floating_point() else (*input.shape[:1], *input.shape[2:])
    weights = None if weight is None else tuple(weight.shape)
    if input.ndim < 2 or target.shape != wanted or weights not in (None, tuple(input.shape[1:2])):
        raise ValueError(
            f"input has shape {list(input.shape)}, target {list(target.shape)} and weight {weights}, but input should be "
            f"[B, C, ...], target the same, or without C, and weight (C,)"
        )
