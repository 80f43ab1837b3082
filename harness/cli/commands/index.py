"""`loss-harness index`: one page over several reports."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from harness.cli import exits


@click.command()
@click.argument("folders", metavar="[FOLDER]...", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page; by default index.html in the first folder.",
)
def index(folders: tuple[Path, ...], output: Path | None) -> None:
    """Write a page over report folders: each report, and each loss through time.

    FOLDER defaults to `reports`; reports in folders below it are found.  What cannot be read stands on the page with the
    reason, and only where nothing can be read is the exit code 2.
    """
    from harness.report import index as gathering
    from harness.report import index_html, writer
    from harness.results import words

    chosen = folders or (Path("reports"),)
    if not chosen[0].exists():
        raise exits.Refused("no folder reports here; name the folders of the reports, or make one: loss-harness report")
    file = output or (chosen[0] if chosen[0].is_dir() else chosen[0].parent) / "index.html"
    entries, unread = gathering.gather(chosen, file)
    for each in unread:
        click.echo(words.printable(f"not read: {each.folder}: {each.reason}"), err=True)
    histories = gathering.histories(entries)
    writer.write_text(file, index_html.render(entries, unread, histories))
    click.echo(f"{index_html.headline(entries, unread, histories)}\nwritten: {file.as_posix()}")
    sys.exit(exits.CLEAN if entries else exits.USAGE)
