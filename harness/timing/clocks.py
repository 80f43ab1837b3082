"""The clock of a cell, and the host's wall clock."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

from harness.results.measured import Cell
from harness.timing import timers as time
from harness.timing.clock import Call, Clock, Result, repeat_until
from harness.timing.cold import Flush
from harness.timing.collection import no_collection
from harness.timing.constants import COLD_CALLS, WARM_UP_S
from harness.timing.cuda import EventClock, GraphClock
from harness.timing.keeper import Witness


def clock_for(cell: Cell, witness: Witness | None = None, flush: Flush | None = None) -> Clock:
    """The clock of a cell: events or the replay of a graph on a CUDA device, else the host's wall clock."""
    device = torch.device(cell.device)
    flush = (flush or Flush(device)) if cell.cache == "cold" else None
    if cell.clock == "graph":
        return GraphClock(device, flush, witness)
    if cell.clock == "events":
        return EventClock(device, flush, witness)
    return WallClock(waiting_for(device), flush, witness)


def waiting_for(device: torch.device) -> Callable[[], None] | None:
    """What waits for a device that works beside the host; ``None`` for the host itself."""
    if device.type == "cpu":
        return None
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: torch.accelerator.synchronize(device)


class WallClock:
    """The host's wall clock.

    Args:
        synchronize: waits for a device that works beside the host.
        flush: empties the caches; it runs before every call, which is then timed on its own.
        witness: the clock of another process, which is told when what is timed begins and ends.
    """

    def __init__(
        self,
        synchronize: Callable[[], None] | None = None,
        flush: Call | None = None,
        witness: Witness | None = None,
    ) -> None:
        self._synchronize, self._flush, self._witness = synchronize, flush, witness or Witness()
        self.most_calls = sys.maxsize if flush is None else COLD_CALLS["cpu"]
        self.idle_s: float | None = None
        self.returned: object = None  # by the last call of a block, to be held to the reference

    def prepare(self, make: Callable[[], Result]) -> Result:
        """The call itself; what empties the caches takes its memory first."""
        if self._flush is not None:
            self._flush()
        return make()

    def warm_up(self, call: Call) -> None:
        """Call until the caches have settled; at least once."""
        repeat_until(WARM_UP_S["cpu" if self._synchronize is None else "cuda"], call, self._wait)

    def block(self, call: Call, calls: int) -> float:
        """Seconds that ``calls`` calls take together, the device's work included."""
        with no_collection():
            if self._flush is None:
                seconds, idle_s = self._timed(call, calls)
            else:
                seconds = idle_s = 0.0
                for _ in range(calls):
                    self._flush()
                    taken, away = self._timed(call, 1)
                    seconds, idle_s = seconds + taken, idle_s + away
        self.idle_s = idle_s if self._synchronize is None else None  # a wait for the device may put the thread to sleep
        return seconds

    def _timed(self, call: Call, calls: int) -> tuple[float, float]:
        """Seconds of the calls, and those of them in which this thread did not run."""
        self._wait()
        self._witness.begin()
        worked = time.thread_time()
        begin = time.perf_counter()
        for _ in range(calls):
            self.returned = call()
        self._wait()
        seconds = time.perf_counter() - begin
        idle_s = max(0.0, seconds - (time.thread_time() - worked))
        self._witness.end(seconds)
        return seconds, idle_s

    def _wait(self) -> None:
        if self._synchronize is not None:
            self._synchronize()
