"""`loss-harness bench`: time losses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness import options
from harness.commands import loading, running

if TYPE_CHECKING:
    from harness.report.schema import Report


@click.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@options.device
@options.budget
@options.seed
@options.timed
@options.sizes
@options.sweep
@options.density
@options.costs_only
@click.option("--format", "form", type=click.Choice(["text", "json", "csv"]), default="text", show_default=True)
@click.option(
    "--save", type=click.Path(path_type=Path, dir_okay=False), help="Write the results there, for `loss-harness diff`."
)
@options.declared
@click.pass_context
def bench(ctx: click.Context, /, targets: tuple[str, ...], form: str, save: Path | None, **_: Any) -> None:
    """Time losses without checking that they are right."""
    from harness.report import schema, timings, writer
    from harness.report.run import Run

    run = Run(loading.load(targets, ctx), running.request(ctx))
    if save is not None:
        writer.check_folder(save.parent)

    def show(made: Report) -> None:
        if save is not None:
            writer.write_text(save, schema.dumps(made))
        if form == "json":
            running.emit(schema.dumps(made), None)
        else:
            running.emit((run.timings or "") if form == "csv" else timings.timings_text(made) + "\n", None)

    running.complete(run, [run.benchmark], show)
