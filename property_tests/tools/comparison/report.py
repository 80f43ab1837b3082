"""The comparison as Markdown for readers, and as CSV with every raw round."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.timing.benchmark import Measurement

from .bounds import Round
from .contest import OURS, Contest, Contestant
from .figure import Figure
from .measure import Outcome, mebibytes, milliseconds, peak_ratio, place, speedup

FIGURE_FIELDS = ("figure", "value", "low", "high", "unit", "target", "verdict", "is_open", "reason")
PLACE_FIELDS = ("contest", "input", "pass", "implementation")
COST_FIELDS = (*PLACE_FIELDS, "status", "peak_bytes", "moved_bytes", "saved_bytes", "aten_calls")
ROUND_FIELDS = (*PLACE_FIELDS, "process", "seconds_per_call")

INTRODUCTION = """\
# The losses beside their rivals

Each loss beside the usual ways of writing it and beside third-party packages that compute the same number: forward and
backward, float32, one thread. First everyone is held to the loss's own loops on a small input in float64 (value and gradient),
and on the timed input to ours; who differs is not timed. Then all are timed in turn, in random order within each round, up to
24 rounds in three to six fresh processes; a ratio is the median over rounds with its 95 % interval. Above 1x ours takes less.
Peaks are exact: bytes that torch's allocator gave at a time above the inputs, gradients included.
"""


def markdown(figures: Sequence[Figure], outcomes: Sequence[Outcome], under: Mapping[str, Any], command: str) -> str:
    """The whole report."""
    parts = [INTRODUCTION, f"Made by `{command}`.\n", _summary(figures), "## Figures and their targets\n"]
    parts.append(_table(("figure", "measured", "target", "", "of"), _figure_rows(figures)))
    for outcome in outcomes:
        parts += [f"## {outcome.contest.title}\n", *_contest(outcome)]
    parts += ["## Taken under\n", _table(("", ""), _environment(under))]
    return "\n".join(parts)


def _summary(figures: Sequence[Figure]) -> str:
    count = {
        verdict: sum(f.verdict == verdict for f in figures) for verdict in ("reached", "not reached", "not measured")
    }
    return f"{len(figures)} figures: " + ", ".join(f"{number} {verdict}" for verdict, number in count.items()) + ".\n"


def _figure_rows(figures: Iterable[Figure]) -> Iterator[tuple[str, ...]]:
    for figure in figures:
        yield figure.what, figure.value_text, figure.target_text, figure.verdict_text, figure.detail


def _contest(outcome: Outcome) -> Iterator[str]:
    contestants = {one.name: one for one in outcome.contest.contestants}
    for cell in outcome.cells():
        yield f"{place(cell[OURS])}, {_pass_text(outcome.contest)}:\n"
        rows = [_row(outcome, contestants[name], cell) for name in cell]
        yield _table(("", "statement", "time", "theirs / ours", "peak above inputs", "theirs / ours", "rounds"), rows)
    for name, reason in outcome.excluded.items():
        yield f"- **{name}** was not timed: {reason}\n"
    for one in outcome.contest.contestants:
        if one.package is not None or one.convention:
            version = f"{one.package} {one.version or 'not installed'}" if one.package else ""
            yield f"- {': '.join(filter(None, [one.name if one.package is None else version, one.convention]))}\n"
    for note in () if outcome.benchmark is None else outcome.benchmark.notes:
        yield f"- note: {note}\n"


def _pass_text(contest: Contest) -> str:
    return "forward and backward" if contest.pass_name == "full" else contest.pass_name


def _row(outcome: Outcome, contestant: Contestant, cell: Mapping[str, Measurement]) -> tuple[str, ...]:
    ours, row = cell[OURS], cell[contestant.name]
    rounds = str(len(row.seconds_per_call)) if row.seconds_per_call else f"{row.status}: {row.reason}"
    if row is ours or outcome.benchmark is None:
        return contestant.name, f"`{contestant.statement}`", milliseconds(row), "", mebibytes(row), "", rounds
    ratio, peak = speedup(ours, row, outcome.benchmark.seed), peak_ratio(ours, row)
    return (
        contestant.name,
        f"`{contestant.statement}`",
        milliseconds(row),
        "-" if ratio is None else f"{ratio.speedup:.3g}x ({ratio.low:.3g} to {ratio.high:.3g})",
        mebibytes(row),
        "-" if peak is None else f"{peak:.3g}x",
        rounds,
    )


def _environment(under: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in under.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}: {key}", _plain(inner)) for key, inner in value.items())
        elif value is not None:
            yield name, _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={inner}" for key, inner in value.items()) or "none"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def write(
    folder: Path,
    figures: Sequence[Figure],
    outcomes: Sequence[Outcome],
    rounds: Sequence[Round],
    under: Mapping[str, Any],
    command: str,
) -> None:
    """``comparison.md``, ``figures.csv``, ``costs.csv`` and ``rounds.csv`` in a folder, which is made where it is missing.

    Args:
        folder: where to.
        figures: all of them.
        outcomes: of the contests.
        rounds: raw rounds of figures that are about no contest.
        under: what was measured under.
        command: what made it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.md").write_text(markdown(figures, outcomes, under, command), encoding="utf-8")
    measured = [(outcome, row) for outcome in outcomes for cell in outcome.cells() for row in cell.values()]
    raw = [*rounds, *(line for outcome, row in measured for line in _rounds(outcome, row))]
    _csv(folder / "figures.csv", FIGURE_FIELDS, map(_figure_fields, figures))
    _csv(folder / "costs.csv", COST_FIELDS, (_cost_fields(outcome, row) for outcome, row in measured))
    _csv(folder / "rounds.csv", ROUND_FIELDS, ((*place, f"{seconds:.9g}") for *place, seconds in raw))


def _figure_fields(figure: Figure) -> tuple[object, ...]:
    ends = (figure.value, figure.low, figure.high)
    return figure.what, *ends, figure.unit, figure.target_text, figure.verdict, figure.is_open, figure.reason


def _cost_fields(outcome: Outcome, row: Measurement) -> tuple[object, ...]:
    costs = row.costs
    exact = (costs.get("peak_bytes"), row.moved_bytes, costs.get("saved_bytes"), costs.get("aten_calls"))
    return outcome.contest.name, place(row), row.pass_name, row.implementation, row.status, *exact


def _rounds(outcome: Outcome, row: Measurement) -> Iterator[Round]:
    for process, seconds in zip(row.process, row.seconds_per_call, strict=True):
        yield outcome.contest.name, place(row), row.pass_name, row.implementation, process, seconds


def _csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
