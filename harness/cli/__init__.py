"""The command line: `loss-harness report | verify | bench | ...`; the commands are in `harness.cli.commands`.

Exit codes: 0 clean, 1 a finding of severity error (or a crash or timeout of the loss), 2 usage, 3 a bug of the tool,
130 interrupted.  Nothing here imports torch before a command runs, so that `--help` is fast.
"""

from __future__ import annotations

import platform
import sys
import traceback
from typing import Any

import click

from harness.cli import misnamed, options
from harness.cli.commands import COMMANDS
from harness.cli.exits import BUG, CLEAN, INTERRUPTED, USAGE, Refused
from harness.cli.terminal import colors, interrupts
from harness.errors import HarnessError
from harness.version import __version__


class _Group(click.Group):
    """Commands in the order of use, whose known errors end as a message and exit code 2, never as a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with misnamed.explained(COMMANDS):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with misnamed.explained(COMMANDS):
                return super().invoke(ctx)
        except HarnessError as error:
            raise Refused(str(error)) from error


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib import metadata

    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = "not installed"
    click.echo(f"loss-harness {__version__}, torch {torch}, Python {platform.python_version()}")
    ctx.exit()


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show versions."
)
@options.config
@options.option("color")
@click.pass_context
def cli(ctx: click.Context, /, config: str | None, **_: Any) -> None:
    """Verify and benchmark a custom PyTorch loss before you adopt it.

    TARGET is package.module, package.module:Name, path/file.py or path/file.py:Name.  TARGETs and options that stay the same
    can stand in pyproject.toml: in [tool.loss-harness], or in [tool.loss-harness.verify] for one command.
    """
    options.use_configuration(ctx, config)
    colors.choose(ctx, ctx.params["color"])


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
