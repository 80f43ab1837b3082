"""What a verification found, as frozen data."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from harness.drawing.case import Case

Severity = Literal["error", "warning", "note"]


class Status(StrEnum):
    """What became of one planned implementation x rule."""

    PASSED = "passed"
    FAILED = "failed"
    WAIVED = "waived"
    SKIPPED = "skipped"
    INAPPLICABLE = "inapplicable"
    CRASHED = "crashed"
    TIMED_OUT = "timed out"


@dataclass(frozen=True)
class Outcome:
    """What became of one planned implementation x rule, and on how many examples it rests.

    ``status`` is ``failed`` where the rule has any finding, of whatever severity; ``reason`` says why a rule was skipped,
    waived or does not apply, or what of its subject a pass has left out.  ``unmeasured`` tells an inapplicable rule that is
    about the loss and could be asked on none of its cases from one that the declaration leaves nothing to ask of.
    """

    implementation: str
    rule: str
    status: Status
    examples: int
    reason: str = ""
    unmeasured: bool = False


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, with the smallest input that shows it.

    ``message`` is a complete text for a person: where, what came, what should have come, by how much.  ``evidence`` holds
    the same as data.  ``reproduction`` is plain-PyTorch code that runs as printed, without the harness.  ``follows`` is the
    code of the rule that found the cause, empty where this is the cause (`harness.results.causes`).
    """

    rule: str
    severity: Severity
    implementation: str
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)
    case: Case | None = None
    reproduction: str = ""
    hint: str = ""
    follows: str = ""


@dataclass(frozen=True)
class Verification:
    """Outcome of every planned rule, and the findings.

    ``planned`` is always the sum of `counts`; ``suggestions`` name laws that could be declared.
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

    @property
    def planned(self) -> int:
        """Number of implementation x rule pairs that were planned."""
        return len(self.outcomes)

    @property
    def counts(self) -> dict[str, int]:
        """Number of outcomes of each status; sums to `planned`."""
        found = Counter(outcome.status.value for outcome in self.outcomes)
        return {status.value: found.get(status.value, 0) for status in Status}

    @property
    def ok(self) -> bool:
        """False if any rule found an error, crashed or timed out."""
        broken = {Status.CRASHED, Status.TIMED_OUT}
        return not any(f.severity == "error" for f in self.findings) and not any(
            o.status in broken for o in self.outcomes
        )

    def of(self, implementation: str) -> tuple[Finding, ...]:
        """Findings about one implementation, errors first."""
        order = {"error": 0, "warning": 1, "note": 2}
        mine = [f for f in self.findings if f.implementation == implementation]
        return tuple(sorted(mine, key=lambda f: (order[f.severity], f.rule)))
