"""From TARGETs, and from what the command line declares of a loss, to specs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from harness.spec import LossSpec

# The options of `harness.options.declared` beside --inputs: parameter -> name.
_BESIDE = {
    "context": "--context",
    "settings": "--set",
    "returns": "--returns",
    "laws": "--law",
    "reference": "--reference",
}


def load(targets: Sequence[str], ctx: click.Context) -> list[LossSpec]:
    """The specs that the targets name, or the one that ``--inputs`` declares.

    Raises:
        click.UsageError: ``--inputs`` with several targets, or its companions without it.
        TargetError, DeclarationError: see `harness.locate`; for a loss that declares nothing, with the line to write.
    """
    from harness.declaration import Declaration
    from harness.errors import DeclarationError
    from harness.locate import load_declared, load_specs

    given = ctx.params
    if given["inputs"] is None:
        alone = [name for parameter, name in _BESIDE.items() if given[parameter]]
        if alone:
            raise click.UsageError(
                f"{alone[0]} declares a loss only together with --inputs, such as --inputs 'input: B D'"
            )
        try:
            return load_specs(targets)
        except DeclarationError as error:
            from harness.starting.advice import with_advice

            raise with_advice(error, targets, str(ctx.info_name)) from error
    if len(targets) != 1:
        raise click.UsageError(
            f"--inputs declares one loss, but {len(targets)} targets came; write package.module:Name"
        )
    declaration = Declaration(
        target=targets[0],
        inputs=given["inputs"],
        context=given["context"] or "",
        output=given["returns"],
        options=tuple(given["settings"]),
        laws=tuple(given["laws"]),
        reference=given["reference"] or "",
    )
    return [load_declared(declaration)]
