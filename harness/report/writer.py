"""The report's folder: everything is written beside its place first and moved there at the end."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.results.schema import FAILURE_NAME, Report, ReportError, dumps, json_text, loads

FAILURES = "failures"

# What the tool keeps for itself in a project; failure files there beyond these, the oldest first, are removed.
OWN = ".loss-harness"
OWN_FAILURES = f"{OWN}/{FAILURES}"
MOST_FAILURES = 200


class FolderError(HarnessError, OSError):
    """A folder that cannot be written."""


def now() -> str:
    """The time in UTC, ISO 8601 to the second; that of ``SOURCE_DATE_EPOCH`` where it is set, for reproducible files.

    Source: https://reproducible-builds.org/docs/source-date-epoch
    """
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.fromtimestamp(int(fixed), UTC) if fixed.isdecimal() else datetime.now(UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def check_folder(folder: Path) -> None:
    """Make the folder and try to write in it, so that a run does not end without a place for its results.

    Raises:
        FolderError: it cannot be made or written; what was there is untouched.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FolderError(
            f"cannot write reports to {folder}: {error.strerror or error}; choose another folder"
        ) from error


def folder_for(folder: Path, report: Report) -> Path:
    """Where a report goes: beside one that is complete, where it is not complete itself."""
    interrupted = any(loss.missing for loss in report.losses)
    return folder / "interrupted" if interrupted and (folder / "report.json").exists() else folder


def write_report(folder: Path, report: Report, failures: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Write report.json, report.md, report.html, failures/*.json and, where something was timed, timings.csv.

    Of very many losses, report.md and report.html have one row each, and losses/*.html the pages.

    Nothing in the folder changes before everything is written beside its place.  What an earlier report left there and
    this one does not have is removed; files that no report wrote stay.

    Returns:
        The files, in the order in which they were moved to their places; report.json is the last.

    Raises:
        FolderError: the folder cannot be written.
    """
    from harness.report import csv, html, markdown

    check_folder(folder)
    if (folder / FAILURES).is_symlink():
        raise FolderError(
            f"{folder / FAILURES} is a link to {(folder / FAILURES).resolve()}, but files are written and removed only in the "
            f"folder of the report itself; remove the link, or choose another folder"
        )
    texts = {f"{FAILURES}/{name}": json_text(failure) for name, failure in failures.items()}
    if timings := csv.render(report):
        texts["timings.csv"] = timings
    texts["report.md"] = markdown.render(report, folder=folder.as_posix())
    texts["report.html"] = html.render(report, folder=folder.as_posix())
    pages = html.pages(report, folder=folder.as_posix())
    last = {"report.json": dumps(report)}
    before = _written_before(folder)
    try:
        written = _replace_all(folder, itertools.chain(texts.items(), pages, last.items()))
        stale = before.difference(written)
        for name in sorted(stale):
            (folder / name).unlink(missing_ok=True)
        _remove_if_empty(folder / FAILURES)
        _remove_if_empty(folder / html.PAGES)
    except OSError as error:
        raise FolderError(f"cannot write the report to {folder}: {error.strerror or error}") from error
    return [folder / name for name in written]


def write_failures(project: Path, failures: Mapping[str, Mapping[str, Any]]) -> None:
    """Write failure files that `loss-harness replay` takes to ``.loss-harness/failures`` of a project.

    Of those that are there already the `MOST_FAILURES` written last are kept.

    Raises:
        FolderError: the folder cannot be written.
    """
    if not failures:
        return
    folder = project / OWN_FAILURES
    _write_own(project, folder, {name: json_text(failure) for name, failure in failures.items()})
    for old in _oldest(folder, failures)[:-MOST_FAILURES]:
        old.unlink(missing_ok=True)


def _oldest(folder: Path, newest: Collection[str]) -> list[Path]:
    """Failure files that earlier runs wrote, the oldest first."""
    there = [path for path in folder.glob("*.json") if FAILURE_NAME.fullmatch(path.name) and path.name not in newest]
    ages = {}
    for path in there:
        with contextlib.suppress(OSError):  # another run may prune at the same time
            ages[path] = path.stat().st_mtime_ns
    return sorted(ages, key=lambda path: (ages[path], path.name))


def write_own(project: Path, name: str, text: str) -> None:
    """Write one file of ``.loss-harness``.

    Raises:
        FolderError: the folder cannot be written.
    """
    _write_own(project, project / OWN, {name: text})


def _write_own(project: Path, folder: Path, texts: Mapping[str, str]) -> None:
    """Write files; where the folder is new it says to git that nothing of it belongs into a repository, as `.pytest_cache` does."""
    is_new = not (project / OWN).exists()
    check_folder(folder)
    try:
        if is_new:
            _replace_all(project / OWN, [(".gitignore", "# Written by loss-harness.\n*\n")])
        _replace_all(folder, texts.items())
    except OSError as error:
        raise FolderError(f"cannot write to {folder}: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write one file, whole or not at all.

    Raises:
        FolderError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace_all(path.parent, [(path.name, text)])
    except OSError as error:
        raise FolderError(f"cannot write {path}: {error.strerror or error}") from error


def _replace_all(folder: Path, texts: Iterable[tuple[str, str]]) -> list[str]:
    """Write the texts one by one, and move them to their places when all are there; returns their names."""
    names = []
    with tempfile.TemporaryDirectory(prefix=".loss-harness-", dir=folder) as temporary:
        for position, (name, text) in enumerate(texts):
            names.append(name)
            # Half of a surrogate pair, which a message may carry, is written as \udXXX: in JSON that is its escape.
            (Path(temporary) / str(position)).write_text(text, encoding="utf-8", errors="backslashreplace")
        for position, name in enumerate(names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(temporary) / str(position), folder / name)
    return names


def _written_before(folder: Path) -> set[str]:
    """Names of the files that the report in this folder wrote; none where there is no report that can be read."""
    from harness.report import html

    try:
        earlier = loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ReportError):
        return set()
    names = {finding.failure for loss in earlier.losses for finding in loss.findings}
    pages = {html.page_name(loss.name) for loss in earlier.losses} if html.has_pages(earlier) else set()
    return {f"{FAILURES}/{name}" for name in names if name} | {"timings.csv"} | pages


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
