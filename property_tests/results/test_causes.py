from graphlib import TopologicalSorter
from itertools import product

import pytest
import report_examples as examples
from mutants import state
from mutants.pair import PAIRWISE

from harness import LossSpec, laws, rules, verify
from harness.judging.verdict import judged
from harness.report import markdown, text
from harness.results import causes
from harness.results.causes import attributed, grouped
from harness.results.findings import Finding

CODES = [rule.code for rule in rules.DOCUMENTED]


def found(rule, severity="error", implementation="candidate", **evidence):
    return Finding(implementation, rule, "", severity, "cpu", f"loss / {implementation} / {rule}", evidence)


def follows(*findings):
    """Which rule's finding follows from which: code -> code of the cause."""
    return {f.rule: f.follows for f in attributed(findings)}


MODIFIED = found("C02", aspect="labels")
CUT_OFF = found("G06", kind="cut off", tensor="x")
LOST = found("D02", "warning", aspect="accuracy float16", kind="value")
NOT_FINITE = found("G08", kind="value", finite=False)
RAISES = found("B01", kind="raises", exception="RuntimeError")
NO_TENSOR = found("B01", kind="raises", exception="WrongReturn")
WRONG_GRADIENT = found("G01", kind="gradient", tensor="x", difference=0.5, size=1e5)
NARROW = found("D05", aspect="w", kind="narrowed", tensor="w")
OTHER_VALUE = found("E01", kind="value", difference=0.5, size=1.5)
LAW = found("L02", aspect="permutation('N') value", kind="value")
RANDOM = found("S01", kind="value")
IN_16_BITS = found("D05", aspect="on the way, in 16 bits", kind="narrowed")
KEPT_FOR_ALL = found("S03", kind="value", aspect="history of all instances")
UNSET = found("S01", kind="reads unset memory")


def test_a_process_that_ends_alike_under_every_rule_is_one_finding_and_one_that_hangs_another():
    crashed = [found("X01", aspect=code, came="killed by a signal: Segmentation fault (signal 11)") for code in "BDE"]
    hung = found("X01", aspect="G01", came="timed out: it was not done after 5 s")
    assert [(cause, len(effects)) for cause, effects in grouped([*crashed, hung])] == [(crashed[0], 2), (hung, 0)]


def test_a_graph_that_is_kept_and_the_next_step_that_fails_are_one_finding():
    kept, fails = (found("G09", "warning", kind="keeps a graph", aspect=a) for a in ("graph kept", "second step"))
    assert grouped([kept, fails]) == [(kept, (fails,))]
    assert grouped([fails]) == [(fails, ())]


@pytest.mark.parametrize(
    ("cause", "effect"),
    [
        (MODIFIED, found("B06", kind="value")),
        (MODIFIED, found("B06", kind="refuses in-place", exception="RuntimeError")),
        (MODIFIED, WRONG_GRADIENT),
        (MODIFIED, found("S03", kind="value")),
        (IN_16_BITS, WRONG_GRADIENT),
        (found("G06", aspect="B is long"), found("E05", aspect="B is long", kind="value")),
        (KEPT_FOR_ALL, found("D01", aspect="output", kind="")),
        (KEPT_FOR_ALL, found("C07", "warning", aspect="weights")),
        (KEPT_FOR_ALL, OTHER_VALUE),
        (NOT_FINITE, found("E01", kind="value", finite=False)),
        (NOT_FINITE, found("D02", "warning", kind="value", finite=False)),
        (CUT_OFF, found("E02", kind="gradient", tensor="x")),
        (CUT_OFF, WRONG_GRADIENT),
        (RAISES, found("G08", kind="raises", exception="RuntimeError")),
        (RAISES, found("B05", "warning", kind="raises", exception="RuntimeError")),
        (NO_TENSOR, found("G08", kind="raises", exception="WrongReturn")),
        (NO_TENSOR, found("B05", "warning", kind="raises", exception="WrongReturn")),
        (WRONG_GRADIENT, found("G02", kind="gradient")),
        (WRONG_GRADIENT, found("E02", kind="gradient")),
        (WRONG_GRADIENT, found("B07", kind="gradient", tensor="x", aspect="none gradient")),
        (WRONG_GRADIENT, found("L02", kind="gradient")),
        (NARROW, found("E01", kind="value", difference=1e-7, size=1.0)),
        (NARROW, found("G01", kind="gradient", difference=7e-4, size=1e5)),
        (LAW, OTHER_VALUE),
        (OTHER_VALUE, found("E02", kind="gradient")),
        (found("E02", kind="gradient", tensor="x"), found("E03", kind="gradient", tensor="x")),
        (RANDOM, found("L02", kind="gradient")),
        (found("C01", kind="keeps a graph"), found("G09", "warning", kind="keeps a graph")),
        (found("G05", kind="gradient", tensor="x"), found("G11", "warning", kind="gradient", tensor="x")),
        (LOST, found("E04", "warning", aspect="accuracy float16", kind="value")),
        (RANDOM, found("D02", "warning", kind="value")),
        (RANDOM, found("S02", "warning", kind="draws")),
        (UNSET, found("G08", kind="gradient", finite=False)),
        (UNSET, found("C10", kind="value")),
    ],
    ids=lambda finding: finding.rule,
)
def test_what_one_defect_brings_about_names_its_cause(cause, effect):
    assert [f.follows for f in attributed([effect, cause])] == [cause.rule, ""]


@pytest.mark.parametrize(
    ("other", "finding"),
    [
        (MODIFIED, found("B06", kind="raises", exception="RuntimeError")),
        (MODIFIED, found("C03", kind="leak")),
        (MODIFIED, found("B03", "warning", aspect="labels")),
        (NOT_FINITE, OTHER_VALUE),
        (CUT_OFF, found("E02", kind="gradient", tensor="y")),
        (CUT_OFF, OTHER_VALUE),
        (RAISES, found("G08", kind="raises", exception="ValueError")),
        (RAISES, OTHER_VALUE),
        (WRONG_GRADIENT, OTHER_VALUE),
        (WRONG_GRADIENT, found("L02", kind="value")),
        (WRONG_GRADIENT, found("B07", kind="gradient", tensor="x", aspect="sum gradient")),
        (WRONG_GRADIENT, found("B07", kind="gradient", tensor="y", aspect="none gradient")),
        (WRONG_GRADIENT, found("G04", "note", kind="raises", exception="NotImplementedError")),
        (NARROW, OTHER_VALUE),
        (NARROW, found("E01", kind="value", difference=1e-4, size=1.0)),
        (NARROW, found("E01", kind="value", difference=1e-7)),
        (LOST, found("E04", "warning", aspect="accuracy float32", kind="value")),
        (RANDOM, found("D02", "warning", kind="value", finite=False)),
        (RANDOM, found("C03", "warning", kind="leak")),
        (UNSET, found("G11", "note", kind="raises", exception="RuntimeError")),
        (NARROW, WRONG_GRADIENT),
        (LAW, NOT_FINITE),
        (found("E01", kind="value", aspect="train"), found("E02", kind="gradient")),
        (found("E02", kind="gradient", aspect="train"), found("E03", kind="gradient")),
    ],
    ids=lambda finding: finding.rule,
)
def test_two_defects_are_two_findings(other, finding):
    assert follows(other, finding) == {other.rule: "", finding.rule: ""}


def test_an_error_never_follows_from_a_warning():
    assert follows(found("G01", "warning", where="d loss / d x"), found("E02", kind="gradient"))["E02"] == ""


def test_nothing_follows_from_another_implementation():
    effect = found("E02", kind="gradient")
    assert follows(found("G01", implementation="reference", where="d loss / d x"), effect)["E02"] == ""


def test_nothing_follows_from_another_device():
    record = examples.loss(findings=(examples.finding(device="cuda"), examples.finding(rule="E02", device="cpu")))
    assert [f.follows for f in judged(record).findings] == ["", ""]


def test_a_law_that_the_reference_breaks_too_says_nothing_about_their_difference():
    shared = found("L02", implementation="reference", aspect=LAW.evidence["aspect"])
    assert follows(shared, OTHER_VALUE, LAW) == {"L02": "", "E01": ""}


def test_a_chain_of_causes_ends_at_its_root():
    slope, difference = found("G02", kind="gradient"), found("E02", kind="gradient")
    assert follows(difference, slope, WRONG_GRADIENT, MODIFIED) == {"C02": "", "G01": "C02", "G02": "C02", "E02": "C02"}
    assert grouped([slope, OTHER_VALUE, MODIFIED]) == [(MODIFIED, (slope, OTHER_VALUE))]


def test_what_is_new_does_not_hide_below_what_is_accepted():
    record = examples.loss(findings=(examples.finding(accepted=True), examples.finding(rule="E02")))
    assert [f.follows for f in judged(record).findings] == ["", ""]


def test_no_finding_is_its_own_cause():
    """Between different codes the table has no circle; a link of a code to itself holds in one direction only.

    What X01 found has no direction of its own: the first stands for the others.
    """
    codes = sorted(
        {*CODES, *(code for link in causes.LINKS for code in (*link.causes, *link.effects) if len(code) == 3)}
    )
    edges = {
        (cause, effect)
        for link in causes.LINKS
        for cause, effect in product(codes, codes)
        if cause.startswith(link.causes) and effect.startswith(link.effects)
    }
    graph = TopologicalSorter()
    for cause, effect in edges:
        if cause != effect:
            graph.add(effect, cause)
    assert list(graph.static_order())
    assert {cause for cause, effect in edges if cause == effect} == {"C01", "D02", "E04", "G09", "X01"}
    moved = [found("C01", kind=kind, tensor="mask") for kind in ("not moved", "not saved")] + [
        found("C01", kind="moved")
    ]
    assert [f.follows for f in attributed(moved)] == ["", "C01", "C01"]


@pytest.mark.parametrize("link", causes.LINKS, ids=lambda link: f"{link.causes}-{link.effects}")
def test_every_line_of_the_table_names_rules_and_says_why(link):
    assert " " in link.reason
    assert all(any(code.startswith(cause) for code in CODES) for cause in link.causes)
    assert any(code.startswith(link.effects) for code in CODES)


@pytest.mark.parametrize("loss", [state.with_a_column_unset, state.LastRowUnset.loss, state.with_torch_noise])
def test_whatever_a_number_that_changes_from_call_to_call_breaks_follows_from_s01(loss):
    spec = LossSpec(
        "changing",
        {"reference": state.mean_squared, "candidate": loss},
        laws=(laws.permutation("B"), laws.zero_when_equal("predictions", "labels")),
        **PAIRWISE,
    )
    verified = verify(spec, profile="quick", implementations=["candidate"], ignore=["B03", "B05", "G04", "G11", "P"])
    assert {f.rule for f in verified.findings if not f.follows} == {"S01"}
    assert len({f.rule for f in verified.findings}) > 4


def _two():
    effect = examples.finding(
        rule="E02",
        title="gradient equals the reference",
        evidence={"kind": "gradient", "where": "d loss / d embeddings[1, 1]"},
    )
    note = examples.finding(
        "note", rule="G02", title="slopes along directions", evidence={"kind": "gradient", "where": "d loss / d x"}
    )
    return examples.report(examples.loss(findings=(effect, examples.finding(), note)))


def test_the_text_shows_what_follows_below_its_cause():
    shown = text.findings_text(_two(), folder="failures", notes=False)
    assert shown.splitlines()[0] == "1 error"
    assert shown.endswith(
        "  repeat: loss-harness replay failures/graph_distance-G01-3f2a.json\n"
        "  follows: E02 gradient equals the reference, at d loss / d embeddings[1, 1]"
    )
    assert "\n  follows, a note: G02 slopes along directions, at d loss / d x" in text.findings_text(_two())
    assert text.totals_text(_two()).startswith("1 error, 0 warnings, 0 notes, 2 that follow; ")


def test_markdown_shows_what_follows_below_its_cause():
    shown = markdown.render(_two())
    assert "#### graph_distance / vectorized / G01" in shown
    assert r"- follows: E02 gradient equals the reference, at d loss / d embeddings\[1, 1\] (`./failures/" in shown
    assert "**1 error**" in shown


def test_the_verdict_counts_causes():
    (_, verdict) = _two().losses[0].verdicts
    assert len(verdict.reasons) == 1
    assert verdict.reasons[0].endswith("; E02 and G02 follow")


@pytest.mark.parametrize(("difference", "size"), [("inf", 1.0), ("nan", 1.0), (0.5, "nan")])
def test_numbers_of_the_evidence_that_are_not_finite_explain_nothing(difference, size):
    assert follows(NARROW, found("G01", kind="gradient", difference=difference, size=size))["G01"] == ""
