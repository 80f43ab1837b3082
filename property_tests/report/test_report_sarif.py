import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import hostile
import jsonschema
import pytest
import report_examples as examples

from docs import generate
from harness.report import formats
from harness.results import rule_texts
from harness.results.schema import SourceRecord
from harness.rules import DOCUMENTED

SCHEMA = json.loads((Path(__file__).parent / "data" / "sarif-2.1.0-part.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
SOURCES = (SourceRecord("vectorized", "losses/graph distance.py", 12, is_local=True),)


def run_of(record, **changes):
    made = replace(examples.report(record), **changes)
    log = json.loads(formats.render("sarif", made, formats.Presentation()))
    VALIDATOR.validate(log)
    (run,) = log["runs"]
    return run


def results(*found, **changes):
    return run_of(examples.loss(findings=found, sources=SOURCES, **changes))["results"]


def test_a_result_points_at_the_line_of_the_implementation():
    (result,) = results(examples.finding())
    (location,) = result["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "losses/graph%20distance.py", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 12},
    }
    assert location["logicalLocations"][0]["fullyQualifiedName"] == "graph_distance.vectorized"


def test_a_loss_of_an_installed_package_lies_under_another_base():
    run = run_of(
        examples.loss(findings=(examples.finding(),), sources=(SourceRecord("", "torch/nn/loss.py", 3, False),))
    )
    located = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert located == {"uri": "torch/nn/loss.py", "uriBaseId": "%PYTHONPATH%"}
    assert set(run["originalUriBaseIds"]) == {"%SRCROOT%", "%PYTHONPATH%"}


def test_a_report_without_lines_points_at_the_file_that_was_named():
    run = run_of(examples.loss(findings=(examples.finding(),), target="losses/dice.py:SPEC"))
    located = run["results"][0]["locations"][0]["physicalLocation"]
    assert (located["artifactLocation"]["uri"], located["region"]["startLine"]) == ("losses/dice.py", 1)


def test_levels_are_the_severities():
    made = results(*(examples.finding(severity) for severity in ("error", "warning", "note")))
    assert [result["level"] for result in made] == ["error", "warning", "note"]


def test_the_message_says_what_came_and_should_have_come():
    (result,) = results(examples.finding(hint="declare domains.positive()"))
    text = result["message"]["text"]
    assert text.startswith("graph_distance / vectorized on cpu: d loss / d embeddings[0, 1] = -0.5599, expected")
    assert text.endswith("declare domains.positive()")


def test_rules_have_their_explanation_as_markdown():
    run = run_of(examples.loss(findings=(examples.finding(rule="B03"), examples.finding())))
    rules = run["tool"]["driver"]["rules"]
    assert [rules[result["ruleIndex"]]["id"] for result in run["results"]] == ["B03", "G01"]
    assert rules[0]["help"]["markdown"] == rule_texts.rule_text("B03").explanation
    assert "## How to mend it" in rules[0]["help"]["markdown"]
    assert not any("helpUri" in rule for rule in rules)


def test_a_rule_of_another_version_is_named_by_its_code():
    (rule,) = run_of(examples.loss(findings=(examples.finding(rule="Z99"),)))["tool"]["driver"]["rules"]
    assert rule["id"] == "Z99"


def test_the_words_of_the_rules_are_those_of_the_battery():
    renew = "write them anew: python -m docs.generate"
    assert rule_texts.FILE.read_text(encoding="utf-8") == generate.rule_texts(), renew
    assert list(rule_texts.rule_texts()) == [rule.code for rule in DOCUMENTED]


def fingerprints(*found, **changes):
    return [result["partialFingerprints"] for result in results(*found, **changes)]


def test_a_fingerprint_does_not_change_with_numbers_lines_or_elements():
    one = examples.finding(evidence={"where": "d loss / d embeddings[0, 1]"})
    other = examples.finding(
        message="other\n  numbers", evidence={"where": "d loss / d embeddings[3, 2]"}, failure="b.json"
    )
    (first,) = fingerprints(one)
    (second,) = fingerprints(other)
    moved = (SourceRecord("vectorized", "losses/graph distance.py", 99, is_local=True),)
    run = run_of(examples.loss(findings=(one,), sources=moved))
    assert first == second == run["results"][0]["partialFingerprints"]


@pytest.mark.parametrize(
    "changes",
    [{"implementation": "naive"}, {"rule": "G02"}, {"evidence": {"where": "loss"}}, {"evidence": {"aspect": "dtype"}}],
)
def test_a_fingerprint_tells_implementation_rule_and_quantity_apart(changes):
    one = examples.finding(evidence={"where": "d loss / d embeddings[0, 1]"})
    first, second = fingerprints(one, replace(one, **changes))
    assert first != second


def test_equal_findings_on_two_devices_are_one_to_code_scanning_and_two_lines():
    first, second = fingerprints(examples.finding(), examples.finding(device="cuda"))
    assert first["lossHarness/v1"] == second["lossHarness/v1"]
    assert first["primaryLocationLineHash"].endswith(":1")
    assert second["primaryLocationLineHash"].endswith(":2")


def test_what_is_accepted_or_waived_is_suppressed_with_the_reason():
    found = (
        examples.finding(accepted=True),
        examples.finding("note", rule="B03"),
        examples.finding("note", rule="T01"),
    )
    outcomes = (examples.outcome(rule="B03", status="waived", reason="older callers do so"),)
    made = {result["ruleId"]: result.get("suppressions") for result in results(*found, outcomes=outcomes)}
    assert made == {
        "G01": [{"kind": "external", "justification": "accepted by the baseline"}],
        "B03": [{"kind": "inSource", "justification": "older callers do so"}],
        "T01": None,
    }


def test_the_invocation_says_how_it_ended():
    (ended,) = run_of(examples.loss(), made="2026-01-02T03:04:05Z", command="loss-harness report losses")["invocations"]
    assert (ended["executionSuccessful"], ended["exitCode"]) == (True, 0)
    assert (ended["endTimeUtc"], ended["commandLine"]) == ("2026-01-02T03:04:05Z", "loss-harness report losses")
    (failed,) = run_of(examples.loss(findings=(examples.finding(),)))["invocations"]
    assert (failed["executionSuccessful"], failed["exitCode"]) == (True, 1)
    (broken,) = run_of(examples.loss(missing="interrupted"))["invocations"]
    assert broken["executionSuccessful"] is False
    assert broken["toolExecutionNotifications"][0]["message"]["text"] == "interrupted"


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_the_file_keeps_to_the_standard_whatever_losses_are_called_and_say(text):
    run = run_of(hostile.loss(text))
    first, second = run["results"]
    assert first["properties"]["loss"] == text
    assert not re.search(r"\]\(", first["message"]["text"])  # a link in a plain text message
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", first["message"]["text"])
    uri = second["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert not re.search(r"[^\x21-\x7e]", uri)
    if text.isprintable():
        assert unquote(uri) == f"{text}.py"


def test_the_schema_refuses_what_the_standard_does():
    log = json.loads(formats.render("sarif", hostile.report("name"), formats.Presentation()))
    for break_it in (
        lambda run: run["results"][0].pop("message"),
        lambda run: run["results"][0].update(level="fatal"),
        lambda run: run["results"][0]["locations"][0]["physicalLocation"]["region"].update(startLine=0),
        lambda run: run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"].update(uri="a b.py"),
        lambda run: run["invocations"][0].pop("executionSuccessful"),
        lambda run: run["tool"]["driver"].update(colour="red"),
    ):
        broken = json.loads(json.dumps(log))
        break_it(broken["runs"][0])
        assert not VALIDATOR.is_valid(broken)
