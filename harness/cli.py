"""The command line: `loss-harness report | verify | bench | calibrate | diff | replay | rules | explain`.

Exit codes: 0 clean, 1 a finding of severity error (or a crash or timeout of the loss), 2 usage, 3 a bug of the tool,
130 interrupted.  Nothing here imports torch before a command runs, so that `--help` is fast.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

import click

import harness
from harness import options
from harness.commands import COMMANDS, colors, interrupts
from harness.commands.exits import BUG, CLEAN, INTERRUPTED, USAGE, Refused
from harness.errors import HarnessError


class _Group(click.Group):
    """Commands in the order of use, whose known errors end as a message and exit code 2, never as a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HarnessError as error:
            raise Refused(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(harness.__version__, prog_name="loss-harness")
@options.config
@options.color
@click.pass_context
def cli(ctx: click.Context, config: str | None, color: str) -> None:
    """Verify and benchmark a custom PyTorch loss before you adopt it.

    TARGET is package.module, package.module:Name, path/file.py or path/file.py:Name.  Options may have defaults in
    pyproject.toml, under [tool.loss-harness]: select, ignore, profile, seed, device, budget, pass, dtype, cache, clock, compile.
    """
    options.use_configuration(ctx, config)
    colors.choose(ctx, color)


for command in COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Entry point of `loss-harness`."""
    try:
        with interrupts.handled():
            code = cli.main(prog_name="loss-harness", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except Exception:
        traceback.print_exc()
        click.echo("this is a bug of loss-harness, not of the loss; please report it with the lines above", err=True)
        sys.exit(BUG)
    sys.exit(code if isinstance(code, int) else CLEAN)


if __name__ == "__main__":
    main()
