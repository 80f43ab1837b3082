"""What the commands share: from options to a run, its progress, and its results."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness import options
from harness.commands import exits

if TYPE_CHECKING:
    from harness.report.run import Request, Run, Watch
    from harness.report.schema import Report

COLORS = {
    "error": "red",
    "warning": "yellow",
    "note": "cyan",
    "adopt": "green",
    "adopt with caveats": "yellow",
    "do not adopt": "red",
    "inconclusive": "yellow",
}


def request(ctx: click.Context) -> Request:
    """What the options of a command ask for."""
    from harness.report import baseline
    from harness.report.run import Request, selected_codes

    given = ctx.params
    files = [given.get("baseline"), given.get("write_baseline")]
    accepted = [baseline.read(file) for file in files if file is not None and file.exists()]
    chosen = selected_codes(*options.chosen_rules(ctx)) if "select" in given else None
    return Request(
        profile=given.get("profile", "ci"),
        seed=given["seed"],
        devices=given["devices"],
        codes=chosen,
        implementations=given.get("implementations") or None,
        budget_s=given.get("budget", 30.0),
        baseline=frozenset().union(*accepted),
        is_metered=given.get("timings", False),
        is_timed=not given.get("costs_only", False),
        sizes=given.get("sizes") or None,
        sweep=given.get("sweep") or {},
        densities=given.get("densities") or ({},),
        compiled=given.get("compiled", False),
        command=shlex.join(["loss-harness", *sys.argv[1:]]),
        **{name: given[name] for name in ("passes", "dtypes", "caches", "clocks") if given.get(name)},
    )


@contextmanager
def progress() -> Iterator[Watch]:
    """What is under way, on a terminal; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda text, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("")
        yield lambda text, done, total: progress.update(task, description=text, completed=done, total=total)


def styled(text: str, what: str) -> str:
    """Text in the colour of what it is."""
    return click.style(text, fg=COLORS.get(what), bold=True)  # click.echo drops styles in a pipe


def emit(text: str, output: Path | None) -> None:
    """Write to a file, else to the terminal."""
    from harness.report import writer

    if output is None:
        click.echo(text, nl=False)
    else:
        writer.write_text(output, text)


def complete(run: Run, steps: Sequence[Callable[[Watch], None]], show: Callable[[Report], None]) -> None:
    """Run the steps, show the results and exit; what is done is shown after an interrupt or an error too."""
    try:
        with progress() as watch:
            for step in steps:
                step(watch)
    except BaseException:
        if run.has_results:
            show(run.report())
        raise
    made = run.report()
    show(made)
    sys.exit(exits.CLEAN if made.ok else exits.FINDINGS)
