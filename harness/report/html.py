"""The report as one HTML file that a browser opens from disk, made from the records alone; see `page` for what it may load."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from harness.judging.choice import choose
from harness.judging.speed import place_of, speedup_text
from harness.report import plots, view
from harness.report.page import anchor, page
from harness.report.self_check import self_check_sentence
from harness.report.text import totals_text
from harness.report.timings import bytes_text, crossover_text, growth_table, timing_table, without
from harness.results.findings import SEVERITIES
from harness.results.schema import LossRecord, Report
from harness.results.words import plural

# What fits in an attachment and opens at once on a phone.
MOST_BYTES = 1_200_000

# Of more losses, the page has one row each, and each has a page of its own.
MANY = 400
PAGES = "losses"

# Above these a text is cut; the whole one stands in report.json.
LONGEST_NAME, LONGEST_TEXT = 120, 6000

# Columns of the table of costs: what compares stands in the plot above it.
_COMPARED = ("speedup", "95 % interval")


@dataclass(frozen=True)
class Detail:
    """How much of a report its page shows.

    Args:
        code: severities whose findings stand with the code that reproduces them.
        inputs: severities whose findings stand with their smallest input.
        reasons: whether every rule that did not pass stands with the reason.
        plots: whether scaling plots and tables of costs stand there.
        verdicts: whether reasons, speeds at every size and what was checked stand below the choice.
        findings: severities whose findings stand one by one; others are counted.
        losses: whether losses stand there at all, else one row of each.
        left_out: what the others have more, for the reader.
    """

    code: Sequence[str] = SEVERITIES
    inputs: Sequence[str] = SEVERITIES
    reasons: bool = True
    plots: bool = True
    verdicts: bool = True
    findings: Sequence[str] = SEVERITIES
    losses: bool = True
    left_out: str = ""


# From everything to what decides; the first that fits is taken.
DETAILS = (
    Detail(),
    Detail(code=("error", "warning"), left_out="the code that reproduces notes"),
    Detail(
        code=("error",),
        inputs=("error", "warning"),
        left_out="the code that reproduces warnings and notes, and the inputs of notes",
    ),
    Detail(
        code=("error",),
        inputs=("error",),
        reasons=False,
        left_out="code and inputs of warnings and notes, and why rules were not checked",
    ),
    Detail(
        code=(),
        inputs=("error",),
        reasons=False,
        plots=False,
        left_out="the code that reproduces findings, inputs of warnings and notes, why rules were not checked, scaling "
        "plots and tables of costs",
    ),
    Detail(
        code=(),
        inputs=(),
        plots=False,
        verdicts=False,
        findings=("error",),
        left_out="of each loss all but the choice and its errors, with their code and inputs",
    ),
)


def render(report: Report, *, folder: str = ".", most_bytes: int = MOST_BYTES, above: str = "") -> str:
    """The text of `report.html`; of more than `MANY` losses it has the row of each that is worst, and `pages` has the rest.

    Args:
        report: what to show.
        folder: where the `failures` folder lies, as a person would write it after `loss-harness replay`.
        most_bytes: where everything would take more, less is shown, and the page says what is left out; verdicts, checks,
            speedups and errors always stand there.
        above: the page that this one is a part of.
    """
    if has_pages(report):
        return _page(report, (), Detail(losses=False))
    losses = [loss_values(loss, folder) for loss in view.ordered(report)]
    made: dict[str, str] = {}

    def fits(detail: Detail) -> bool:
        made[detail.left_out] = _page(report, losses, detail, above)
        return len(made[detail.left_out].encode()) <= most_bytes

    least = len(DETAILS) - 1
    level = 0 if fits(DETAILS[0]) else bisect(DETAILS, False, lo=1, hi=least, key=fits)
    chosen = DETAILS[level].left_out
    return made.get(chosen) or _page(report, losses, DETAILS[level], above)


def has_pages(report: Report) -> bool:
    """Whether each loss has a page of its own."""
    return len(report.losses) > MANY


def page_name(loss: str) -> str:
    """The file of a loss that has a page of its own, from where `report.html` lies; no two differ by capitals alone."""
    return f"{PAGES}/{anchor('loss', loss if loss == loss.lower() else f'{loss.lower()}/{loss}')}.html"


def pages(report: Report, *, folder: str = ".") -> Iterator[tuple[str, str]]:
    """(file, text) of each loss that has a page of its own, made one at a time."""
    for loss in report.losses if has_pages(report) else ():
        own = replace(report, losses=(loss,), notes=(), seconds={})
        yield page_name(loss.name), render(own, folder=folder, above="../report.html")


def _page(report: Report, losses: Sequence[dict[str, Any]], detail: Detail, above: str = "") -> str:
    rows = view.rows(report) if detail.losses else view.worst_rows(report)
    return page(
        "report.html.jinja",
        styles=("report.css",),
        scripts=("report.js",),
        report=report,
        headline=view.headline(report),
        totals=totals_text(report),
        verdicts=view.counted(row.verdict.verdict for row in rows),
        ranks={verdict: rank for rank, verdict in enumerate(view.WORST_FIRST)},
        rows=rows,
        rules=view.rules_found(report),
        losses=losses,
        environment=view.environment_rows(report),
        seconds=[[name, f"{seconds:.1f} s"] for name, seconds in report.seconds.items()],
        self_check=self_check_sentence(report.environment.get("calibration")),
        above=above,
        page_name=page_name,
        **parts(detail),
    )


def parts(detail: Detail, *, linked: bool = True) -> dict[str, Any]:
    """What the templates of a loss need besides the loss.

    Args:
        detail: how much is shown.
        linked: whether findings have an address; they have one in a page, and none in a notebook.
    """
    return {
        "detail": detail,
        "linked": linked,
        "severities": SEVERITIES,
        "sentence": view.sentence,
        "anchor": anchor,
        "plots": plots,
        "place": lambda comparison: ", ".join(reversed(place_of(comparison))),
        "size": lambda comparison: place_of(comparison)[1],
        "speedup": speedup_text,
        "interval": lambda c: f"{speedup_text(c.low).removesuffix('×')} to {speedup_text(c.high)}",
        "short": partial(clipped, most=LONGEST_NAME),
        "text": clipped,
    }


def clipped(text: str, most: int = LONGEST_TEXT) -> str:
    """Text that is cut where it is too long to be read; what is cut off stands in report.json."""
    if len(text) <= most:
        return text
    return f"{text[:most]}… ({len(text) - most:,} more characters in report.json)"


def loss_values(loss: LossRecord, folder: str) -> dict[str, Any]:
    """What the template of one loss shows."""
    costs, notes = timing_table([loss])
    drawn = plots.panels(loss)
    choice = choose(loss)
    one, options = plots.bars(choice)
    found = {severity: view.findings(loss, severity, folder) for severity in SEVERITIES}
    return {
        "record": loss,
        "anchor": anchor("loss", loss.name),
        "choice": choice,
        "one": one,
        "options": options,
        "memory": {o.implementation: bytes_text(int(o.peak_bytes)) for o, *_ in options if o.peak_bytes},
        "counted": ", ".join(plural(len(each), severity) for severity, each in found.items() if each),
        "checks": view.checks(loss),
        "groups": view.groups_of(loss),
        "not_passed": view.not_passed(loss),
        "findings": found,
        "accepted": [finding for finding in loss.findings if finding.accepted],
        "forest": plots.forest(loss),
        "panels": drawn,
        "legend": plots.legend(drawn),
        "costs": without(costs, "loss", *_COMPARED),
        "cost_notes": notes,
        "growths": without(growth_table([loss]), "loss"),
        "crossovers": [crossover_text(crossover) for crossover in loss.crossovers],
    }
