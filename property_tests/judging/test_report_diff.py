from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.judging import diff
from harness.report import diff_text
from harness.results import schema
from property_tests.examples import report_examples as examples

ENVIRONMENT = {
    "cpu": {"torch": "2.13.0", "machine": "x86_64", "default_dtype": "float32", "gpu": None},
    "timing": {"torch": "2.13.0", "cpu": "some CPU", "threads": 1, "timed_in": "fresh processes"},
}
COSTS = {"aten_calls": 7, "saved_bytes": 4096, "peak_bytes": 8192}


def report(costs=None, *, environment=ENVIRONMENT, seed=0, comparisons=(), **changes):
    measurement = examples.measurement(costs=COSTS | (costs or {}), **changes)
    record = examples.loss(measurements=(measurement,), comparisons=comparisons)
    return replace(examples.report(record), environment=environment, seed=seed)


def changed(name, **values):
    return ENVIRONMENT | {name: ENVIRONMENT[name] | values}


def test_equal_reports_differ_by_nothing():
    found = diff.compare(report(), report())
    assert found.ok
    assert (found.compared, found.costs, found.gone, found.added) == (3, (), (), ())
    assert "no regression: 3 exact costs compared" in diff_text.text(found)


def test_a_cost_that_grew_by_one_byte_is_a_regression_that_names_place_cost_and_size():
    found = diff.compare(report(), report({"saved_bytes": 4097}))
    assert not found.ok
    (change,) = found.regressions
    assert (change.metric, change.old, change.new) == ("saved_bytes", 4096, 4097)
    shown = diff_text.text(found)
    for expected in (
        "Exact costs that grew",
        "graph_distance",
        "vectorized",
        "N=128",
        "cpu, float32, full pass",
        "+0.02%",
    ):
        assert expected in shown
    assert "regression: 1 of 3 exact costs grew" in shown


def test_a_cost_that_fell_is_no_regression_and_is_listed_when_asked_for():
    found = diff.compare(report(), report({"peak_bytes": 4096}))
    assert found.ok
    assert "Other exact costs that changed" not in diff_text.text(found)
    assert "-50.00%" in diff_text.text(found, verbose=True)


def test_growth_within_what_is_allowed_passes_and_beyond_it_fails():
    old, new = report(), report({"peak_bytes": 8600})
    assert not diff.compare(old, new, allowed={"peak_bytes": 0.04}).ok
    assert diff.compare(old, new, allowed={"peak_bytes": 0.05}).ok
    assert not diff.compare(old, new, allowed={"saved_bytes": 0.05}).ok


def test_what_is_unknown_in_one_report_is_not_compared_as_zero():
    found = diff.compare(report({"peak_bytes": None}), report())
    assert found.ok
    assert found.compared == 2


def test_a_cost_that_was_nothing_may_not_become_something():
    found = diff.compare(report({"saved_bytes": 0}), report({"saved_bytes": 4}), allowed={"saved_bytes": 0.5})
    assert not found.ok
    assert "from nothing" in diff_text.text(found)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"environment": changed("cpu", torch="2.14.0")}, "torch 2.13.0 against 2.14.0"),
        ({"environment": changed("cpu", machine="aarch64")}, "machine x86_64 against aarch64"),
        ({"environment": changed("cpu", gpu={"name": "H200"})}, "None against H200"),
        ({"seed": 1}, "seed 0 against 1"),
        ({"sizes": {"N": 256}}, None),
    ],
)
def test_what_is_not_comparable_is_refused_with_the_reason(other, reason):
    if reason is None:
        old = replace(report(), losses=(replace(report().losses[0], outcomes=()),))
        with pytest.raises(diff.NotComparableError, match="nothing in common"):
            diff.compare(old, report(**other))
        return
    with pytest.raises(diff.NotComparableError, match=reason):
        diff.compare(report(), report(**other))


def test_another_cpu_leaves_the_costs_comparable_and_the_times_not():
    found = diff.compare(report(), report({"aten_calls": 8}, environment=changed("timing", cpu="another CPU")))
    assert len(found.regressions) == 1
    assert found.times == ()
    assert "times are not compared: cpu some CPU against another CPU" in diff_text.text(found)


def test_a_time_that_doubled_is_evidence_and_no_regression():
    old = report(comparisons=(examples.comparison(speedup=10.0, low=9.5, high=10.5),))
    new = report(
        seconds_per_call=tuple(2 * seconds for seconds in old.losses[0].measurements[0].seconds_per_call),
        comparisons=(examples.comparison("faster", speedup=5.0, low=4.8, high=5.2),),
    )
    found = diff.compare(old, new)
    assert found.ok
    (change,) = found.times
    assert change.is_shifted
    assert change.new_seconds == pytest.approx(2 * change.old_seconds)
    assert "intervals apart" in diff_text.text(found)


def test_speedups_whose_intervals_overlap_are_not_worth_a_line():
    old = report(comparisons=(examples.comparison(speedup=10.0, low=9.0, high=11.0),))
    new = report(comparisons=(examples.comparison(speedup=9.5, low=8.5, high=10.5),))
    found = diff.compare(old, new)
    assert not found.times[0].is_shifted
    assert "Times" not in diff_text.text(found)
    assert "Times (evidence, no gate)" in diff_text.text(found, verbose=True)


def test_what_fails_now_and_was_measured_before_is_broken():
    found = diff.compare(report(), report(status="failed", reason="RuntimeError: no", seconds_per_call=(), process=()))
    assert not found.ok
    assert "failed, but was measured: RuntimeError: no" in found.broken[0]
    assert diff.compare(report(status="failed"), report()).mended


def test_a_new_error_of_a_rule_that_both_ran_is_broken_and_one_of_a_new_rule_is_not():
    wrong = replace(examples.loss(findings=(examples.finding(),)), measurements=report().losses[0].measurements)
    ran_before = replace(wrong, findings=(), outcomes=(examples.outcome(),))
    never_ran = replace(wrong, findings=(), outcomes=(examples.outcome(rule="G02"),))
    after = replace(wrong, outcomes=(examples.outcome(status="failed"), examples.outcome(rule="G02")))
    base = report()
    as_report = lambda record: replace(base, losses=(record,))  # noqa: E731
    found = diff.compare(as_report(ran_before), as_report(after))
    assert not found.ok
    assert "G01" in found.broken[0]
    assert diff.compare(as_report(never_ran), as_report(after)).ok
    assert diff.compare(as_report(after), as_report(ran_before)).mended


def test_what_only_one_report_has_is_counted_and_listed_when_asked_for():
    added = examples.measurement(sizes={"N": 256}, costs=COSTS)
    new = report()
    new = replace(new, losses=(replace(new.losses[0], measurements=(*new.losses[0].measurements, added)),))
    found = diff.compare(report(), new)
    assert found.ok
    assert len(found.added) == 1
    assert "in the new one: 1" in diff_text.text(found)
    assert "N=256" in diff_text.text(found, verbose=True)


def test_allowances_are_read_and_what_they_cannot_mean_is_refused():
    assert diff.allowances(("peak_bytes=5",), report()) == {"peak_bytes": 0.05}
    for text in ("peak_byte=5", "peak_bytes", "peak_bytes=many", "peak_bytes=-1", "peak_bytes=nan"):
        with pytest.raises(diff.NotComparableError, match="COST=PERCENT"):
            diff.allowances((text,), report())


def test_markdown_starts_with_the_summary_and_escapes_what_losses_are_called():
    hostile = replace(report({"aten_calls": 8}).losses[0], name="a|b <script>")
    before = replace(report().losses[0], name="a|b <script>")
    found = diff.compare(replace(report(), losses=(before,)), replace(report(), losses=(hostile,)))
    shown = diff_text.markdown(found)
    assert shown.startswith("**regression: 1 of 3 exact costs grew, 0 broke**")
    assert "<script>" not in shown
    assert "a\\|b" in shown


def test_the_json_says_whether_it_is_ok_and_what_grew():
    data = json.loads(diff.compare(report(), report({"aten_calls": 9})).to_json())
    assert data["ok"] is False
    assert data["regressions"][0]["metric"] == "aten_calls"
    assert data["regressions"][0]["place"][0] == "graph_distance"


def test_a_folder_and_its_report_are_read_and_anything_else_is_refused(tmp_path):
    (tmp_path / "report.json").write_text(schema.dumps(report()), encoding="utf-8")
    assert diff.read(tmp_path) == diff.read(tmp_path / "report.json") == report()
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(diff.NotComparableError, match="not a report"):
        diff.read(tmp_path / "other.json")
    with pytest.raises(diff.NotComparableError, match="--save"):
        diff.read(tmp_path / "absent.json")


def test_one_loss_can_be_chosen_and_an_unknown_one_is_refused():
    assert [loss.name for loss in diff.only(report(), ("graph_distance",)).losses] == ["graph_distance"]
    with pytest.raises(diff.NotComparableError, match="did you mean 'graph_distance'"):
        diff.only(report(), ("graph_distence",))


def _run(*arguments):
    return CliRunner().invoke(cli, [*map(str, arguments)])


def test_the_command_line_saves_exact_costs_and_fails_when_one_of_them_grows(tmp_path):
    loss, greedy = tmp_path / "a_loss.py", tmp_path / "its_successor.py"
    lean = (
        "from jaxtyping import Float\n"
        "from torch import Tensor\n\n\n"
        'def squares(predictions: Float[Tensor, "B"]) -> Float[Tensor, ""]:\n'
        "    return (predictions * predictions).sum()\n"
    )
    loss.write_text(lean)
    before, same, after = (tmp_path / f"{name}.json" for name in ("before", "same", "after"))
    for file in (before, same):
        assert _run("bench", loss, "--costs-only", "--save", file).exit_code == 0
    greedy.write_text(lean.replace("(predictions * predictions)", "(predictions.clone() ** 2)"))
    assert _run("bench", greedy, "--costs-only", "--save", after).exit_code == 0
    equal, grown = _run("diff", before, same), _run("diff", before, after)
    assert (equal.exit_code, grown.exit_code) == (0, 1)
    assert "none changed" in equal.output
    assert "aten_calls" in grown.output
    assert "regression" in _run("diff", before, after, "--format", "markdown").output
    assert json.loads(_run("diff", before, after, "--format", "json").output)["ok"] is False


def test_files_that_are_no_reports_are_refused_with_exit_code_2(tmp_path):
    (tmp_path / "no.json").write_text("{}")
    refused = _run("diff", tmp_path / "no.json", tmp_path / "no.json")
    assert refused.exit_code == 2
    assert "--save" in refused.output


def unknown(reason="", **changes):
    return report(dict.fromkeys(COSTS), status="skipped", reason=reason, **changes)


def test_costs_that_were_known_and_are_not_any_more_break_the_gate():
    found = diff.compare(report(), unknown("out of memory"))
    assert not found.ok
    assert "2 exact costs that were known are not any more: out of memory" in found.broken[0]  # the peak may be spared


def test_a_peak_that_a_slow_machine_does_not_take_breaks_nothing():
    assert diff.compare(report(), report({"peak_bytes": None})).ok


def test_a_reference_that_a_slow_machine_has_no_time_for_breaks_nothing():
    old, new = report(implementation="naive"), unknown("one call takes 9 s", implementation="naive")
    assert diff.compare(old, new).ok


def test_flops_are_not_compared_where_calls_are_left_out_of_them():
    counted = {"flops": 7000, "flops_left_out_calls": 0}
    fused = {"flops": 0, "flops_left_out_calls": 1}
    assert diff.compare(report(counted), report(fused)).ok
    assert diff.compare(report(fused), report(counted)).ok
    assert not diff.compare(report(counted), report(counted | {"flops": 7001})).ok


def test_the_summary_counts_what_is_missing_from_the_new_report():
    whole = report()
    more = examples.measurement("other", costs=COSTS)
    whole = replace(whole, losses=(replace(whole.losses[0], measurements=(*whole.losses[0].measurements, more)),))
    assert "1 measurement of the old report not in the new one" in diff_text.summary(diff.compare(whole, report()))


def test_a_report_that_does_not_say_what_it_was_measured_under_is_refused():
    with pytest.raises(diff.NotComparableError, match="not recorded"):
        diff.compare(report(), report(environment=ENVIRONMENT | {"cpu": "some machine"}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sweep", "Q=1,2"), "no symbol 'Q'"),
        (("--sizes", "C=3"), "one for each of"),
        (("--density", "nope=0.1"), "no tensor 'nope'"),
        (("--clock", "events"), "leave nothing to time"),
        (("--budget", "nan"), "number of seconds"),
        (("--sizes", "B=1,B=2"), "gives B twice"),
        (("--sweep", "B=4,4"), "two different sizes"),
    ],
)
def test_a_request_that_cannot_be_honoured_has_exit_code_2_and_writes_nothing(arguments, message, tmp_path):
    loss, saved = tmp_path / "some_loss.py", tmp_path / "saved.json"
    loss.write_text(
        "from jaxtyping import Float\n"
        "from torch import Tensor\n\n\n"
        'def squares(predictions: Float[Tensor, "B"]) -> Float[Tensor, ""]:\n'
        "    return (predictions * predictions).sum()\n"
    )
    refused = _run("bench", loss, "--costs-only", "--save", saved, *arguments)
    assert refused.exit_code == 2
    assert message in refused.output
    assert not saved.exists()
