from dataclasses import replace

import pytest
import report_examples as examples
from report_examples import comparison, finding, measurement, outcome
from timed_losses import SPECS

from harness import benchmark
from harness.judging import reasons, speed, verdict


def judge(implementation="vectorized", **changes):
    made = verdict.judge(examples.loss(**changes), implementation)
    return made.verdict, "\n".join(made.reasons)


def test_a_right_and_faster_implementation_is_adopted_with_its_speedup():
    found, reasons = judge()
    assert found == "adopt"
    assert "against naive on cpu, float32, full pass: faster at N=128 (5×)" in reasons
    assert "1 rule passed on cpu" in reasons


def test_an_error_is_not_adopted_and_its_speed_is_not_praised():
    found, reasons = judge(findings=(finding("error"), finding("warning", rule="B03", title="undeclared shapes")))
    assert found == "do not adopt"
    assert reasons.startswith("G01 gradient matches finite differences fails on cpu: d loss / d embeddings[0, 1]")
    assert "B03 undeclared shapes warns" in reasons
    assert "faster" not in reasons


def test_an_error_of_another_implementation_does_not_count():
    assert judge(findings=(finding("error", implementation="naive"),))[0] == "adopt"


def test_one_rule_gives_one_reason_that_names_every_device():
    found = (finding(), finding(device="cuda"), finding(message="x / G01\n  something else"))
    _, reasons = judge(findings=found)
    assert reasons.count("G01") == 1
    assert "fails on cpu and cuda" in reasons


def test_what_is_a_cause_of_its_own_beside_another_implementation_is_named():
    """A broken law explains another value only where it is broken in that implementation alone."""
    law, value = {"rule": "L01", "title": "a law"}, {"rule": "E01", "title": "the value"}
    evidence = {"kind": "value"}
    mine = (finding(**law, evidence=evidence), finding(**value, evidence=evidence))
    both = (*mine, finding(**law, evidence=evidence, implementation="naive"))
    together, alone = judge(findings=both)[1], judge(findings=mine)[1]
    assert "E01 follows" in alone
    assert "E01 the value fails" in together
    assert "E01 follows" not in together


@pytest.mark.parametrize("status", ["crashed", "timed out"])
def test_a_crash_or_timeout_is_inconclusive(status):
    found, reasons = judge(outcomes=(outcome(), outcome(rule="T01", status=status, reason="killed")))
    assert found == "inconclusive"
    assert f"T01 {status} on cpu: killed" in reasons


def test_an_error_outweighs_a_crash():
    assert judge(findings=(finding(),), outcomes=(outcome(status="crashed"),))[0] == "do not adopt"


def test_nothing_that_ran_is_never_a_pass():
    skipped = outcome(status="skipped", reason="no CUDA device")
    assert judge(outcomes=(skipped,)) == (
        "inconclusive",
        "no rule ran: no CUDA device\nagainst naive on cpu, float32, full pass: faster at N=128 (5×)",
    )
    assert judge(outcomes=())[0] == "inconclusive"


def test_a_device_on_which_nothing_ran_is_a_caveat():
    skipped = outcome(status="skipped", reason="no CUDA device", device="cuda", rule="B01")
    found, reasons = judge(outcomes=(outcome(), skipped))
    assert found == "adopt with caveats"
    assert "no rule ran on cuda: no CUDA device" in reasons


@pytest.mark.parametrize(
    "changes",
    [
        {"findings": (finding("warning"),)},
        {"outcomes": (outcome(), outcome(rule="B03", status="waived", reason="known"))},
        {"measurements": (measurement(), measurement(status="failed", reason="out of memory"))},
    ],
)
def test_a_warning_a_waiver_or_a_size_at_which_it_fails_is_a_caveat(changes):
    assert judge(**changes)[0] == "adopt with caveats"


def test_an_unknown_speed_is_inconclusive_and_says_which_budget_settles_it():
    slow = measurement(
        "naive", "skipped", reason="one call takes longer than the 2 s that were left", estimated_seconds=90.0
    )
    made = verdict.judge(examples.loss(comparisons=(), measurements=(slow, measurement())), "vectorized")
    assert made.verdict == "inconclusive"
    assert made.reasons[0] == "its speed is unknown: one call takes longer than the 2 s that were left"
    assert any("--budget 730" in step for step in made.settle)


@pytest.mark.parametrize(
    "measurements", [(), (measurement(status="skipped", reason="only exact costs were asked for"),)]
)
def test_a_speed_that_nobody_asked_for_tips_no_verdict(measurements):
    assert judge(comparisons=(), measurements=measurements)[0] == "adopt"


def test_the_harness_says_in_one_way_that_only_costs_were_asked_for():
    spec = SPECS[0].replace(bench_sizes=({"B": 2, "C": 2},))
    rows = benchmark(spec, timed=False, passes="forward", implementations="vectorized").measurements
    assert {row.reason for row in rows} == {reasons.COSTS_ONLY}


def test_where_the_reference_is_wrong_a_difference_from_it_is_nobodys_error():
    differs = measurement(status="failed", reason="differs from the reference on the timed input: loss = 1, expected 2")
    assert judge(comparisons=(), measurements=(differs,))[0] == "do not adopt"
    found, said = judge(comparisons=(), measurements=(differs,), findings=(finding(implementation="naive"),))
    assert found == "inconclusive"
    assert "differs from the reference" in said


def test_a_speedup_over_a_reference_with_errors_says_where_it_holds():
    found, said = judge(findings=(finding(implementation="naive"),))
    assert found == "adopt"
    assert "naive has errors: it was timed where both agree" in said


def test_a_crash_is_no_error_of_the_loss():
    crash = finding("error", rule="X01", title="", message="x / X01 crashed\n  G01 could not be checked")
    assert judge(findings=(crash,), outcomes=(outcome(status="crashed"),))[0] == "inconclusive"


def test_a_loss_with_one_implementation_is_judged_without_a_speed():
    alone = {"reference": "", "implementations": ("vectorized",), "comparisons": (), "measurements": ()}
    assert judge(**alone) == ("adopt", "1 rule passed on cpu")


def test_a_note_is_no_caveat():
    assert judge(findings=(finding("note"),))[0] == "adopt"


def test_results_that_are_missing_are_inconclusive_but_an_error_stands():
    found, reasons = judge(missing="interrupted: 3 of 40 planned checks ran")
    assert found == "inconclusive"
    assert "3 of 40" in reasons
    assert judge(missing="interrupted", findings=(finding(),))[0] == "do not adopt"


def test_a_speed_that_is_open_at_every_size_is_inconclusive():
    opened = (comparison("inconclusive", 8, 1.01), comparison("inconclusive", 64, 1.02))
    found, reasons = judge(comparisons=opened)
    assert found == "inconclusive"
    assert "open at N=8 (1.01×) and N=64 (1.02×)" in reasons


def test_a_speed_that_is_open_at_some_sizes_is_said_and_no_obstacle():
    found, reasons = judge(comparisons=(comparison("inconclusive", 8, 1.01), comparison()))
    assert found == "adopt"
    assert "faster at N=128 (5×); open at N=8 (1.01×)" in reasons


def test_where_it_seems_slower_and_no_interval_is_sure_of_it_the_verdict_is_open_and_names_the_size():
    seems = replace(comparison("inconclusive", 8, 0.97), low=0.93, high=1.01)
    found, reasons = judge(comparisons=(seems, comparison()))
    assert found == "inconclusive"
    assert "whether it is slower than naive is open: at N=8" in reasons
    surely = replace(comparison("slower", 8, 0.9), low=0.88, high=0.92)
    found, reasons = judge(comparisons=(surely, replace(seems, sizes={"N": 16}), comparison()))
    assert found == "adopt with caveats"  # and stays so, whichever way the other size turns out
    assert "is open: at" not in reasons


def test_an_implementation_that_failed_at_every_size_is_inconclusive():
    failed = (measurement(status="failed", reason="out of memory"),)
    found, reasons = judge(comparisons=(), measurements=failed)
    assert found == "inconclusive"
    assert "failed at every size that was to be timed: out of memory" in reasons


@pytest.mark.parametrize(
    ("verdicts", "crossover"),
    [
        (["slower", "slower", "faster"], "it overtakes between N=64 and N=512"),
        (["faster", "equivalent", "slower"], "it is overtaken between N=8 and N=512"),
        (["faster", "slower", "faster"], "no single crossover"),
        (["slower", "equivalent", "slower"], "faster at no measured size"),
    ],
)
def test_slower_at_some_sizes_is_a_caveat_that_names_the_crossover(verdicts, crossover):
    made = [comparison(v, size) for v, size in zip(verdicts, (8, 64, 512), strict=True)]
    found, reasons = judge(comparisons=tuple(reversed(made)))
    assert found == "adopt with caveats"
    assert crossover in reasons


def test_a_size_at_which_the_reference_was_not_measured_is_named():
    found, reasons = judge(measurements=(measurement(), measurement(sizes={"N": 4096})))
    assert found == "adopt"
    assert "not compared with naive on cpu, float32, full pass: N=4096" in reasons


def test_every_device_and_pass_is_compared_apart():
    made = (comparison(), comparison("slower", device="cuda"), comparison(pass_name="forward"))
    _, reasons = judge(comparisons=made)
    assert reasons.count("against naive on") == 3


def test_the_reference_keeps_its_role_and_shows_its_errors():
    found, reasons = judge("naive", findings=(finding(implementation="naive"),))
    assert found == "reference"
    assert "G01 gradient matches finite differences fails" in reasons
    assert judge("naive")[0] == "reference"


def test_every_implementation_gets_a_verdict():
    made = verdict.judged(examples.loss())
    assert [(v.implementation, v.verdict) for v in made.verdicts] == [("naive", "reference"), ("vectorized", "adopt")]


@pytest.mark.parametrize(
    ("sizes", "text"),
    [({"N": 8, "D": 2}, "N=8, D=2"), ({"rest": [2, 3]}, "rest=2×3"), ({"rest": []}, "rest=()"), ({}, "scalar")],
)
def test_sizes_read_as_a_person_writes_them(sizes, text):
    assert speed.size_text(sizes) == text


COMPILED = "vectorized (compiled)"


def test_the_compiled_form_has_a_sentence_of_its_eager_form_and_no_verdict_of_its_own():
    made = verdict.judged(
        examples.loss(
            measurements=(measurement("naive"), measurement(), measurement(COMPILED, compile_seconds=4.2)),
            comparisons=(
                comparison(),
                comparison(implementation=COMPILED, speedup=9.0),
                comparison(implementation=COMPILED, reference="vectorized", speedup=1.8),
            ),
        )
    )
    assert [v.implementation for v in made.verdicts] == ["naive", "vectorized"]
    sentences = [reason for reason in made.verdicts[1].reasons if "compiled" in reason]
    assert sentences == [
        "compiled, against its eager form on cpu, float32, full pass: faster at N=128 (1.8×); to compile took 4.2 s"
    ]
    assert made.verdicts[1].verdict == "adopt"


def test_a_compiled_form_that_fails_or_is_not_timed_says_why_and_changes_no_verdict():
    failed = measurement(COMPILED, "failed", reason="differs from the reference")
    found, reasons = judge(measurements=(measurement("naive"), measurement(), failed))
    assert found == "adopt"
    assert "compiled, it failed on cpu, float32, full pass at N=128: differs from the reference" in reasons
    skipped = measurement(COMPILED, "skipped", reason="no C++ compiler")
    found, reasons = judge(measurements=(measurement("naive"), measurement(), skipped))
    assert found == "adopt"
    assert "its compiled form was not timed: no C++ compiler" in reasons


def test_the_compiled_form_of_a_loss_with_one_implementation_is_compared_with_it():
    _, reasons = judge(
        reference="",
        implementations=("vectorized",),
        comparisons=(comparison(implementation=COMPILED, reference="vectorized", speedup=2.0),),
    )
    assert "compiled, against its eager form" in reasons


def test_where_the_reference_was_too_slow_a_quicker_rival_is_named_and_no_caveat():
    made = (comparison(), comparison("slower", size=4096, reference="dense", speedup=0.5, low=0.4, high=0.6))
    found, reasons = judge(comparisons=made)
    assert found == "adopt"
    assert "against naive on cpu, float32, full pass: faster at N=128 (5×)" in reasons
    assert "against dense on cpu, float32, full pass: slower at N=4096 (0.5×)" in reasons


def unmeasured(rule, reason="values are rounded as in bfloat16"):
    return outcome(rule=rule, status="inapplicable", examples=0, reason=reason, unmeasured=True)


def test_a_gradient_that_no_rule_could_check_is_inconclusive_and_says_why():
    found, reasons = judge(outcomes=(outcome(rule="B01"), unmeasured("G01"), unmeasured("G02")))
    assert found == "inconclusive"
    assert "no gradient could be checked: G01: values are rounded as in bfloat16" in reasons


@pytest.mark.parametrize("checked", ["G01", "G02", "E02"])
def test_a_gradient_that_one_rule_has_checked_is_checked(checked):
    others = [unmeasured(rule) for rule in ("G01", "G02", "E02") if rule != checked]
    assert judge(outcomes=(outcome(rule="B01"), outcome(rule=checked), *others))[0] == "adopt"


def test_a_loss_that_declares_nothing_to_differentiate_has_no_gradient_to_check():
    without = [
        outcome(rule=rule, status="inapplicable", examples=0, reason="no differentiable input is declared")
        for rule in ("G01", "G02")
    ]
    assert judge(outcomes=(outcome(rule="B01"), *without))[0] == "adopt"


def test_what_settles_an_unchecked_gradient_is_said():
    made = verdict.judge(examples.loss(outcomes=(outcome(rule="B01"), unmeasured("G01"))), "vectorized")
    assert any("make its gradient measurable" in step for step in made.settle)
    assert "no gradient could be checked" in made.sentence
