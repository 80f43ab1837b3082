"""The report as SARIF 2.1.0, for code scanning: each finding at the line of the implementation that it is about.

Findings that the baseline accepts, and those that the declaration waives, are there with a suppression.  Fingerprints name
loss, implementation, rule and quantity, and no line, so that a finding stays the same one while the file around it changes.

Source: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from harness.report.places import place, uri
from harness.results.findings import Finding
from harness.results.rule_texts import rule_text
from harness.results.schema import LossRecord, Report, json_text
from harness.results.words import printable

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
PROJECT = "%SRCROOT%"  # the name that code scanning gives to the root of the repository
IMPORTED = "%PYTHONPATH%"
FINGERPRINT = "lossHarness/v1"
# GitHub knows a result by this one alone, and computes it from the text of the line where it is not given.
LINE_HASH = "primaryLocationLineHash"


def render(report: Report) -> str:
    """The text of a SARIF file."""
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [_run(report)]}
    return json_text(log)


def _run(report: Report) -> dict[str, Any]:
    found = [(loss, finding) for loss in report.losses for finding in loss.findings]
    codes = list(dict.fromkeys(finding.rule for _, finding in found))
    return {
        "tool": {
            "driver": {
                "name": "loss-harness",
                "semanticVersion": report.tool,
                "rules": [_rule(code) for code in codes],
            }
        },
        "invocations": [_invocation(report)],
        "originalUriBaseIds": {
            PROJECT: {"description": {"text": "The folder in which loss-harness ran."}},
            IMPORTED: {"description": {"text": "A folder from which Python imports."}},
        },
        "columnKind": "unicodeCodePoints",
        "results": list(_results(found, codes)),
        "properties": {"profile": report.profile, "seed": report.seed, "devices": report.devices},
    }


def _rule(code: str) -> dict[str, Any]:
    words = rule_text(code)
    described: dict[str, Any] = {"id": code, "defaultConfiguration": {"level": words.severity}}
    if not words.title:
        return described
    return described | {
        "name": words.title,
        "shortDescription": {"text": words.title},
        "fullDescription": {"text": words.statement},
        "help": {"text": words.explanation, "markdown": words.explanation},
        "properties": {"tags": [words.group]},
    }


def _invocation(report: Report) -> dict[str, Any]:
    interrupted = [loss.missing for loss in report.losses if loss.missing]
    made: dict[str, Any] = {
        "executionSuccessful": not interrupted,
        "exitCode": 0 if report.ok else 1,
        "exitCodeDescription": "no error was found"
        if report.ok
        else "an error was found, or a rule could not be checked",
    }
    if report.made:
        made["endTimeUtc"] = report.made
    if report.command:
        made["commandLine"] = printable(report.command)
    if interrupted:
        made["toolExecutionNotifications"] = [
            {"level": "error", "message": {"text": _message(text)}} for text in interrupted
        ]
    return made


def _results(found: Sequence[tuple[LossRecord, Finding]], codes: Sequence[str]) -> Iterator[dict[str, Any]]:
    waivers = {
        (loss.name, o.implementation, o.rule, o.device): o.reason
        for loss, _ in found
        for o in loss.outcomes
        if o.status == "waived"
    }
    seen: Counter[str] = Counter()
    for loss, finding in found:
        fingerprint = _fingerprint(loss, finding)
        seen[fingerprint] += 1
        result: dict[str, Any] = {
            "ruleId": finding.rule,
            "ruleIndex": codes.index(finding.rule),
            "level": finding.severity,
            "message": {"text": _text(loss, finding)},
            "locations": [_location(loss, finding)],
            "partialFingerprints": {
                FINGERPRINT: fingerprint,
                LINE_HASH: f"{fingerprint[:16]}:{seen[fingerprint]}",
            },
            "properties": {
                "loss": loss.name,
                "implementation": finding.implementation,
                "device": finding.device,
                "failure": finding.failure,
            },
        }
        waiver = waivers.get((loss.name, finding.implementation, finding.rule, finding.device))
        if finding.accepted:
            result["suppressions"] = [{"kind": "external", "justification": "accepted by the baseline"}]
        elif waiver is not None:
            result["suppressions"] = [{"kind": "inSource", "justification": printable(waiver)}]
        yield result


def _text(loss: LossRecord, finding: Finding) -> str:
    body = finding.body.strip() or finding.header
    parts = [f"{loss.name} / {finding.implementation} on {finding.device}: {body}"]
    parts += [finding.hint] if finding.hint and finding.hint not in finding.message else []
    parts += [f"It follows from {finding.follows}."] if finding.follows else []
    return _message("\n".join(parts))


def _message(text: str) -> str:
    """A plain text message, in which ``[text](target)`` would be a link (section 3.11.6)."""
    return printable(text).replace("](", "] (")


def _location(loss: LossRecord, finding: Finding) -> dict[str, Any]:
    name = f"{loss.name}.{finding.implementation}"
    located: dict[str, Any] = {
        "logicalLocations": [{"name": finding.implementation, "fullyQualifiedName": name, "kind": "function"}]
    }
    source = place(loss, finding.implementation)
    if source is not None:
        located["physicalLocation"] = {
            "artifactLocation": {"uri": uri(source.file), "uriBaseId": PROJECT if source.is_local else IMPORTED},
            "region": {"startLine": source.line},
        }
    return located


def _fingerprint(loss: LossRecord, finding: Finding) -> str:
    """What the finding is about, without the element that happened to show it."""
    where = re.sub(r"\[[^\]]*\]", "", str(finding.evidence.get("where") or ""))
    quantity = str(finding.evidence.get("aspect") or where)
    identity = json.dumps([loss.name, finding.implementation, finding.rule, quantity])
    return hashlib.sha256(identity.encode()).hexdigest()
