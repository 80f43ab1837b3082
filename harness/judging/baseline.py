"""A baseline: findings that a project accepts for now, so that the tool can guard old code from its first day.

The file is JSON, sorted, one entry a line, so that two branches that change it merge:

    {"schema": 1, "accepted": [
     {"loss": "dice", "implementation": "fast", "rule": "G08", "aspect": "gradient"}
    ]}

An entry names what fails, not by how much: numbers differ between machines.  A finding that the baseline has is shown as
accepted and fails nothing; an entry that no longer occurs is named, so that the file shrinks.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, shown
from harness.results.findings import Finding
from harness.results.schema import CRASHED, LossRecord, Report
from harness.results.strict_json import parse_json

SCHEMA_VERSION = 1

_CHECKED = ("passed", "failed", "waived", "inapplicable")


class BaselineError(HarnessError, ValueError):
    """A file is not a baseline, or one of another schema version."""


@dataclass(frozen=True, order=True)
class Entry:
    """One accepted finding: ``aspect`` says which of the things that the rule may find."""

    loss: str
    implementation: str
    rule: str
    aspect: str

    @property
    def text(self) -> str:
        """The entry for a person."""
        return f"{self.loss} / {self.implementation} / {self.rule}{f' ({self.aspect})' if self.aspect else ''}"


Baseline = frozenset[Entry]


def entry(loss: str, finding: Finding) -> Entry:
    """What a baseline keeps of a finding."""
    return Entry(loss, finding.implementation, finding.rule, str(finding.evidence.get("aspect", "")))


def marked(loss: LossRecord, baseline: Collection[Entry]) -> LossRecord:
    """The same record with the findings that the baseline has marked as accepted."""
    findings = tuple(replace(f, accepted=entry(loss.name, f) in baseline) for f in loss.findings)
    return replace(loss, findings=findings)


def unseen(baseline: Iterable[Entry], report: Report) -> list[Entry]:
    """Entries that no longer occur: their rule was checked and found nothing of the kind.

    Of an entry whose loss, implementation or rule was not part of the run nothing is said.
    """
    ran = {
        (loss.name, o.implementation, o.rule) for loss in report.losses for o in loss.outcomes if o.status in _CHECKED
    }
    occur = {entry(loss.name, finding) for loss in report.losses for finding in loss.findings}
    return sorted(e for e in baseline if (e.loss, e.implementation, e.rule) in ran and e not in occur)


def updated(baseline: Iterable[Entry], report: Report) -> Baseline:
    """The baseline that accepts every error and warning of the report, and keeps what the report says nothing about.

    That a rule crashed is nothing that the loss does, and is not accepted.
    """
    old = frozenset(baseline)
    found = {
        entry(loss.name, f)
        for loss in report.losses
        for f in loss.findings
        if f.severity != "note" and f.rule != CRASHED
    }
    return (old - frozenset(unseen(old, report))) | found


def dumps(baseline: Iterable[Entry]) -> str:
    """The text of a baseline file; `loads` gives an equal baseline back."""
    lines = ",\n".join(f" {json.dumps(asdict(e), ensure_ascii=False)}" for e in sorted(baseline))
    return f'{{"schema": {SCHEMA_VERSION}, "accepted": [\n{lines}\n]}}\n'


def loads(text: str) -> Baseline:
    """The baseline that `dumps` wrote.

    Raises:
        BaselineError: not JSON, another schema version, or an entry that is not understood.
    """
    try:
        data = parse_json(text)
    except ValueError as error:
        raise BaselineError(
            f"not a baseline: {error}; `loss-harness verify --write-baseline FILE` writes one"
        ) from error
    if not isinstance(data, Mapping) or not isinstance(data.get("accepted"), list):
        raise BaselineError(
            "not a baseline: it lacks the list `accepted`; `loss-harness verify --write-baseline FILE` writes one"
        )
    if data.get("schema") != SCHEMA_VERSION:
        raise BaselineError(
            f"a baseline of schema {shown(data.get('schema'))} came, but this version reads schema {SCHEMA_VERSION}"
        )
    return frozenset(_entry(item) for item in data["accepted"])


def read(path: Path) -> Baseline:
    """The baseline of a file.

    Raises:
        BaselineError: the file cannot be read, or see `loads`.
    """
    try:
        return loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BaselineError(f"cannot read the baseline {path}: {error}") from error
    except BaselineError as error:
        raise BaselineError(f"{path}: {error}") from error


def _entry(item: Any) -> Entry:
    names = [f.name for f in fields(Entry)]
    if not isinstance(item, Mapping) or set(item) != set(names) or not all(isinstance(v, str) for v in item.values()):
        raise BaselineError(f"not a baseline: got the entry {shown(item)}, expected the texts {names}")
    return Entry(**item)
