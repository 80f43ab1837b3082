"""The HTML report as text; `browser/` has what only a browser can tell."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import html_examples as examples
import pytest
import report_examples
from work import growth

from harness.judging.choice import choose
from harness.report import html, view
from harness.report.page import anchor, environment, page, policy, shown
from harness.results.schema import dumps, loads


class Outline(HTMLParser):
    """Ids, links within the page, levels of headings and addresses that a page could load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.levels: list[int] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.ids += [given["id"]] if given.get("id") else []
        self.links += [given["href"][1:]] if (given.get("href") or "").startswith("#") else []
        self.levels += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.loaded += [f"{tag} {name}={value}" for name, value in attributes if name in ("src", "srcset", "action")]
        if tag not in ("a", "use") and "href" in given:
            self.loaded.append(f"{tag} href={given['href']}")


def test_the_page_is_made_from_what_report_json_holds():
    report = examples.report()
    assert html.render(loads(dumps(report))) == html.render(report)


def test_the_title_has_the_verdict():
    text = html.render(examples.report())
    title = re.search("<title>(.*)</title>", text)[1]
    assert title.startswith("1 of 4 implementations must not be adopted, 1 cannot be judged yet, 1 can be adopted with")


def test_cards_and_rows_have_one_order_the_worst_loss_first_and_in_it_the_recommended_one():
    report = examples.report()
    order = [loss.name for loss in view.ordered(report)]
    assert order == ["dice", "sinkhorn", "focal", "graph_distance"]
    text = html.render(report)
    assert re.findall('<section class="card loss" id="loss-([^"]+)"', text) == order
    made = view.rows(report)
    assert list(dict.fromkeys(row.loss for row in made)) == order
    for loss in report.losses:
        mine = [row.verdict.implementation for row in made if row.loss == loss.name]
        assert mine == [option.implementation for option in choose(loss).options]


def test_a_tensor_too_large_to_be_drawn_has_its_shape_beside_the_pictures_of_the_others():
    sizes, pictures = view._drawn("B=2, x=[1., 2.], y of shape [5, 7], w=[0.5]")
    assert sizes == "B=2, y of shape [5, 7]"
    assert [p.name for p in pictures] == ["x", "w"]


def test_a_small_input_is_a_picture_of_its_tensors():
    line = "B=2, rest=(3,), x=[[1., -0.5], [0., math.nan]], index=[3, 0], z=[[[1.], [2.]], [[3.], [math.inf]]]"
    sizes, pictures = view._drawn(line)
    assert sizes == "B=2, rest=(3,)"
    assert [(p.name, p.shape) for p in pictures] == [("x", "2×2"), ("index", "2"), ("z", "2×2×1")]
    assert pictures[0].rows == ((("1", "up"), ("-0.5", "down")), (("0", "zero"), ("nan", "bad")))
    assert pictures[1].rows == ((("3", "up"), ("0", "zero")),)
    assert [row[0][0] for row in pictures[2].rows] == ["1", "2", "3", "inf"]


@pytest.mark.parametrize(
    "line", ["", "B=2, x=a tensor of 5000 elements", "B=2, x=[[1., 2.]], y=f(x)", "B=__import__('os')"]
)
def test_what_is_no_tensor_of_numbers_stays_text(line):
    assert view._drawn(line)[1] == ()


def test_findings_of_one_rule_stand_in_one_block_and_keep_their_addresses():
    two = tuple(report_examples.finding("warning", rule="B03", implementation=name) for name in ("naive", "vectorized"))
    text = html.render(examples.report(replace(examples.good(), findings=two)))
    assert len(re.findall('<article class="finding"', text)) == 1
    assert 'data-count="2"' in text
    assert len(re.findall('id="finding-[^"]+"', text)) == 2


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        ([examples.good()], "The implementation can be adopted"),
        ([examples.warned()], "The implementation can be adopted, with caveats"),
        ([examples.good(), examples.warned()], "All 2 implementations can be adopted, 1 of them with caveats"),
        ([examples.bad()], "The implementation must not be adopted"),
        ([examples.unknown(), examples.good()], "1 of 2 implementations cannot be judged yet, 1 can be adopted"),
        (
            [examples.bad(), examples.warned(), examples.good()],
            "1 of 3 implementations must not be adopted, 1 can be adopted with caveats, 1 can be adopted",
        ),
        ([], "No implementation was judged"),
    ],
)
def test_the_headline_says_what_to_do(losses, sentence):
    assert (
        view.headline(replace(examples.report(), losses=examples.report(*losses).losses if losses else ())) == sentence
    )


def test_a_wrong_reference_is_in_the_headline():
    wrong = report_examples.finding(implementation="naive")
    made = examples.report(replace(examples.good(), findings=(wrong,)))
    assert "1 reference must be mended" in view.headline(made)


def test_the_page_loads_nothing():
    assert Outline(html.render(examples.report())).loaded == ["link href=data:,"]


def test_ids_occur_once_and_every_link_leads_somewhere():
    for report in (examples.report(), examples.report(*map(examples.hostile, examples.HOSTILE))):
        outline = Outline(html.render(report))
        assert len(outline.ids) == len(set(outline.ids))
        assert set(outline.links) - set(outline.ids) == set()


def test_headings_leave_out_no_level():
    levels = Outline(html.render(examples.report())).levels
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_equal_reports_give_equal_pages():
    assert html.render(examples.report()) == html.render(examples.report())


def test_the_outcomes_in_the_table_add_up_to_what_was_planned():
    for loss in examples.report().losses:
        for row in view.checks(loss):
            assert sum(sum(counts.values()) for counts in row.groups.values()) == row.planned > 0


def test_a_failed_rule_counts_under_the_severity_of_its_finding():
    fast = next(row for row in view.checks(examples.bad()) if row.implementation == "fast")
    assert fast.groups["gradients"] == {"error": 2}
    assert fast.groups["costs"] == {"note": 1}


def test_followers_stand_below_their_cause_and_are_no_findings_of_their_own():
    loss = examples.report(examples.bad()).losses[0]
    (found,) = view.findings(loss, "error", "out")
    assert [f.rule for f in found.followers] == ["G02"]


def test_a_finding_is_told_in_parts():
    loss = examples.report(examples.bad()).losses[0]
    (found,) = view.findings(loss, "error", "my reports")
    assert found.statement.startswith("d loss / d embeddings[0, 1] = -0.5599")
    assert found.smallest_input == "N=2, D=2, adjacency=[[0, 1], [1, 0]]"
    assert found.replay == "loss-harness replay 'my reports/failures/graph_distance-G01-3f2a.json'"


def test_memory_is_compared_where_the_reference_takes_most():
    small, large = {"peak_bytes": 100}, {"peak_bytes": 1000}
    measurements = [
        report_examples.measurement(name, sizes={"N": size}, costs={"peak_bytes": costs["peak_bytes"] * factor})
        for name, factor in (("naive", 10), ("vectorized", 1))
        for size, costs in ((8, small), (80, large))
    ]
    measurements[-1] = replace(measurements[-1], costs={"peak_bytes": 5000})
    made = examples.report(replace(examples.good(), measurements=tuple(measurements)))
    row = next(row for row in view.rows(made) if row.verdict.implementation == "vectorized")
    assert (row.memory, row.memory_at) == (0.5, "N=80, cpu, float32, full pass")


def test_a_large_report_stays_small_and_says_what_is_left_out():
    report = examples.large()
    full = html.render(report, most_bytes=10**9)
    assert len(full.encode()) > html.MOST_BYTES
    assert 'id="left-out"' not in full
    text = html.render(report)
    assert len(text.encode()) <= html.MOST_BYTES
    assert 'id="left-out"' in text
    assert "report.json" in text[text.index('id="left-out"') :][:400]


def test_each_level_of_detail_shows_less_than_the_one_before():
    report = examples.large(losses=3)
    sizes = [len(html.render(report, most_bytes=10**9))]
    while html.DETAILS[-1].left_out not in (text := html.render(report, most_bytes=sizes[-1] - 1)):
        sizes.append(len(text.encode()))
    assert len(sizes) == len(html.DETAILS) - 1
    assert sizes == sorted(sizes, reverse=True)


def test_errors_are_shown_however_large_the_report_is():
    text = html.render(examples.large(losses=2), most_bytes=1)
    assert re.findall('<article[^>]*data-severity="([a-z]+)"', text) == ["error", "error"]
    assert "12 notes, in report.json" in text


def test_a_report_of_twice_as_many_losses_takes_twice_the_work():
    few, many = examples.large(losses=4), examples.large(losses=8)
    assert growth(lambda: html.render(few), lambda: html.render(many)) < 2.1


@pytest.mark.parametrize("text", examples.HOSTILE)
def test_what_a_user_names_is_never_markup(text):
    made = html.render(examples.report(examples.hostile(text)))
    plain = html.render(examples.report(examples.hostile("plain")))
    tags = re.compile("<(script|img|style|svg|iframe|/script|/style|!--)", re.IGNORECASE)
    assert sorted(tags.findall(made)) == sorted(tags.findall(plain))
    made.encode("utf-8")


def test_a_long_text_is_cut_and_says_so():
    assert html.clipped("a" * 7000).endswith("… (1,000 more characters in report.json)")
    assert html.clipped("a" * 6000) == "a" * 6000


def test_marks_that_turn_the_direction_are_shown_by_their_number():
    assert shown("a\u202eb\ud800c\x1b[31md") == "a[U+202E]b[U+D800]cd"


def test_the_policy_names_the_scripts_and_forbids_the_rest():
    assert "script-src 'none'" in policy([])
    made = policy(["let a"])
    assert made.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in made.partition("script-src")[2].partition(";")[0]
    assert made != policy(["let b"])


def test_anchors_are_readable_and_different_for_different_names():
    assert anchor("loss", "graph_distance") == "loss-graph_distance"
    names = ["a b", "a-b", "a/b", "", " ", "ä", "a" * 80, "a" * 81]
    assert len({anchor("loss", name) for name in names}) == len(names)
    assert all(re.fullmatch(r"[\w.-]+", anchor("loss", name), re.ASCII) for name in names)


def test_a_template_that_shows_what_is_not_given_is_an_error():
    with pytest.raises(Exception, match="nowhere"):
        environment().from_string("{{ nowhere }}").render()
    with pytest.raises(Exception, match="headline"):
        page("report.html.jinja", report=None)


def many(count=html.MANY + 1):
    found = [examples.good(), examples.warned(), examples.bad()]
    return examples.report(*(replace(found[n % 3], name=f"loss_{n}") for n in range(count)))


def test_of_very_many_losses_the_page_has_a_row_each_and_each_has_a_page():
    report = many()
    text = html.render(report)
    assert len(re.findall(r"<tr[^>]*><th><a href=.losses/", text)) == len(report.losses)
    assert 'section class="loss' not in text
    made = dict(html.pages(report, folder="out"))
    assert list(made) == [html.page_name(loss.name) for loss in report.losses]
    assert all(f'href="{name}"' in text for name in made)
    own = made[html.page_name("loss_2")]
    assert 'href="../report.html"' in own
    assert own.count("replay out/failures/") >= 1
    assert not dict(html.pages(many(html.MANY)))


def test_ten_thousand_losses_fit_three_megabytes():
    long = "Adopt it: 41 rules found nothing; it has no reference, so that its declaration is all that it was held to."
    made = examples.report(examples.good())
    verdicts = (replace(made.losses[0].verdicts[-1], sentence=long),)
    named = (replace(made.losses[0], name=f"generated_{n:05}", verdicts=verdicts) for n in range(10_000))
    assert len(html.render(replace(made, losses=tuple(named))).encode()) < 3_000_000


def test_the_row_of_a_loss_among_many_is_that_of_its_worst_implementation():
    report = many()
    rows = view.worst_rows(report)
    assert [row.verdict.verdict for row in rows] == sorted(
        (row.verdict.verdict for row in rows), key=view.WORST_FIRST.index
    )
    assert {row.verdict.verdict for row in rows if int(row.loss.removeprefix("loss_")) % 3 == 2} == {"do not adopt"}


def test_names_that_differ_by_capitals_alone_have_two_files():
    """Not every file system tells them apart."""
    names = ["mse", "MSE", "Mse", "a/b", "a-b"]
    assert len({html.page_name(name).lower() for name in names}) == len(names)
