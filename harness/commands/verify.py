"""`loss-harness verify`: check that losses are right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness import options
from harness.commands import colors, loading, running

if TYPE_CHECKING:
    from harness.report.observer import Observer
    from harness.report.schema import Report

FAILURES = ".loss-harness/failures"


@click.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@options.profile
@options.seed
@options.device
@options.select
@options.ignore
@options.implementation
@options.baseline
@options.write_baseline
@options.timings
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write there instead of to the terminal."
)
@click.option("--verbose", "-v", is_flag=True, help="Also notes, reasons, and code that reproduces each finding.")
@options.declared
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    targets: tuple[str, ...],
    write_baseline: Path | None,
    form: str,
    output: Path | None,
    verbose: bool,
    **_: Any,
) -> None:
    """Check that losses are right."""
    from harness.report import schema, writer
    from harness.report.run import Run

    request = running.request(ctx)
    run = Run(loading.load(targets, ctx), request)

    def show(made: Report) -> None:
        writer.write_failures(Path(FAILURES), run.failures)
        running.emit(
            schema.dumps(made) if form == "json" else _verify_text(made, verbose, plain=output is not None), output
        )

    def accept(_: Observer) -> None:
        if write_baseline is not None:
            run.accept(write_baseline)

    running.complete(run, [run.verify, accept], show)


def _verify_text(made: Report, verbose: bool, *, plain: bool) -> str:
    from harness.report import text
    from harness.report.check_times import check_times_text

    parts = [
        text.findings_text(
            made,
            folder=FAILURES,
            verbose=verbose,
            style=text.unstyled if plain else colors.styled,
            notes=verbose,
        ),
        text.reasons_text(made, ("crashed", "timed out", "waived", "skipped") if verbose else ("crashed", "timed out")),
        text.suggestions_text(made),
        "\n".join(text.printable(note) for note in made.notes),
        check_times_text(made),
        text.counts_text(made),
        text.totals_text(made),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
