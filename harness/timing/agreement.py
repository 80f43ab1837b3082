"""Whether an implementation agrees with the reference on the timed input, and where it does not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from harness.calls.tolerance import told_apart
from harness.timing.constants import AGREEMENT

Values = Sequence[Tensor]  # the loss, then the gradients of the differentiable inputs as far as the pass has them


def values_of(loss: Tensor, leaves: Sequence[Tensor]) -> Values:
    """Loss and gradients, in float64 on the CPU."""
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    return tuple(
        (value if value.layout == torch.strided else value.to_dense()).detach().to("cpu", torch.float64, copy=True)
        for value in (loss, *gradients)
    )


def condition(slopes: Sequence[Tensor], leaves: Sequence[Tensor]) -> float:
    """sum |x dL/dx| over all inputs, the size that rounding is relative to."""
    return sum(
        float((leaf.detach().double().cpu() * slope).abs().sum()) for leaf, slope in zip(leaves, slopes, strict=False)
    )


def not_finite(values: Values, differentiable: Sequence[str]) -> str | None:
    """The first element that is not finite, or ``None``."""
    for value, what in zip(values, _names(differentiable), strict=False):
        is_finite = value.isfinite()
        if not bool(is_finite.all()):
            where, shown = _element(value, int(is_finite.reshape(-1).int().argmin()))
            return f"the {what.partition(' ')[0]} on the timed input is not finite: {what}{where} = {shown}"
    return None


def difference(
    values: Values, expected: Values, differentiable: Sequence[str], condition: float, dtype: str
) -> str | None:
    """The element that is farthest from the reference's, if it is farther than allowed; else ``None``.

    Allowed is a fraction of |L| + sum |x dL/dx| for the loss L, and of max |dL/dx| for a gradient.

    Args:
        values: loss and gradients.
        expected: those of the reference.
        differentiable: the inputs that the gradients are of.
        condition: sum |x dL/dx| over all inputs.
        dtype: what was computed in.
    """
    relative = AGREEMENT.get(getattr(torch, dtype), AGREEMENT[torch.float32])
    for position, (value, wanted) in enumerate(zip(values, expected, strict=True)):
        what = _names(differentiable)[position]
        if value.shape != wanted.shape:
            return f"the {what} has shape {list(value.shape)}, but the reference's has {list(wanted.shape)}"
        if not wanted.numel():
            continue
        allowed = relative * (float(wanted.abs().max()) + (0.0 if position else condition))
        distances = (value - wanted).abs().reshape(-1)
        worst = int(distances.argmax())  # of several, a nan
        off = float(distances[worst])
        if not off <= allowed:
            where, shown = _element(value, worst)
            apart = told_apart(off, allowed, 3)
            return (
                f"differs from the reference on the timed input: {what}{where} = {shown}, expected "
                f"{_element(wanted, worst)[1]} (off by {apart[0]}, allowed {apart[1]})"
            )
    return None


def _names(differentiable: Sequence[str]) -> list[str]:
    several = len(differentiable) > 1
    return ["loss", *(f"gradient of {name}" if several else "gradient" for name in differentiable)]


def _element(value: Tensor, position: int) -> tuple[str, str]:
    """Index, nothing where there is one element only, and text of the element at a position in the flattened tensor."""
    index = ", ".join(str(int(part)) for part in np.unravel_index(position, tuple(value.shape)))
    return f"[{index}]" if value.numel() > 1 else "", f"{float(value.reshape(-1)[position]):.6g}"
