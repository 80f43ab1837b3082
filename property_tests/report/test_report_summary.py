from dataclasses import replace
from html.parser import HTMLParser

import hostile
import pytest
import report_examples as examples
from markdown_it import MarkdownIt

from harness.report import formats, summary

TAGS = {
    "h3",
    "p",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "details",
    "summary",
    "pre",
    "code",
    "strong",
    "sub",
    "ul",
    "li",
}
WRONG = examples.finding(message="graph_distance / wrong / G01\n  slope = 1, expected 2\n  N=2")


def rendered(markup):
    """The HTML that a reader of GitHub's Markdown would make of it."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(markup)


class Seen(HTMLParser):
    """Elements and text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.links, self.text, self.prose, self.opened = [], [], "", "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        self.opened.append(tag)

    def handle_endtag(self, tag):
        if tag in self.opened:
            while self.opened.pop() != tag:
                pass

    def handle_data(self, data):
        self.text += data
        self.prose += "" if "pre" in self.opened else data


def test_the_verdicts_stand_first_the_urgent_ones_above():
    bad = examples.loss(name="dice", findings=(WRONG,), outcomes=(examples.outcome(status="failed"),))
    shown = summary.render(examples.report(examples.loss(), bad))
    lines = shown.splitlines()
    assert lines[0] == "### loss-harness: 1 do not adopt, 1 adopt"
    rows = [line for line in lines if line.startswith("| ")]
    assert [row.split(" | ")[:3] for row in rows[2:]] == [
        ["| dice", "vectorized", "do not adopt"],
        ["| graph_distance", "vectorized", "adopt"],
    ]


def test_why_is_the_sentence_of_the_verdict():
    made = examples.report()
    (record,) = made.losses
    (verdict,) = (verdict for verdict in record.verdicts if verdict.implementation == "vectorized")
    assert verdict.sentence
    assert f"| {summary._quiet(verdict.sentence)} |" in summary.render(made)


def test_an_error_is_closed_with_its_smallest_input_and_the_code_that_shows_it():
    shown = summary.render(examples.report(examples.loss(findings=(examples.finding(),))))
    assert "<details><summary>error: graph_distance / vectorized / G01 gradient" in shown
    assert "N=2, D=2, adjacency=[[0, 1], [1, 0]]" in shown
    assert "```python\nimport torch\n\nprint(torch.ones(2))\n```" in shown


def test_warnings_are_a_closed_list_without_code():
    shown = summary.render(examples.report(examples.loss(findings=(examples.finding("warning"),))))
    assert "<details><summary>1 warning</summary>\n\n- graph_distance / vectorized / G01 gradient" in shown
    assert "```" not in shown


def test_what_is_accepted_and_what_is_only_a_note_has_no_details():
    found = (examples.finding(accepted=True), examples.finding("note", rule="T02"))
    assert "<details>" not in summary.render(examples.report(examples.loss(findings=found)))


def test_what_changed_since_an_earlier_report_is_told():
    old = examples.report()
    grown = examples.measurement(costs=examples.COSTS | {"peak_bytes": 99_999})
    new = examples.report(examples.loss(measurements=(examples.measurement("naive"), grown)))
    shown = summary.render(new, against=old)
    assert "Since the earlier report: **regression: 1 of" in shown
    assert "99999" in shown
    assert "no regression" in summary.render(old, against=old)


def test_reports_that_cannot_be_compared_say_why():
    other = replace(examples.report(examples.loss(name="dice")), seed=1)
    assert "**Not compared with the earlier report:**" in summary.render(examples.report(), against=other)


def test_a_loss_that_is_not_complete_says_so():
    assert "**Not complete:** graph_distance: interrupted" in summary.render(
        examples.report(examples.loss(missing="interrupted"))
    )


@pytest.mark.parametrize(("count", "size"), [(400, 10), (40, 50_000), (3, 500_000)])
def test_it_always_fits_into_a_comment_and_counts_what_does_not(count, size):
    found = tuple(
        examples.finding(rule=f"L{number}", message=f"l / v / L{number}\n  {'x' * size}") for number in range(count)
    )
    shown = summary.render(examples.report(examples.loss(findings=found)), whole="report.md")
    assert len(shown) <= 65_536
    assert "everything stands in report.md" in shown
    left = count - shown.count("<details>")
    assert left == 0 or f"{left} more finding" in shown
    assert Seen(rendered(shown)).opened == []


def test_many_losses_fit_as_well():
    losses = [examples.loss(name=f"{'long_' * 40}{number}", missing="interrupted" * 50) for number in range(300)]
    shown = summary.render(examples.report(*losses))
    assert len(shown) <= 65_536
    assert "280 more implementations: 280 inconclusive" in shown


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_text_from_outside_never_becomes_markup(text):
    markup = formats.render("markdown", hostile.report(text), formats.Presentation(against=hostile.report(text)))
    seen = Seen(rendered(markup))
    assert set(seen.tags) <= TAGS
    assert seen.links == []
    assert seen.opened == []
    assert "expected 2" in seen.text


def test_a_name_is_no_mention_and_a_number_no_link():
    seen = Seen(rendered(summary.render(hostile.report("@someone sees #1"))))
    assert "@someone" not in seen.prose
    assert "#1" not in seen.prose
    assert "@\u200bsomeone sees #\u200b1" in seen.prose
