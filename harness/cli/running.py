"""What the commands share: from options to a run, its progress, and its results."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.calls import triton_interpreter
from harness.cli import exits, options
from harness.cli.terminal import progress, wrapping

if TYPE_CHECKING:
    from harness.results.schema import Report
    from harness.runs.ledger import Ledger, Phase, Request


def request(ctx: click.Context) -> Request:
    """What the options of a command ask for."""
    from harness.judging import baseline
    from harness.runs.ledger import Request, chosen_codes

    given = ctx.params
    files = [given.get("baseline"), given.get("write_baseline")]
    accepted = [baseline.read(file) for file in files if file is not None and file.exists()]
    chosen = chosen_codes(*options.chosen_rules(ctx)) if "select" in given else None
    known = {field.name for field in fields(Request)}
    told = {name: value for name, value in given.items() if value and name in known}
    own = {
        "codes": chosen,
        "baseline": frozenset().union(*accepted),
        "is_metered": given.get("timings", False),
        # Times of an interpreter say nothing.
        "is_timed": not given.get("costs_only", False) and not triton_interpreter.is_wanted(),
        "command": shlex.join(["loss-harness", *sys.argv[1:]]),
    }
    return Request(**told | own)


def emit(text: str, output: Path | None) -> None:
    """Write to a file, else to the terminal."""
    from harness.report import writer

    if output is not None:
        writer.write_text(output, text)
    elif sys.stdout.isatty():
        click.echo(wrapping.wrapped(text, shutil.get_terminal_size().columns), nl=False)
    else:
        click.echo(text, nl=False)


def complete(
    run: Ledger,
    phases: Sequence[Phase],
    show: Callable[[Report], str | None],
    *,
    finish: Callable[[], None] = lambda: None,
    quiet: bool = False,
) -> None:
    """Run the phases, show the results and exit; what is done is shown after an interrupt or an error too.

    Args:
        run: the run.
        phases: of it, in their order.
        show: shows or writes a report, and may return where it lies.
        finish: is called when all of them have ended.
        quiet: no progress.
    """
    try:
        with progress.observing(quiet=quiet) as observer:
            observer.expect(run.expect(phases))
            for phase in phases:
                run.perform(phase, observer)
            finish()
    except KeyboardInterrupt:
        _show_what_is_done(run, show)
        sys.exit(exits.INTERRUPTED)
    except BaseException:
        if run.has_results:
            show(run.report())
        raise
    made = run.report()
    show(made)
    sys.exit(exits.CLEAN if made.ok else exits.FINDINGS)


def _show_what_is_done(run: Ledger, show: Callable[[Report], str | None]) -> None:
    if not run.has_results:
        click.echo("interrupted before anything was known; nothing is written", err=True)
        return
    click.echo("interrupted; showing what is done (once more to end at once)", err=True)
    from harness.results import words

    made = run.report()
    place = show(made)
    missing = [f"  {words.printable(loss.name)}: {loss.missing}" for loss in made.losses if loss.missing]
    where = f"a partial report is in {place}" if place else "what is shown is partial"
    click.echo(
        "\n".join([f"interrupted: {where}; it lacks" if missing else f"interrupted: {where}", *missing]), err=True
    )
