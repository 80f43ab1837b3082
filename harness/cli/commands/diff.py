"""`loss-harness diff`: two reports side by side."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from harness.cli import exits, options, running
from harness.cli import output as out


@click.command()
@click.argument("old", type=click.Path(exists=True, path_type=Path))
@click.argument("new", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--allow", multiple=True, callback=options.split, metavar="COST=PERCENT", help="May grow so far: peak_bytes=5."
)
@click.option("--loss", "losses", multiple=True, callback=options.split, metavar="NAME", help="Only this loss.")
@click.option(
    "--format", "form", type=click.Choice(["text", "markdown", "json", "html"]), default="text", show_default=True
)
@out.output
@options.loudness
def diff(
    old: Path,
    new: Path,
    allow: tuple[str, ...],
    losses: tuple[str, ...],
    form: str,
    output: Path | None,
    quiet: bool,
    verbose: bool,
) -> None:
    """Compare two reports: exact costs must not grow, nothing may break; times are evidence.

    OLD and NEW are report folders, report.json files, or files of `loss-harness bench --save`.
    """
    from harness.judging import diff as differences
    from harness.report import diff_html, diff_text

    before, after = (differences.only(differences.read(path), losses) for path in (old, new))
    found = differences.compare(before, after, allowed=differences.allowances(allow, before, after))
    if quiet and form == "text":
        failed = replace(found, times=(), times_apart="", gone=(), added=())
        shown = "" if found.ok else diff_text.text(failed)
    elif form == "json":
        shown = found.to_json()
    elif form == "html":
        shown = diff_html.render(found, before, after, places=(old.as_posix(), new.as_posix()))
    else:
        shown = (diff_text.text if form == "text" else diff_text.markdown)(found, verbose=verbose)
    running.emit(shown, output)
    sys.exit(exits.CLEAN if found.ok else exits.FINDINGS)
