import math
import random

import pytest

from harness.results.measured import Growth
from harness.timing.scaling import crossings, extrapolated, fit_power_law
from harness.timing.statistics import Ratio, student_quantile


def fitted(law, sizes, costs, at):
    """The cost at a size by a law, as a report has it."""
    cell = {"sizes": {}, "device": "cpu", "dtype": "float32", "pass_name": "full"}
    growth = Growth(**cell, implementation="loss", cost="seconds", along="N", at=sizes, costs=costs, **vars(law))
    return growth.fitted(at)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5, 2.0, 3.0])
def test_the_exponent_of_a_power_law_is_found_exactly(exponent):
    sizes = (8, 16, 64, 512)
    costs = tuple(3.0 * n**exponent for n in sizes)
    law = fit_power_law(sizes, costs)
    assert law.exponent == pytest.approx(exponent, abs=1e-12)
    assert law.low == pytest.approx(exponent, abs=1e-6)
    assert law.high == pytest.approx(exponent, abs=1e-6)
    assert law.last_exponent == pytest.approx(exponent, abs=1e-12)
    assert fitted(law, sizes, costs, 1024) == pytest.approx(3.0 * 1024**exponent)


def test_the_interval_covers_the_true_exponent_as_often_as_it_says():
    generator, sizes, covered = random.Random(0), [8, 16, 32, 64, 128], 0
    for _ in range(1000):
        law = fit_power_law(sizes, [n**1.5 * math.exp(generator.gauss(0, 0.1)) for n in sizes])
        covered += law.low <= 1.5 <= law.high
    assert 930 <= covered <= 970  # 950 expected, 3 standard deviations are 21


def test_an_overhead_shows_as_a_steeper_end_and_widens_the_interval():
    sizes = [16, 64, 256, 1024]
    law = fit_power_law(sizes, [1e-5 + 1e-9 * n**2 for n in sizes])
    assert law.exponent < 1.7 < law.last_exponent <= 2.0
    assert law.high - law.low > 0.5


def test_two_sizes_give_an_exponent_without_an_interval_and_one_size_gives_none():
    law = fit_power_law([8, 64], [1.0, 64.0])
    assert (law.exponent, law.low, law.high) == (pytest.approx(2.0), None, None)
    assert fit_power_law([8], [1.0]) is None
    assert fit_power_law([8, 8], [1.0, 2.0]) is None
    assert fit_power_law([], []) is None


def test_costs_that_are_nothing_everywhere_do_not_grow():
    law = fit_power_law([8, 64, 512], [0, 0, 0])
    assert (law.exponent, law.low, law.high) == (0.0, 0.0, 0.0)
    assert fitted(law, (8, 64, 512), (0, 0, 0), 4096) == 0.0


def test_a_cost_that_is_nothing_at_some_sizes_is_fitted_where_it_is_something():
    assert fit_power_law([8, 64, 512], [0, 64, 512]).exponent == pytest.approx(1.0)


@pytest.mark.parametrize(("freedom", "exact"), [(1, 12.706), (4, 2.776), (12, 2.179), (30, 2.042), (1000, 1.962)])
def test_quantiles_of_students_t_are_those_of_the_tables(freedom, exact):
    assert student_quantile(freedom) == pytest.approx(exact, abs=3e-3)


def ratio(speedup, width=1.01):
    return Ratio(speedup, speedup / width, speedup * width)


def test_a_crossing_lies_between_the_settled_sizes_around_it():
    (crossing,) = crossings([16, 64, 256], [ratio(0.5), ratio(0.8), ratio(1.25)])
    assert (crossing.below, crossing.above, crossing.is_overtaking) == (64, 256, True)
    assert crossing.estimate == pytest.approx(128)  # log speedup is as far below zero at 64 as above it at 256


def test_sizes_at_which_the_order_is_open_lie_inside_a_crossing_and_make_none():
    open_ = Ratio(1.0, 0.9, 1.1)
    (crossing,) = crossings([16, 64, 256], [ratio(2.0), open_, ratio(0.5)])
    assert (crossing.below, crossing.above, crossing.is_overtaking) == (16, 256, False)
    assert crossings([16, 64, 256], [ratio(2.0), open_, ratio(2.0)]) == ()
    assert crossings([16, 64], [open_, open_]) == ()


def test_an_order_that_turns_twice_crosses_twice():
    found = crossings([8, 16, 32], [ratio(2.0), ratio(0.5), ratio(2.0)])
    assert [crossing.is_overtaking for crossing in found] == [False, True]


@pytest.mark.parametrize(
    ("seconds", "size", "expected"),
    [
        ({10: 1.0, 20: 4.0}, 40, 16.0),
        ({1: 1.0, 10: 1.0, 20: 4.0}, 40, 16.0),  # the overhead at the smallest size is left out
        ({10: 1.0}, 40, None),
        ({10: 1.0, 50: 2.0}, 40, None),
        ({10: 2.0, 20: 1.0}, 40, None),
        ({10: 1.0, 11: 9.0, 20: 4.0}, 40, 16.0),  # the second is no half of the largest
        ({19: 1.0, 20: 4.0}, 40, None),  # too near each other to tell growth from noise
        ({10: 1.0, 20: 100.0}, 40, 800.0),  # no growth is believed that is steeper than cubic
    ],
)
def test_an_estimate_beyond_follows_the_growth_of_the_two_largest_below(seconds, size, expected):
    assert extrapolated(seconds, size) == (None if expected is None else pytest.approx(expected))
