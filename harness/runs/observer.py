"""What a run tells whoever looks on: which steps are planned, which one is under way, what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.results.findings import Finding


@dataclass(frozen=True)
class Step:
    """One check, or the timing of one loss.

    Args:
        kind: the same for steps that take about as long: the code of a rule, or what is timed.
        text: what is under way, for a person.
        budget_s: seconds that it takes at most; ``None`` where nothing bounds it.
    """

    kind: str
    text: str
    budget_s: float | None = None


class Observer:
    """Told how a run goes; this one looks away.  Whatever one of these raises ends the run where it is."""

    def expect(self, steps: Sequence[Step]) -> None:
        """All steps of the run, in their order, before the first begins."""

    def begin(self, step: Step) -> None:
        """A step begins; the one before it has ended."""

    def found(self, loss: str, findings: Sequence[Finding]) -> None:
        """What a step found about a loss and no baseline accepts, errors first; never nothing."""
