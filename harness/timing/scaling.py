"""From costs at several sizes to an exponent with its interval, an estimate beyond them, and where two of them cross."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from harness.timing.statistics import Ratio, student_quantile


@dataclass(frozen=True)
class PowerLaw:
    """cost = scale * size ** exponent, fitted by least squares on the logarithms.

    Args:
        exponent: the slope in log-log.
        low: lower end of its 95 % interval, from Student's t on the residuals: noise and curvature alike widen it.
            ``None`` (unknown) for fewer than three sizes.
        high: the upper end.
        last_exponent: the slope between the two largest sizes; where it is above ``exponent``, the cost has not reached its
            final growth, as the fixed overhead of each call hides it at small sizes.
    """

    exponent: float
    low: float | None
    high: float | None
    last_exponent: float


def fit_power_law(sizes: Sequence[float], costs: Sequence[float]) -> PowerLaw | None:
    """The power law through costs at several sizes.

        log cost = log scale + exponent * log size + residual

    Args:
        sizes: positive.
        costs: one for each size, at least zero.

    Returns:
        ``None`` where fewer than two different sizes have a cost above zero.  Costs that are zero everywhere grow with
        exponent zero.

    Source: Draper and Smith, Applied Regression Analysis, section 1.4.
    """
    if len(set(sizes)) > 1 and not any(costs):
        return PowerLaw(0.0, 0.0, 0.0, 0.0)
    points = sorted((size, cost) for size, cost in zip(sizes, costs, strict=True) if size > 0 and cost > 0)
    if len({size for size, _ in points}) < 2:
        return None
    at, y = np.array([size for size, _ in points]), np.log([cost for _, cost in points])
    x = np.log(at)
    centred = x - x.mean()
    spread = float(centred @ centred)
    exponent = float(centred @ y) / spread
    residual = y - y.mean() - exponent * centred
    freedom = len(points) - 2
    half = None
    if freedom > 0:
        half = student_quantile(freedom) * math.sqrt(float(residual @ residual) / freedom / spread)
    below = max(size for size, _ in points if size < points[-1][0])
    ends = [float(y[at == size].mean()) for size in (below, points[-1][0])]  # two logarithms need not agree to the bit
    return PowerLaw(
        exponent=exponent,
        low=None if half is None else exponent - half,
        high=None if half is None else exponent + half,
        last_exponent=(ends[1] - ends[0]) / math.log(points[-1][0] / below),
    )


def extrapolated(seconds: Mapping[int, float], size: int, *, steepest: float = 3.0) -> float | None:
    """What something would take at a size, by its growth between two measured sizes below: an estimate.

        seconds(size) = seconds(b) * (size / b) ** exponent,   exponent = log(seconds(b) / seconds(a)) / log(b / a)

    with the largest size b below, and the largest a that is at most half of it: nearer ones tell noise from growth badly.
    The fixed overhead of a call hides growth at small sizes, so that the estimate is rather too short.

    Args:
        seconds: by size.
        size: where it was not measured.
        steepest: the greatest exponent that is believed.

    Returns:
        ``None`` where there are no two such sizes, or the larger of them took less.
    """
    below = sorted(at for at in seconds if at < size)
    smaller = [at for at in below if 2 * at <= below[-1]]
    if not smaller:
        return None
    near, far = smaller[-1], below[-1]
    exponent = math.log(seconds[far] / seconds[near]) / math.log(far / near)
    return None if exponent < 0 else seconds[far] * (size / far) ** min(exponent, steepest)


@dataclass(frozen=True)
class Crossing:
    """One implementation overtakes another between two measured sizes.

    Args:
        below: largest measured size before it at which the order is settled (faster or slower, whole interval).
        above: smallest measured size after it at which the opposite order is.
        estimate: where the logarithm of the speedup is zero, interpolated over the logarithm of the size.
        is_overtaking: whether the first is slower before and faster after.
    """

    below: float
    above: float
    estimate: float
    is_overtaking: bool


def crossings(sizes: Sequence[float], ratios: Sequence[Ratio]) -> tuple[Crossing, ...]:
    """Where the order of two implementations changes along a sweep.

    Sizes at which the order is open lie inside a crossing and do not make one: noise alone crosses nothing.

    Args:
        sizes: ascending.
        ratios: the speedup at each.
    """
    order = {"faster": 1, "slower": -1}
    settled = [(s, r, order[r.verdict]) for s, r in zip(sizes, ratios, strict=True) if r.verdict in order]
    found = []
    for (below, before, sign), (above, after, other) in pairwise(settled):
        if sign != other:
            low, high = math.log(before.speedup), math.log(after.speedup)
            part = low / (low - high)
            estimate = math.exp(math.log(below) + part * (math.log(above) - math.log(below)))
            found.append(Crossing(below, above, estimate, other > 0))
    return tuple(found)
