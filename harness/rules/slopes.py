"""Measured slopes: one-sided difference quotients that tell a kink from a wrong gradient.

Where a loss has a kink, a central difference is the mean of two slopes, and autograd rightly gives another number.  So
the left and the right slope are measured at two pairs of steps each.  Where the two pairs disagree, nothing is said;
where left and right agree, autograd must give that slope; where they differ, it must give a slope between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from harness import tolerance

Value = Callable[[Mapping[str, Tensor]], float]


@dataclass(frozen=True)
class Slope:
    """Left and right slope along one coordinate, and how much they may be off."""

    left: float
    right: float
    error: float
    reliable: bool

    def misses(self, analytic: float, floor: float) -> float | None:
        """How far ``analytic`` is outside [left, right], or ``None`` where it is inside within the error."""
        if not self.reliable:
            return None
        low, high = min(self.left, self.right), max(self.left, self.right)
        allowed = self.allowed(analytic, floor)
        outside = max(low - analytic, analytic - high)
        return outside if outside > allowed or math.isnan(outside) else None

    def allowed(self, analytic: float, floor: float) -> float:
        """How far a right gradient may be outside."""
        return tolerance.SLOPE_RELATIVE * max(abs(analytic), abs(self.left), abs(self.right)) + floor + self.error


def measure(value: Value, tensors: Mapping[str, Tensor], name: str, index: tuple[int, ...], magnitude: float) -> Slope:
    """Slopes of ``value`` along element ``index`` of ``tensors[name]``.

    Args:
        value: the loss as a number of replaced tensors.
        tensors: the point.
        name: which tensor.
        index: which element.
        magnitude: the largest number met while evaluating the loss; its rounding limits what can be measured.
    """
    centre = float(tensors[name][index])
    unit = max(1.0, abs(centre))
    start = value({})

    def one_sided(sign: float, step: float) -> float:
        moved = tensors[name].clone()
        moved[index] = centre + sign * step * unit
        exact_step = float(moved[index]) - centre
        return (value({name: moved}) - start) / exact_step

    def extrapolated(sign: float, large: float, small: float) -> float:
        return (10 * one_sided(sign, small) - one_sided(sign, large)) / 9

    coarse, middle, fine = tolerance.SLOPE_STEPS
    noise = 5 * tolerance.slope_noise(middle * unit, magnitude)
    finer_noise = 5 * tolerance.slope_noise(fine * unit, magnitude)
    sides = [(extrapolated(sign, coarse, middle), extrapolated(sign, middle, fine)) for sign in (-1.0, 1.0)]
    spread = max(abs(a - b) for a, b in sides)
    size = max(abs(a) for a, _ in sides)
    reliable = math.isfinite(spread) and spread <= 10 * tolerance.SLOPE_RELATIVE * size + finer_noise + 1e-300
    return Slope(sides[0][0], sides[1][0], noise + (spread if math.isfinite(spread) else 0.0), reliable)


def element_index(flat: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The index of the ``flat``-th element (NumPy's: torch's own imports a computer algebra system)."""
    return tuple(int(i) for i in np.unravel_index(flat, tuple(shape)))


def coordinates(tensors: Mapping[str, Tensor], names: tuple[str, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every (tensor, element) of the named tensors."""
    for name in names:
        for flat in range(tensors[name].numel()):
            yield name, element_index(flat, tensors[name].shape)
