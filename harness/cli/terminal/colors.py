"""Whether and in which colours a command writes.

What was asked for by ``--color`` counts most, then ``NO_COLOR`` (https://no-color.org) and ``FORCE_COLOR``, each where it is set
and not empty, then whether the stream is a terminal that has colours.
"""

from __future__ import annotations

import os
from typing import IO, Any, Literal

import click

When = Literal["auto", "always", "never"]

COLORS = {
    "error": "red",
    "warning": "yellow",
    "note": "cyan",
    "adopt": "green",
    "adopt with caveats": "yellow",
    "do not adopt": "red",
    "inconclusive": "yellow",
}


def choose(ctx: click.Context, when: str) -> None:
    """Let `click.echo` write in colours always, never, or as each stream can."""
    if when == "auto":
        ctx.color = _from_environment()
    else:
        ctx.color = when == "always"


def wanted(stream: IO[Any]) -> bool:
    """Whether to write in colours to a stream."""
    ctx = click.get_current_context(silent=True)
    asked = ctx.color if ctx is not None else _from_environment()
    return stream.isatty() if asked is None else asked


def styled(text: str, what: str) -> str:
    """Text in the colour of what it is; `click.echo` drops it where there are to be no colours."""
    return click.style(text, fg=COLORS.get(what), bold=True)


def _from_environment() -> bool | None:
    """What the environment says; ``None`` where that depends on the stream."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return False if os.environ.get("TERM") == "dumb" else None
