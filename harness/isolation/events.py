"""The lines of JSON that worker, supervisor and sandbox tell each other.

{"step": TEXT}      the worker begins something; the clock of the limit starts anew
{"note": DATA}      what it looks at, kept in case that it ends; never sent on
{"result": DATA}    something is done, and stays done whatever comes next
{"raised": TEXT}    the function raised
{"ended": DATA}     the supervisor's last word: see `Ended`
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

Tell = Callable[[str, Any], None]  # takes one of these, as (kind, data): from the worker's function to whoever looks on

FINISHED, RAISED, KILLED, EXITED, TIMED_OUT, OUT_OF_MEMORY, LOST = (
    "finished",
    "raised",
    "killed by a signal",
    "exited",
    "timed out",
    "out of memory",
    "lost",
)


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

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


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


class Lines:
    """Bytes that come in pieces -> whole lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Lines that are whole now."""
        *whole, self._rest = (self._rest + piece).split(b"\n")
        yield from whole
