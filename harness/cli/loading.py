"""From TARGETs, and from what the command line declares of a loss, to what another process can load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from harness.errors import DeclarationError
    from harness.isolation.sandbox import Sandbox

# The options of `harness.cli.options.declared` beside --inputs: parameter -> name.
_BESIDE = {
    "context": "--context",
    "settings": "--set",
    "returns": "--returns",
    "laws": "--law",
    "reference": "--reference",
    "formula": "--formula",
    "taken": "--dtypes",
    "computes_in": "--computes-in",
    "stochastic": "--stochastic",
    "once": "--once",
    "pick": "--pick",
    "differentiable": "--differentiable",
    "roles": "--role",
}


def targets(given: Sequence[str], ctx: click.Context) -> list[str]:
    """The targets, or the one text that carries what ``--inputs`` and its companions declare.

    Raises:
        click.UsageError: ``--inputs`` with several targets, or its companions without it.
    """
    from harness.declare.on_command_line import Declaration

    told = ctx.params
    if told["inputs"] is None:
        alone = [name for parameter, name in _BESIDE.items() if told[parameter]]
        if alone:
            raise click.UsageError(
                f"{alone[0]} declares a loss only together with --inputs, such as --inputs 'input: B D'"
            )
        return list(given)
    if len(given) != 1:
        raise click.UsageError(f"--inputs declares one loss, but {len(given)} targets came; write package.module:Name")
    declaration = Declaration(
        target=given[0],
        inputs=told["inputs"],
        context=told["context"] or "",
        output=told["returns"],
        options=tuple(told["settings"]),
        laws=tuple(told["laws"]),
        reference=told["reference"] or "",
        formula=told["formula"] or "",
        dtypes=told["taken"] or "",
        computes_in=told["computes_in"] or "",
        stochastic=told["stochastic"],
        once=told["once"],
        pick=told["pick"] or "",
        differentiable=told["differentiable"] or "",
        roles=tuple(told["roles"]),
    )
    return [declaration.as_target]


def advised(error: DeclarationError, given: Sequence[str], ctx: click.Context, box: Sandbox | None) -> DeclarationError:
    """The error of a loss that declares nothing, with the command lines that would have worked."""
    if ctx.params["inputs"] is not None:
        return error
    from harness.proposing.advice import with_advice

    return with_advice(error, given, str(ctx.info_name), box)
