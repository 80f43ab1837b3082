"""How much of a run is left: every kind of step takes as long as it took so far, timing what its budget has left."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence

from harness.report.observer import Step


class Forecast:
    """What is done and left of planned steps.

    Args:
        steps: all of them, in any order.
        clock: seconds of a monotonic clock.
    """

    def __init__(self, steps: Sequence[Step], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun_at = self._step_at = clock()
        self._left = Counter(steps)
        self._spent: dict[str, list[float]] = {}
        self.total = len(steps)
        self.step: Step | None = None

    def begin(self, step: Step) -> None:
        """A step begins, and with it the one before has ended."""
        now = self._clock()
        if self.step is not None:
            self._spent.setdefault(self.step.kind, []).append(now - self._step_at)
        self.step, self._step_at = step, now
        self._left[step] -= 1

    @property
    def done(self) -> int:
        """Steps that have ended."""
        return sum(map(len, list(self._spent.values())))

    @property
    def elapsed_s(self) -> float:
        """Seconds since it began."""
        return self._clock() - self._begun_at

    @property
    def left_s(self) -> float:
        """Seconds until everything is done; kinds of which none has ended yet count nothing, see `is_complete`."""
        ahead = sum(count * self._seconds(step) for step, count in list(self._left.items()) if count > 0)
        now = max(0.0, self._seconds(self.step) - (self._clock() - self._step_at)) if self.step is not None else 0.0
        return ahead + now

    @property
    def fraction(self) -> float:
        """The part that is done: of the time where that is known, else of the steps."""
        elapsed, left = self.elapsed_s, self.left_s
        by_steps = self.done / self.total if self.total else 0.0
        return elapsed / (elapsed + left) if self.is_complete and elapsed + left > 0 else by_steps

    @property
    def is_complete(self) -> bool:
        """Whether the time of every step that is left is known, so that no kind counts nothing."""
        ahead = [step for step, count in list(self._left.items()) if count > 0]
        return all(step.budget_s is not None or step.kind in self._spent for step in ahead)

    @property
    def is_bounded(self) -> bool:
        """Whether all that is left has a budget, which it may need in part only."""
        ahead = [step for step, count in list(self._left.items()) if count > 0]
        return all(step.budget_s is not None for step in (*ahead, *([self.step] if self.step else [])))

    @property
    def text(self) -> str:
        """The time left in words, as far as it is known."""
        left = self.left_s
        if not self.is_complete:
            return f"at least {duration(left)} left" if left >= 1 else ""
        return f"{'at most' if self.is_bounded else 'about'} {duration(left)} left"

    def _seconds(self, step: Step) -> float:
        if step.budget_s is not None:
            return step.budget_s
        spent = self._spent.get(step.kind)
        return sum(spent) / len(spent) if spent else 0.0


def duration(seconds: float) -> str:
    """``8 s``, ``2 min``, ``1 h 5 min``: no more digits than a forecast has."""
    whole = math.ceil(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
