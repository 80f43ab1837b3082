"""The user's code in this process: what it may raise, and where what it prints goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

# What a loss raises is a row of the table; one that exits must not take the other losses' results along.  An interrupt from
# the keyboard is the user's own wish.
RAISED = (Exception, SystemExit)


@contextmanager
def printing_to_stderr() -> Iterator[None]:
    """Send what is written to stdout to stderr: stdout is for results, which may be JSON or CSV.

    Both ``sys.stdout`` and file descriptor 1 are redirected, the latter for C libraries and child processes; where there is
    no such descriptor, the former alone.  Other threads of the process are redirected too.
    """
    try:
        os.fstat(2)
        kept = os.dup(1)
    except OSError:
        with redirect_stdout(sys.stderr):
            yield
        return
    _flush()
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _flush()  # a logger may have kept the stream, with what it wrote still in its buffer
        os.dup2(kept, 1)
        os.close(kept)


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()
