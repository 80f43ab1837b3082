"""Where the time of the checks went, rule by rule."""

from __future__ import annotations

from collections.abc import Sequence

from harness.results.schema import CheckTimeRecord, Report
from harness.results.words import seconds_text, table

WORTH_A_ROW = 0.01


def check_times_text(report: Report) -> str:
    """A table of the rules that took longest, the rest, all of them, and the share of the loss and autograd in it."""
    times = [time for loss in report.losses for time in loss.check_times]
    if not times:
        return ""
    by_rule: dict[str, list[CheckTimeRecord]] = {}
    for time in times:
        by_rule.setdefault(time.rule, []).append(time)
    ordered = sorted(by_rule.items(), key=lambda pair: -sum(time.seconds for time in pair[1]))
    header = ["rule", "time", "evaluations", "in the loss", "in autograd", "watched", "elsewhere"]
    total = sum(time.seconds for time in times)
    long = [(rule, found) for rule, found in ordered if sum(time.seconds for time in found) >= WORTH_A_ROW * total]
    rest = [time for _, found in ordered[len(long) :] for time in found]
    rows = [header, *(_row(rule, found) for rule, found in long)]
    rows += [_row(f"{len(ordered) - len(long)} others", rest)] if rest else []
    rows.append(_row("all", times))
    return f"{table(rows)}\n{loss_share(times):.0%} of the time is the loss and autograd"


def loss_share(times: Sequence[CheckTimeRecord]) -> float:
    """The part of the time that is spent inside the user's loss and autograd; 0 where nothing was measured."""
    total = sum(time.seconds for time in times)
    return sum(time.loss_seconds + time.autograd_seconds for time in times) / total if total else 0.0


def _row(rule: str, times: Sequence[CheckTimeRecord]) -> list[str]:
    total, loss, autograd, watched = (
        sum(getattr(time, name) for time in times)
        for name in ("seconds", "loss_seconds", "autograd_seconds", "watched_seconds")
    )
    seconds = [seconds_text(s) for s in (loss, autograd, watched, total - loss - autograd - watched)]
    return [rule, seconds_text(total), str(sum(time.evaluations for time in times)), *seconds]
