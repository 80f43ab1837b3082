"""Tables of times, exact costs and their growth, for every format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.judging.speed import input_text, main_comparisons, place_of, setting_text, speedup_text
from harness.results.measured import Crossover, Growth, Measurement
from harness.results.schema import LossRecord, Report
from harness.results.words import printable, seconds_text, table

_COST_TEXT = {
    "seconds": "time",
    "aten_calls": "ATen calls",
    "moved_bytes": "moved bytes",
    "saved_bytes": "saved bytes",
    "peak_bytes": "peak bytes",
    "flops": "FLOPs",
}
_HEADER = ["loss", "size", "setting", "implementation", "median", "speedup", "95 % interval", "verdict"]
_HEADER += ["ATen calls", "moved", "over bound", "saved", "peak"]
_GROWTH_HEADER = ["loss", "implementation", "setting", "with", "cost", "grows as", "95 % interval"]
_GROWTH_HEADER += ["at the largest sizes"]
# Growth of what a person asks for first; the others stand in report.json.
_SHOWN_GROWTH = ("seconds", "aten_calls", "peak_bytes")
# Wider than this on each side, an interval does not tell a cost that stays from one that grows with the size.
_TELLING = 1.0
_Status = tuple[str, str]


def timings_text(report: Report) -> str:
    """For the terminal: times, speedups with their 95 % intervals, exact costs; then growth and crossovers, if any."""
    rows, notes = timing_table(report.losses)
    if len(rows) == 1:
        return "nothing was timed"
    growth = growth_table(report.losses)
    crossed = [printable(f"{loss.name}: {crossover_text(each)}") for loss in report.losses for each in loss.crossovers]
    below = [printable(" ".join(note.split())) for note in notes]
    parts = [table(rows), "\n".join(below), table(growth) if len(growth) > 1 else "", "\n".join(crossed)]
    return "\n\n".join(part for part in parts if part)


def timing_table(losses: Sequence[LossRecord]) -> tuple[list[list[str]], list[str]]:
    """One row a measurement below the header, and what is said below the table.

    Why something was not timed stands below, numbered, and once where it is the same for many.  Columns in which no row has
    anything are left out.
    """
    untimed = _untimed(losses)
    numbers: dict[str, int] = {}
    rows = [row for loss in losses for row in _rows(loss, untimed, numbers)]
    notes = [] if untimed is None else [f"Nothing was timed: {untimed[1] or untimed[0]}"]
    notes += [f"({number}) {reason}" for reason, number in numbers.items()]
    return _filled([_HEADER, *rows]), notes


def _filled(rows: list[list[str]]) -> list[list[str]]:
    if len(rows) == 1:
        return rows
    kept = [column for column in range(len(rows[0])) if any(row[column] for row in rows[1:])]
    return [[row[column] for column in kept] for row in rows]


def without(rows: Sequence[Sequence[str]], *columns: str) -> list[list[str]]:
    """A table that lacks these columns, such as the name of a loss that stands above it."""
    kept = [number for number, name in enumerate(rows[0]) if name not in columns]
    return [[row[number] for number in kept] for row in rows]


def _untimed(losses: Sequence[LossRecord]) -> _Status | None:
    """Status and reason of every row that has costs, where none was timed; they say nothing about a row."""
    every = [measurement for loss in losses for measurement in loss.measurements]
    if any(measurement.status == "measured" for measurement in every):
        return None
    shared = {(measurement.status, measurement.reason) for measurement in every if measurement.costs}
    return shared.pop() if len(shared) == 1 else None


def _rows(loss: LossRecord, untimed: _Status | None, numbers: dict[str, int]) -> Iterator[list[str]]:
    speedups = {(c.implementation, *place_of(c)): c for c in main_comparisons(loss)}
    for measurement in loss.measurements:
        comparison = speedups.get((measurement.implementation, *place_of(measurement)))
        ratio = ["", "", _status(loss, measurement, untimed, numbers)]
        if comparison is not None:
            bounds = f"{speedup_text(comparison.low)} to {speedup_text(comparison.high)}"
            is_usual = comparison.reference == loss.reference
            verdict = comparison.verdict if is_usual else f"{comparison.verdict} (against {comparison.reference})"
            ratio = [speedup_text(comparison.speedup), bounds, verdict]
        where = [loss.name, input_text(measurement), setting_text(measurement)]
        yield [*where, _name(measurement), _median(measurement), *ratio, *_costs(measurement)]


def _name(measurement: Measurement) -> str:
    if measurement.compile_seconds is None:
        return measurement.implementation
    return f"{measurement.implementation.removesuffix(')')} in {seconds_text(measurement.compile_seconds)})"


def _median(measurement: Measurement) -> str:
    if measurement.median_seconds is None and measurement.estimated_seconds is not None:
        return f"~{seconds_text(measurement.estimated_seconds)} (estimate)"
    return seconds_text(measurement.median_seconds)


def _costs(measurement: Measurement) -> list[str]:
    costs, over = measurement.costs, measurement.moved_over_bound
    calls = costs.get("aten_calls")
    sizes = [bytes_text(costs.get("saved_bytes")), bytes_text(costs.get("peak_bytes"))]
    moved = [bytes_text(measurement.moved_bytes), "" if over is None else f"{over:.3g}×"]
    return ["" if calls is None else str(calls), *moved, *sizes]


def _status(loss: LossRecord, measurement: Measurement, untimed: _Status | None, numbers: dict[str, int]) -> str:
    status, reason = measurement.status, measurement.reason
    if (status, reason) == untimed:
        return ""
    if status != "measured":
        return f"{status} ({numbers.setdefault(reason, len(numbers) + 1)})" if reason else status
    if not loss.reference:
        return ""
    return "reference" if measurement.implementation == loss.reference else "not compared"


def bytes_text(count: int | None) -> str:
    """A number of bytes with its unit, such as ``8.25 KiB``; empty where it is unknown."""
    if count is None:
        return ""
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}" if count < 1000 * factor else f"{count / factor:.0f} {unit}"
    return f"{count} B"


def growth_table(losses: Sequence[LossRecord]) -> list[list[str]]:
    """One row for each cost that people ask for first, below the header."""
    rows = [
        [
            loss.name,
            growth.implementation,
            setting_text(growth),
            _along(growth),
            _COST_TEXT.get(growth.cost, growth.cost),
            *_law(growth),
            _exponent(growth.last_exponent),
        ]
        for loss in losses
        for growth in loss.growths
        if growth.cost in _SHOWN_GROWTH
    ]
    return _filled([_GROWTH_HEADER, *rows])


def _law(growth: Growth) -> tuple[str, str]:
    """The law and its interval; where the sizes do not tell an exponent, why not."""
    number = len(growth.at)
    if growth.low is None or growth.high is None:
        return "too few sizes to tell", f"none from {number} sizes"
    half = (growth.high - growth.low) / 2
    if half > _TELLING:
        return "too few sizes to tell", f"±{half:.2f} from {number} sizes"
    return f"{growth.along}^{_exponent(growth.exponent)}", f"{_exponent(growth.low)} to {_exponent(growth.high)}"


def _exponent(value: float | None) -> str:
    return "" if value is None else f"{round(value, 2) + 0.0:.2f}"  # + 0.0: no minus zero


def _along(record: Growth | Crossover) -> str:
    return f"{record.along} ({record.fixed_text})" if record.fixed_text else record.along


def crossover_text(crossover: Crossover) -> str:
    """``sparse overtakes dense between N=128 and N=256, at about 190 (cpu, float32, full pass)``."""
    along, fixed = crossover.along, crossover.fixed_text
    return (
        f"{crossover.overtaking} overtakes {crossover.overtaken} between {along}={crossover.below:g} and "
        f"{along}={crossover.above:g}, at about {crossover.estimate:.3g} "
        f"({setting_text(crossover)}{'; ' + fixed if fixed else ''})"
    )
