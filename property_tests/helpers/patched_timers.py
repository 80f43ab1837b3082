"""Losses of a file that replaces timers in the processes that time: those of Python, and that of the measurement itself."""

import os
import time

from cheats import DECLARED, by_hand, value

from harness import LossSpec
from harness.timing import timers

if "LOSS_HARNESS_TIMING_WORKER" in os.environ:
    real = time.perf_counter
    time.perf_counter = time.monotonic = time.thread_time = lambda: real() / 10
    if os.environ.get("PATCHES_OURS"):
        timers.perf_counter = time.perf_counter

SPEC = LossSpec("patched", {"value": value, "by_hand": by_hand}, **DECLARED)
