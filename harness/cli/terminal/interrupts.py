"""Ctrl-C and SIGTERM: the first lets what is done be kept, the second ends at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from harness.cli.exits import INTERRUPTED

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h"
_asked = threading.Event()


def check() -> None:
    """End here if that was asked for: code of a loss, or a destructor, may have swallowed the first request.

    Raises:
        KeyboardInterrupt: it was.
    """
    if _asked.is_set():
        _asked.clear()
        raise KeyboardInterrupt


@contextmanager
def handled() -> Iterator[None]:
    """Handle both signals, in the main thread and for the time of a command.

    Python runs its own handlers between two instructions only, so that a kernel that takes a minute would outlast any number
    of requests.  The second is therefore counted by another thread, as the signal arrives.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    kept = {number: signal.signal(number, _raise) for number in _SIGNALS}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_count, args=(reader,), name="interrupts", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in kept.items():
            signal.signal(number, handler)
        os.close(writer)
        _asked.clear()


def _raise(number: int, frame: FrameType | None) -> None:
    _asked.set()
    raise KeyboardInterrupt


def _count(reader: int) -> None:
    left = 2
    with os.fdopen(reader, "rb", buffering=0) as arrived:
        while left:
            numbers = arrived.read(64)
            if not numbers:
                return
            left -= min(left, sum(number in _SIGNALS for number in numbers))
    _end_at_once()


def _end_at_once() -> None:
    timing = sys.modules.get("harness.timing.processes")
    if timing is not None:
        timing.kill_all()
    if os.isatty(2):
        os.write(2, _SHOW_CURSOR + b"\n")
    os._exit(INTERRUPTED)
