"""`loss-harness report`: verify, time and judge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness import options
from harness.commands import colors, loading, running

if TYPE_CHECKING:
    from harness.report.schema import Report


@click.command()
@click.argument("targets", metavar="[TARGET]...", nargs=-1)
@options.device
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="reports/latest",
    show_default=True,
    help="Folder of the report.",
)
@options.profile
@options.seed
@options.budget
@options.timed
@options.select
@options.ignore
@options.timings
@options.declared
@click.pass_context
def report(ctx: click.Context, /, targets: tuple[str, ...], out: Path, timings: bool, **_: Any) -> None:
    """Verify and time losses, and say whether to adopt them.

    TARGET defaults to `losses`.  Writes report.json, report.md, timings.csv and failures/ to the folder.
    """
    from harness.report import text, writer
    from harness.report.check_times import check_times_text
    from harness.report.run import Run
    from harness.report.self_check import self_check_sentence

    request = running.request(ctx)
    run = Run(loading.load(targets or ("losses",), ctx), request)
    writer.check_folder(out)

    def show(made: Report) -> None:
        folder = writer.folder_for(out, made)
        writer.write_report(folder, made, run.failures, timings=run.timings)
        parts = [text.verdicts_text(made, colors.styled), self_check_sentence(made.environment.get("calibration"))]
        parts.append(check_times_text(made) if timings else "")
        click.echo("\n\n".join(part for part in parts if part))
        click.echo(f"\nwritten: {folder / 'report.md'}, {folder / 'report.json'}")

    running.complete(run, [run.verify, run.calibrate, run.benchmark], show)
