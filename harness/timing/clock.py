"""A clock: what times blocks of calls, and what every clock needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from harness.timing import timers as time

Call = Callable[[], object]
Result = Callable[[], torch.Tensor]


class Clock(Protocol):
    """Times blocks of calls; results are seconds per block.

    Attributes:
        most_calls: the greatest number of calls in a block.
        idle_s: seconds of the last block in which this thread did not run, within what was timed alone; ``None`` where the
            thread may be away without being interrupted, as it is while it waits for a device.
    """

    most_calls: int
    idle_s: float | None

    def prepare(self, make: Callable[[], Result]) -> Result:
        """The call that is to be timed in place of the one that ``make`` makes; what the clock itself needs is made first.

        Raises:
            NotTimeable: this clock cannot time it.
        """

    def warm_up(self, call: Call) -> None:
        """Call until caches and device clocks have settled; at least once."""

    def block(self, call: Call, calls: int) -> float:
        """Seconds that ``calls`` calls take together, without what is done between them."""


class NotTimeable(Exception):
    """A call that a clock cannot time, though nothing is wrong with it; the text is the reason."""


def repeat_until(seconds: float, call: Call, wait: Callable[[], None]) -> None:
    """Call, and wait for it, until ``seconds`` are over; at least once."""
    until = time.perf_counter() + seconds
    while True:
        call()
        wait()
        if time.perf_counter() >= until:
            return
