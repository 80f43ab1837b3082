import json
from dataclasses import replace

import html_examples
import pytest
import report_examples as examples

from harness.results import schema
from harness.results.findings import STATUSES


def test_a_report_reads_back_as_it_was_written():
    made = examples.report(examples.loss(findings=(examples.finding(), examples.finding("note", case=None))))
    assert schema.loads(schema.dumps(made)) == made


def test_a_loss_reads_back_as_it_was_sent():
    made = examples.loss(findings=(examples.finding(),), missing="interrupted")
    assert schema.loss_loads(schema.loss_dumps(made)) == made


def test_a_report_is_valid_json_whatever_the_evidence_holds():
    found = examples.finding(evidence={"came": float("nan"), "should": float("-inf"), "type": int, 3: (1, 2)})
    text = schema.dumps(examples.report(examples.loss(findings=(found,))))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    evidence = json.loads(text, parse_constant=refuse)["losses"][0]["findings"][0]["evidence"]
    assert evidence == {"came": "nan", "should": "-inf", "type": "<class 'int'>", "3": [1, 2]}


@pytest.mark.parametrize("version", [0, 1, 2, "3", None])
def test_another_schema_version_is_refused_with_both_versions(version):
    data = json.loads(schema.dumps(examples.report())) | {"schema": version}
    with pytest.raises(
        schema.ReportError, match=rf"schema {version!r} came, but .* reads schema 3 to {schema.SCHEMA_VERSION}"
    ):
        schema.loads(json.dumps(data))


def test_a_report_of_the_version_before_is_read_without_what_it_did_not_know():
    report = examples.report()
    older = json.loads(schema.dumps(report)) | {"schema": 3}
    del older["made"], older["command"]
    for loss in older["losses"]:
        del loss["sources"], loss["description"]
        for outcome in loss["outcomes"]:
            del outcome["unmeasured"]
        for verdict in loss["verdicts"]:
            del verdict["sentence"], verdict["scope"], verdict["settle"]
    read = schema.loads(json.dumps(older))
    assert (read.schema, read.made, read.command) == (schema.SCHEMA_VERSION, "", "")
    assert [v.verdict for v in read.losses[0].verdicts] == [v.verdict for v in report.losses[0].verdicts]
    assert read.losses[0].outcomes == report.losses[0].outcomes


def test_a_report_of_schema_4_is_read_without_what_could_not_be_measured():
    report = examples.report()
    older = json.loads(schema.dumps(report)) | {"schema": 4}
    for loss in older["losses"]:
        for outcome in loss["outcomes"]:
            del outcome["unmeasured"]
    assert schema.loads(json.dumps(older)) == report


def test_a_report_of_schema_5_is_read_with_what_stays_the_same_along_a_sweep():
    found = html_examples.good()
    thinned = replace(found.growths[0], densities={"mask": 0.1})
    report = examples.report(replace(found, growths=(thinned,), measurements=()))
    older = json.loads(schema.dumps(report)) | {"schema": 5}
    for record in (*older["losses"][0]["growths"], *older["losses"][0]["crossovers"]):
        sizes, densities = record.pop("sizes"), record.pop("densities")
        record["fixed"] = {**sizes, **{f"density({name})": value for name, value in densities.items()}}
        if "at" in record:
            record["sizes"] = record.pop("at")
    assert schema.loads(json.dumps(older)) == report


@pytest.mark.parametrize("sizes", [{"N": "4"}, {"N": 1.5}, {"N": [2, "3"]}, {"N": None}])
def test_sizes_that_are_no_whole_numbers_are_refused(sizes):
    data = json.loads(schema.dumps(examples.report()))
    data["losses"][0]["measurements"][0]["sizes"] = sizes
    with pytest.raises(schema.ReportError, match=r"measurements\[0\].sizes\['N'\].* is .*, expected int"):
        schema.loads(json.dumps(data))


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("losses", [None, 3, [3], [{}]])
def test_a_broken_report_of_a_version_before_is_refused(losses, version):
    with pytest.raises(schema.ReportError, match=f"not a report of schema {version}"):
        schema.loads(json.dumps({"schema": version, "losses": losses}))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "nonsense"])
def test_what_is_no_report_is_refused(text):
    with pytest.raises(schema.ReportError, match="not a report"):
        schema.loads(text)


def _broken(change):
    data = json.loads(schema.dumps(examples.report(examples.loss(findings=(examples.finding(),)))))
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("losses"), r"report lacks \['losses'\]"),
        (lambda data: data["losses"][0].pop("findings"), r"report.losses\[0\] lacks \['findings'\]"),
        (lambda data: data.update(seed="0"), "report.seed is '0', expected int"),
        (lambda data: data.update(losses={}), "report.losses is dict, expected an array"),
        (lambda data: data["losses"][0]["outcomes"][0].update(status="fine"), "status is 'fine', expected one of"),
        (
            lambda data: data["losses"][0]["findings"][0].update(severity="fatal"),
            "severity is 'fatal', expected one of",
        ),
        (lambda data: data["losses"][0]["findings"][0].update(case=3), "case is 3, expected dict"),
    ],
)
def test_a_field_that_is_missing_or_wrong_is_named(change, message):
    with pytest.raises(schema.ReportError, match=message):
        schema.loads(_broken(change))


def test_planned_is_the_sum_of_the_counts():
    statuses = [*STATUSES, "passed"]
    record = examples.loss(outcomes=tuple(examples.outcome(status=status) for status in statuses))
    assert sum(record.counts("vectorized", "cpu").values()) == len(statuses)
    assert record.counts("vectorized", "cpu")["passed"] == 2
    assert sum(record.counts("vectorized", "cuda").values()) == 0


def test_merging_keeps_every_result_and_puts_errors_first():
    one = examples.loss(findings=(examples.finding("note"),), comparisons=(), measurements=())
    two = examples.loss(outcomes=(), findings=(examples.finding("error"),))
    whole = schema.merged([one, two])
    assert [f.severity for f in whole.findings] == ["error", "note"]
    assert whole.outcomes == one.outcomes
    assert whole.comparisons == two.comparisons


def test_losses_of_different_names_are_not_merged():
    with pytest.raises(ValueError, match=r"\['a', 'graph_distance'\]"):
        schema.merged([examples.loss(), examples.loss(name="a")])


@pytest.mark.parametrize(
    ("changes", "ok"),
    [
        ({}, True),
        ({"findings": (examples.finding("warning"), examples.finding("note"))}, True),
        ({"findings": (examples.finding("error"),)}, False),
        ({"outcomes": (examples.outcome(status="crashed"),)}, False),
        ({"outcomes": (examples.outcome(status="timed out"),)}, False),
        ({"measurements": (examples.measurement(status="failed"),)}, False),
    ],
)
def test_only_errors_crashes_and_timeouts_make_a_report_not_ok(changes, ok):
    assert examples.report(examples.loss(**changes)).ok is ok


def test_the_median_of_raw_times_is_derived():
    assert examples.measurement(seconds_per_call=(3.0, 1.0, 2.0)).median_seconds == 2.0
    assert examples.measurement(seconds_per_call=(3.0, 1.0, 2.0, 10.0)).median_seconds == 2.5
    assert examples.measurement(status="skipped").median_seconds is None
