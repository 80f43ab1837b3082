"""Where the marks of the plots stand; the templates draw them as SVG in the page.

A chart that altair and vl-convert draw takes 0.1 s and 48 KB, and a report has some hundred: 10 s and 5 MB.  Drawn in the
page they take 2 KB and no time, follow the page's colours and fonts, and can be printed and read aloud.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from harness.judging.speed import main_comparisons, setting_text
from harness.report.timings import bytes_text
from harness.results.measured import Comparison, Growth
from harness.results.schema import LossRecord
from harness.results.words import seconds_text

if TYPE_CHECKING:
    from harness.judging.choice import Choice, Option

Format = Callable[[float], str]

# Of a speedup's axis, and of a panel with its margins, in CSS pixels.
FOREST_WIDTH, FOREST_PAD = 300, 8
BAR_WIDTH = 140
PANEL_WIDTH, PANEL_HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 10, 40

# Within these a speedup is called equivalent.
BAND = (0.95, 1.05)
# How many series have a marker and a colour of their own; further ones begin again, and are told by their tooltips.
SERIES = 6

_PLOTTED = {"seconds": "time per call", "peak_bytes": "peak memory"}
_MOST_TICKS = 6
_LABEL_WIDTH = 34


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    position: float
    label: str


@dataclass(frozen=True)
class LogAxis:
    """Maps positive numbers from ``low`` to ``high`` onto ``start`` to ``end`` pixels, equal ratios to equal distances.

    Raises:
        ValueError: bounds that are not ``0 < low < high``.
    """

    low: float
    high: float
    start: float
    end: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise ValueError(f"got bounds {self.low} and {self.high}, expected 0 < low < high, both finite")

    def at(self, value: float) -> float:
        """The place of a number, to a tenth of a pixel; beyond the bounds it is the bound's."""
        clipped = min(max(value, self.low), self.high)
        part = math.log(clipped / self.low) / math.log(self.high / self.low)
        return round(self.start + part * (self.end - self.start), 1)

    def ticks(self, label: Format, base: int = 10) -> tuple[Tick, ...]:
        """Powers of the base, every so many that few are left; of ten with 2 and 5 between where there are hardly any.

        An axis so short that none lies on it has its two ends.
        """
        first = math.ceil(math.log(self.low, base) - 1e-9)
        last = math.floor(math.log(self.high, base) + 1e-9)
        step = max(1, math.ceil((last - first + 1) / _MOST_TICKS))
        values = [float(base) ** power for power in range(first, last + 1, step)]
        if len(values) < 3 and base == 10:
            around = range(first - 1, last + 2)
            every = [factor * 10.0**power for power in around for factor in (1, 2, 5)]
            values = [value for value in every if self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)]
        return tuple(Tick(self.at(value), label(value)) for value in values or (self.low, self.high))


def log_axis(values: Sequence[float], start: float, end: float) -> LogAxis:
    """An axis that holds all values, with some air beyond them, and at least a factor of two."""
    low, high = min(values), max(values)
    air = max((high / low) ** 0.06, math.sqrt(2) if high < 2 * low else 1.0)
    return LogAxis(low / air, high * air, start, end)


@dataclass(frozen=True)
class Interval:
    """One row of a forest plot: the estimate with its interval, in pixels; ``None`` where there is none."""

    comparison: Comparison
    series: int
    low: float | None
    middle: float | None
    high: float | None


@dataclass(frozen=True)
class Forest:
    """Speedups with their intervals on one axis, in groups of one setting each.

    Args:
        ticks: of the axis.
        one: where no change stands.
        band: from where to where a speedup is called equivalent.
        groups: setting -> rows.
    """

    ticks: tuple[Tick, ...]
    one: float
    band: tuple[float, float]
    groups: Mapping[str, tuple[Interval, ...]]


def forest(loss: LossRecord) -> Forest | None:
    """The speedups of one loss; ``None`` where nothing was compared."""
    compared = main_comparisons(loss)
    known = [v for c in compared for v in (c.low, c.speedup, c.high) if v is not None and 0 < v < math.inf]
    if not compared:
        return None
    axis = log_axis([*known, 0.9, 1.1], FOREST_PAD, FOREST_WIDTH - FOREST_PAD)
    numbers = series_numbers(loss)
    groups: dict[str, list[Interval]] = {}
    for comparison in compared:
        bounds = [_place(axis, v) for v in (comparison.low, comparison.speedup, comparison.high)]
        row = Interval(comparison, numbers[comparison.implementation], bounds[0], bounds[1], bounds[2])
        groups.setdefault(setting_text(comparison), []).append(row)
    return Forest(
        ticks=axis.ticks(lambda value: f"{value:g}×"),
        one=axis.at(1.0),
        band=(axis.at(BAND[0]), axis.at(BAND[1])),
        groups={setting: tuple(rows) for setting, rows in groups.items()},
    )


def bars(choice: Choice) -> tuple[float, list[tuple[Option, float | None, float | None, float | None]]]:
    """Where no change stands, and (option, low, middle, high) for each option of a choice on one axis, in pixels."""
    options = [*([choice.taken] if choice.taken else []), *choice.others]
    known = [v for o in options for v in (o.low, o.speedup, o.high) if v is not None and 0 < v < math.inf]
    axis = log_axis([*known, 0.9, 1.1], 4, BAR_WIDTH - 4)
    return axis.at(1.0), [(o, _place(axis, o.low), _place(axis, o.speedup), _place(axis, o.high)) for o in options]


def _place(axis: LogAxis, value: float | None) -> float | None:
    return None if value is None or not 0 < value < math.inf else axis.at(value)


@dataclass(frozen=True)
class Point:
    """A measured point of a curve, in pixels, with what it says."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Curve:
    """One implementation in a panel."""

    name: str
    series: int
    points: tuple[Point, ...]

    @property
    def path(self) -> str:
        """The line through the points, as the `d` of an SVG path."""
        return "M" + "L".join(f"{point.x:g} {point.y:g}" for point in self.points)


@dataclass(frozen=True)
class Panel:
    """How one cost grows, over one size, in one setting: both axes logarithmic."""

    title: str
    along: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    curves: tuple[Curve, ...]

    left, right, top, bottom = _LEFT, PANEL_WIDTH - _RIGHT, _TOP, PANEL_HEIGHT - _BOTTOM


def panels(loss: LossRecord) -> list[Panel]:
    """Time and peak memory against what was varied, one panel a setting."""
    groups: dict[tuple[str, str, str], list[Growth]] = {}
    for growth in loss.growths:
        if growth.cost in _PLOTTED:
            key = (f"{_PLOTTED[growth.cost]}, {setting_text(growth)}", _along(growth), growth.cost)
            groups.setdefault(key, []).append(growth)
    numbers = series_numbers(loss)
    made = [_panel(title, along, cost, found, numbers) for (title, along, cost), found in groups.items()]
    return [panel for panel in made if panel is not None]


def _panel(title: str, along: str, cost: str, growths: Sequence[Growth], numbers: Mapping[str, int]) -> Panel | None:
    points = {growth.implementation: list(_positive(growth)) for growth in growths}
    every = [point for found in points.values() for point in found]
    if not every:
        return None
    x = log_axis([size for size, _ in every], _LEFT, PANEL_WIDTH - _RIGHT)
    y = log_axis([value for _, value in every], PANEL_HEIGHT - _BOTTOM, _TOP)
    shown, base = (seconds_text, 10) if cost == "seconds" else (_bytes_text, 2)
    curves = tuple(
        Curve(
            name,
            numbers[name],
            tuple(Point(x.at(s), y.at(v), f"{name}: {shown(v)} at {count_text(s)}") for s, v in found),
        )
        for name, found in points.items()
        if found
    )
    return Panel(title, along, _size_ticks(x, sorted({size for size, _ in every})), y.ticks(shown, base), curves)


def _size_ticks(axis: LogAxis, sizes: Sequence[float]) -> tuple[Tick, ...]:
    """The measured sizes themselves where their labels have room, else round numbers."""
    ticks = tuple(Tick(axis.at(size), count_text(size)) for size in sizes)
    apart = min((b.position - a.position for a, b in pairwise(ticks)), default=math.inf)
    return ticks if apart >= _LABEL_WIDTH else axis.ticks(count_text)


def _bytes_text(value: float) -> str:
    return bytes_text(round(value))


def _positive(growth: Growth) -> Iterator[tuple[float, float]]:
    """The points that a logarithmic axis can hold; no memory at all is in the table alone."""
    for size, value in zip(growth.at, growth.costs, strict=True):
        if 0 < size < math.inf and 0 < value < math.inf:
            yield size, value


def series_numbers(loss: LossRecord) -> dict[str, int]:
    """Which marker and colour every implementation has, the same in all plots of a loss."""
    records: Sequence[Any] = (*loss.comparisons, *loss.growths, *loss.measurements)
    names = dict.fromkeys((*loss.implementations, *(record.implementation for record in records)))
    return {name: number % SERIES for number, name in enumerate(names)}


def legend(drawn: Sequence[Panel]) -> dict[str, int]:
    """The series of everything that the panels draw."""
    return {curve.name: curve.series for panel in drawn for curve in panel.curves}


def _along(growth: Growth) -> str:
    what = "elements of all tensors" if growth.along == "elements" else growth.along
    fixed = growth.fixed_text
    return f"{what} ({fixed})" if fixed else what


def count_text(value: float) -> str:
    """A number of up to four digits, or with a suffix for thousands, such as ``131k``."""
    if value == int(value) and value < 10_000:
        return f"{value:.0f}"
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * factor:
            return f"{value / factor:.3g}{suffix}"
    return f"{value:.3g}"
