"""The report as Markdown for a pull request; text from outside is escaped, so that it cannot become markup."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import lru_cache

import jinja2

from harness.judging.choice import sentences
from harness.report.html import PAGES, has_pages
from harness.report.self_check import self_check_sentence
from harness.report.text import counts_row, place_text
from harness.report.timings import crossover_text, growth_table, timing_table, without
from harness.report.view import environment_rows, not_passed, worst_rows
from harness.results.findings import SEVERITIES, STATUSES
from harness.results.schema import Report
from harness.results.words import causes, plural, printable

_NOT_CHECKED = ["rules", "implementation", "device", "what", "why"]


def escaped(value: object) -> str:
    """Text that Markdown shows as it is, in a paragraph, a heading or a table cell.

    An underscore between letters is no markup in CommonMark and stays, so that names remain readable in the source.
    """
    text = " ".join(printable(str(value)).split())
    text = html.escape(text, quote=False)
    text = re.sub(r"([\\`*\[\]|~#!])", r"\\\1", text)
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    text = re.sub(r"^([-+>])", r"\\\1", text)
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", text)


def fenced(text: str, language: str = "") -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    body = printable(text).strip("\n")
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{body}\n{fence}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with escaped cells, whose lines stay lines, the first row as the header."""
    lines = ["| " + " | ".join(_cell(text) for text in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def _cell(text: str) -> str:
    return "<br>".join(escaped(line) for line in text.splitlines())


def render(report: Report, *, folder: str = ".") -> str:
    """The text of `report.md`.

    Args:
        report: what to show.
        folder: where the `failures` folder lies, as a person would write it after `loss-harness replay`.
    """
    if has_pages(report):
        return _of_many(report)
    verdicts = [["loss", "implementation", "verdict", "reasons"]]
    counts, times, below = {}, {}, {}
    for loss in report.losses:
        verdicts += [[loss.name, v.implementation, v.verdict, "\n".join(v.reasons)] for v in loss.verdicts]
        rows = [counts_row(loss, name, device)[1:] for name in loss.implementations for device in loss.devices]
        counts[loss.name] = [["implementation", "device", "planned", *STATUSES, "examples"], *rows]
        named, below[loss.name] = timing_table([loss])
        times[loss.name] = without(named, "loss")
    text = _template().render(
        report=report,
        verdicts=verdicts,
        choices=sentences(report),
        counts=counts,
        causes={loss.name: {severity: causes(loss, severity) for severity in SEVERITIES} for loss in report.losses},
        accepted={loss.name: [f for f in loss.findings if f.accepted] for loss in report.losses},
        timings=times,
        timing_notes=below,
        growths={loss.name: without(growth_table([loss]), "loss") for loss in report.losses},
        crossovers={loss.name: [crossover_text(crossover) for crossover in loss.crossovers] for loss in report.losses},
        not_checked={loss.name: [_NOT_CHECKED, *not_passed(loss)] for loss in report.losses},
        environment=environment_rows(report),
        self_check=self_check_sentence(report.environment.get("calibration")),
        severities=SEVERITIES,
        folder=folder,
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _of_many(report: Report) -> str:
    """The worst verdict of each loss; the rest stands on its page."""
    rows = [["loss", "implementation", "verdict", "in one sentence"]]
    rows += [[row.loss, row.verdict.implementation, row.verdict.verdict, row.sentence] for row in worst_rows(report)]
    notes = [f"{escaped(note)}\n\n" for note in report.notes]
    return f"# Loss report\n\n{''.join(notes)}{table(rows)}\n\nEach loss has a page in `{PAGES}`; report.json has all of it.\n"


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # the output is Markdown; `escaped` does what it needs
    )
    environment.filters |= {"md": escaped, "fenced": fenced, "table": table, "plural": plural, "place": place_text}
    return environment.get_template("report.md.jinja")
