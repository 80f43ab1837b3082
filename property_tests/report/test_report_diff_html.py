import re

import hostile
import pytest
import report_examples as examples

from harness.judging import diff
from harness.report import diff_html, diff_text


def rendered(old, new):
    return diff_html.render(diff.compare(old, new), old, new)


def grown(**changes):
    measured = examples.measurement(costs=examples.COSTS | {"peak_bytes": 9011})
    return examples.report(examples.loss(measurements=(examples.measurement("naive"), measured), **changes))


def test_the_summary_is_the_heading_and_the_title():
    text = rendered(examples.report(), grown())
    summary = diff_text.summary(diff.compare(examples.report(), grown()))
    assert summary.startswith("regression: 1 of")
    assert f"<h1>{summary}</h1>" in text
    assert f"<title>{summary} · loss reports compared</title>" in text


def test_what_grew_and_what_broke_stands_there():
    text = rendered(examples.report(), grown(findings=(examples.finding(),)))
    assert "Exact costs that grew" in text
    assert "9011" in text
    assert "+10.00%" in text
    assert "d loss / d embeddings[0, 1] = -0.5599" in text


def test_equal_reports_have_nothing_but_the_summary():
    text = rendered(examples.report(), examples.report())
    assert "none changed" in text
    assert text.lower().count("nothing changed") == 0  # the heading has said it
    assert '<p class="remark">No rule broke' in text
    assert "Exact costs that grew" not in text


def test_the_tables_say_which_folder_is_old_and_which_is_new():
    old, new = examples.report(), grown()
    text = diff_html.render(diff.compare(old, new), old, new, places=("before", "after"))
    assert text.count(">old (before)</th>") == text.count(">new (after)</th>") == 1
    assert text.index(">before</td>") < text.index(">after</td>")


@pytest.mark.parametrize("name", hostile.TEXTS)
def test_text_from_outside_never_becomes_markup(name):
    old, new = (
        examples.report(examples.loss(name=name)),
        grown(name=name, findings=(examples.finding(message=f"{name}\n{name}"),)),
    )
    plain = rendered(examples.report(examples.loss(name="a")), grown(name="a", findings=(examples.finding(),)))
    assert set(re.findall(r"<([a-z]+)", rendered(old, new))) == set(re.findall(r"<([a-z]+)", plain))
