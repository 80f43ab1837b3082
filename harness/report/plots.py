"""Where the marks of the plots stand; the templates draw them as SVG in the page.

A chart that altair and vl-convert draw takes 0.1 s and 48 KB, and a report has some hundred: 10 s and 5 MB.  Drawn in the
page they take 2 KB and no time, follow the page's colours and fonts, and can be printed and read aloud.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from harness.judging.speed import input_text, main_comparisons, setting_text
from harness.report.timings import bytes_text
from harness.results.measured import Comparison, Growth, Measurement
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
_LEAST_WHISKER = 4


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
        row = Interval(comparison, numbers[comparison.implementation], *bounds)
        groups.setdefault(setting_text(comparison), []).append(row)
    return Forest(
        ticks=axis.ticks(lambda value: f"{value:g}×"),
        one=axis.at(1.0),
        band=(axis.at(BAND[0]), axis.at(BAND[1])),
        groups={setting: tuple(rows) for setting, rows in groups.items()},
    )


def bars(choice: Choice) -> tuple[float, list[tuple[Option, float | None, float | None, float | None]]]:
    """Where no change stands, and (option, low, middle, high) for each option of a choice on one axis, in pixels."""
    options = choice.options
    known = [v for o in options for v in (o.low, o.speedup, o.high) if v is not None and 0 < v < math.inf]
    axis = log_axis([*known, 0.9, 1.1], 4, BAR_WIDTH - 4)
    return axis.at(1.0), [(o, _place(axis, o.low), _place(axis, o.speedup), _place(axis, o.high)) for o in options]


def _place(axis: LogAxis, value: float | None) -> float | None:
    return None if value is None or not 0 < value < math.inf else axis.at(value)


@dataclass(frozen=True)
class Point:
    """A measured point of a curve, in pixels, with what it says.

    Args:
        x: its place along the size.
        y: of the median of its rounds, or of the exact cost.
        text: what it says.
        low: of the lower end of the 95 % interval of the median; ``None`` for an exact cost.
        high: of the upper end.
        rounds: of the rounds, each place once.
    """

    x: float
    y: float
    text: str
    low: float | None = None
    high: float | None = None
    rounds: tuple[float, ...] = ()


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

    @property
    def rounds(self) -> str:
        """The rounds, likewise: a stroke over those that touch each other."""
        return "".join(
            f"M{point.x:g} {top:g}V{bottom:g}" for point in self.points for top, bottom in _strokes(point.rounds)
        )

    @property
    def whiskers(self) -> str:
        """The intervals, likewise; one that is lower than its mark is hidden by it."""
        drawn = [(p.x, p.low, p.high) for p in self.points if p.low is not None and p.high is not None]
        wide = [(x, low, high) for x, low, high in drawn if low - high >= _LEAST_WHISKER]
        return "".join(f"M{x:g} {low:g}V{high:g}m-3 0h6M{x - 3:g} {low:g}h6" for x, low, high in wide)


def _strokes(places: Sequence[float]) -> list[list[float]]:
    """(top, bottom) of each group of whole pixels in a row."""
    found: list[list[float]] = []
    for place in sorted(places):
        if found and place - found[-1][1] <= 1:
            found[-1][1] = place
        else:
            found.append([place, place])
    return found


@dataclass(frozen=True)
class Panel:
    """How one cost grows, over one size, in one setting: both axes logarithmic; ``missing`` says what is not drawn, and why."""

    title: str
    along: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    curves: tuple[Curve, ...]
    missing: tuple[str, ...] = ()

    left, right, top, bottom = _LEFT, PANEL_WIDTH - _RIGHT, _TOP, PANEL_HEIGHT - _BOTTOM


def panels(loss: LossRecord) -> list[Panel]:
    """Time and peak memory against what was varied, one panel a setting."""
    groups: dict[tuple[str, tuple[str, ...], str], Growth] = {}
    for growth in loss.growths:
        if growth.cost in _PLOTTED:
            groups.setdefault((growth.cost, growth.setting, f"{growth.along} {growth.fixed_text}"), growth)
    made = [_panel(loss, growth) for growth in groups.values()]
    return [panel for panel in made if panel is not None]


def _panel(loss: LossRecord, growth: Growth) -> Panel | None:
    """Every measurement of a setting along what one of its growths goes along."""
    is_time = growth.cost == "seconds"
    rows = [m for m in loss.measurements if m.setting == growth.setting and _is_along(m, growth)]
    names = dict.fromkeys(name for m in rows for name in m.coordinates)
    varied = [name for name in names if len({m.coordinates.get(name) for m in rows}) > 1]
    sizes = {_size_label(m, varied): math.prod(m.coordinates[name] for name in varied) for m in rows}
    costs = [m.median_seconds if is_time else m.costs.get(growth.cost) for m in rows]
    found = [(m, sizes[_size_label(m, varied)], cost) for m, cost in zip(rows, costs, strict=True)]
    drawn = [(m, x, y) for m, x, y in found if y is not None and 0 < y < math.inf and 0 < x < math.inf]
    if not drawn or not varied:
        return None
    times = [t for m, *_ in drawn for t in m.seconds_per_call if t > 0] if is_time else []
    x_axis = log_axis([x for _, x, _ in drawn], _LEFT, PANEL_WIDTH - _RIGHT)
    y_axis = log_axis([*(y for *_, y in drawn), *times], PANEL_HEIGHT - _BOTTOM, _TOP)
    shown, base = (seconds_text, 10) if is_time else (lambda count: bytes_text(round(count)), 2)
    numbers = series_numbers(loss)
    curves: dict[str, list[Point]] = {}
    for m, x, y in sorted(drawn, key=lambda each: each[1]):
        raw = sorted(t for t in m.seconds_per_call if t > 0) if is_time else []
        low, high = (y_axis.at(t) for t in _median_interval(raw)) if raw else (None, None)
        said = f"{m.implementation}: {shown(y)} at {input_text(m)}"
        dots = tuple(dict.fromkeys(float(round(y_axis.at(t))) for t in raw))
        curves.setdefault(m.implementation, []).append(Point(x_axis.at(x), y_axis.at(y), said, low, high, dots))
    ticks = {x: label for label, x in sizes.items()}
    fixed = {name: value for name, value in rows[0].coordinates.items() if name not in varied}
    along = " × ".join(varied)
    along += f" ({', '.join(f'{name}={value:g}' for name, value in fixed.items())})" if fixed else ""
    return Panel(
        f"{_PLOTTED[growth.cost]}, {setting_text(growth)}",
        along,
        _size_ticks(x_axis, {x: ticks[x] for x in sorted({x for _, x, _ in drawn})}),
        y_axis.ticks(shown, base),
        tuple(Curve(name, numbers[name], tuple(points)) for name, points in curves.items()),
        _missing([m for m, _, y in found if y is None], varied),
    )


def _is_along(measurement: Measurement, growth: Growth) -> bool:
    """Whether it differs from the others of the growth in what that goes along alone."""
    if growth.along == "elements":
        return measurement.is_planned and not measurement.densities
    rest = {name: value for name, value in measurement.coordinates.items() if name != growth.along}
    return growth.along in measurement.coordinates and rest == growth.coordinates


def _size_label(measurement: Measurement, varied: Sequence[str]) -> str:
    """What was varied, as a tick says it: ``16×16×9``."""
    return "×".join(count_text(measurement.coordinates[name]) for name in varied if name in measurement.coordinates)


def _median_interval(ordered: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a median from the ranks of its sample, n/2 ± 1.96 sqrt(n)/2; its ends where that is beyond them.

    Source: Conover, Practical Nonparametric Statistics, section 3.2.
    """
    half = 0.98 * math.sqrt(len(ordered))
    low, high = math.floor(len(ordered) / 2 - half), math.ceil(len(ordered) / 2 + half)
    return ordered[max(low, 0)], ordered[min(high, len(ordered) - 1)]


def _missing(rows: Sequence[Measurement], varied: Sequence[str]) -> tuple[str, ...]:
    """What has no point, and why: one line for each reason."""
    places: dict[tuple[str, str], list[str]] = {}
    for m in rows:
        places.setdefault((m.implementation, m.reason or m.status), []).append(_size_label(m, varied))
    return tuple(f"{name} at {', '.join(sizes)}: {why}" for (name, why), sizes in places.items())


def _size_ticks(axis: LogAxis, sizes: Mapping[float, str]) -> tuple[Tick, ...]:
    """The measured sizes themselves where their labels have room, else the first and the last."""
    ticks = tuple(Tick(axis.at(size), label) for size, label in sizes.items())
    is_roomy = all(b.position - a.position >= 3.2 * (len(a.label) + len(b.label)) + 6 for a, b in pairwise(ticks))
    return ticks if is_roomy else (ticks[0], ticks[-1])


def series_numbers(loss: LossRecord) -> dict[str, int]:
    """Which marker and colour every implementation has, the same in all plots of a loss."""
    records: Sequence[Any] = (*loss.comparisons, *loss.growths, *loss.measurements)
    names = dict.fromkeys((*loss.implementations, *(record.implementation for record in records)))
    return {name: number % SERIES for number, name in enumerate(names)}


def legend(drawn: Sequence[Panel]) -> dict[str, int]:
    """The series of everything that the panels draw."""
    return {curve.name: curve.series for panel in drawn for curve in panel.curves}


def count_text(value: float) -> str:
    """A number of up to four digits, or with a suffix for thousands, such as ``131k``."""
    if value == int(value) and value < 10_000:
        return f"{value:.0f}"
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * factor:
            return f"{value / factor:.3g}{suffix}"
    return f"{value:.3g}"
