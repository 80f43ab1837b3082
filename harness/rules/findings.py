"""What a verification found, as frozen data."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from harness.drawing.case import Case

if TYPE_CHECKING:
    import pandas as pd

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

    def frame(self) -> pd.DataFrame:
        """One row: rule, title, severity, implementation, what came and should have come, hint, cause, and ``size_<symbol>``."""
        import pandas as pd

        return pd.DataFrame([_finding_row(self)])

    def _repr_html_(self) -> str:
        from harness.runs.notebook import finding_html

        return finding_html(self)


@dataclass(frozen=True)
class Verification:
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
        counts = ", ".join(f"{word}s={found[word]}" for word in ("error", "warning", "note"))
        return f"Verification({self.loss!r}, profile={self.profile!r}, planned={self.planned}, {counts})"

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

    def frame(self) -> pd.DataFrame:
        """One row a planned implementation x rule: what became of it, on how many examples, and its gravest finding.

        ``severity`` and ``finding`` are missing where the rule found nothing.
        """
        import pandas as pd

        from harness.rules import find

        rows = []
        for outcome in self.outcomes:
            gravest = next((f for f in self.of(outcome.implementation) if f.rule == outcome.rule), None)
            rows.append(
                {
                    "loss": self.loss,
                    "implementation": outcome.implementation,
                    "rule": outcome.rule,
                    "title": find(outcome.rule).title,
                    "device": self.device,
                    "status": outcome.status.value,
                    "examples": outcome.examples,
                    "reason": outcome.reason,
                    "severity": None if gravest is None else gravest.severity,
                    "finding": None if gravest is None else _fact(gravest),
                }
            )
        return pd.DataFrame(rows)

    def findings_frame(self) -> pd.DataFrame:
        """One row a finding, as `Finding.frame` has it."""
        import pandas as pd

        return pd.DataFrame(
            [_finding_row(finding) for finding in self.findings], columns=None if self.findings else _COLUMNS
        )

    def _repr_html_(self) -> str:
        from harness.runs.notebook import verification_html

        return verification_html(self)


_COLUMNS = ["rule", "title", "severity", "implementation", "finding", "hint", "follows"]


def _finding_row(finding: Finding) -> dict[str, Any]:
    from harness.rules import find

    values = (
        *(finding.rule, find(finding.rule).title, finding.severity, finding.implementation),
        *(_fact(finding), finding.hint, finding.follows),
    )
    sizes = {} if finding.case is None else {f"size_{name}": _plain(size) for name, size in finding.case.sizes.items()}
    return {**dict(zip(_COLUMNS, values, strict=True)), **sizes}


def _plain(size: int | tuple[int, ...]) -> int | str:
    return size if isinstance(size, int) else "x".join(map(str, size))


def _fact(finding: Finding) -> str:
    """What came and should have come: the line below that of the place."""
    _, _, body = finding.message.partition("\n")
    return body.strip().partition("\n")[0]
