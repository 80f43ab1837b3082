"""`loss-harness show`: a report that is there, in another form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import output as out
from harness.cli.terminal.colors import styled

if TYPE_CHECKING:
    from harness.results.schema import Report


@click.command()
@click.argument("report", type=click.Path(exists=True, path_type=Path))
@out.options
@click.option(
    "--against",
    type=click.Path(exists=True, path_type=Path),
    help="An earlier report; markdown tells what changed since.",
)
@click.option("--verbose", "-v", is_flag=True, help="Also notes, reasons, and code that reproduces each finding.")
def show(
    report: Path, form: str, output: Path | None, written: out.Written, against: Path | None, verbose: bool
) -> None:
    """Show a report in another form; nothing is run again.

    REPORT is a report folder, or a file that --format json or --save wrote.  The exit code is 0 whatever the report says.
    """
    from harness.judging import diff
    from harness.report.formats import Presentation

    out.check(output, written)
    made = diff.read(report)
    how = Presentation(
        failures=_failures(report, made),
        verbose=verbose,
        has_verdicts=any(loss.measurements for loss in made.losses),
        style=styled,
        against=None if against is None else diff.read(against),
        whole=report.as_posix(),
    )
    out.emit(made, how, form, output, written)


def _failures(report: Path, made: Report) -> str:
    """The folder that has the failure files of the report; empty where none has them all."""
    from harness.report.writer import FAILURES, OWN_FAILURES

    folder = report if report.is_dir() else report.parent
    names = {finding.failure for loss in made.losses for finding in loss.findings if finding.failure}
    for candidate in (folder / FAILURES, folder / OWN_FAILURES, Path(OWN_FAILURES)):
        if names and all((candidate / name).is_file() for name in names):
            return candidate.as_posix()
    return ""
