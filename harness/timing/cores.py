"""Cores on which one loss at a time is timed, whichever runs share the machine."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NAME = "loss-harness/core/"
_LOOK_S = 0.2


@contextmanager
def own_core(wait: Callable[[], None]) -> Iterator[None]:
    """Run on one core that nobody else holds in this way, and hold it until the block, or this process, has ended.

    A core is held by a name that the system gives to one process at a time and takes back when it ends: that of a socket which
    has no file (unix(7)).  Where the system cannot bind a process to a core (sched_setaffinity(2)), nothing is held.

    Args:
        wait: called now and then while others hold all of the cores that this process may use.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    while (held := next(filter(None, map(_held, sorted(allowed))), None)) is None:
        wait()
        time.sleep(_LOOK_S)
    core, holder = held
    with holder:
        os.sched_setaffinity(0, {core})
        try:
            yield
        finally:
            os.sched_setaffinity(0, allowed)


def _held(core: int) -> tuple[int, socket.socket] | None:
    holder = socket.socket(socket.AF_UNIX)
    try:
        holder.bind(f"\0{_NAME}{core}")
    except OSError:
        holder.close()
        return None
    return core, holder


def cores() -> list[int]:
    """Numbers of the cores that this process may use; empty where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def on_one_core() -> dict[str, list[int]]:
    """The core of this process, for a report, where it has one of several."""
    return {"timed_on_cores": cores()} if len(cores()) == 1 < (os.cpu_count() or 1) else {}


def run_on(chosen: list[int]) -> None:
    """Let this process run on some cores; on all where there are none."""
    if chosen:
        os.sched_setaffinity(0, chosen)
