"""The forms in which a report can be written, by name.

Each is rendered from the records of a report alone, without torch.  A renderer is imported when it is used, so that the
names cost nothing on a command line that asks for none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.results.schema import Report
    from harness.results.words import Style


@dataclass(frozen=True)
class Presentation:
    """How a report is to be shown; each form takes what it can use.

    Args:
        failures: folder of the failure files, as a person would write it after `loss-harness replay`; empty for none.
        verbose: also notes, reasons, and code that reproduces each finding.
        quiet: of a text, only errors and crashes.
        has_verdicts: whether a text begins with the verdicts.
        style: of words on a terminal.
        against: an earlier report, whose differences a Markdown summary tells.
        whole: where everything stands that a short form leaves out.
    """

    failures: str = ""
    verbose: bool = False
    quiet: bool = False
    has_verdicts: bool = False
    style: Style | None = None
    against: Report | None = None
    whole: str = ""


Renderer = Callable[["Report", Presentation], str]


def render(form: str, report: Report, how: Presentation) -> str:
    """The report in one of `FORMATS`, as text that UTF-8 can hold.

    A surrogate without its other half, which a message may carry, is written as ``\\udXXX``; in JSON that is its escape.
    """
    return FORMATS[form](report, how).encode("utf-8", "backslashreplace").decode("utf-8")


def _full(report: Report, how: Presentation) -> str:
    from harness.judging.choice import sentences
    from harness.report import text
    from harness.report.check_times import check_times_text
    from harness.results import words

    if how.quiet:
        errors = text.errors_text(report, folder=how.failures, style=how.style or words.unstyled)
        return f"{errors}\n" if errors else ""
    statuses = ("crashed", "timed out", "waived", "skipped") if how.verbose else ("crashed", "timed out")
    style = how.style or words.unstyled
    parts = [
        text.verdicts_text(report, style, choices=sentences(report), verbose=how.verbose) if how.has_verdicts else "",
        text.findings_text(report, folder=how.failures, verbose=how.verbose, style=style, notes=how.verbose),
        text.reasons_text(report, statuses),
        "" if how.has_verdicts else text.notes_text(report, verbose=how.verbose),
        text.suggestions_text(report),
        "\n".join(words.printable(note) for note in report.notes),
        text.missing_text(report),
        check_times_text(report),
        text.counts_text(report),
        "" if how.has_verdicts else text.correctness_text(report, style),
        text.totals_text(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _concise(report: Report, how: Presentation) -> str:
    from harness.report import text

    return _lines(text.concise_text(report, notes=how.verbose), report, how)


def _grouped(report: Report, how: Presentation) -> str:
    from harness.report import text

    return _lines(text.grouped_text(report, notes=how.verbose), report, how)


def _lines(found: str, report: Report, how: Presentation) -> str:
    """What was found and what did not run, then the totals."""
    from harness.report import text

    parts = [found, text.reasons_text(report, ("crashed", "timed out")), text.missing_text(report)]
    parts += [] if how.quiet else [text.totals_text(report)]
    return "".join(f"{part}\n" for part in parts if part)


def _json(report: Report, how: Presentation) -> str:
    from harness.results import schema

    return schema.dumps(report)


def _junit(report: Report, how: Presentation) -> str:
    from harness.report import junit

    return junit.render(report)


def _sarif(report: Report, how: Presentation) -> str:
    from harness.report import sarif

    return sarif.render(report)


def _github(report: Report, how: Presentation) -> str:
    from harness.report import github

    return github.render(report, notes=how.verbose, whole=how.whole)


def _markdown(report: Report, how: Presentation) -> str:
    from harness.report import summary

    return summary.render(report, against=how.against, whole=how.whole)


def _csv(report: Report, how: Presentation) -> str:
    from harness.report import csv

    return csv.render(report)


def _html(report: Report, how: Presentation) -> str:
    from pathlib import PurePosixPath

    from harness.report import html

    return html.render(report, folder=PurePosixPath(how.failures).parent.as_posix())


FORMATS: Mapping[str, Renderer] = {
    "full": _full,
    "concise": _concise,
    "grouped": _grouped,
    "json": _json,
    "junit": _junit,
    "sarif": _sarif,
    "github": _github,
    "markdown": _markdown,
    "html": _html,
    "csv": _csv,
}
