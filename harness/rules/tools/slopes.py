"""Measured slopes: difference quotients with their own error, which tell a kink from a wrong gradient.

Where a loss has a kink, a central difference is the mean of two slopes, and autograd rightly gives another number.  So
the left and the right slope are measured apart, each at three steps.  What rounding may do, or what the steps disagree by
where that is more, is the error of a side.  Any gradient between the sides, each with its error, may be right: that they
differ by less than their errors is no proof that they are one, and then the mean of two slopes, however well it is
measured, is none of them.  That a kink is there is said only where the sides differ by more, and where the error is too
large nothing is known.  No point has a kink within a step of most of its elements: where most are off their means, they are
off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from harness.calls import tolerance

Value = Callable[[Mapping[str, Tensor]], float]
Element = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class Slope:
    """Left and right slope along one coordinate, and how much each may be off; ``smooth`` is their mean, where both may be one."""

    left: float
    right: float
    left_error: float
    right_error: float
    smooth: Slope | None = None

    @property
    def error(self) -> float:
        """How much the less certain side may be off; infinite where its steps tell different slopes."""
        return max(self.left_error, self.right_error)

    @property
    def kinked(self) -> bool:
        """Whether the sides differ by more than their errors."""
        return abs(self.left - self.right) > self.left_error + self.right_error

    def is_measured(self, scale: float) -> bool:
        """Whether a gradient that is off by a tenth of ``scale`` would show."""
        return self.error <= tolerance.MEASURABLE * scale

    def nearest(self, analytic: float) -> float:
        """The side that is nearer to a gradient."""
        return self.left if abs(self.left - analytic) < abs(self.right - analytic) else self.right

    def allowed(self, analytic: float, floor: float) -> float:
        """How far a right gradient may be outside the sides: below the lower one or above the upper one, each with its own error."""
        if analytic < min(self.left, self.right):
            error = min(self.left, self.right) - min(self.left - self.left_error, self.right - self.right_error)
        else:
            error = max(self.left + self.left_error, self.right + self.right_error) - max(self.left, self.right)
        return tolerance.SLOPE_RELATIVE * max(abs(analytic), abs(self.left), abs(self.right)) + floor + error

    def misses(self, analytic: float, floor: float) -> float | None:
        """How far ``analytic`` is outside [left, right], or ``None`` where it is inside within the error."""
        if not math.isfinite(self.error):
            return None
        outside = max(min(self.left, self.right) - analytic, analytic - max(self.left, self.right))
        return outside if outside > self.allowed(analytic, floor) or math.isnan(outside) else None


class Line:
    """The loss along one coordinate, or along several that are equal, in numbers of the precision in which it computes.

    Args:
        value: the loss as a number of replaced tensors.
        tensors: the point.
        elements: which element moves; several equal ones move together, so that they stay tied.
        grid: the dtype whose numbers the moved element takes: what a loss rounds itself is no step.
    """

    def __init__(
        self,
        value: Value,
        tensors: Mapping[str, Tensor],
        elements: Sequence[Element],
        grid: torch.dtype = torch.float64,
    ) -> None:
        name, index = elements[0]
        self.centre = float(tensors[name][index])
        self.unit = max(1.0, abs(self.centre))
        self._value, self._tensors, self._elements, self._grid = value, tensors, elements, grid
        self._seen: dict[float, tuple[float, float]] = {}

    def at(self, step: float) -> tuple[float, float]:
        """(the value there, the distance that rounding has left) one signed step, times the unit, from the centre."""
        if step not in self._seen:
            place = float(torch.tensor(self.centre + step * self.unit, dtype=self._grid, device="cpu"))
            moved = {name: self._tensors[name].clone() for name, _ in self._elements}
            for name, index in self._elements:
                moved[name][index] = place
            self._seen[step] = self._value(moved), float(moved[name][index]) - self.centre
        return self._seen[step]

    def central(self, step: float) -> float:
        """The central difference quotient."""
        (up, right), (down, left) = self.at(step), self.at(-step)
        return (up - down) / (right - left) if right != left else math.nan

    def one_sided(self, start: float, step: float) -> float:
        """The difference quotient on the side of the step's sign."""
        value, distance = self.at(step)
        return (value - start) / distance if distance else math.nan


def measure(line: Line, start: float, rounding: float, eps: float) -> Slope:
    """The slopes of a loss on both sides of a point.

    One side is extrapolated from h and 4 h, (4 q(h) - q(4 h)) / 3 with truncation O(h^2 L'''), and again from h / 4 and
    h.  What the two differ by is rounding, truncation or a kink that the longer one has crossed; which of them cannot be
    told, so that all of it counts.  The central difference at h is off by less, but only where there is no kink, which no
    quotient shows that is measured with an error.

    Args:
        line: the loss along the coordinate.
        start: the value at the point.
        rounding: by how much the difference of two values may be off (`tolerance.value_rounding`).
        eps: of the precision in which the loss computes.
    """
    step, ratio = tolerance.slope_step(eps), tolerance.STEP_RATIO
    noise = rounding / (step * line.unit)
    sides = []
    for sign in (-1.0, 1.0):
        coarse, middle, fine = (line.one_sided(start, sign * s) for s in (step * ratio, step, step / ratio))
        long, short = ((ratio * a - b) / (ratio - 1) for a, b in ((middle, coarse), (fine, middle)))
        # Of 2 values at h and 2 at 4 h, with weights 4/3 and 1/3, and the same 4 times nearer.
        unsure = noise * (ratio + 1 / ratio) / (ratio - 1)
        spread = abs(long - short)
        converges = spread - ratio * unsure <= tolerance.MEASURABLE * max(abs(long), abs(short))
        # What rounding does not explain is the error of the longer one, all but a sixteenth of it: the shorter one is nearer.
        slope = short if spread > ratio * unsure else long
        sides.append((slope, max(unsure, spread) if converges else math.inf))
    (left, left_error), (right, right_error) = sides
    found = Slope(left, right, left_error, right_error)
    if not math.isfinite(found.error) or found.kinked:
        return found
    central = line.central(step)
    error = noise + 2 * abs(line.central(step * ratio) - central) / (ratio**2 - 1)  # of rounding and of truncation
    return replace(found, smooth=Slope(central, central, error, error)) if error <= found.error else found


def element_index(flat: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The index of the ``flat``-th element (NumPy's: torch's own imports a computer algebra system)."""
    return tuple(int(i) for i in np.unravel_index(flat, tuple(shape)))


def coordinates(tensors: Mapping[str, Tensor], names: Sequence[str]) -> Iterator[Element]:
    """Every (tensor, element) of the named tensors."""
    for name in names:
        for flat in range(tensors[name].numel()):
            yield name, element_index(flat, tensors[name].shape)
