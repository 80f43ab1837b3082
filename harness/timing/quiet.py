"""Blocks in which no other process had the core."""

from __future__ import annotations

from collections.abc import Callable

from harness.timing import timers as time
from harness.timing.constants import (
    BLOCK_S,
    BLOCK_TRIES,
    INTERRUPTED,
    LONG_BLOCK_S,
    PAUSE_S,
    SHORT_BLOCK_S,
    WARY_BLOCKS,
)


class Quiet:
    """Runs blocks, and again where another process interrupted them; remembers whether the machine is busy.

    The wall time of a short block that was interrupted is not the call's.  Of several tries the least interrupted one counts,
    never the quickest, so that nobody gains by being repeated.  On a busy machine this thread first sleeps for a moment: the
    scheduler then owes it a whole slice.

    Args:
        tries: how often a block may run; with 1, whatever it takes is believed.
    """

    def __init__(self, tries: int = BLOCK_TRIES) -> None:
        self.tries, self.repeated = tries, 0
        self._wary = 0

    def run(
        self,
        block: Callable[[], float],
        warm: Callable[[], object],
        idle: Callable[[], float | None] | None = None,
    ) -> float:
        """Seconds of a block, by its own account.

        Args:
            block: runs the calls in this thread and returns their seconds.
            warm: one call, which brings back what a pause has cost the caches.
            idle: seconds of these in which the thread did not run, of the last block; ``None`` of one that cannot tell, for
                it waits for a device, and is believed.  By default all that passed while the block ran counts.
        """
        blocks: list[tuple[float, float]] = []
        while len(blocks) < self.tries:
            if self._wary:
                time.sleep(PAUSE_S)
                warm()
                self._wary -= 1
            away_s = time.perf_counter() - time.thread_time()
            seconds = block()
            away_s = max(0.0, time.perf_counter() - time.thread_time() - away_s)
            idle_s = away_s if idle is None else idle()
            blocks.append((idle_s or 0.0, seconds))
            if idle_s is None or self.tries == 1 or not _is_interrupted(idle_s, seconds):
                break
            self._wary = WARY_BLOCKS
        self.repeated += len(blocks) - 1
        return min(blocks)[1]


def _is_interrupted(idle_s: float, seconds: float) -> bool:
    """Whether a block is to run again; a short cold call is held to what a whole block may be away, less than any slice."""
    is_long = seconds - idle_s >= SHORT_BLOCK_S or seconds >= LONG_BLOCK_S
    return idle_s > INTERRUPTED * max(seconds, BLOCK_S) and not is_long
