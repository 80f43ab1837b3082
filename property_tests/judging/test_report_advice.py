"""What a verdict tells whoever has to decide: its sentence, where it holds, what would settle it."""

from __future__ import annotations

import pytest
import report_examples as examples
from report_examples import comparison, finding, measurement, outcome

from harness.judging.verdict import judge
from harness.results.measured import Crossover


def verdict(implementation="vectorized", **changes):
    return judge(examples.loss(**changes), implementation)


def test_an_adopted_loss_says_what_was_checked_and_what_is_gained():
    made = verdict()
    assert made.sentence == "Adopt it: 1 rule found nothing, and it is 5× as fast as naive."
    assert "checked on cpu: 1 rule on 12 drawn inputs" in made.scope
    assert "timed on cpu in float32, full pass: N=128" in made.scope
    assert made.settle == ()


def test_a_range_of_sizes_and_speedups_is_given_by_its_ends():
    sizes = [{"N": n} for n in (1024, 64, 128)]
    made = verdict(
        measurements=tuple(measurement(name, sizes=s) for name in ("naive", "vectorized") for s in sizes),
        comparisons=(comparison(speedup=8.0, size=1024), comparison(speedup=2.0, size=64)),
    )
    assert "2× to 8× as fast as naive" in made.sentence
    assert "timed on cpu in float32, full pass: N=64 to N=1024 (3 sizes)" in made.scope


def test_a_verdict_says_whether_cuda_was_looked_at():
    assert "says nothing of CUDA, where nothing was run" in verdict().scope
    both = (outcome(), outcome(device="cuda"))
    assert not any("says nothing" in line for line in verdict(outcomes=both).scope)


def test_the_reference_is_what_others_are_held_to():
    assert verdict("naive").sentence == "The reference, to which the others are held: 1 rule found nothing."
    wrong = verdict("naive", findings=(finding(implementation="naive"),))
    assert wrong.sentence.startswith("The reference has an error: d loss / d embeddings[0, 1] = -0.5599")
    assert wrong.settle[0].startswith("mend G01")
    warned = verdict("naive", findings=(finding("warning", implementation="naive", rule="B03"),))
    assert warned.sentence.endswith("(B03).")
    assert "found nothing" not in warned.sentence


def test_errors_are_named_once_each_with_how_to_mend_and_replay_the_first():
    found = (finding(hint="use a sum"), finding(), finding(rule="C01", title="the context follows the module"))
    made = verdict(findings=found)
    assert made.sentence.startswith("Do not adopt it: d loss / d embeddings[0, 1] = -0.5599, expected -0.2799")
    assert made.sentence.endswith(" (G01 fails, and so does C01).")
    mend = [step for step in made.settle if step.startswith("mend G01")]
    assert mend == [
        "mend G01 (gradient matches finite differences): use a sum; then replay graph_distance-G01-3f2a.json"
    ]


@pytest.mark.parametrize("change", ["error", "another function"])
def test_whoever_is_rejected_is_not_told_to_be_timed(change):
    open_ = {
        "comparisons": (comparison("inconclusive", speedup=1.1), comparison("faster", 512), comparison("slower", 64))
    }
    wrong = {
        "error": {"findings": (finding(),)},
        "another function": {
            "measurements": (measurement("vectorized", "failed", reason="differs from the reference: 3 against 2"),)
        },
    }
    made = verdict(**open_, **wrong[change])
    assert made.verdict == "do not adopt"
    assert not any("bench" in step for step in made.settle)
    assert any("bench" in step for step in verdict(**open_).settle)


def test_a_wrong_number_is_named_before_a_shape_that_is_let_in():
    shape, number = finding("warning", rule="B03"), finding("warning", rule="G08")
    for found in ((shape, number), (number, shape)):
        assert "(G08); " in verdict(findings=found).sentence
        assert verdict(findings=found).sentence.endswith("(B03).")


def test_warnings_and_slower_sizes_are_what_one_would_have_to_live_with():
    found = (finding("warning", rule="D03", title="no overflow where the true value fits"),)
    made = verdict(
        findings=found,
        comparisons=(comparison("slower", 64, 0.5), comparison("faster", 512, 4.0), comparison("slower", 32, 0.25)),
    )
    assert made.verdict == "adopt with caveats"
    assert made.sentence.startswith("Adopt it if you can live with this: d loss / d embeddings[0, 1] = -0.5599")
    assert made.sentence.endswith(" (D03); slower than naive at 2 of 3 timings (down to 0.25× of its speed).")
    assert 'waivers={"D03": "..."}' in " ".join(made.settle)


def test_where_the_order_changes_is_told_or_asked_for():
    crossing = (comparison("slower", 64, 0.5), comparison("faster", 512, 4.0))
    made = verdict(comparisons=crossing)
    assert "against naive on cpu, float32, full pass: it overtakes between N=64 and N=512" in made.scope
    assert "find where naive is overtaken: loss-harness bench losses --sweep N=64,128,256,512" in made.settle
    crossover = Crossover(
        *({}, "cpu", "float32", "full"),
        overtaking="vectorized",
        overtaken="naive",
        along="N",
        below=64.0,
        above=512.0,
        estimate=190.0,
    )
    known = verdict(comparisons=crossing, crossovers=(crossover,))
    assert "overtakes naive at about N=190, on cpu, float32, full pass" in known.scope
    assert not any("--sweep" in step for step in known.settle)


@pytest.mark.parametrize("status", ["crashed", "timed out"])
def test_what_stopped_a_rule_is_to_be_found_out(status):
    made = verdict(outcomes=(outcome(), outcome(rule="G03", status=status, reason="out of memory")))
    assert made.sentence == f"Not decided: G03 {status}."
    assert "find out why: loss-harness verify losses --select G03 -v" in made.settle


def test_a_speed_that_is_open_everywhere_is_to_be_timed_longer():
    made = verdict(comparisons=(comparison("inconclusive", speedup=1.01),))
    assert made.verdict == "inconclusive"
    assert made.sentence == "Not decided: whether it is faster or slower is open at every size that was timed."
    assert "time it longer: loss-harness bench losses --budget 120" in made.settle


def test_an_interrupted_loss_is_to_be_finished():
    made = verdict(missing="interrupted: 3 of 10 planned checks ran")
    assert made.sentence == "Not decided: interrupted: 3 of 10 planned checks ran."
    assert "let it finish: loss-harness report losses" in made.settle


def test_a_device_where_nothing_ran_is_to_be_tried_elsewhere():
    absent = outcome(device="cuda", status="skipped", reason="cuda: torch sees 0 CUDA devices here")
    made = verdict(outcomes=(outcome(), absent))
    assert "no rule ran on cuda" in made.sentence
    assert "run it where there is such a device: loss-harness report losses --device cuda" in made.settle


def test_a_loss_without_a_reference_says_what_that_leaves_open():
    made = verdict(reference="", implementations=("vectorized",), comparisons=())
    assert made.verdict == "adopt"
    assert "it has no reference" in made.sentence
    assert any(step.startswith("declare a reference") for step in made.settle)


def test_a_loss_that_was_not_timed_says_how_to():
    made = verdict(comparisons=(), measurements=())
    assert made.verdict == "adopt"
    assert any("bench_sizes" in step for step in made.settle)


def test_a_target_with_a_space_is_quoted_in_commands():
    made = verdict(target="my losses/loss.py", comparisons=(comparison("inconclusive", speedup=1.01),))
    assert "time it longer: loss-harness bench 'my losses/loss.py' --budget 120" in made.settle


def test_suggested_laws_go_to_the_implementation_they_were_tried_on():
    suggestions = ("declare laws.mean_over('B') to keep it checked (it held on 3 of 3 cases)",)
    assert suggestions[0] in verdict(suggestions=suggestions).settle
    assert suggestions[0] not in verdict("naive", suggestions=suggestions).settle


def test_another_value_than_the_reference_where_it_was_to_be_timed_is_an_error():
    reason = "differs from the reference on the timed input: loss = 1.14, expected 1.86"
    made = verdict(
        measurements=(measurement("naive"), measurement("vectorized", status="failed", reason=reason)), comparisons=()
    )
    assert made.verdict == "do not adopt"
    assert made.sentence == (
        "Do not adopt it: it is another function than naive at N=128 on cpu in float32, where it was to be timed."
    )
    assert made.reasons[0] == f"at N=128 on cpu in float32 it {reason}"
    assert any("--select E --profile thorough" in step for step in made.settle)


def test_an_implementation_that_nobody_has_checked_is_not_praised():
    made = verdict("naive", outcomes=(), missing="interrupted: 0 of 2 planned checks ran")
    assert "no rule was checked yet" in made.sentence
