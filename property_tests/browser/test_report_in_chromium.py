"""The HTML report as a person meets it: in a real browser, by mouse, keyboard, telephone and on paper.

Every test also holds that the page asked for nothing, logged no error and opened no dialog; see `opened`.
"""

from __future__ import annotations

import re
from dataclasses import replace

import html_examples as examples
import pytest

from harness.report import html


@pytest.fixture(scope="module")
def text() -> str:
    return html.render(examples.report(), folder="out")


def shown_rows(page) -> list[str]:
    return page.locator("#overview tbody tr:visible").evaluate_all(
        "rows => rows.map(row => row.cells[0].textContent + '/' + row.cells[1].textContent)"
    )


def open_everything(page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(each => (each.open = true))")


def test_it_opens_from_disk_with_the_verdict_first(opened, text):
    page = opened(text)
    assert page.title().startswith("1 of 4 implementations must not be adopted")
    assert page.locator("h1").inner_text() == page.title().removesuffix(" · loss report")
    assert len(shown_rows(page)) == 8
    assert page.locator("#left").inner_text() == "8 of 8 implementations, 4 of 4 losses"


def test_a_page_that_would_load_something_is_stopped_and_found_out(opened, text):
    page = opened(text.replace("<main", "<img src='picture.png'><script>document.title = 'run'</script><main", 1))
    assert page.title() != "run"
    complaints = list(opened.complaints)
    opened.complaints.clear()
    assert [word for word in ("picture.png", "script") if any(word in said for said in complaints)] == [
        "picture.png",
        "script",
    ]


def test_a_verdict_can_be_chosen_and_taken_back(opened, text):
    page = opened(text)
    tile = page.get_by_role("button", name="do not adopt")
    tile.click()
    assert shown_rows(page) == ["dice/fast"]
    assert tile.get_attribute("aria-pressed") == "true"
    assert page.locator("section.loss:visible h3").all_inner_texts() == ["dice"]
    assert page.locator("#left").inner_text() == "1 of 8 implementations, 1 of 4 losses"
    page.get_by_role("button", name="inconclusive").click()
    assert shown_rows(page) == ["dice/fast", "sinkhorn/vectorized"]
    tile.click()
    assert shown_rows(page) == ["sinkhorn/vectorized"]


def test_findings_rule_and_words_narrow_what_is_shown(opened, text):
    page = opened(text)
    page.get_by_label("Findings").select_option("warning")
    assert shown_rows(page) == ["focal/vectorized"]
    page.get_by_label("Findings").select_option("")
    page.get_by_label("Rule").select_option("G02")
    assert shown_rows(page) == ["dice/fast"]
    page.get_by_label("Rule").select_option("")
    page.get_by_label("Search").fill("VECTORIZED graph")
    assert shown_rows(page) == ["graph_distance/vectorized"]
    page.get_by_role("button", name="Show all").first.click()
    assert len(shown_rows(page)) == 8


def test_findings_that_a_filter_hides_are_counted(opened, text):
    page = opened(text, place="#?findings=note")
    page.locator("#loss-dice > details > summary").click()
    open_everything(page)
    assert page.locator("#loss-dice .finding:visible h5").all_inner_texts() == ["P02 no hidden host reads"]
    assert page.locator("#loss-dice .hidden-findings").inner_text() == "1 hidden by the filters"


def test_nothing_that_matches_has_a_way_back(opened, text):
    page = opened(text)
    page.get_by_label("Search").fill("no such loss")
    assert page.locator("#nothing").is_visible()
    assert not page.locator("#overview").is_visible()
    page.locator("#nothing button").click()
    assert len(shown_rows(page)) == 8
    assert not page.locator("#nothing").is_visible()


@pytest.mark.parametrize(
    ("column", "first", "after"),
    [
        ("Highest speedup", "graph_distance/vectorized", "focal/vectorized"),
        ("Errors", "dice/fast", "dice/naive"),
        ("Loss", "dice/naive", "sinkhorn/naive"),
        ("Verdict", "dice/fast", "dice/naive"),
    ],
)
def test_columns_sort_and_say_so(opened, text, column, first, after):
    page = opened(text)
    header = page.get_by_role("columnheader", name=column)
    header.get_by_role("button").click()
    assert shown_rows(page)[0] == first
    one = header.get_attribute("aria-sort")
    header.get_by_role("button").click()
    assert shown_rows(page)[0] == after
    assert {one, header.get_attribute("aria-sort")} == {"ascending", "descending"}
    page.get_by_role("columnheader", name="Notes").get_by_role("button").click()
    assert page.locator("th[aria-sort]").all_inner_texts() == ["Notes"]


def test_rows_have_the_order_of_the_cards_until_another_is_chosen(opened, text):
    page = opened(text)
    cards = page.locator("section.loss h3").all_inner_texts()
    first = shown_rows(page)
    assert list(dict.fromkeys(row.split("/")[0] for row in first)) == cards
    assert page.locator("th[aria-sort]").count() == 0
    page.get_by_role("columnheader", name="Loss").get_by_role("button").click()
    assert shown_rows(page) != first
    page.locator("form.controls").get_by_role("button", name="Show all").click()
    assert shown_rows(page) == first


def test_what_is_unknown_stands_last_in_both_directions(opened, text):
    page = opened(text)
    button = page.get_by_role("columnheader", name="Lowest speedup").get_by_role("button")
    for _ in range(2):
        button.click()
        assert {*shown_rows(page)[:2]} == {"graph_distance/vectorized", "focal/vectorized"}


def test_the_address_keeps_filters_and_order_for_whoever_it_is_sent_to(opened, text):
    page = opened(text)
    page.get_by_role("button", name="adopt with caveats").click()
    page.get_by_role("button", name="inconclusive").click()
    page.get_by_label("Search").fill("vectorized")
    page.get_by_role("columnheader", name="Loss").get_by_role("button").click()
    page.get_by_role("columnheader", name="Loss").get_by_role("button").click()
    place = page.evaluate("location.hash")
    assert shown_rows(page) == ["sinkhorn/vectorized", "focal/vectorized"]
    other = opened(text, place=place)
    assert shown_rows(other) == ["sinkhorn/vectorized", "focal/vectorized"]
    assert other.get_by_label("Search").input_value() == "vectorized"


@pytest.mark.parametrize("place", ["#?verdict=nonsense&rule=Z99&sort=-nowhere&findings=x", "#nowhere", "#%E0%A4%A"])
def test_an_address_that_says_nothing_shows_everything_or_a_way_back(opened, text, place):
    page = opened(text, place=place)
    assert len(shown_rows(page)) == 8


def test_a_link_to_a_loss_or_a_finding_opens_it(opened, text):
    page = opened(text, place="#loss-dice")
    assert page.locator("#loss-dice .finding").first.is_visible()
    name = page.locator("#loss-dice .finding[data-severity=note]").get_attribute("id")
    other = opened(text, place=f"#{name}")
    assert other.locator(f"[id='{name}']").is_visible()
    assert other.locator(f"[id='{name}']").bounding_box()["y"] < 900


def test_a_link_to_a_loss_that_is_filtered_out_takes_the_filters_off(opened, text):
    page = opened(text, place="#?verdict=adopt")
    page.evaluate("location.hash = '#loss-dice'")
    page.locator("#loss-dice .finding").first.wait_for()
    assert len(shown_rows(page)) == 8


def test_what_is_copied_is_the_code(opened, text):
    page = opened(text, place="#loss-dice")
    page.evaluate("navigator.clipboard.writeText = async text => { window.copied = text }")
    page.locator("#loss-dice .copy").first.click()
    page.get_by_text("Copied").first.wait_for()
    assert page.evaluate("copied") == "loss-harness replay out/failures/graph_distance-G01-3f2a.json"


def test_code_is_copied_where_the_browser_gives_no_clipboard(opened, text):
    page = opened(text, place="#loss-dice")
    page.evaluate("""() => {
        Object.defineProperty(navigator, "clipboard", { value: undefined });
        document.execCommand = (what) => { window.copied = [what, getSelection().toString()]; return true; };
    }""")
    page.locator("#loss-dice .copy").first.click()
    page.get_by_text("Copied").first.wait_for()
    assert page.evaluate("copied") == ["copy", "loss-harness replay out/failures/graph_distance-G01-3f2a.json"]


def background(page) -> int:
    """The brightness of the page, 0 to 255."""
    return page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")


def test_colours_follow_the_system_and_the_switch(opened, text):
    assert background(opened(text, color_scheme="light")) > 200
    page = opened(text, color_scheme="dark")
    assert background(page) < 60
    switch = page.locator("#theme")
    switch.click()
    assert switch.inner_text() == "Colours: light"
    assert background(page) > 200
    page.reload()
    page.wait_for_function("document.documentElement.dataset.theme === 'light'")
    assert background(page) > 200


@pytest.mark.parametrize("width", [320, 360, 768])
def test_a_telephone_never_scrolls_sideways(opened, text, width):
    page = opened(text, width=width, height=740)
    open_everything(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("document.body.scrollWidth") <= width
    assert page.locator("#overview tbody tr").first.bounding_box()["width"] <= width


def test_paper_has_the_cards_and_what_was_opened_and_no_controls(opened, text):
    page = opened(text, color_scheme="dark", width=720)
    page.locator("#loss-dice > details > summary").click()
    page.emulate_media(media="print")
    assert background(page) == 255
    assert page.locator("#loss-focal .take").is_visible()
    assert page.locator("#loss-dice .finding").first.is_visible()
    assert not page.locator("#loss-focal .finding").first.is_visible()
    assert page.locator("#overview td").last.bounding_box()["height"] > 0
    for hidden in (".controls", "#theme", ".top", ".copy", "#loss-focal > details > summary"):
        assert not page.locator(hidden).first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 720


def test_three_losses_take_two_sheets_of_paper(opened):
    page = opened(html.render(examples.report(examples.good(), examples.warned(), examples.bad())))
    margins = dict.fromkeys(("top", "bottom", "left", "right"), "12mm")
    printed = page.pdf(format="A4", margin=margins)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) <= 2


@pytest.mark.parametrize("width", [320, 390])
def test_a_telephone_has_a_whole_header_and_the_rows_closed(opened, text, width):
    page = opened(text, width=width, height=740)
    for link in page.locator(".top nav a").all():
        box = link.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    assert not page.locator("#overview").is_visible()
    page.locator("details.all > summary").click()
    assert page.locator("#overview").is_visible()


def test_the_keyboard_reaches_the_content_first_and_shows_where_it_is(opened, text):
    page = opened(text)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert len(shown_rows(page)) < 8


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing_to_mend(opened, text, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra `browser` is not installed")
    page = opened(text, color_scheme=scheme, width=width)
    open_everything(page)
    found = axe.Axe().run(page)
    assert found.response["passes"], "axe looked at nothing"
    assert found.violations_count == 0, found.generate_report()


def test_plots_draw_a_mark_for_every_number(opened, text):
    page = opened(text, place="#loss-graph_distance")
    assert page.locator("#loss-graph_distance td.plot use[href^='#m']").count() == 2
    assert page.locator("#loss-graph_distance figure use").count() == 2 * 2 * 3
    assert page.locator("#loss-graph_distance figure .rounds").count() == 2
    box = page.locator("#loss-graph_distance figure svg").first.bounding_box()
    assert box["width"] > 200
    assert page.locator("#loss-graph_distance figure svg").first.get_attribute("aria-label").startswith("time per call")


def test_hostile_names_are_text(opened):
    made = html.render(examples.report(*map(examples.hostile, examples.HOSTILE)))
    for width in (1280, 360):
        page = opened(made, width=width)
        open_everything(page)
        page.mouse.move(width / 2, 400)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("img").count() == 0
        assert page.locator("section.loss").count() == len(examples.HOSTILE)
        assert page.locator("#overview tbody tr").count() == 2 * len(examples.HOSTILE)
        assert "{{ 7 * 7 }}" in page.locator("main").inner_text()


def test_without_scripts_the_report_can_still_be_read(opened, text):
    page = opened(text, java_script_enabled=False)
    assert len(page.locator("#overview tbody tr").all()) == 8
    assert not page.locator(".controls").is_visible()
    page.locator("#loss-dice > details > summary").click()
    assert page.locator("#loss-dice .finding").first.is_visible()


def test_very_many_losses_are_sorted_and_filtered_by_their_rows(opened):
    found = [examples.good(), examples.warned(), examples.bad()]
    losses = (replace(found[n % 3], name=f"loss_{n}") for n in range(html.MANY + 2))
    page = opened(html.render(examples.report(*losses)))
    assert page.locator("#left").inner_text() == "402 of 402 losses"
    page.locator("#severity").select_option("error")
    assert page.locator("#left").inner_text() == "134 of 402 losses"
    page.locator("#search").fill("loss_401")
    assert shown_rows(page) == ["loss_401/" + page.locator("#overview tbody tr:visible td").first.inner_text()]
    page.get_by_role("button", name="Show all").first.click()
    page.locator("#overview thead button").first.click()
    assert [row.partition("/")[0] for row in shown_rows(page)[:3]] == ["loss_0", "loss_1", "loss_2"]
    page.locator("#overview thead button", has_text="Errors").click()
    assert page.locator("#overview tbody tr:visible").first.locator("td").nth(1).inner_text() == "do not adopt"
    page.locator(".tile", has_text="caveats").click()
    assert page.locator("#left").inner_text() == "134 of 402 losses"
