"""The index of reports and the difference of two of them in a real browser; see `opened` for what every test holds."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import html_examples as examples
import pytest

from harness.judging import diff
from harness.report import diff_html, index, index_html
from harness.results.schema import Report

OLD, NEW = "2026-01-02T03:04:05Z", "2026-02-03T04:05:06Z"


def reports() -> tuple[Report, Report]:
    """Two reports of the same losses, the newer with one implementation gone and a cost that grew."""
    old = replace(examples.report(), made=OLD)
    first, *others = old.losses
    grown = [replace(m, costs=m.costs | {"peak_bytes": 9011} if m.costs else {}) for m in first.measurements]
    return old, replace(old, made=NEW, losses=(replace(first, measurements=tuple(grown)), *others))


@functools.cache
def index_text() -> str:
    old, new = reports()
    entries = [index.Entry("new", "new/report.html", new), index.Entry("old 1", "old 1/report.html", old)]
    unread = [index.Unread("broken/report.json", "not a report: Expecting value")]
    return index_html.render(entries, unread, index.histories(entries))


@functools.cache
def diff_page() -> str:
    old, new = reports()
    return diff_html.render(diff.compare(old, new), old, new, places=("reports/old", "reports/new"))


PAGES = {"index": index_text, "diff": diff_page}


def test_the_index_shows_each_report_and_each_loss_through_time(opened):
    page = opened(index_text())
    assert page.title().startswith("2 reports on ")
    made = page.locator("#reports ~ .scroll tbody th").all_inner_texts()
    assert made == ["2026-02-03 04:05:06Z", "2026-01-02 03:04:05Z"]
    assert page.locator("section.history").count() == len(reports()[0].losses)
    assert "peak_bytes grew" in page.locator("section.history").first.inner_text()
    assert "broken/report.json: not a report" in page.locator("#unread ~ ul").inner_text()


def test_a_link_of_the_index_leads_to_the_report_beside_it(opened):
    page = opened(index_text())
    address = page.locator("#reports ~ .scroll tbody th a").nth(1).evaluate("link => link.href")
    assert address.endswith("/old%201/report.html")
    assert address.startswith(Path("/").as_uri())


def test_the_difference_has_what_grew(opened):
    page = opened(diff_page())
    assert page.locator("h1").inner_text().startswith("regression: ")
    assert page.get_by_role("heading", name="Exact costs that grew").is_visible()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [1280, 1000, 390])
def test_no_table_is_cut_and_no_date_is_broken(opened, name, width):
    page = opened(PAGES[name](), width=width)
    boxes = page.locator(".scroll").evaluate_all("all => all.map(each => [each.scrollWidth, each.clientWidth])")
    assert boxes
    assert [box for box in boxes if box[0] > box[1]] == []
    lines = page.locator("a.made, time").evaluate_all("all => all.map(each => each.getClientRects().length)")
    assert set(lines) == {1}


def test_a_card_of_the_index_begins_with_the_implementation_and_its_verdict(opened):
    page = opened(index_text(), width=390)
    card = page.locator("section.history tbody tr").first
    tops = card.evaluate("row => [...row.cells].slice(0, 3).map(cell => cell.getBoundingClientRect().top)")
    assert tops == sorted(tops)
    assert card.bounding_box()["height"] < 300
    assert card.locator(".badge use").evaluate("use => use.getBoundingClientRect().width") > 0


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_axe_finds_nothing_to_mend_and_nothing_is_wider_than_the_screen(opened, name, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra `browser` is not installed")
    page = opened(PAGES[name](), color_scheme=scheme, width=width)
    found = axe.Axe().run(page)
    assert found.response["passes"], "axe looked at nothing"
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@functools.cache
def hostile_pages() -> dict[str, str]:
    """Both pages with losses, folders, hrefs and complaints that try to leave their place."""
    made = examples.report(*map(examples.hostile, examples.HOSTILE))
    old, new = replace(made, made=OLD), replace(made, made=NEW)
    entries = [
        index.Entry(f"{number} {name}", f"{name}/report.html", report)
        for number, report in enumerate((new, old))
        for name in examples.HOSTILE
    ]
    unread = [index.Unread(name, name) for name in examples.HOSTILE]
    return {
        "index": index_html.render(entries, unread, index.histories(entries)),
        "diff": diff_html.render(diff.compare(old, new), old, new, places=(examples.HOSTILE[0], examples.HOSTILE[2])),
    }


@pytest.mark.parametrize("name", PAGES)
def test_hostile_names_are_text_on_every_page(opened, name):
    text = hostile_pages()[name]
    for width in (1280, 360):
        page = opened(text, width=width)
        page.mouse.move(width / 2, 300)
        assert page.locator("img").count() == 0
        assert page.locator("[onload], [onerror], [onmouseover]").count() == 0
        assert page.locator("a[href^='javascript:']").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert "{{ 7 * 7 }}" in page.locator("body").inner_text()
