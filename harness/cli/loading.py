"""From TARGETs, and from what the command line declares of a loss, to what another process can load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from harness.errors import DeclarationError
    from harness.isolation.sandbox import Sandbox

# Fields of a `Declaration` whose option has another parameter.
_PARAMETERS = {"output": "returns", "options": "settings", "dtypes": "taken"}


def targets(given: Sequence[str], ctx: click.Context) -> list[str]:
    """The targets, or the one text that carries what ``--inputs`` and its companions declare.

    Raises:
        click.UsageError: ``--inputs`` with several targets, or its companions without it.
    """
    from harness.declare.on_command_line import Declaration

    parameters = {f.name: _PARAMETERS.get(f.name, f.name) for f in fields(Declaration) if f.name != "target"}
    told = {name: ctx.params[parameter] for name, parameter in parameters.items()}
    if told["inputs"] is None:
        names = {parameter.name: parameter.opts[0] for parameter in ctx.command.params}
        alone = [names[parameters[name]] for name, value in told.items() if value]
        if alone:
            raise click.UsageError(
                f"{alone[0]} declares a loss only together with --inputs, such as --inputs 'input: B D'"
            )
        return list(given)
    if len(given) != 1:
        raise click.UsageError(f"--inputs declares one loss, but {len(given)} targets came; write package.module:Name")
    return [Declaration(given[0], **{name: value for name, value in told.items() if value is not None}).as_target]


def advised(error: DeclarationError, given: Sequence[str], ctx: click.Context, box: Sandbox | None) -> DeclarationError:
    """The error of a loss that declares nothing, with the command lines that would have worked."""
    if ctx.params["inputs"] is not None:
        return error
    from harness.proposing.advice import with_advice

    return with_advice(error, given, str(ctx.info_name), box)
