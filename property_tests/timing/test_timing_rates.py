import math

import pytest

from harness.timing.rates import Rate, at_least, trials_to_rule_out


@pytest.mark.parametrize(
    ("count", "trials", "low", "high"),
    # Closed forms: no count gives 1 - 0.025 ** (1 / n); the last is the textbook's table.
    [(0, 300, 0.0, 1 - 0.025 ** (1 / 300)), (300, 300, 0.025 ** (1 / 300), 1.0), (5, 10, 0.1871, 0.8129)],
)
def test_the_interval_of_a_rate_is_exact(count, trials, low, high):
    assert Rate(count, trials).interval == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_a_tail_is_the_sum_of_its_probabilities():
    assert at_least(0, 5, 0.3) == pytest.approx(1.0)
    assert at_least(5, 5, 0.3) == pytest.approx(0.3**5)
    assert at_least(1, 300, 0.01) == pytest.approx(1 - 0.99**300)


def test_a_rate_is_above_another_only_where_chance_does_not_explain_it():
    assert not Rate(0, 300).is_above(0.01)
    assert not Rate(6, 300).is_above(0.01)  # 8 % of the runs with a true rate of 1 % have as many
    assert Rate(7, 300).is_above(0.01)


def test_a_rate_says_what_it_is_made_of():
    assert str(Rate(3, 300)) == "3 of 300 = 1.0% (95 % interval 0.2% to 2.9%)"
    assert math.isclose(Rate(3, 300).value, 0.01)


@pytest.mark.parametrize(("count", "trials"), [(0, 0), (2, 1), (-1, 5)])
def test_a_rate_of_nothing_is_refused(count, trials):
    with pytest.raises(ValueError, match="a rate needs a trial"):
        Rate(count, trials)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.5])
def test_so_many_trials_without_a_count_rule_a_rate_out_and_one_less_does_not(rate):
    needed = trials_to_rule_out(rate)
    assert Rate(0, needed).interval[1] <= rate < Rate(0, needed - 1).interval[1]


@pytest.mark.parametrize("rate", [0, 1, -0.5])
def test_a_rate_that_no_number_of_trials_rules_out_is_refused(rate):
    with pytest.raises(ValueError, match="between 0 and 1"):
        trials_to_rule_out(rate)
