"""A time that passes only where a test says so, so that what the timing makes of seconds is the same on every machine."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from harness.timing import timers

# Seconds that no machine needs: a budget of so many decides nothing, and is not waited for.
AMPLE_S = 3600.0

Put = Callable[[Any, str, Any], None]


class FakeTime:
    """What stands in for the timers: whoever sleeps moves it, and works all the while."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    monotonic = process_time = thread_time = time = perf_counter

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def lasting(self, seconds: float, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, by this time so long."""

        @functools.wraps(call)
        def lasts(*positional: Any, **named: Any) -> Any:
            self.sleep(seconds)
            return call(*positional, **named)

        return lasts


def install(fake: FakeTime, put: Put = setattr) -> None:
    """Let every module of the timing go by it, but for those that start processes, whose clocks are the machine's.

    Args:
        fake: the time.
        put: sets an attribute of a module, as `setattr` does; `monkeypatch.setattr` takes it back.
    """
    starting = ("harness.timing.worker", "harness.timing.processes")
    for name, module in list(sys.modules.items()):
        if name.startswith("harness.timing.") and name not in starting and vars(module).get("time") is timers:
            put(module, "time", fake)
