"""Results as parts of a page; `docs/test_notebook.py` runs them in a kernel, and `browser/` looks at them."""

from __future__ import annotations

import re

import html_examples as examples
import pytest
import report_examples

import harness
from harness.declare.spec import LossSpec
from harness.declare.tensor_spec import TensorSpec
from harness.report import notebook
from harness.results.findings import Finding, Verification

TENSORS = {"inputs": {"predictions": TensorSpec("B"), "labels": TensorSpec("B")}}


def naive(predictions, labels):
    return sum((p - y) ** 2 for p, y in zip(predictions, labels, strict=True)) / len(predictions)


def wrong(predictions, labels):
    return ((predictions - labels) ** 2).mean() * 1.5


SPEC = LossSpec("squares", {"naive": naive, "wrong": wrong}, **TENSORS, bench_sizes=({"B": 8},))


@pytest.fixture(scope="module")
def found() -> Verification:
    return harness.verify(SPEC, profile="quick", rules=["B01", "C01", "E01"])


def text_of(html: str) -> str:
    """What is read where styles and tags are removed, as on GitHub."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL).split())


def test_a_verification_says_what_is_wrong_and_what_was_checked(found):
    shown = text_of(found._repr_html_())
    assert "Verification · profile quick, seed 0, cpu squares" in shown
    assert re.search(r"wrong wrong E01 fails", shown)
    assert "E01 value equals" in shown
    assert "What was checked" in shown
    assert "Link to this" not in shown
    assert found.notes == (SPEC.unchecked,)
    assert f"{SPEC.unchecked[:30]}" in shown


def test_a_finding_alone_is_open_and_shows_the_code_that_repeats_it(found):
    (error,) = (finding for finding in found.findings if finding.rule == "E01")
    html = error._repr_html_()
    assert "<details open>" in html
    assert "Smallest input: B=" in text_of(html)
    assert "import torch" in text_of(html)
    assert "follows" not in text_of(
        harness.Finding("x", "B03", "shapes", "note", "cpu", "header\n  a = 1, expected 2", follows="E01")._repr_html_()
    )


def test_a_finding_that_the_baseline_accepts_is_shown_too():
    accepted = harness.Finding("x", "B03", "shapes", "error", "cpu", "header\n  a = 1, expected 2", accepted=True)
    assert "a = 1, expected 2" in text_of(accepted._repr_html_())


def test_a_declaration_shows_its_tensors_and_what_it_leaves_unchecked():
    shown = text_of(SPEC._repr_html_())
    assert "Declaration squares tensor kind dims domain role" in shown
    assert "predictions input B real() data yes no" in shown
    assert "implementations naive (reference), wrong" in shown
    assert SPEC.unchecked[:30] in shown


def test_a_benchmark_shows_speedups_and_exact_costs():
    measured = harness.benchmark(
        SPEC.replace(implementations={"naive": naive, "same": naive}), passes="full", timed=False
    )
    shown = text_of(measured._repr_html_())
    assert "Benchmark · seed 0, cpu squares" in shown
    assert "No implementation was compared with another." in shown
    assert "memory of 2 calls" in shown
    compared = text_of(notebook.benchmark_html(examples.good(), "seed 0"))
    assert "faster" in compared
    assert "time per call" in compared


def test_frames_have_a_row_for_each_thing_and_plain_columns(found):
    outcomes, findings = found.frame(), found.findings_frame()
    assert len(outcomes) == found.planned
    assert list(outcomes.columns) == [
        *("loss", "implementation", "rule", "title", "device", "status", "examples", "reason", "severity", "finding")
    ]
    (row,) = outcomes[outcomes.severity == "error"].to_dict("records")
    assert (row["implementation"], row["rule"], row["status"]) == ("wrong", "E01", "failed")
    assert " expected " in row["finding"]
    assert len(findings) == len(found.findings)
    assert {"rule", "severity", "implementation", "finding", "hint", "follows", "size_B"} <= set(findings.columns)
    assert found.findings[0].frame().iloc[0]["rule"] == found.findings[0].rule
    assert SPEC.frame().set_index("tensor").loc["labels", "kind"] == "input"
    none = harness.verify(SPEC, profile="quick", rules=["B01"])
    assert (len(none.findings_frame()), "rule" in none.findings_frame()) == (0, True)


def test_text_is_short_and_counts(found):
    errors = sum(finding.severity == "error" for finding in found.findings)
    assert repr(found).startswith(f"Verification('squares', profile='quick', planned=6, errors={errors}, ")
    assert "\n" not in repr(found)


@pytest.mark.parametrize("text", examples.HOSTILE, ids=lambda text: ascii(text)[:20])
def test_text_from_outside_stays_text(text):
    loss = report_examples.loss(name=text, findings=(report_examples.finding(message=f"where\n  {text}", hint=text),))
    for html in (
        notebook.verification_html(loss, text),
        notebook.benchmark_html(loss, text),
        notebook.finding_html(loss.findings[0]),
        notebook.declaration_html(text, [["tensor"], [text]], {"laws": text}),
        Finding(text, "E01", text, "error", "cpu", f"where\n  {text}")._repr_html_(),
    ):
        assert "<script" not in html
        assert "<img" not in html
        assert "onload=alert" not in re.sub(r"&[#\w]+;svg onload=alert", "", html)
        html.encode()


def test_no_two_outputs_share_the_axis_of_a_plot():
    one, other = (notebook.benchmark_html(examples.good(), "") for _ in range(2))
    assert one == other
    ids = re.findall(r'id="([\w.-]+-axis)"', one)
    assert ids
    changed = notebook.benchmark_html(report_examples.loss(comparisons=examples.good().comparisons[:1]), "")
    assert not set(ids) & set(re.findall(r'id="([\w.-]+-axis)"', changed))


def test_what_plots_copy_by_use_has_no_class():
    defined = "".join(re.findall(r"<defs>.*?</defs>", notebook.benchmark_html(examples.good(), ""), re.DOTALL))
    assert "<path" in defined
    assert "class=" not in defined  # a style sheet that is nested in an output does not reach a copy
