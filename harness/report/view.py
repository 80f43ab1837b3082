"""What the HTML report shows of each loss, made from the records: rows, counts and findings, ready for the templates."""

from __future__ import annotations

import ast
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.judging.choice import choose
from harness.judging.speed import main_comparisons, place_of
from harness.report.page import anchor
from harness.report.text import reasons
from harness.results.findings import SEVERITIES, STATUSES, Finding, Outcome
from harness.results.measured import Comparison
from harness.results.schema import (
    ADOPT,
    CAVEATS,
    DO_NOT_ADOPT,
    INCONCLUSIVE,
    REFERENCE,
    LossRecord,
    Report,
    VerdictRecord,
    plain,
)
from harness.results.words import causes, plural

WORST_FIRST = (DO_NOT_ADOPT, INCONCLUSIVE, CAVEATS, ADOPT, REFERENCE)

# By the letter of a rule's code, in the order in which the rules are explained.
GROUPS = {
    "G": "gradients",
    "B": "shapes",
    "D": "dtypes",
    "C": "context",
    "L": "laws",
    "S": "state",
    "E": "equivalence",
    "T": "transforms",
    "P": "costs",
    "X": "crashes",
}
_NOT_PASSED = ("crashed", "timed out", "waived", "skipped", "inapplicable")


@dataclass(frozen=True)
class Row:
    """One line of the overview: an implementation of a loss.

    ``memory`` is its peak memory over the reference's, at the call for which the reference takes most.
    """

    loss: str
    anchor: str
    verdict: VerdictRecord
    counts: Mapping[str, int]
    rules: tuple[str, ...]
    worst: Comparison | None
    best: Comparison | None
    memory: float | None
    memory_at: str

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        return sentence(self.verdict)


def sentence(verdict: VerdictRecord) -> str:
    """The verdict in one sentence: its own, or its first reason where an older version wrote none."""
    return verdict.sentence or next(iter(verdict.reasons), "")


def ordered(report: Report) -> list[LossRecord]:
    """The losses, those with the worst verdict first, else in their order."""
    return sorted(report.losses, key=_worst)


def _worst(loss: LossRecord) -> int:
    found = [WORST_FIRST.index(DO_NOT_ADOPT if loss.is_wrong(v.implementation) else v.verdict) for v in loss.verdicts]
    return min(found, default=WORST_FIRST.index(INCONCLUSIVE))


def rows(report: Report) -> list[Row]:
    """The overview: the losses in the order of the page, their implementations in that of the choice."""
    made = []
    for loss in ordered(report):
        verdicts = {verdict.implementation: verdict for verdict in loss.verdicts}
        made += [_row(loss, verdicts[option.implementation]) for option in choose(loss).options]
    return made


def worst_rows(report: Report) -> list[Row]:
    """Of each loss the implementation with the worst verdict: what one looks for among many."""
    made = []
    for loss in ordered(report):
        if loss.verdicts:
            made.append(_row(loss, min(loss.verdicts, key=lambda verdict: WORST_FIRST.index(verdict.verdict))))
    return made


def _row(loss: LossRecord, verdict: VerdictRecord) -> Row:
    name = verdict.implementation
    groups = [(f, after) for severity in SEVERITIES for f, after in causes(loss, severity) if f.implementation == name]
    known = [c for c in main_comparisons(loss) if c.implementation == name and c.speedup is not None]
    ordered = sorted(known, key=lambda c: c.speedup or 0.0)
    memory, memory_at = _memory(loss, name)
    return Row(
        loss=loss.name,
        anchor=anchor("loss", loss.name),
        verdict=verdict,
        counts={severity: sum(f.severity == severity for f, _ in groups) for severity in SEVERITIES},
        rules=tuple(sorted({f.rule for f in loss.findings if f.implementation == name})),
        worst=ordered[0] if ordered else None,
        best=ordered[-1] if ordered else None,
        memory=memory,
        memory_at=memory_at,
    )


def _memory(loss: LossRecord, implementation: str) -> tuple[float | None, str]:
    """Peak memory over the reference's where the reference takes most, and where that is."""
    peaks = {(m.implementation, place_of(m)): peak for m in loss.measurements if (peak := m.costs.get("peak_bytes"))}
    mine = {place: peak for (name, place), peak in peaks.items() if name == implementation}
    shared = {place: peaks[loss.reference, place] for place in mine if (loss.reference, place) in peaks}
    if implementation == loss.reference or not shared:
        return None, ""
    place = max(shared, key=lambda each: shared[each])
    return mine[place] / shared[place], f"{place[1]}, {place[0]}"


def verdict_counts(report: Report) -> dict[str, int]:
    """How many implementations have each verdict, the worst first."""
    return counted(verdict.verdict for loss in report.losses for verdict in loss.verdicts)


def counted(verdicts: Iterable[str]) -> dict[str, int]:
    """How often each verdict comes, the worst first."""
    found = Counter(verdicts)
    return {verdict: found.get(verdict, 0) for verdict in WORST_FIRST}


def headline(report: Report) -> str:
    """The whole report in one sentence."""
    counts = verdict_counts(report)
    judged = sum(counts.values()) - counts[REFERENCE]
    wrong = sum(loss.is_wrong(loss.reference) for loss in report.losses if loss.reference)
    if not judged:
        return "No implementation was judged" if not wrong else f"{plural(wrong, 'reference')} must be mended"
    if not counts[DO_NOT_ADOPT] and not counts[INCONCLUSIVE]:
        first = _of(counts[ADOPT] + counts[CAVEATS], judged, "can be adopted")
        more = [_caveats(counts[CAVEATS], judged)] if counts[CAVEATS] else []
    else:
        parts = (
            (counts[DO_NOT_ADOPT], "must not be adopted"),
            (counts[INCONCLUSIVE], "cannot be judged yet"),
            (counts[CAVEATS], "can be adopted with caveats"),
            (counts[ADOPT], "can be adopted"),
        )
        first, *more = (
            _of(n, judged, what) if position == 0 else f"{n} {what}"
            for position, (n, what) in enumerate((n, what) for n, what in parts if n)
        )
    more += [f"{plural(wrong, 'reference')} must be mended"] if wrong else []
    return ", ".join([first, *more])


def _of(count: int, judged: int, what: str) -> str:
    if judged == 1:
        return f"The implementation {what}"
    return f"All {judged} implementations {what}" if count == judged else f"{count} of {judged} implementations {what}"


def _caveats(count: int, judged: int) -> str:
    return "with caveats" if count == judged else f"{count} of them with caveats"


@dataclass(frozen=True)
class Picture:
    """A small tensor as a grid: ``rows`` of (value, look), where a look is ``up``, ``down``, ``zero`` or ``bad``."""

    name: str
    shape: str
    rows: tuple[tuple[tuple[str, str], ...], ...]


@dataclass(frozen=True)
class FindingView:
    """A finding in its parts: what came and should have come, the smallest input, what else is known, how to mend it.

    ``pictures`` has the tensors of the smallest input, and ``sizes`` its sizes, where all of it can be drawn.
    """

    record: Finding
    anchor: str
    followers: tuple[Finding, ...]
    statement: str
    smallest_input: str
    note: str
    replay: str
    sizes: str = ""
    pictures: tuple[Picture, ...] = ()


def findings(loss: LossRecord, severity: str, folder: str) -> list[FindingView]:
    """Findings of a severity that follow from no other and are not accepted, with what follows from them."""
    views = []
    for finding, followers in causes(loss, severity):
        statement, smallest_input, note = _parts(finding)
        sizes, pictures = _drawn(smallest_input) if severity != "note" else ("", ())
        views.append(
            FindingView(
                record=finding,
                anchor=anchor("finding", loss.name, finding.implementation, finding.rule, finding.failure),
                followers=followers,
                statement=statement,
                smallest_input=smallest_input,
                note=note,
                replay=replay(finding, folder),
                sizes=sizes,
                pictures=pictures,
            )
        )
    return views


def replay(finding: Finding, folder: str) -> str:
    """The command that runs a stored failure again; empty where none was stored."""
    return f"loss-harness replay {shlex.quote(f'{folder}/failures/{finding.failure}')}" if finding.failure else ""


def _parts(finding: Finding) -> tuple[str, str, str]:
    """The message before the line of its input, that line, and what stands after it, without the way to mend it."""
    body = finding.body.replace(f"fix: {finding.hint}", "") if finding.hint else finding.body
    sizes = (finding.case or {}).get("sizes") or {}
    lines = body.splitlines()
    starts = tuple(f"{name}=" for name in sizes)
    at = next((number for number, line in enumerate(lines) if number and starts and line.startswith(starts)), None)
    if at is None:
        return body.strip(), "", ""
    return "\n".join(lines[:at]).strip(), lines[at], "\n".join(lines[at + 1 :]).strip()


_NAMED = re.compile(r"(?:^|, )([^\W\d][\w.]*)=")
_LARGE = re.compile(
    r"(?:^|, )([^\W\d][\w.]* of shape \[[\d, ]*\])"
)  # as `harness.rules.tools.reproduce.shown` writes it
_UNREADABLE = {"-math.inf": "'-inf'", "math.inf": "'inf'", "math.nan": "'nan'"}


def _drawn(line: str) -> tuple[str, tuple[Picture, ...]]:
    """(sizes, tensors) of a line such as ``B=2, x=[[1., 0.]]``; nothing where a part of it is neither."""
    _, *parts = _NAMED.split(_LARGE.sub("", line))
    sizes, pictures = [], []
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        for word, readable in _UNREADABLE.items():
            text = text.replace(word, readable)
        try:
            value = ast.literal_eval(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return "", ()
        if isinstance(value, list):
            pictures.append(Picture(name, *_grid(value)))
        else:
            sizes.append(f"{name}={text}")
    return ", ".join([*sizes, *_LARGE.findall(line)]), tuple(pictures)


def _grid(value: list[Any]) -> tuple[str, tuple[tuple[tuple[str, str], ...], ...]]:
    """(shape, rows) of nested lists: axes before the last two stand below each other."""
    shape: list[int] = []
    inner: Any = value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    rows = [value] if len(shape) == 1 else value
    for _ in shape[2:]:
        rows = [row for block in rows for row in block]
    return "×".join(map(str, shape)), tuple(tuple((_number(v), _look(v)) for v in row) for row in rows)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _look(value: Any) -> str:
    if not isinstance(value, (bool, int, float)):
        return "bad"
    return "up" if value > 0 else "down" if value < 0 else "zero"


@dataclass(frozen=True)
class Checks:
    """What became of the rules for one implementation on one device, counted by group.

    A rule that failed counts under the severity of its gravest finding, or as accepted where the baseline has it.
    """

    implementation: str
    device: str
    planned: int
    examples: int
    groups: Mapping[str, Mapping[str, int]]


def checks(loss: LossRecord) -> list[Checks]:
    """One row an implementation and device; their numbers add up to what was planned."""
    made = []
    for name in loss.implementations:
        for device in loss.devices:
            mine = [o for o in loss.outcomes if (o.implementation, o.device) == (name, device)]
            groups = {}
            for group in groups_of(loss):
                counts = Counter(_became(loss, o) for o in mine if _group(o.rule) == group)
                groups[group] = {word: counts[word] for word in _BECAME if word in counts}
            made.append(Checks(name, device, len(mine), sum(o.examples for o in mine), groups))
    return made


_BECAME = ("passed", "error", "warning", "note", "accepted", *STATUSES[1:])


def _became(loss: LossRecord, outcome: Outcome) -> str:
    if outcome.status != "failed":
        return outcome.status
    place = (outcome.implementation, outcome.rule, outcome.device)
    found = [f for f in loss.findings if (f.implementation, f.rule, f.device) == place]
    grave = [severity for severity in SEVERITIES if any(f.severity == severity and not f.accepted for f in found)]
    return grave[0] if grave else "accepted" if found else outcome.status


def groups_of(loss: LossRecord) -> list[str]:
    """The groups of rules that were planned, in order."""
    found = {_group(outcome.rule) for outcome in loss.outcomes}
    return [group for group in (*GROUPS.values(), "other") if group in found]


def _group(rule: str) -> str:
    return GROUPS.get(rule[:1], "other")


def not_passed(loss: LossRecord) -> list[list[str]]:
    """Rows of what neither passed nor failed and why: the same for several implementations is one row."""
    made: list[list[str]] = []
    for status in _NOT_PASSED:
        shared: dict[tuple[str, str, str], list[str]] = {}
        for (implementation, device, reason), codes in reasons(loss, status).items():
            shared.setdefault((", ".join(codes), device, reason), []).append(implementation)
        made += [[codes, ", ".join(names), device, status, why] for (codes, device, why), names in shared.items()]
    return made


def rules_found(report: Report) -> dict[str, str]:
    """Code -> title of every rule that found something."""
    found = {finding.rule: finding.title for loss in report.losses for finding in loss.findings}
    return dict(sorted(found.items()))


def environment_rows(report: Report) -> list[tuple[str, str]]:
    """Settings under which it was made, below a header: once what devices and timing share, else with whose it is."""
    kept = {name: found for name, found in plain(report.environment).items() if name != "calibration"}
    settings: dict[str, dict[str, str]] = {}
    for whose, found in kept.items():
        for name, value in _flat(found):
            settings.setdefault(name, {})[whose] = value
    rows = [("setting", "value")]
    for name, values in settings.items():
        if len(values) == len(kept) and len(set(values.values())) == 1:
            rows.append((name, next(iter(values.values()))))
        else:
            rows += [(f"{whose}.{name}".strip("."), value) for whose, value in values.items()]
    return rows


def _flat(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows of a name with dots and a value."""
    if isinstance(value, dict):
        return [row for key, item in value.items() for row in _flat(item, f"{prefix}.{key}".strip("."))]
    if isinstance(value, list):
        return [(prefix, ", ".join(map(str, value)) or "none")]
    return [(prefix, "unknown" if value is None else str(value))]
