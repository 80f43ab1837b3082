"""One job in a process of its own: runs a function and tells what it does."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from harness.isolation import events, limits

_TELLER: ContextVar[Teller | None] = ContextVar("teller", default=None)


class Teller:
    """The way to tell what a job does; a copy of the process that the job forked tells nothing and ends."""

    def __init__(self, descriptor: int, looked_at: events.Note) -> None:
        self.descriptor = descriptor
        self.looked_at = looked_at
        self.owner = os.getpid()

    def tell(self, kind: str, data: Any) -> None:
        """Send one event; what was looked at belongs to the step before."""
        self._end_copies()
        if kind == "step":
            self.looked_at.clear()
        text = events.line(kind, data)
        while text:
            text = text[os.write(self.descriptor, text) :]

    def note(self, text: str) -> None:
        """See `note`."""
        self._end_copies()
        self.looked_at.write(text)

    def _end_copies(self) -> None:
        if os.getpid() != self.owner:
            os._exit(0)  # a loss forked and its copy went on: one of them is enough


def note(text: str) -> None:
    """Say what is being looked at, as JSON, in case that the process ends there; nobody hears it outside a job."""
    teller = _TELLER.get()
    if teller is not None:
        teller.note(text)


def go_on_in_a_fork(beside: Callable[[int, int, int], None]) -> int:
    """Return in a fork, whose telling goes through this process; this one ends as the fork does, and no sooner.

    Args:
        beside: runs here until the fork has ended; gets its number, the descriptor from which to read what it tells, and
            the one to write to.

    Returns:
        In the fork, the descriptor through which it tells.
    """
    teller = _TELLER.get()
    assert teller is not None, "only a job forks itself"
    heard, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(heard)
        os.dup2(tell, teller.descriptor)
        os.close(tell)
        teller.owner = os.getpid()
        return teller.descriptor
    code = 1
    try:
        os.close(tell)
        faulthandler.disable()  # the fork has said it
        beside(pid, heard, teller.descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code < 0:
            signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
            os.kill(os.getpid(), -code)
    finally:
        os._exit(code)


@contextlib.contextmanager
def telling(teller: Teller) -> Iterator[None]:
    """Notes of the block are told."""
    before = _TELLER.set(teller)
    try:
        yield
    finally:
        _TELLER.reset(before)


def work(function: str, payload: Any, descriptor: int, allowed: limits.Limits, looked_at: events.Note) -> None:
    """Run ``package.module:name`` with ``(payload, tell)`` and tell how it went; never returns."""
    teller = Teller(descriptor, looked_at)
    try:
        faulthandler.enable(file=2, all_threads=False)
        limits.apply(allowed)
        module, _, name = function.partition(":")
        with telling(teller):
            getattr(importlib.import_module(module), name)(payload, teller.tell)
        teller.tell("finished", None)
    except BaseException as error:
        with contextlib.suppress(Exception):
            traceback.print_exc()
        told = "".join(traceback.format_exception_only(error)).strip()
        with contextlib.suppress(Exception):
            teller.tell("raised", told)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(0)  # no exit handler of the user's, and no wait for a thread of theirs
