"""Several reports side by side: what each says, and what became of each loss from one to the next.

A folder that holds no report that can be read is no reason to show none: it stands in the index with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from harness.judging import diff
from harness.judging.speed import elements, main_comparisons, place_of
from harness.report.diff_text import cost_change_text
from harness.report.view import verdict_counts
from harness.results.measured import Comparison, Measurement
from harness.results.schema import LossRecord, Report, VerdictRecord, loads
from harness.results.words import causes

T = TypeVar("T", Comparison, Measurement)

# Exact costs of one call that a history shows.
COSTS = ("aten_calls", "saved_bytes", "peak_bytes")
# Of what changed in one loss, so many sentences of a kind; the rest is counted.
MOST_CHANGES = 5


@dataclass(frozen=True)
class Entry:
    """One report: ``folder`` is where it lies, as seen from the index, ``page`` what to open there."""

    folder: str
    page: str
    report: Report

    @property
    def torch(self) -> str:
        """Versions of torch that it was made with."""
        return ", ".join(dict.fromkeys(str(each.get("torch") or "unknown") for each in self._environments()))

    @property
    def hardware(self) -> str:
        """What it ran on, by name."""
        names = []
        for device, each in zip(self.report.devices, self._environments(), strict=True):
            gpu = each.get("gpu")
            known = gpu.get("name") if isinstance(gpu, Mapping) and device.startswith("cuda") else each.get("cpu")
            names.append(f"{device}: {known}" if known else device)
        return "; ".join(names)

    @property
    def verdicts(self) -> dict[str, int]:
        """How many implementations have each verdict."""
        return verdict_counts(self.report)

    @property
    def errors(self) -> int:
        """Errors that follow from no other and are not accepted."""
        return sum(len(causes(loss, "error")) for loss in self.report.losses)

    @property
    def missing(self) -> int:
        """Losses that did not run to their end."""
        return sum(bool(loss.missing) for loss in self.report.losses)

    def _environments(self) -> list[Mapping[str, object]]:
        found = [self.report.environment.get(device) for device in self.report.devices]
        return [each if isinstance(each, Mapping) else {} for each in found]


@dataclass(frozen=True)
class Unread:
    """A file or folder that holds no report that can be read, and why."""

    folder: str
    reason: str


@dataclass(frozen=True)
class State:
    """One implementation in one report.

    ``comparison`` is its speedup at the largest input, which stands in ``place``; ``costs`` are the exact costs of that
    call, or of the largest that was measured, in the pass ``costs_pass`` at ``costs_place``.
    """

    entry: Entry
    verdict: VerdictRecord
    errors: int
    warnings: int
    comparison: Comparison | None
    costs: Mapping[str, int]
    costs_pass: str
    place: str
    costs_place: str


@dataclass(frozen=True)
class Step:
    """What changed in a loss from one report to the next: one sentence each; empty where nothing did."""

    old: Entry
    new: Entry
    changes: tuple[str, ...]


@dataclass(frozen=True)
class History:
    """A loss through the reports: its implementations one after the other, each newest first; steps newest first.

    ``now`` are the states of the newest report that has the loss.
    """

    loss: str
    states: tuple[State, ...]
    now: tuple[State, ...]
    steps: tuple[Step, ...]


def gather(folders: Sequence[Path], index: Path) -> tuple[list[Entry], list[Unread]]:
    """Every report in the folders and below them, newest first, and what cannot be read.

    Args:
        folders: to look in; hidden folders below them are passed over.
        index: the file of the index, from which places are named.
    """
    entries: list[Entry] = []
    unread: list[Unread] = []
    for folder in folders:
        files = _reports(folder)
        if not files:
            unread.append(Unread(_from(index, folder), "holds no report.json; `loss-harness report --out` writes one"))
        for file in files:
            place = _from(index, file.parent)
            try:
                report = loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                unread.append(Unread(_from(index, file), str(error)))
                continue
            entries.append(Entry(place, f"{place}/{_page(file)}", report))
    unique = list({entry.page: entry for entry in entries}.values())
    return sorted(unique, key=lambda entry: (entry.report.made, entry.folder), reverse=True), unread


def _reports(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    below = (file.relative_to(folder) for file in folder.rglob("report.json"))
    return sorted(folder / file for file in below if not any(part.startswith(".") for part in file.parts[:-1]))


def _page(file: Path) -> str:
    """What a person would open of the report in this file."""
    pages = (file.with_name(name) for name in ("report.html", "report.md"))
    return next((page.name for page in pages if page.is_file()), file.name)


def _from(index: Path, path: Path) -> str:
    """A path relative to the index, with forward slashes."""
    return Path(os.path.relpath(path, index.parent)).as_posix()


def histories(entries: Sequence[Entry]) -> list[History]:
    """Every loss of the reports, in the order in which the newest ones have them."""
    names = dict.fromkeys(loss.name for entry in entries for loss in entry.report.losses)
    return [
        _history(name, [(e, loss) for e in entries for loss in e.report.losses if loss.name == name]) for name in names
    ]


def _history(name: str, found: Sequence[tuple[Entry, LossRecord]]) -> History:
    every = [_state(entry, loss, verdict) for entry, loss in found for verdict in loss.verdicts]
    names = list(dict.fromkeys(state.verdict.implementation for state in every))
    states = sorted(every, key=lambda state: names.index(state.verdict.implementation))
    steps = [Step(old, new, tuple(_changes(name, old, new))) for (new, _), (old, _) in pairwise(found)]
    now = tuple(state for state in states if state.entry is found[0][0])
    return History(name, tuple(states), now, tuple(steps))


def _state(entry: Entry, loss: LossRecord, verdict: VerdictRecord) -> State:
    name = verdict.implementation
    compared = [c for c in main_comparisons(loss) if c.implementation == name and c.speedup is not None]
    measured = [m for m in loss.measurements if m.implementation == name and m.costs]
    comparison, call = _largest(compared), _largest(measured)
    if comparison is not None:
        call = next((m for m in measured if place_of(m) == place_of(comparison)), call)
    errors, warnings = (sum(f.implementation == name for f, _ in causes(loss, s)) for s in ("error", "warning"))
    counted = {} if call is None else call.costs
    known = {cost: count for cost in COSTS if (count := counted.get(cost)) is not None}
    return State(
        entry=entry,
        verdict=verdict,
        errors=errors,
        warnings=warnings,
        comparison=comparison,
        costs=known,
        costs_pass=call.pass_name if call is not None and known else "",
        place=_place(comparison),
        costs_place=_place(call if known else None),
    )


def _place(record: Comparison | Measurement | None) -> str:
    return ", ".join(reversed(place_of(record))) if record is not None else ""


def _largest(records: Iterable[T]) -> T | None:
    """At the most elements; of equal ones the longest pass, which stands last."""
    return max(reversed(list(records)), key=lambda record: elements(record.sizes), default=None)


def _changes(name: str, old: Entry, new: Entry) -> list[str]:
    """What changed in one loss between two reports: verdicts, what broke or was mended, exact costs."""
    before, after = (diff.only(entry.report, (name,)) for entry in (old, new))
    changes = list(_verdict_changes(before, after))
    try:
        found = diff.compare(before, after)
    except diff.NotComparableError as error:
        return [*changes, f"exact costs are not compared: {error}"]
    changes += _some([f"new: {text}" for text in found.broken])
    changes += _some([f"mended: {text}" for text in found.mended])
    changes += _some([cost_change_text(change) for change in found.costs])
    return changes


def _verdict_changes(before: Report, after: Report) -> Iterable[str]:
    old, new = ({v.implementation: v.verdict for v in report.losses[0].verdicts} for report in (before, after))
    for implementation in dict.fromkeys([*new, *old]):
        was, became = old.get(implementation), new.get(implementation)
        if was is None:
            yield f"{implementation} came in: {became}"
        elif became is None:
            yield f"{implementation} is gone; it was: {was}"
        elif was != became:
            yield f"{implementation}: {was} before, {became} now"


def _some(sentences: Sequence[str]) -> list[str]:
    left = len(sentences) - MOST_CHANGES
    return [*sentences[:MOST_CHANGES], *([f"and {left} more"] if left > 0 else [])]
