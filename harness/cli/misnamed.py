"""An option that a command does not have: which of its own is meant, or which commands have it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import click

from harness.judging.speed import listed

# What commands name by different words, for they are not quite the same: where results go, how long it takes, dtypes.
_ALIKE = (
    ("--output", "--save", "--out", "--folder", "--write"),
    ("--budget", "--timeout", "--limit"),
    ("--dtype", "--dtypes"),
    ("--format", "--output-format", "--outputformat"),
)
_NEAR = 0.8  # of `difflib`: a slip of the finger, and no other word


def options_of(command: click.Command) -> Mapping[str, str]:
    """Long option -> what its help begins with; of two names for one, the first."""
    found = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    first = {next((n for n in each.opts if n.startswith("--")), ""): (each.help or "").split(";")[0] for each in found}
    return {name: text.rstrip(".") for name, text in first.items() if name}


@contextmanager
def explained(commands: Sequence[click.Command]) -> Iterator[None]:
    """Say of an option that is refused which one is right, or which of the commands take it."""
    try:
        yield
    except click.NoSuchOption as error:
        if error.ctx is None:
            raise
        raise click.UsageError(_told(error.option_name, error.ctx, commands), error.ctx) from error


def _told(name: str, ctx: click.Context, commands: Sequence[click.Command]) -> str:
    own = options_of(ctx.command)
    others = [f"`{each.name}`" for each in commands if any(name in option.opts for option in each.params)]
    alike = [known for words in _ALIKE if name in words for known in words if known in own]
    meant = [known for known in own if name.startswith("--") and known.startswith(name)] or alike
    meant = meant or ([] if others else difflib.get_close_matches(name, own, cutoff=_NEAR))
    text = f"`{ctx.info_name}` has no option {name}"
    if others:
        text += f", which {listed(others)} {'takes' if len(others) == 1 else 'take'}"
        text += "" if ctx.parent else "; write it after the command"
    if meant:
        text += "; did you mean " + " or ".join(f"{each} ({own[each]})" for each in meant) + "?"
    return text
