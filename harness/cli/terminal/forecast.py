"""How much of a run is left: every kind of step takes as long as it took so far, timing what its budget has left."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence

from harness.results.observer import Step

# Checks after which their mean says anything at all.
_TELLING = 5


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
        self._unbounded = list(dict.fromkeys(step.kind for step in steps if step.budget_s is None))
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
    def left_s(self) -> float:
        """Seconds until everything is done; a kind of which none has ended yet counts as the mean of all that have."""
        ahead = sum(count * self._seconds(step) for step, count in list(self._left.items()) if count > 0)
        now = max(0.0, self._seconds(self.step) - (self._clock() - self._step_at)) if self.step is not None else 0.0
        return ahead + now

    @property
    def fraction(self) -> float:
        """The part of the time that is done."""
        elapsed = self._clock() - self._begun_at
        return elapsed / (elapsed + self.left_s) if self.done else 0.0

    @property
    def text(self) -> str:
        """The time left in words that say how well it is known; empty while nothing is."""
        ahead = [step for step, count in list(self._left.items()) if count > 0]
        now = [self.step] if self.step is not None else []
        if all(step.budget_s is not None for step in (*ahead, *now)):
            how = "at most"  # a budget may be needed in part only
        elif self.done < _TELLING:
            return ""
        else:
            is_known = all(step.budget_s is not None or step.kind in self._spent for step in ahead)
            how = "about" if is_known else "roughly"
        return f"{how} {duration(max(self.left_s, 1))} left"

    def _seconds(self, step: Step) -> float:
        if step.budget_s is not None:
            return step.budget_s
        spent = self._spent.get(step.kind) or [s for kind in self._unbounded for s in self._spent.get(kind, ())]
        return sum(spent) / len(spent) if spent else 0.0


def duration(seconds: float) -> str:
    """``8 s``, ``2 min``, ``1 h 5 min``: no more digits than a forecast has."""
    whole = math.ceil(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
