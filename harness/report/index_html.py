"""The index of several reports as one HTML file, whose links are relative, so that the folders can be moved together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from harness.report.html import LONGEST_NAME, clipped
from harness.report.index import COSTS, Entry, History, Unread
from harness.report.page import anchor, page
from harness.report.places import uri
from harness.report.schema import REFERENCE
from harness.report.speed import speedup_text
from harness.report.text import plural
from harness.report.view import WORST_FIRST


def render(entries: Sequence[Entry], unread: Sequence[Unread], histories: Sequence[History]) -> str:
    """The text of `index.html`."""
    return page(
        "index.html.jinja",
        styles=("index.css",),
        headline=headline(entries, unread, histories),
        entries=entries,
        unread=unread,
        histories=histories,
        verdicts=[verdict for verdict in WORST_FIRST if verdict != REFERENCE],
        costs=COSTS,
        anchor=anchor,
        address=_address,
        speedup=speedup_text,
        short=partial(clipped, most=LONGEST_NAME),
        text=clipped,
    )


def headline(entries: Sequence[Entry], unread: Sequence[Unread], histories: Sequence[History]) -> str:
    """How much there is, in one sentence."""
    told = f"{plural(len(entries), 'report')} on {plural(len(histories), 'loss', 'losses')}"
    return f"{told}, {len(unread)} not read" if unread else told


def _address(entry: Entry, place: str = "") -> str:
    """Where a link leads; only an HTML page has places within it."""
    return uri(entry.page) + (f"#{place}" if place and entry.page.endswith(".html") else "")
