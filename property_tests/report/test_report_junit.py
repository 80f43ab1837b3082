import re
from xml.etree import ElementTree

import hostile
import pytest
import report_examples as examples
from junitparser import Error, Failure, JUnitXml, Skipped

from harness.report import formats, junit
from harness.results.schema import SourceRecord

# Elements, their attributes and their children, as the schema of Jenkins' xunit plugin (junit-10.xsd) has them; of an
# attribute with an exclamation mark, an element must have one.
ELEMENTS = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name!", "tests!", "failures!", "errors!", "skipped", "time", "timestamp", "hostname", "id", "package"},
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": ({"name!", "classname", "time"}, {"skipped", "error", "failure", "system-out", "system-err"}),
    "failure": ({"message", "type"}, set()),
    "error": ({"message", "type"}, set()),
    "skipped": ({"message", "type"}, set()),
    "system-out": (set(), set()),
}


def parsed(report):
    return ElementTree.fromstring(formats.render("junit", report, formats.Presentation()).encode())


def against_the_schema(element):
    attributes, children = ELEMENTS[element.tag]
    assert set(element.attrib) <= {name.rstrip("!") for name in attributes}
    assert {name.rstrip("!") for name in attributes if name.endswith("!")} <= set(element.attrib)
    for child in element:
        assert child.tag in children
        against_the_schema(child)


def read(tmp_path, report):
    file = tmp_path / "report.xml"
    file.write_text(junit.render(report), encoding="utf-8")
    return list(JUnitXml.fromfile(str(file)))


def of_every_kind():
    outcomes = (
        examples.outcome("naive"),
        examples.outcome(status="failed"),
        examples.outcome(rule="D03", status="failed"),
        examples.outcome(rule="B02", status="inapplicable", reason="no broadcastable dims"),
        examples.outcome(rule="D06", status="skipped", reason="no CUDA device"),
        examples.outcome(rule="B03", status="waived", reason="older callers do so"),
        examples.outcome(rule="T01", status="crashed", reason="RuntimeError: compiler"),
        examples.outcome(rule="T02", status="timed out", reason="after 60 s"),
    )
    found = (examples.finding(), examples.finding("warning", rule="D03", message="where\n  inf, expected 3"))
    return examples.loss(outcomes=outcomes, findings=found)


def test_a_suite_is_a_loss_on_a_device_and_a_case_an_implementation_and_rule(tmp_path):
    here = examples.outcome()
    there = examples.outcome(device="cuda")
    suites = read(tmp_path, examples.report(examples.loss(outcomes=(here, there)), examples.loss(name="dice")))
    assert [suite.name for suite in suites] == ["graph_distance on cpu", "graph_distance on cuda", "dice on cpu"]
    (case,) = suites[0]
    assert (case.classname, case.name) == ("graph_distance.vectorized", "G01 gradient matches finite differences")


def test_every_outcome_becomes_what_a_ci_system_makes_of_it(tmp_path):
    (suite,) = read(tmp_path, examples.report(of_every_kind()))
    kinds = {case.name[:3]: [type(result) for result in case.result] for case in suite if "naive" not in case.classname}
    assert kinds == {
        "G01": [Failure],
        "D03": [],
        "B02": [Skipped],
        "D06": [Skipped],
        "B03": [Skipped],
        "T01": [Error],
        "T02": [Error],
    }
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (8, 1, 2, 3)


def test_a_failure_says_what_came_and_should_have_come_where_and_how_to_repeat_it(tmp_path):
    record = examples.loss(
        findings=(examples.finding(),),
        outcomes=(examples.outcome(status="failed"),),
        sources=(SourceRecord("vectorized", "losses/graph.py", 12, is_local=True),),
    )
    ((case,),) = read(tmp_path, examples.report(record))
    (failure,) = case.result
    assert failure.message.startswith("d loss / d embeddings[0, 1] = -0.5599, expected -0.2799")
    assert failure.type == "G01"
    assert failure.text.startswith("error\nlosses/graph.py:12:1: G01 graph_distance / vectorized: d loss")
    assert "N=2, D=2, adjacency=[[0, 1], [1, 0]]" in failure.text
    assert "print(torch.ones(2))" in failure.text


def test_a_warning_fails_nothing_and_stands_in_the_output(tmp_path):
    (suite,) = read(tmp_path, examples.report(of_every_kind()))
    (case,) = (case for case in suite if case.name.startswith("D03"))
    assert case.result == []
    assert "inf, expected 3" in case.system_out


def test_what_the_baseline_accepts_is_skipped(tmp_path):
    record = examples.loss(findings=(examples.finding(accepted=True),), outcomes=(examples.outcome(status="failed"),))
    ((case,),) = read(tmp_path, examples.report(record))
    assert [result.message for result in case.result] == ["accepted by the baseline"]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"missing": "interrupted: 1 of 2 planned checks ran"}, "everything planned ran"),
        (
            {"measurements": (examples.measurement(status="failed", reason="out of memory"),)},
            "timed: cpu, float32, full pass at N=128",
        ),
    ],
)
def test_what_did_not_run_to_its_end_is_never_green(tmp_path, changes, name):
    (suite,) = read(tmp_path, examples.report(examples.loss(**changes)))
    assert suite.errors == 1
    (case,) = (case for case in suite if case.result)
    assert case.name == name


def test_a_file_has_an_error_or_a_failure_where_the_report_is_not_ok(tmp_path):
    for changes in ({}, {"findings": (examples.finding(),), "outcomes": (examples.outcome(status="failed"),)}):
        made = examples.report(examples.loss(**changes))
        (suite,) = read(tmp_path, made)
        assert (suite.failures + suite.errors == 0) == made.ok


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_the_file_keeps_to_the_schema_whatever_losses_are_called_and_say(text):
    root = parsed(hostile.report(text))
    against_the_schema(root)
    (suite,) = root
    assert int(root.get("tests")) == len(suite) == 5
    assert (root.get("failures"), root.get("errors"), suite.get("skipped")) == ("1", "3", "1")
    assert suite.find("testcase/failure").text.count("expected 2") == 1


def test_characters_that_xml_cannot_hold_are_left_out_and_others_stay():
    root = parsed(hostile.report("a\x00b\ud800c\ufffed é ∂ 🙂 <&>"))
    assert root[0].get("name") == "abcd é ∂ 🙂 <&> on cpu"
    assert re.search("b\ud800c", junit.render(hostile.report("b\ud800c"))) is None
