"""The index of several reports as one HTML file, whose links are relative, so that the folders can be moved together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from harness.judging.speed import speedup_text
from harness.report.html import LONGEST_NAME, clipped
from harness.report.index import COSTS, Entry, History, State, Unread
from harness.report.page import anchor, page
from harness.report.places import uri
from harness.report.view import WORST_FIRST
from harness.results.schema import ADOPT, CAVEATS, DO_NOT_ADOPT, INCONCLUSIVE, REFERENCE
from harness.results.words import plural


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
    """How much there is, and what is bad in the newest report of each loss, in one sentence."""
    told = f"{plural(len(entries), 'report')} on {plural(len(histories), 'loss', 'losses')}"
    told = f"{told}, {len(unread)} not read" if unread else told
    now = [state for history in histories for state in history.now]
    return "; ".join([told, *([_standing(now)] if now else [])])


def _standing(now: Sequence[State]) -> str:
    counts = Counter(state.verdict.verdict for state in now)
    wrong = sum(state.verdict.verdict == REFERENCE and state.errors > 0 for state in now)
    parts = (
        (counts[DO_NOT_ADOPT], "implementation", "must not be adopted"),
        (wrong, "reference", "must be mended"),
        (counts[INCONCLUSIVE], "implementation", "cannot be judged"),
    )
    bad = [f"{plural(count, noun)} {what} now" for count, noun, what in parts if count]
    if bad:
        return ", ".join(bad)
    good = counts[ADOPT] + counts[CAVEATS]
    caveats = f", {counts[CAVEATS]} of them with caveats" if counts[CAVEATS] else ""
    return f"{plural(good, 'implementation')} can be adopted now{caveats}" if good else "no implementation was judged"


def _address(entry: Entry, place: str = "") -> str:
    """Where a link leads; only an HTML page has places within it."""
    return uri(entry.page) + (f"#{place}" if place and entry.page.endswith(".html") else "")
