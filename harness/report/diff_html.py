"""A difference of two reports as one HTML file that is opened from disk."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from harness.judging.diff import Difference
from harness.report import diff_text
from harness.report.html import LONGEST_NAME, clipped
from harness.report.page import breakable, page, shown
from harness.results.schema import Report


def render(difference: Difference, old: Report, new: Report, *, places: tuple[str, str] = ("", "")) -> str:
    """The text of the page: everything that changed, what matters first.

    Args:
        difference: what changed.
        old: the report before, of which the page says when and how it was made.
        new: the report after.
        places: the folders or files of the two, as a person names them; empty where they have none.
    """
    sections = diff_text.parts(difference, verbose=True)
    return page(
        "diff.html.jinja",
        styles=("index.css",),
        summary=diff_text.summary(difference),
        compared=[_HEADER, *(_compared(*each) for each in zip(("old", "new"), places, (old, new), strict=True))],
        sections=[{"title": title, "rows": _with_places(rows, places)} for title, rows in sections],
        remarks=list(diff_text.remarks(difference, verbose=True)),
    )


_HEADER = ["Report", "Folder", "Made", "loss-harness", "Profile", "Seed", "Devices", "Losses"]


def _compared(name: str, place: str, report: Report) -> list[str]:
    return [
        name,
        breakable(clipped(place, LONGEST_NAME)) or "–",
        Markup("<time>{}</time>").format(shown(report.made.replace("T", " "))) if report.made else "at an unknown time",
        report.tool,
        report.profile,
        str(report.seed),
        ", ".join(report.devices),
        ", ".join(loss.name for loss in report.losses),
    ]


def _with_places(rows: Sequence[Sequence[str]], places: tuple[str, str]) -> list[Sequence[str]]:
    """The rows of a table whose columns `old` and `new` name the folder; a list of sentences has no header."""
    if len(rows[0]) == 1:
        return list(rows)
    named = {
        name: f"{name} ({clipped(place, LONGEST_NAME)})"
        for name, place in zip(("old", "new"), places, strict=True)
        if place
    }
    return [[named.get(cell, cell) for cell in rows[0]], *rows[1:]]
