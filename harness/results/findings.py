"""What a verification found, as frozen data of JSON types; readable without torch."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from harness.results.measured import size_columns
from harness.results.rule_texts import SEVERITIES as SEVERITIES
from harness.results.rule_texts import Severity as Severity
from harness.results.rule_texts import rule_text
from harness.results.shown import Shown

if TYPE_CHECKING:
    import pandas as pd


class Status(StrEnum):
    """What became of one planned implementation x rule."""

    PASSED = "passed"
    FAILED = "failed"
    WAIVED = "waived"
    SKIPPED = "skipped"
    INAPPLICABLE = "inapplicable"
    CRASHED = "crashed"
    TIMED_OUT = "timed out"


STATUSES = tuple(status.value for status in Status)


@dataclass(frozen=True)
class Outcome:
    """What became of one planned implementation x rule on one device, and on how many examples it rests.

    ``status`` is ``failed`` where the rule has any finding, of whatever severity; ``reason`` says why a rule was skipped,
    waived or does not apply, or what of its subject a pass has left out.  ``unmeasured`` tells an inapplicable rule that is
    about the loss and could be asked on none of its cases from one that the declaration leaves nothing to ask of.
    """

    implementation: str
    rule: str
    device: str
    status: Status
    examples: int
    reason: str = ""
    unmeasured: bool = False


@dataclass(frozen=True)
class Finding(Shown):
    """One thing that is wrong, with the smallest input that shows it.

    ``message`` is a complete text for a person: its first line says where (loss / implementation / code and title / dtype /
    device), the others what came, what should have come, by how much and on which input.  ``evidence`` holds the same as
    data.  ``case`` is the input as JSON; ``Case.from_json`` makes its tensors.  ``reproduction`` is plain-PyTorch code that
    runs as printed, without the harness.  ``follows`` is the code of the rule that found the cause in the same
    implementation, empty where this is the cause (`harness.results.causes`).  ``failure`` names the file that
    `loss-harness replay` takes, once it is written.  ``accepted`` says that the finding stands in the baseline: it is shown
    and fails nothing.
    """

    implementation: str
    rule: str
    title: str
    severity: Severity
    device: str
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)
    case: dict[str, Any] | None = None
    reproduction: str = ""
    hint: str = ""
    failure: str = ""
    follows: str = ""
    accepted: bool = False

    @property
    def header(self) -> str:
        """Where it is."""
        return self.message.strip("\n").partition("\n")[0]

    @property
    def body(self) -> str:
        """What came and should have come, without indentation."""
        return textwrap.dedent(self.message.strip("\n").partition("\n")[2])

    @property
    def fact(self) -> str:
        """The first line of the body: what came and should have come; empty where there is no body."""
        return next(iter(self.body.strip().splitlines()), "").strip()

    def frame(self) -> pd.DataFrame:
        """One row: rule, title, severity, implementation, what came and should have come, hint, cause, and ``size_<symbol>``."""
        return _findings_frame([self])


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then by implementation and rule; the order of equal ones is kept."""
    return tuple(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.implementation, f.rule, f.device)))


def counted(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Number of outcomes of each status; their sum is what was planned."""
    found = Counter(outcome.status for outcome in outcomes)
    return {status.value: found.get(status, 0) for status in Status}


def are_finished(outcomes: Iterable[Outcome]) -> bool:
    """Whether no check crashed or timed out."""
    return not any(outcome.status in (Status.CRASHED, Status.TIMED_OUT) for outcome in outcomes)


@dataclass(frozen=True)
class Verification(Shown):
    """Outcome of every planned rule, and the findings.

    ``planned`` is always the sum of `counts`; ``suggestions`` name laws that could be declared, ``notes`` say what the
    declaration leaves unchecked.  In a notebook it shows itself as in the report.
    """

    loss: str
    profile: str
    seed: int
    device: str
    reference: str
    implementations: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    findings: tuple[Finding, ...]
    suggestions: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict, compare=False)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        found = Counter(finding.severity for finding in self.findings)
        counts = ", ".join(f"{word}s={found[word]}" for word in SEVERITIES)
        return f"Verification({self.loss!r}, profile={self.profile!r}, planned={self.planned}, {counts})"

    @property
    def planned(self) -> int:
        """Number of implementation x rule pairs that were planned."""
        return len(self.outcomes)

    @property
    def counts(self) -> dict[str, int]:
        """Number of outcomes of each status; sums to `planned`."""
        return counted(self.outcomes)

    @property
    def ok(self) -> bool:
        """False if any rule found an error, crashed or timed out."""
        return are_finished(self.outcomes) and all(f.severity != "error" for f in self.findings)

    def of(self, implementation: str) -> tuple[Finding, ...]:
        """Findings about one implementation, errors first."""
        return in_order(f for f in self.findings if f.implementation == implementation)

    def frame(self) -> pd.DataFrame:
        """One row a planned implementation x rule: what became of it, on how many examples, and its gravest finding.

        ``severity`` and ``finding`` are missing where the rule found nothing.
        """
        import pandas as pd

        rows = []
        for outcome in self.outcomes:
            gravest = next((f for f in self.of(outcome.implementation) if f.rule == outcome.rule), None)
            rows.append(
                {
                    "loss": self.loss,
                    "implementation": outcome.implementation,
                    "rule": outcome.rule,
                    "title": rule_text(outcome.rule).title,
                    "device": outcome.device,
                    "status": outcome.status.value,
                    "examples": outcome.examples,
                    "reason": outcome.reason,
                    "severity": None if gravest is None else gravest.severity,
                    "finding": None if gravest is None else gravest.fact,
                }
            )
        return pd.DataFrame(rows)

    def findings_frame(self) -> pd.DataFrame:
        """One row a finding, as `Finding.frame` has it."""
        return _findings_frame(self.findings)


_COLUMNS = ["rule", "title", "severity", "implementation", "finding", "hint", "follows"]


def _findings_frame(found: Sequence[Finding]) -> pd.DataFrame:
    """One row a finding, with ``size_<symbol>`` for each size of its case."""
    import pandas as pd

    rows = []
    for finding in found:
        values = (
            *(finding.rule, finding.title, finding.severity, finding.implementation),
            *(finding.fact, finding.hint, finding.follows),
        )
        sizes = {} if finding.case is None else finding.case["sizes"]
        rows.append({**dict(zip(_COLUMNS, values, strict=True)), **size_columns(sizes)})
    return pd.DataFrame(rows, columns=None if rows else _COLUMNS)
