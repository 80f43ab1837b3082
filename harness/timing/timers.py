"""Timers as they were before any code of a user's ran: who patches the module `time` later moves no clock of ours."""

from __future__ import annotations

from time import clock_gettime, perf_counter, process_time, sleep, thread_time, time
from types import ModuleType

__all__ = ["clock_gettime", "held", "perf_counter", "process_time", "sleep", "thread_time", "time"]


def held(module: ModuleType) -> ModuleType:
    """A module as it is now: names of it that are set later change nothing in the copy."""
    copy = ModuleType(module.__name__)
    vars(copy).update(vars(module))
    return copy
