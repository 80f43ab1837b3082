"""The report as JUnit XML, in the dialect that Jenkins and GitLab read (xunit 2).

A suite is a loss on a device, a case an implementation x rule.  An error that was found is a failure, a crash or a timeout an
error; what was skipped, cannot apply, is waived or stands in the baseline is skipped with its reason.  A warning fails
nothing and stands in the case's output.  What did not run to its end has a case of its own that is an error, so that no
file about half a run is green.

Source: the schema of Jenkins' xunit plugin (junit-10.xsd), to which pytest's `junit_family=xunit2` keeps as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from harness.judging.speed import input_text, setting_text
from harness.report.text import finding_text
from harness.results.findings import Finding, Outcome
from harness.results.rule_texts import heading
from harness.results.schema import CRASHED, CheckTimeRecord, LossRecord, Report
from harness.results.words import printable

Element = ElementTree.Element

# XML 1.0 has no way to write other characters, not even as a reference: production [2] Char.
_NO_CHAR = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: Report) -> str:
    """The text of a JUnit file."""
    root = Element("testsuites", name="loss-harness")
    for loss in report.losses:
        for device in _devices(loss):
            root.append(_suite(report, loss, device, len(root)))
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, 0)) for suite in root)))
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _devices(loss: LossRecord) -> tuple[str, ...]:
    """Devices that there is something to say about; a loss that did not run has a suite all the same."""
    failed = [m.device for m in loss.measurements if m.status == "failed"]
    return tuple(dict.fromkeys([*loss.devices, *failed])) or ("",)


def _suite(report: Report, loss: LossRecord, device: str, position: int) -> Element:
    cases = list(_cases(loss, device))
    suite = Element("testsuite", name=_legal(f"{loss.name} on {device}" if device else loss.name))
    kinds = [{child.tag for child in case} for case in cases]
    for name, tag in (("tests", ""), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(sum(not tag or tag in kind for kind in kinds)))
    suite.set("time", f"{_seconds(report, loss, device):.3f}")
    if report.made:
        suite.set("timestamp", report.made[:19])  # the schema has no time zone; the report's is UTC
    suite.set("id", str(position))
    suite.extend(cases)
    return suite


def _seconds(report: Report, loss: LossRecord, device: str) -> float:
    """How long the checks on one device took, as far as that is known."""
    metered = [time.seconds for time in loss.check_times if time.device == device]
    alone = len(loss.devices) <= 1
    return sum(metered) if metered else report.seconds.get(f"verify {loss.name}", 0.0) if alone else 0.0


def _cases(loss: LossRecord, device: str) -> Iterator[Element]:
    for outcome in loss.outcomes:
        if outcome.device == device:
            yield _case(loss, outcome)
    for m in loss.measurements:
        if m.status == "failed" and m.device == device:
            case = _named(loss, m.implementation, f"timed: {setting_text(m)} at {input_text(m)}")
            _note(case, "error", m.reason, "failed", m.reason)
            yield case
    if loss.missing and device == _devices(loss)[0]:
        case = _named(loss, "", "everything planned ran")
        _note(case, "error", loss.missing, "interrupted", loss.missing)
        yield case


def _named(loss: LossRecord, implementation: str, name: str) -> Element:
    classname = f"{loss.name}.{implementation}" if implementation else loss.name
    return Element("testcase", classname=_legal(classname), name=_legal(name))


def _case(loss: LossRecord, outcome: Outcome) -> Element:
    case = _named(loss, outcome.implementation, heading(outcome.rule))
    spent = [t.seconds for t in loss.check_times if _key(t) == _key(outcome)]
    if spent:
        case.set("time", f"{sum(spent):.3f}")
    found = [f for f in loss.findings if _about(f) == _key(outcome)]
    errors = [f for f in found if f.severity == "error" and not f.accepted]
    if outcome.status in ("crashed", "timed out"):
        _note(case, "error", outcome.reason or outcome.status, outcome.status, _texts(loss, errors) or outcome.reason)
    elif outcome.status in ("skipped", "inapplicable", "waived"):
        _note(case, "skipped", f"{outcome.status}: {outcome.reason}" if outcome.reason else outcome.status)
    elif errors:
        _note(case, "failure", _sentence(errors), outcome.rule, _texts(loss, errors))
    elif any(f.accepted and f.severity == "error" for f in found):
        _note(case, "skipped", "accepted by the baseline")
    others = [f for f in found if f not in errors]
    if others:
        ElementTree.SubElement(case, "system-out").text = _legal(_texts(loss, others))
    return case


def _key(record: Outcome | CheckTimeRecord) -> tuple[str, str, str]:
    return record.implementation, record.rule, record.device


def _about(finding: Finding) -> tuple[str, str, str]:
    """The outcome that a finding belongs to: that a rule crashed is a finding of its own code."""
    rule = str(finding.evidence.get("aspect", "")) if finding.rule == CRASHED else finding.rule
    return finding.implementation, rule, finding.device


def _note(case: Element, tag: str, message: str, kind: str = "", text: str = "") -> None:
    noted = ElementTree.SubElement(case, tag, message=_legal(message))
    if kind:
        noted.set("type", _legal(kind))
    if text:
        noted.text = _legal(text)


def _sentence(findings: Sequence[Finding]) -> str:
    return (findings[0].fact or findings[0].header) + (f" (and {len(findings) - 1} more)" if len(findings) > 1 else "")


def _texts(loss: LossRecord, findings: Sequence[Finding]) -> str:
    """Findings with the place of the implementation and the code that reproduces them."""
    return "\n\n".join(f"{finding.severity}\n{finding_text(loss, finding, verbose=True)}" for finding in findings)


def _legal(text: str) -> str:
    """Text with what XML can hold; colours of a terminal are left out as well."""
    return _NO_CHAR.sub("", printable(text))
