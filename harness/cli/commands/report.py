"""`loss-harness report`: verify, time and judge."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import apart, options, running
from harness.cli import output as forms
from harness.cli.terminal import colors

if TYPE_CHECKING:
    from harness.report.formats import Presentation
    from harness.results.schema import Report
    from harness.runs.driver import Driver


@click.command()
@options.targets(required=False)
@options.option("device")
@options.option("out")
@options.option("profile")
@options.option("seed")
@options.option("budget")
@options.timed
@options.costs_only
@options.option("select")
@options.option("ignore")
@options.timings
@options.loudness
@forms.options
@click.option(
    "--resume", is_flag=True, help="Go on from what an interrupted run of the same request left in the folder."
)
@options.declared
@options.apart
@click.pass_context
def report(
    ctx: click.Context,
    /,
    targets: tuple[str, ...],
    out: Path,
    resume: bool,
    quiet: bool,
    verbose: bool,
    form: str,
    output: Path | None,
    written: forms.Written,
    **_: Any,
) -> None:
    """Verify and time losses, and say whether to adopt them.

    TARGET defaults to `losses`, as it is called from this folder.  Writes report.html, report.md,
    report.json, timings.csv and failures/ to the folder.
    """
    targets = targets or _own()
    from harness.report import writer
    from harness.report.formats import Presentation
    from harness.runs.journal import Journal

    if output is not None and not output.suffix:
        raise click.UsageError(
            f"--output {output} names no file, such as {output.name}.txt, of what goes to the terminal; the folder of the report is --out"
        )
    writer.check_folder(out)
    forms.check(output, written)
    run: Driver

    def show(made: Report) -> str:
        folder = writer.folder_for(out, made)
        writer.write_report(folder, made, run.failures)
        if not any(loss.missing for loss in made.losses):
            journal.finish()
        how = Presentation(
            failures=(folder / writer.FAILURES).as_posix(),
            verbose=verbose,
            quiet=quiet,
            has_verdicts=True,
            style=colors.styled,
            whole=(folder / "report.md").as_posix(),
        )
        if form != "full" or output is not None:
            forms.emit(made, how, form, output, written)
        else:
            forms.write(made, how, written)
            running.emit(_summary(made, how), None)
        return folder.as_posix()

    with (
        apart.driving(ctx, targets) as run,
        Journal(out, run.targets, run.request, code=run.code, resume=resume) as journal,
    ):
        run.journal = journal
        running.complete(run, ("verify", "calibrate", "benchmark"), show, quiet=quiet)


def _own() -> tuple[str, ...]:
    if not any(Path(place).exists() for place in ("losses", "losses.py")) and find_spec("losses") is None:
        raise click.UsageError(
            "no TARGET came, and nothing here is called `losses`; write loss-harness report my_loss.py"
        )
    return ("losses",)


def _summary(made: Report, how: Presentation) -> str:
    """The verdicts, with -v the findings too, and where the rest stands."""
    from harness.judging.choice import sentences
    from harness.report import formats, text
    from harness.report.check_times import check_times_text
    from harness.report.self_check import self_check_sentence
    from harness.results import words

    if how.quiet:
        return formats.render("full", made, how)
    style = how.style or words.unstyled
    parts = [
        text.verdicts_text(made, style, choices=sentences(made), verbose=how.verbose),
        text.findings_text(made, folder=how.failures, verbose=True, style=style) if how.verbose else "",
        text.reasons_text(
            made, ("crashed", "timed out", "waived", "skipped") if how.verbose else ("crashed", "timed out")
        ),
        self_check_sentence(made.environment.get("calibration")) if how.verbose else "",
        check_times_text(made),
        f"written: {Path(how.whole).with_name('report.html').as_posix()}, with report.md and report.json beside it",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
