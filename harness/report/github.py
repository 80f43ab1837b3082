"""Findings as annotations of GitHub Actions: lines that the runner shows beside the code in a pull request.

    ::error file=losses/dice.py,line=12,title=G01 ...::message

Source: GitHub Docs, Workflow commands for GitHub Actions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.judging.speed import input_text, setting_text
from harness.report.places import place
from harness.results.findings import SEVERITIES, Finding, Severity
from harness.results.rule_texts import heading
from harness.results.schema import LossRecord, Report, SourceRecord
from harness.results.words import causes, plural, printable

# How many annotations of each kind GitHub shows of a step; further ones it drops without a word.
SHOWN = 10
_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}


@dataclass(frozen=True)
class _Annotation:
    severity: str
    title: str
    message: str
    place: SourceRecord | None

    @property
    def line(self) -> str:
        properties = {"title": self.title}
        if self.place is not None and self.place.is_local:
            properties = {"file": self.place.file, "line": str(self.place.line)} | properties
        told = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        return f"::{_COMMANDS[self.severity]} {told}::{_data(self.message)}"


def render(report: Report, *, notes: bool = False, whole: str = "") -> str:
    """Annotations for the log of a step, errors first; what follows from another finding is named in its message.

    At most as many as GitHub shows.  Where that leaves some out, a last notice says how many, and ``whole`` where they stand.

    Args:
        report: what was found.
        notes: also findings of severity note.
        whole: where everything stands, such as the name of a file.
    """
    severities = SEVERITIES if notes else SEVERITIES[:2]
    found = {severity: list(_annotations(report, severity)) for severity in severities}
    room = {severity: SHOWN - (severity == "note") for severity in severities}  # the last notice is one of the notices
    lines = [annotation.line for severity in severities for annotation in found[severity][: room[severity]]]
    left = {severity: len(found[severity]) - room[severity] for severity in severities}
    if any(count > 0 for count in left.values()):
        lines.append(_last(left, whole))
    return "".join(f"{line}\n" for line in lines)


def _last(left: Mapping[Severity, int], whole: str) -> str:
    counted = [plural(count, f"more {severity}") for severity, count in left.items() if count > 0]
    where = f"see {whole}" if whole else "`loss-harness show` lists all of a report"
    told = f"{' and '.join(counted)} not shown here, since GitHub shows {SHOWN} of a kind; {where}"
    return f"::notice title={_property('loss-harness')}::{_data(told)}"


def _annotations(report: Report, severity: str) -> Iterator[_Annotation]:
    for loss in report.losses:
        for finding, followers in causes(loss, severity):
            title = f"{heading(finding.rule)}: {loss.name} / {finding.implementation}"
            yield _Annotation(severity, title, _message(finding, followers), place(loss, finding.implementation))
        if severity == "error":
            yield from _unfinished(loss)


def _unfinished(loss: LossRecord) -> Iterator[_Annotation]:
    for m in loss.measurements:
        if m.status == "failed":
            where = f"{setting_text(m)} at {input_text(m)}"
            title = f"failed when timed: {loss.name} / {m.implementation}"
            yield _Annotation("error", title, f"{where}: {m.reason}", place(loss, m.implementation))
    if loss.missing:
        yield _Annotation("error", f"not complete: {loss.name}", loss.missing, None)


def _message(finding: Finding, followers: Sequence[Finding]) -> str:
    lines = [finding.body.strip() or finding.header]
    lines += [finding.hint] if finding.hint and finding.hint not in finding.message else []
    codes = list(dict.fromkeys(follower.rule for follower in followers))
    lines += [f"{', '.join(codes)} {'follows' if len(codes) == 1 else 'follow'}"] if codes else []
    return "\n".join([*lines, f"on {finding.device}"])


def _data(text: str) -> str:
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
