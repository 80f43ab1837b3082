"""Clocks: how long a block of calls takes on a device."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

from harness.timing.constants import WARM_UP_S

Call = Callable[[], object]


class Clock(Protocol):
    """Times blocks of calls; results are seconds per block."""

    def warm_up(self, call: Call) -> None:
        """Call until caches and device clocks have settled; at least once."""

    def block(self, call: Call, calls: int) -> float:
        """Seconds that ``calls`` calls take together."""


def unavailable(device: str) -> str | None:
    """Why nothing can run on ``device`` here, or ``None`` where it can."""
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        return f"torch knows no device {device!r}: {str(error).splitlines()[0]}"
    if kind == "cpu":
        return None
    if kind == "cuda":
        if not torch.cuda.is_available():
            built = "no CUDA device is visible" if torch.version.cuda else "this torch is built without CUDA"
            return f"{built} (torch {torch.__version__})"
        index = torch.device(device).index or 0
        count = torch.cuda.device_count()
        return None if index < count else f"device {device!r} came, but there are {count} CUDA devices"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        return f"no tensor can be made on {device!r}: {str(error).splitlines()[0]}"
    return None


def clock_for(device: str) -> Clock:
    """The clock of a device: events on the stream for CUDA, else the host's wall clock around a synchronised block."""
    kind = torch.device(device).type
    if kind == "cuda":
        return CudaClock(torch.device(device))
    return WallClock() if kind == "cpu" else WallClock(torch.accelerator.synchronize)


@contextmanager
def _no_collection() -> Iterator[None]:
    """A garbage collection inside one block and not the next would be timed as if it were the call's."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class WallClock:
    """The host's wall clock; ``synchronize`` waits for a device that works beside the host."""

    def __init__(self, synchronize: Callable[[], None] | None = None) -> None:
        self._synchronize = synchronize

    def warm_up(self, call: Call) -> None:
        """Call until the caches have settled; at least once."""
        _repeat_until(WARM_UP_S["cpu" if self._synchronize is None else "cuda"], call, self._wait)

    def block(self, call: Call, calls: int) -> float:
        """Seconds that ``calls`` calls take together, the device's work included."""
        with _no_collection():
            self._wait()
            begin = time.perf_counter()
            for _ in range(calls):
                call()
            self._wait()
            return time.perf_counter() - begin

    def _wait(self) -> None:
        if self._synchronize is not None:
            self._synchronize()


class CudaClock:
    """Events on the current stream: the time of the device's work, launches included where the host cannot keep up."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def warm_up(self, call: Call) -> None:
        """Call until the device's clocks have risen; synchronised after every call, at least once."""
        with torch.cuda.device(self._device):
            _repeat_until(WARM_UP_S["cuda"], call, torch.cuda.synchronize)

    def block(self, call: Call, calls: int) -> float:
        """Seconds between an event before the first call and one after the last."""
        with torch.cuda.device(self._device), _no_collection():
            begin = torch.cuda.Event(enable_timing=True)
            end = torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            begin.record()
            for _ in range(calls):
                call()
            end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) / 1000


def _repeat_until(seconds: float, call: Call, wait: Callable[[], None]) -> None:
    until = time.perf_counter() + seconds
    while True:
        call()
        wait()
        if time.perf_counter() >= until:
            return
