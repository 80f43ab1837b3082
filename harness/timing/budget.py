"""Seconds that may be spent, of which a busy machine takes few."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.timing import timers as time
from harness.timing.constants import STRETCH


class Budget:
    """Seconds from now on; of those in which others had the processor, a part counts.

        spent = min(wall, max(processor time of all threads, wall / 3))

    So what is measured on a busy machine is what would be on a quiet one, in up to three times the time.

    Args:
        seconds: that may be spent.
        is_wall: whether all of them count, as where a device works beside the host.
    """

    def __init__(self, seconds: float, *, is_wall: bool = False) -> None:
        self.seconds, self._is_wall = seconds, is_wall
        self._wall, self._processor = time.perf_counter(), time.process_time()

    @property
    def spent(self) -> float:
        """Seconds that count, since the beginning."""
        wall = time.perf_counter() - self._wall
        processor = wall if self._is_wall else time.process_time() - self._processor
        return min(wall, max(processor, wall / STRETCH))

    @property
    def left(self) -> float:
        """Seconds that are left; below zero where more were spent."""
        return self.seconds - self.spent

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside is not charged."""
        wall, processor = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self._wall += time.perf_counter() - wall
            self._processor += time.process_time() - processor
