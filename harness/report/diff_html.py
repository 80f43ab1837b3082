"""A difference of two reports as one HTML file that is opened from disk."""

from __future__ import annotations

from harness.report import diff_text
from harness.report.diff import Difference
from harness.report.page import page
from harness.report.schema import Report


def render(difference: Difference, old: Report, new: Report) -> str:
    """The text of the page: everything that changed, what matters first.

    Args:
        difference: what changed.
        old: the report before, of which the page says when and how it was made.
        new: the report after.
    """
    return page(
        "diff.html.jinja",
        styles=("index.css",),
        summary=diff_text.summary(difference),
        reports={"old": old, "new": new},
        sections=[{"title": title, "rows": rows} for title, rows in diff_text.parts(difference, verbose=True)],
        remarks=list(diff_text.remarks(difference, verbose=True)),
    )
