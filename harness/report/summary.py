"""A summary in Markdown for a pull request or the summary page of a CI job: verdicts, errors, what changed.

`report.md` is the long form.  This one fits on a screen as far as it can, and always into a comment on GitHub; what does not
fit is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.judging import diff
from harness.report import diff_text, view
from harness.report.markdown import escaped, fenced
from harness.report.text import place_text, totals_text
from harness.results.findings import Finding
from harness.results.schema import REFERENCE, LossRecord, Report, VerdictRecord
from harness.results.words import causes, plural

LIMIT = 65_536  # characters of a comment on GitHub
ROWS = 20
WORDS = 240  # characters of a cell that says why, and of a line about a warning
WARNINGS = 50
# One finding must not take the place of all others; the reproduction stands in the report.
LONGEST = 6_000


def render(report: Report, *, against: Report | None = None, whole: str = "", limit: int = LIMIT) -> str:
    """The text of the summary.

    Args:
        report: what to show.
        against: an earlier report of the same losses; what changed since is told.
        whole: where everything stands, such as the name of a file.
        limit: of characters; the last parts that do not fit are left out and counted.
    """
    foot = _foot(report, whole)
    parts = [_head(report), _table(report), *_notes(report)]
    parts += [] if against is None else [_changes(against, report)]
    details = [_detail(*found) for found in _found(report, "error")]
    warned = list(_found(report, "warning"))
    details += [_brief(warned)] if warned else []
    return _fitted(parts, details, foot, limit)


def _fitted(parts: Sequence[str], details: Sequence[str], foot: str, limit: int) -> str:
    """All parts and as many details as fit; parts are cut only where they alone are too long."""
    told = "\n\n".join(parts)
    room = limit - len(foot) - 200  # for the line that counts what is left out
    if len(told) > room:
        told = told[:room].rpartition("\n")[0] + "\n\n… cut here, to fit into a comment."
    kept = 0
    for detail in details:
        if len(told) + len(detail) + 2 > room:
            break
        told += f"\n\n{detail}"
        kept += 1
    if kept < len(details):
        told += f"\n\n{plural(len(details) - kept, 'more finding')} not shown here, to fit into a comment."
    return f"{told}\n\n{foot}\n"


def _head(report: Report) -> str:
    counts = view.verdict_counts(report)
    judged = ", ".join(f"{n} {word}" for word, n in counts.items() if n and word != REFERENCE) or "nothing to adopt"
    return f"### loss-harness: {judged}\n\n{escaped(totals_text(report))}"


def _notes(report: Report) -> Iterator[str]:
    for loss in report.losses:
        if loss.missing:
            yield f"**Not complete:** {_quiet(loss.name)}: {_quiet(loss.missing)}"
    yield from map(_quiet, report.notes)


def _table(report: Report) -> str:
    """A row an implementation, what needs attention first; references with nothing to say are left out."""
    rows = [(loss, verdict) for loss in report.losses for verdict in loss.verdicts if not _is_plain(loss, verdict)]
    rows.sort(key=lambda row: view.WORST_FIRST.index(row[1].verdict))
    lines = ["| loss | implementation | verdict | why |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(map(_quiet, _row(*row)))} |" for row in rows[:ROWS]]
    more = view.counted(verdict.verdict for _, verdict in rows[ROWS:])
    counted = ", ".join(f"{n} {word}" for word, n in more.items() if n)
    lines += [f"\n{plural(sum(more.values()), 'more implementation')}: {counted}."] if counted else []
    return "\n".join(lines) if rows else "No loss was judged."


def _is_plain(loss: LossRecord, verdict: VerdictRecord) -> bool:
    return verdict.verdict == REFERENCE and not loss.is_wrong(verdict.implementation)


def _row(loss: LossRecord, verdict: VerdictRecord) -> tuple[str, ...]:
    return loss.name, verdict.implementation, verdict.verdict, _clipped(view.sentence(verdict))


def _found(report: Report, severity: str) -> Iterator[tuple[Finding, tuple[Finding, ...]]]:
    for loss in report.losses:
        yield from causes(loss, severity)


def _detail(finding: Finding, followers: Sequence[Finding]) -> str:
    """One finding, closed: its smallest input, the code that shows it, what follows from it."""
    parts = [fenced(_short(finding.body or finding.header), "text")]
    if finding.hint and finding.hint not in finding.message:
        parts.append(_quiet(_short(finding.hint)))
    if finding.reproduction:
        parts.append(fenced(_short(finding.reproduction), "python"))
    parts += [f"Follows: {', '.join(_quiet(place_text(follower)) for follower in followers[:10])}"] if followers else []
    title = f"{finding.severity}: {_quiet(_short(finding.header))}"
    return "\n\n".join([f"<details><summary>{title}</summary>", *parts, "</details>"])


def _brief(found: Sequence[tuple[Finding, tuple[Finding, ...]]]) -> str:
    """Warnings in a closed list, a line each; how to repeat them stands in the report."""
    lines = [f"- {_quiet(_clipped(f.header))}: {_quiet(_clipped(f.fact))}" for f, _ in found[:WARNINGS]]
    more = [f"- and {len(found) - WARNINGS} more"] if len(found) > WARNINGS else []
    title = plural(len(found), "warning")
    return "\n".join([f"<details><summary>{title}</summary>", "", *lines, *more, "", "</details>"])


def _clipped(text: str) -> str:
    return text if len(text) <= WORDS else f"{text[:WORDS]}…"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n… {len(text) - LONGEST} more characters"


def _changes(old: Report, new: Report) -> str:
    try:
        found = diff.compare(old, new)
    except diff.NotComparableError as error:
        return f"**Not compared with the earlier report:** {_quiet(error)}"
    head, _, rest = diff_text.markdown(found).strip().partition("\n\n")
    told = f"Since the earlier report: {_calm(head)}"
    return f"{told}\n\n<details><summary>What changed</summary>\n\n{_calm(rest)}\n\n</details>" if rest else told


def _foot(report: Report, whole: str) -> str:
    made = f"loss-harness {report.tool}, profile {report.profile}, seed {report.seed}, on {', '.join(report.devices)}"
    return f"<sub>{_quiet(made)}{f'; everything stands in {_quiet(whole)}' if whole else ''}</sub>"


def _quiet(text: object) -> str:
    """Escaped text in which a name is no mention of a person and a number no link to an issue."""
    return _calm(escaped(text))


def _calm(markup: str) -> str:
    return re.sub(r"(@|(?<!&)#)(?=\w)", r"\1&#8203;", markup)
