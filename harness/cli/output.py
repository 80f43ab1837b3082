"""Where results go and in which form: `--format`, `--output` and `--write`, which several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import running
from harness.cli.options import together
from harness.errors import nearest
from harness.report.formats import FORMATS, Presentation

if TYPE_CHECKING:
    from harness.results.schema import Report

Written = tuple[tuple[str, Path], ...]


def _written(_: click.Context, __: click.Parameter, values: Sequence[str]) -> Written:
    """``junit:report.xml`` -> ``("junit", Path("report.xml"))``, for each time that it is given."""
    found = []
    for value in values:
        form, _colon, file = value.partition(":")
        if form not in FORMATS:
            raise click.BadParameter(
                f"got {value!r}, expected FORMAT:FILE, with one of the formats {', '.join(FORMATS)}"
                f"{nearest(form, list(FORMATS))}"
            )
        if not file or Path(file).is_dir():
            raise click.BadParameter(f"{value!r} names no file; write it as {form}:FILE")
        found.append((form, Path(file)))
    _check_once([file for _, file in found])
    return tuple(found)


def _check_once(files: Sequence[Path]) -> None:
    twice = [file for file in dict.fromkeys(files) if files.count(file) > 1]
    if twice:
        raise click.BadParameter(f"{twice[0]} would be written twice; give each format a file of its own")


_FORMAT = click.option(
    "--format",
    "--output-format",
    "form",
    type=click.Choice(list(FORMATS)),
    default="full",
    show_default=True,
    help="full, concise and grouped are text; junit, sarif and github are for CI, markdown for a pull request, csv is the times.",
)
output = click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write there instead of to the terminal."
)
_WRITE = click.option(
    "--write",
    "written",
    multiple=True,
    callback=_written,
    metavar="FORMAT:FILE",
    help="Write this form as well: junit:report.xml; may be given several times.",
)


# The form that results take, and the files that they go to.
options = together(_FORMAT, output, _WRITE)


def check(output: Path | None, written: Written) -> None:
    """Refuse what cannot be written, before a run that takes long.

    Raises:
        FolderError: a folder that cannot be made or written.
        click.BadParameter: one file twice.
    """
    from harness.report import writer

    files = [file for _, file in written] + ([] if output is None else [output])
    _check_once(files)
    for folder in {file.parent for file in files}:
        writer.check_folder(folder)


def emit(report: Report, how: Presentation, form: str, output: Path | None, written: Written) -> None:
    """Write the report in its form to the terminal or a file, and in every other form that was asked for."""
    from harness.report import formats

    if output is not None:
        write(report, how, ((form, output), *written))
        return
    write(report, how, written)
    shown = formats.render(form, report, replace(how, whole=_whole(how, written)))
    if form in ("full", "concise", "grouped"):
        running.emit(shown, None)
    else:
        click.echo(shown, nl=False)  # lines that a program reads are not wrapped to the width of the terminal


def write(report: Report, how: Presentation, written: Written) -> None:
    """Write the report to files."""
    from harness.report import formats, writer

    how = replace(how, style=None, whole=_whole(how, written))
    for form, file in written:
        writer.write_text(file, formats.render(form, report, how))


def _whole(how: Presentation, written: Written) -> str:
    """Where a short form sends its reader: to the report, or to a file that has all of it."""
    return how.whole or next((file.as_posix() for form, file in written if form == "json"), "")
