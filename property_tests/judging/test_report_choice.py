"""Which implementation of a loss the report says to take."""

from __future__ import annotations

import report_examples as examples
from report_examples import comparison, finding, measurement, outcome

from harness.judging.choice import choose, sentences
from harness.judging.verdict import judged

NAMES = ("naive", "vectorized", "fused")


def choice(*, names=NAMES, speedups=(), **changes):
    """A choice between implementations whose speedups over the first are given."""
    compared = tuple(
        comparison("faster" if s > 1.05 else "slower", speedup=s, implementation=n)
        for n, s in zip(names[1:], speedups, strict=False)
    )
    given = {
        "implementations": names,
        "outcomes": tuple(outcome(name) for name in names),
        "measurements": tuple(measurement(name) for name in names),
        "comparisons": compared,
    }
    return choose(judged(examples.loss(**given | changes)))


def test_the_fastest_of_those_without_an_error_is_taken():
    made = choice(speedups=(5.0, 9.0))
    assert made.taken.implementation == "fused"
    assert made.sentence == "Take fused: 9× as fast as naive (8.1 to 9.9×); 1 rule found nothing wrong."
    assert [o.implementation for o in made.others] == ["vectorized", "naive"]
    assert (made.baseline, made.place) == ("naive", "cpu, float32, full pass at N=128")


def test_what_is_wrong_is_not_taken_however_fast_and_stands_last_with_the_fact():
    made = choice(speedups=(5.0, 9.0), findings=(finding(implementation="fused"),))
    assert made.taken.implementation == "vectorized"
    assert made.others[-1].implementation == "fused"
    assert made.others[-1].fact.startswith("wrong: d loss / d embeddings[0, 1] = -0.5599")


def test_of_equally_fast_ones_the_better_verdict_is_taken():
    warned = (finding("warning", implementation="fused", rule="D03", title="no overflow"),)
    assert choice(speedups=(5.0, 5.2), findings=warned).taken.implementation == "vectorized"
    assert choice(speedups=(5.0, 50.0), findings=warned).taken.implementation == "fused"


def test_of_equal_verdicts_the_one_with_fewer_warnings_is_taken():
    both = tuple(finding("warning", implementation=name, rule="D03") for name in NAMES[1:])
    more = (*both, finding("warning", implementation="fused", rule="D05"))
    assert choice(speedups=(5.0, 5.2), findings=both).taken.implementation == "vectorized"
    assert choice(speedups=(5.0, 5.2), findings=more).taken.implementation == "vectorized"
    fewer = (*both, finding("warning", implementation="vectorized", rule="D05"))
    assert choice(speedups=(5.0, 5.2), findings=fewer).taken.implementation == "fused"


def test_the_fact_of_a_caveat_is_what_was_found_and_not_the_title_of_its_rule():
    warned = (finding("warning", implementation="fused", message="head\n  loss = nan, as nothing is reported"),)
    assert choice(speedups=(5.0, 50.0), findings=warned).taken.fact.endswith("; loss = nan, as nothing is reported")


def test_the_reference_is_taken_where_nothing_else_may_be_and_is_right():
    wrong = tuple(finding(implementation=name) for name in NAMES[1:])
    assert choice(speedups=(5.0, 9.0), findings=wrong).taken.implementation == "naive"
    made = choice(speedups=(5.0, 9.0), findings=(*wrong, finding(implementation="naive")))
    assert made.taken is None
    assert made.sentence.startswith("Take none of them yet: naive, the reference, is wrong: d loss / d embeddings")


def test_one_baseline_holds_the_most_implementations():
    small = comparison("faster", 64, speedup=2.0)
    both = (comparison("faster", 16, speedup=3.0), comparison("faster", 16, speedup=4.0, implementation="fused"))
    assert choice(comparisons=(small, *both)).place == "cpu, float32, full pass at N=16"


def test_what_was_not_checked_is_said():
    made = choice(speedups=(5.0, 9.0))
    assert made.checked == "1 rule on 12 inputs, cpu"
    assert made.unchecked == ("CUDA: nothing was run there",)
    alone = choice(names=("mine",), reference="", comparisons=(), outcomes=(outcome("mine"),))
    assert "no reference: it is held to its declaration alone" in alone.unchecked


def test_a_sentence_stands_where_there_is_a_choice():
    many = judged(examples.loss())
    single = judged(examples.loss(name="one", implementations=("mine",), reference="", comparisons=(), outcomes=()))
    assert list(sentences(examples.report(many, single))) == [many.name]
