"""A difference of two reports for people: the terminal and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from harness.judging.diff import CostChange, Difference, TimeChange
from harness.judging.speed import speedup_text
from harness.report.markdown import escaped
from harness.report.markdown import table as markdown_table
from harness.results.measured import Comparison
from harness.results.words import plural, printable, seconds_text, table

# What a median of an unpaired run moves by on a machine that does other things too; below it a line says nothing.
TOLD_FROM = 1.1


def text(difference: Difference, *, verbose: bool = False) -> str:
    """The difference for the terminal; ``verbose`` tells what shrank or was added too, and every time."""
    sections = [_section(title, rows, table, printable) for title, rows in parts(difference, verbose)]
    return "\n\n".join([*sections, *map(printable, remarks(difference, verbose)), summary(difference)]) + "\n"


def markdown(difference: Difference, *, verbose: bool = False) -> str:
    """The difference for a pull request, the summary first."""
    head = f"**{escaped(summary(difference))}**"
    sections = [_section(f"### {title}\n", rows, markdown_table, escaped) for title, rows in parts(difference, verbose)]
    return "\n\n".join([head, *sections, *map(escaped, remarks(difference, verbose))]) + "\n"


def summary(difference: Difference) -> str:
    """One sentence: what grew and broke, of how much that was compared."""
    grew, broke = len(difference.regressions), len(difference.broken)
    compared = plural(difference.compared, "exact cost")
    missing = (
        f"; {plural(len(difference.gone), 'measurement')} of the old report not in the new one"
        if difference.gone
        else ""
    )
    if difference.ok:
        changed = (
            f"{len(difference.costs)} fell or grew by no more than is allowed" if difference.costs else "none changed"
        )
        return f"no regression: {compared} compared, {changed}{missing}"
    return f"regression: {grew} of {compared} grew, {broke} broke{missing}"


def _section(
    title: str,
    rows: Sequence[Sequence[str]],
    in_table: Callable[[Sequence[Sequence[str]]], str],
    shown: Callable[[str], str],
) -> str:
    if len(rows[0]) == 1:
        return "\n".join([title, *(f"- {shown(row[0])}" for row in rows)])
    return f"{title}\n{in_table(rows)}"


def parts(difference: Difference, verbose: bool) -> Iterator[tuple[str, list[list[str]]]]:
    """Title and rows of each part that has something to say; rows of one cell are a list."""
    where = ["loss", "implementation", "setting", "size"]
    if difference.broken:
        yield "Broken", [[sentence] for sentence in difference.broken]
    if difference.regressions:
        yield (
            "Exact costs that grew",
            [[*where, "cost", "old", "new", "change"], *map(_cost_row, difference.regressions)],
        )
    others = [change for change in difference.costs if not change.is_regression]
    if others and verbose:
        yield "Other exact costs that changed", [[*where, "cost", "old", "new", "change"], *map(_cost_row, others)]
    told = [change for change in difference.times if verbose or _is_worth_telling(change)]
    if told:
        header = [*where, "old", "new", "new / old", "old speedup", "new speedup", ""]
        yield "Times (evidence, no gate)", [header, *map(_time_row, told)]
    if difference.mended and verbose:
        yield "Mended (what the old report said)", [[sentence] for sentence in difference.mended]
    for title, places in (("Only in the old report", difference.gone), ("Only in the new report", difference.added)):
        if places and verbose:
            yield title, [[place] for place in places]


def remarks(difference: Difference, verbose: bool) -> Iterator[str]:
    """What else a reader must know, one sentence each."""
    if difference.times_apart:
        yield f"times are not compared: {difference.times_apart}"
    if not verbose and (difference.gone or difference.added):
        yield (
            f"only in the old report: {plural(len(difference.gone), 'measurement')}; only in the new one: "
            f"{len(difference.added)}; -v lists them"
        )


def _is_worth_telling(change: TimeChange) -> bool:
    ratio = change.new_seconds / change.old_seconds
    return change.is_shifted and max(ratio, 1 / ratio) > TOLD_FROM


def cost_change_text(change: CostChange) -> str:
    """One cost that changed, in a sentence."""
    _, implementation, setting, size = change.place
    grew = "grew" if change.new > change.old else "fell"
    return f"{implementation}: {change.metric} {grew} from {change.old} to {change.new} ({_part(change)}) at {size}, {setting}"


def _cost_row(change: CostChange) -> list[str]:
    return [*change.place, change.metric, str(change.old), str(change.new), _part(change)]


def _part(change: CostChange) -> str:
    return f"{(change.new - change.old) / change.old:+.2%}" if change.old else "from nothing"


def _time_row(change: TimeChange) -> list[str]:
    times = [seconds_text(change.old_seconds), seconds_text(change.new_seconds)]
    speedups = [_speedup(change.old_speedup), _speedup(change.new_speedup)]
    return [
        *change.place,
        *times,
        f"{change.new_seconds / change.old_seconds:.2f}",
        *speedups,
        "intervals apart" if change.is_shifted else "",
    ]


def _speedup(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    return f"{speedup_text(comparison.speedup)} ({speedup_text(comparison.low)} to {speedup_text(comparison.high)})"
