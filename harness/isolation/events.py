"""The lines of JSON that worker, supervisor and sandbox tell each other.

{"step": TEXT}      the worker begins something; the clock of the limit starts anew
{"result": DATA}    something is done, and stays done whatever comes next
{"raised": TEXT}    the function raised
{"ended": DATA}     the supervisor's last word: see `Ended`

What the worker looks at changes a thousand times as often, and is read only where it ends: it stands in memory that both have.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Tell = Callable[[str, Any], None]  # takes one of these, as (kind, data): from the worker's function to whoever looks on

FINISHED, RAISED, KILLED, EXITED = "finished", "raised", "killed by a signal", "exited"
TIMED_OUT, OUT_OF_MEMORY, LOST = "timed out", "out of memory", "lost"


@dataclass(frozen=True)
class Ended:
    """How a job ended.

    Args:
        how: ``finished``, or what went wrong.
        reason: one sentence on that; empty where it finished.
        step: what was under way.
        note: the last thing that it looked at.
        output: the end of what was written to standard output and error.
    """

    how: str
    reason: str = ""
    step: str = ""
    note: Any = None
    output: str = ""

    @property
    def ok(self) -> bool:
        """Whether the function returned."""
        return self.how == FINISHED


def line(kind: str, data: Any) -> bytes:
    """One event."""
    return json.dumps({kind: data}, allow_nan=False).encode() + b"\n"


def parsed(text: bytes) -> tuple[str, Any] | None:
    """(kind, data) of a line; ``None`` where it is none of ours."""
    try:
        ((kind, data),) = json.loads(text).items()
    except (ValueError, AttributeError):
        return None
    return kind, data


class Note:
    """What a worker looks at, as JSON, in memory that its forks share with the process that has made it."""

    _BYTES = 1 << 20  # pages that nobody writes to are not there
    _LENGTH = 8

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._BYTES)

    def write(self, text: str) -> None:
        """Replace what stands there; what is too long is left out."""
        told = text.encode()
        self.clear()  # whoever ends while it writes has written nothing
        if self._LENGTH + len(told) <= self._BYTES:
            self._memory[self._LENGTH : self._LENGTH + len(told)] = told
            self._memory[: self._LENGTH] = len(told).to_bytes(self._LENGTH)

    def clear(self) -> None:
        """Nothing is looked at."""
        self._memory[: self._LENGTH] = bytes(self._LENGTH)

    def read(self) -> Any:
        """What stands there; ``None`` where nothing does."""
        length = int.from_bytes(self._memory[: self._LENGTH])
        return json.loads(self._memory[self._LENGTH : self._LENGTH + length]) if length else None


class Lines:
    """Bytes that come in pieces -> whole lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Lines that are whole now."""
        *whole, self._rest = (self._rest + piece).split(b"\n")
        yield from whole
