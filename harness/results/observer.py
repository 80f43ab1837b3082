"""What a run tells whoever looks on: which steps are planned, which one is under way, what was found."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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
    """Receives what happens in a run; does nothing by default.  Whatever one of these raises ends the run where it is."""

    def expect(self, steps: Sequence[Step]) -> None:
        """All steps of the run, in their order, before the first begins."""

    def begin(self, step: Step) -> None:
        """A step begins; the one before it has ended."""

    def found(self, loss: str, findings: Sequence[Finding]) -> None:
        """What a step found about a loss and no baseline accepts, errors first; never nothing."""


UNSEEN = Observer()


class _Bar(Observer):
    """A bar in a notebook."""

    def __init__(self, total: int) -> None:
        from IPython.display import display
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        description = TextColumn("{task.description}", markup=False)
        self._bar = Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), description, auto_refresh=False)
        self._task = self._bar.add_task("starting", total=total)
        self._total, self._begun = total, 0
        self.shown: Any = display(self._bar, display_id=True)

    def begin(self, step: Step) -> None:
        """See `Observer`."""
        self._bar.update(self._task, completed=min(self._begun, self._total), description=step.text)
        self._begun += 1
        self.shown.update(self._bar)


@contextmanager
def bar_in_a_notebook(total: int) -> Iterator[Observer]:
    """Show a bar of ``total`` steps in a notebook while this lasts, and nothing anywhere else; the commands have their own."""
    if not _is_notebook():
        yield UNSEEN
        return
    bar = _Bar(total)
    try:
        yield bar
    finally:
        bar.shown.update({"text/plain": ""}, raw=True)


def _is_notebook() -> bool:
    """Whether this runs in the kernel of a notebook, where a bar has a place."""
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console().is_jupyter
