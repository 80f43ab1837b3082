"""`loss-harness bench`: time losses."""

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
@options.option("device")
@options.option("budget")
@options.option("seed")
@options.timed
@options.sizes
@options.sweep
@options.density
@options.costs_only
@options.loudness
@click.option("--format", "form", type=click.Choice(["text", "json", "csv"]), default="text", show_default=True)
@out.output
@click.option(
    "--save", type=click.Path(path_type=Path, dir_okay=False), help="Write the results there, for `loss-harness diff`."
)
@options.declared
@options.apart
@click.pass_context
def bench(
    ctx: click.Context,
    /,
    targets: tuple[str, ...],
    form: str,
    output: Path | None,
    save: Path | None,
    quiet: bool,
    verbose: bool,
    **_: Any,
) -> None:
    """Time losses without checking that they are right."""
    from harness.report import formats, writer
    from harness.results import schema

    run: Driver
    for file in (save, output):
        if file is not None:
            writer.check_folder(file.parent)

    def show(made: Report) -> str | None:
        place = None if save is None else _place(save, made)
        if place is not None:
            writer.write_text(place, schema.dumps(made))
        text = _text(made, quiet, verbose) if form == "text" else formats.render(form, made, formats.Presentation())
        running.emit(text, output)
        return None if place is None else place.as_posix()

    with apart.driving(ctx, targets) as run:
        running.complete(run, ("benchmark",), show, quiet=quiet)


def _place(save: Path, made: Report) -> Path:
    """Where results go: beside those that are there, where these are not complete."""
    is_partial = any(loss.missing for loss in made.losses)
    return save.with_suffix(f".interrupted{save.suffix}") if is_partial and save.exists() else save


def _text(made: Report, quiet: bool, verbose: bool) -> str:
    from harness.report import formats, text, timings
    from harness.results import words

    if quiet:
        return formats.render("full", made, formats.Presentation(quiet=True, style=colors.styled))
    notes = [words.printable(f"{loss.name}: {note}") for loss in made.losses for note in loss.notes if verbose]
    parts = [timings.timings_text(made), "\n".join(notes), text.missing_text(made)]
    return "\n\n".join(part for part in parts if part) + "\n"
