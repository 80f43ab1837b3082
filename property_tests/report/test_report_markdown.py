from dataclasses import replace

import pytest
import report_examples as examples
from hypothesis import given
from hypothesis import strategies as st

from harness.report import markdown


def test_the_report_starts_with_the_verdicts():
    lines = markdown.render(examples.report()).splitlines()
    assert lines[:6] == [
        "# Loss report",
        "",
        "| loss | implementation | verdict | reasons |",
        "| --- | --- | --- | --- |",
        "| graph_distance | naive | reference | 1 rule passed on cpu |",
        "| graph_distance | vectorized | adopt | against naive on cpu, float32, full pass: faster at N=128 (5×)<br>1 rule passed on cpu |",
    ]


def test_a_loss_has_counts_findings_speed_and_environment():
    found = (examples.finding(hint="declare domains.positive()"), examples.finding("note", rule="T02", title="vmap"))
    skipped = {"rule": "D06", "status": "skipped", "reason": "no CUDA device"}
    outcomes = (examples.outcome(), *(examples.outcome(name, **skipped) for name in ("naive", "vectorized")))
    record = examples.loss(findings=found, outcomes=outcomes, suggestions=("laws.nonnegative()",))
    shown = markdown.render(
        replace(examples.report(record), command="loss-harness report losses"), folder="reports/latest"
    )
    for expected in (
        "#### graph_distance / vectorized / G01 gradient matches finite differences / float64 / cpu",
        "```text\nd loss / d embeddings[0, 1] = -0.5599, expected",
        "Repeat: `loss-harness replay reports/latest/failures/graph_distance-G01-3f2a.json`",
        "```python\nimport torch\n\nprint(torch.ones(2))\n```",
        "declare domains.positive()",
        "<details><summary>1 note</summary>",
        "| vectorized | cpu | 2 | 1 | 0 | 0 | 1 | 0 | 0 | 0 | 24 |",
        "| D06 | naive, vectorized | cpu | skipped | no CUDA device |",
        "- laws.nonnegative()",
        "| N=128 | cpu, float32, full pass | vectorized | 20 µs | 5× | 4.5× to 5.5× | faster | 7 | 1.5 KiB | 1.5× | 4 KiB | 8 KiB |",
        "| torch | 2.13.0 |",
        "```sh\nloss-harness report losses\n```",
        "profile ci, seed 0",
    ):
        assert expected in shown


def test_why_something_was_not_timed_stands_below_the_table_of_times():
    slow = examples.measurement("naive", "skipped", reason="one call takes longer than | the 15 s that were left")
    shown = markdown.render(examples.report(examples.loss(measurements=(slow, examples.measurement()))))
    assert "| naive |  |  |  | skipped (1) |" in shown
    assert "\n\n(1) one call takes longer than \\| the 15 s that were left\n\n" in shown


def test_whoever_was_left_out_of_all_timing_has_a_row_without_gaps():
    wrong = examples.measurement(
        "wrong", "skipped", sizes={}, dtype="", pass_name="", reason="not timed: it has errors"
    )
    shown = markdown.render(examples.report(examples.loss(measurements=(wrong, examples.measurement()))))
    assert "| all sizes | cpu | wrong |" in shown


def test_what_devices_and_timing_share_stands_once_in_the_environment():
    found = {"cpu": {"torch": "2.13.0", "threads": 2}, "timing": {"torch": "2.13.0", "threads": 1, "device": "cpu"}}
    shown = markdown.render(
        replace(examples.report(), environment={**found, "calibration": {"levels": [], "notes": []}})
    )
    rows = shown.partition("## Environment")[2].partition("##")[0].strip().splitlines()[2:]
    assert rows == [
        "| torch | 2.13.0 |",
        "| cpu.threads | 2 |",
        "| timing.threads | 1 |",
        "| timing.device | cpu |",
    ]


def test_equal_results_give_equal_text_whatever_the_clock_says():
    one = examples.report()
    other = examples.report()
    other.seconds["verify graph_distance"] = 99.0
    assert markdown.render(one) == markdown.render(other)


def test_a_loss_that_is_not_complete_says_so():
    assert "**Not complete:** interrupted" in markdown.render(examples.report(examples.loss(missing="interrupted")))


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("graph_distance", "graph_distance"),
        ("_private_", r"\_private\_"),
        ("a|b", r"a\|b"),
        ("<script>", "&lt;script&gt;"),
        ("*bold* `code`", r"\*bold\* \`code\`"),
        ("[x](http://y)", r"\[x\](http://y)"),
        ("# title", r"\# title"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("two\nlines", "two lines"),
        (r"back\slash", r"back\\slash"),
    ],
)
def test_markup_in_text_from_outside_is_escaped(raw, shown):
    assert markdown.escaped(raw) == shown


@given(st.text(alphabet="a|\n\\`<", max_size=12))
def test_a_cell_never_ends_its_row(text):
    row = markdown.table([["head", "tail"], [text, "end"]]).splitlines()
    assert len(row) == 3
    unescaped = row[2].replace("\\\\", "").replace("\\|", "")
    assert unescaped.count("|") == 3


@given(st.text(alphabet="`a\n", max_size=20))
def test_code_never_leaves_its_block(text):
    first, *body, last = markdown.fenced(text).splitlines()
    assert first == last
    assert all(not line.startswith(first) for line in body)
