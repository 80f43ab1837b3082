import re

import hostile
import pytest
import report_examples as examples

from harness.report import formats, github
from harness.results.schema import SourceRecord

SOURCES = (SourceRecord("vectorized", "losses/graph, new: 100 %.py", 12, is_local=True),)
LINE = re.compile(
    r"::(?P<command>error|warning|notice) (?:file=(?P<file>[^,:]*),line=(?P<line>\d+),)?title=(?P<title>[^,:\n]*)::(?P<data>[^\r\n]*)"
)


def annotations(record, **how):
    return [LINE.fullmatch(line) for line in github.render(examples.report(record), **how).splitlines()]


def unescaped(text):
    for code, character in (("%2C", ","), ("%3A", ":"), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        text = text.replace(code, character)
    return text


def test_an_annotation_points_at_the_line_of_the_implementation():
    (found,) = annotations(examples.loss(findings=(examples.finding(),), sources=SOURCES))
    assert (found["command"], found["line"]) == ("error", "12")
    assert unescaped(found["file"]) == "losses/graph, new: 100 %.py"
    assert unescaped(found["title"]) == "G01 gradient matches finite differences: graph_distance / vectorized"
    assert unescaped(found["data"]).splitlines() == [
        "d loss / d embeddings[0, 1] = -0.5599, expected -0.2799   (off by 0.28, allowed 1e-06)",
        "N=2, D=2, adjacency=[[0, 1], [1, 0]]",
        "on cpu",
    ]


def test_signs_that_end_a_value_are_escaped_as_documented():
    (found,) = annotations(examples.loss(findings=(examples.finding(),), sources=SOURCES))
    assert found["file"] == "losses/graph%2C new%3A 100 %25.py"


def test_a_loss_of_an_installed_package_has_no_file_in_the_project():
    (found,) = annotations(
        examples.loss(findings=(examples.finding(),), sources=(SourceRecord("", "torch/nn/loss.py", 3, False),))
    )
    assert found["file"] is None


def test_notes_are_left_out_unless_asked_for():
    record = examples.loss(findings=(examples.finding("note"), examples.finding("warning")))
    assert [found["command"] for found in annotations(record)] == ["warning"]
    assert [found["command"] for found in annotations(record, notes=True)] == ["warning", "notice"]


def test_what_follows_is_named_and_what_is_accepted_is_left_out():
    found = (
        examples.finding(),
        examples.finding(rule="E02", follows="G01"),
        examples.finding(rule="B01", accepted=True),
    )
    (made,) = annotations(examples.loss(findings=found))
    assert "E02 follows" in unescaped(made["data"])


def test_no_more_are_written_than_github_shows_and_a_notice_counts_the_rest():
    errors = [examples.finding(rule=f"L{number:02}") for number in range(13)]
    warnings = [examples.finding("warning", rule=f"P{number:02}") for number in range(11)]
    made = annotations(examples.loss(findings=(*warnings, *errors)), whole="report.json")
    assert [found["command"] for found in made] == ["error"] * 10 + ["warning"] * 10 + ["notice"]
    assert "3 more errors and 1 more warning not shown here" in made[-1]["data"]
    assert made[-1]["data"].endswith("see report.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"missing": "interrupted before it was timed"},
        {"measurements": (examples.measurement(status="failed", reason="out of memory"),)},
    ],
)
def test_what_did_not_run_to_its_end_is_an_error(changes):
    (found,) = annotations(examples.loss(**changes))
    assert found["command"] == "error"


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_text_from_outside_never_becomes_a_command(text):
    written = formats.render("github", hostile.report(text), formats.Presentation(verbose=True))
    lines = re.split(r"\r\n|\r|\n", written.removesuffix("\n"))
    assert len(lines) == 4  # two findings, the failed measurement, what is missing
    assert all(LINE.fullmatch(line) for line in lines)
