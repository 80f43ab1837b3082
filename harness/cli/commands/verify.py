"""`loss-harness verify`: check that losses are right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import apart, options, running
from harness.cli import output as out
from harness.cli.terminal import colors

if TYPE_CHECKING:
    from harness.results.schema import Report
    from harness.runs.driver import Driver


@click.command()
@options.targets(required=True)
@options.option("profile")
@options.option("seed")
@options.option("device")
@options.option("select")
@options.option("ignore")
@options.implementation
@options.option("baseline")
@options.write_baseline
@options.timings
@out.options
@options.loudness
@options.declared
@options.apart
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    targets: tuple[str, ...],
    write_baseline: Path | None,
    form: str,
    output: Path | None,
    written: out.Written,
    quiet: bool,
    verbose: bool,
    **_: Any,
) -> None:
    """Check that losses are right."""
    from harness.report import writer
    from harness.report.formats import Presentation

    out.check(output, written)
    run: Driver

    def show(made: Report) -> str | None:
        try:
            writer.write_failures(Path(), run.failures)
        except writer.FolderError as error:  # what was found is worth more than the files to replay it
            click.echo(f"warning: no failure can be replayed: {error}", err=True)
        how = Presentation(failures=writer.OWN_FAILURES, verbose=verbose, quiet=quiet, style=colors.styled)
        out.emit(made, how, form, output, written)
        return None if output is None else output.as_posix()

    def accept() -> None:
        if write_baseline is not None:
            run.accept(write_baseline)

    with apart.driving(ctx, targets) as run:
        running.complete(run, ("verify",), show, finish=accept, quiet=quiet)
