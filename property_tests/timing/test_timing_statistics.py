import math
import random

import pytest

from harness.results.measured import MARGIN
from harness.timing.constants import EARLY_GUARD, GUARD, MOST_PROCESSES, ROUNDS, SETTLED_ROUNDS
from harness.timing.statistics import Ratio, is_settled, paired_ratio


def rounds(seed, ratio, *, noise=0.03, between=0.01, count=ROUNDS, processes=MOST_PROCESSES):
    """Paired times whose true speedup is ``ratio``, with noise in each round and a shift of each process."""
    generator = random.Random(seed)
    shift = [generator.gauss(0, between) for _ in range(processes)]
    process = [number * processes // count for number in range(count)]
    common = [math.exp(generator.gauss(0, 0.2)) * 1e-3 for _ in process]
    reference = [
        c * ratio * math.exp(generator.gauss(0, noise) + shift[p]) for c, p in zip(common, process, strict=True)
    ]
    implementation = [c * math.exp(generator.gauss(0, noise)) for c in common]
    return reference, implementation, process


def test_equal_implementations_are_hardly_ever_called_faster_or_slower():
    verdicts = [paired_ratio(*rounds(seed, 1.0)).verdict for seed in range(200)]
    assert sum(verdict in ("faster", "slower") for verdict in verdicts) <= 2
    assert verdicts.count("equivalent") >= 180


@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.0, 1.2, 500.0])
def test_the_true_ratio_is_inside_nearly_every_interval(ratio):
    found = [paired_ratio(*rounds(seed, ratio, between=0.0)) for seed in range(200)]
    assert sum(one.low <= ratio <= one.high for one in found) >= 180


# `paired_ratio` promises 99, 98, 92 and 88 % of 200; a bootstrap alone reaches 173 and 162 of the last two.
@pytest.mark.parametrize(("between", "least"), [(0.0, 192), (0.01, 190), (0.03, 180), (0.05, 170)])
def test_the_true_ratio_is_inside_the_interval_where_processes_disagree(between, least):
    found = [paired_ratio(*rounds(seed, 1.0, between=between)) for seed in range(200)]
    assert sum(one.low <= 1.0 <= one.high for one in found) >= least
    assert sum(one.verdict in ("faster", "slower") for one in found) <= 4


@pytest.mark.parametrize("between", [0.0, 0.01])
def test_a_change_of_five_per_cent_is_seen_where_rounds_scatter_as_on_a_real_machine(between):
    found = [paired_ratio(*rounds(seed, 1 / 1.05, noise=0.017, between=between)) for seed in range(200)]
    assert sum(one.high < 1 for one in found) >= 190
    widths = sorted(math.log(one.high / one.low) / 2 for one in found)
    assert widths[100] < 0.02


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("noise", [0.01, 0.07, 0.14])  # of each side: the ratio scatters by 0.2
def test_few_rounds_get_an_interval_that_still_holds_the_ratio(count, noise):
    found = [paired_ratio(*rounds(seed, 2.0, noise=noise, between=0.0, count=count)) for seed in range(200)]
    assert sum(one.low <= 2.0 <= one.high for one in found) >= 185


@pytest.mark.parametrize("count", [2, 3])
def test_few_rounds_that_scatter_more_than_expected_get_a_wider_interval(count):
    widths = [
        sum(math.log(one.high / one.low) for one in [paired_ratio(*rounds(seed, 2.0, noise=noise, count=count)) for seed in range(50)])
        for noise in (0.05, 0.8)
    ]  # fmt: skip
    assert widths[1] > 2 * widths[0]


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_few_rounds_are_enough_for_a_clear_ratio_and_not_for_a_close_one(count):
    clear = [paired_ratio(*rounds(seed, 10.0, noise=0.1, between=0.05, count=count)) for seed in range(100)]
    assert all(one.verdict == "faster" for one in clear)
    close = [paired_ratio(*rounds(seed, 1.0, noise=0.1, between=0.05, count=count)) for seed in range(100)]
    assert all(one.verdict == "inconclusive" for one in close)


def settled(seed, ratio, noise, between):
    """Whether the first two processes settle a comparison early."""
    reference, implementation, process = rounds(seed, ratio, noise=noise, between=between)
    few = slice(0, SETTLED_ROUNDS)
    return is_settled(reference[few], implementation[few], process[few])


def test_a_change_at_the_margin_is_not_settled_early_by_a_busy_machine():
    assert sum(settled(seed, MARGIN, 0.3, 0.1) for seed in range(1000)) <= 1


def test_four_times_as_fast_is_settled_early():
    assert sum(settled(seed, 4.0, 0.05, 0.05) for seed in range(100)) >= 95


def test_a_true_change_of_a_fifth_is_seen():
    assert all(paired_ratio(*rounds(seed, 1.2)).verdict == "faster" for seed in range(50))
    assert all(paired_ratio(*rounds(seed, 1 / 1.2)).verdict == "slower" for seed in range(50))


@pytest.mark.parametrize(
    ("rounds", "guard"), [(2, EARLY_GUARD), (SETTLED_ROUNDS - 1, EARLY_GUARD), (SETTLED_ROUNDS, GUARD)]
)
def test_far_is_an_interval_beyond_the_guard_which_few_rounds_need_a_wide_one_of(rounds, guard):
    for low, high, far in ((1.0, 9, False), (1.01, 9, True), (1 / 9, 1.0, False), (1 / 9, 0.99, True)):
        ends = (low * guard, high * guard) if high > 1 else (low / guard, high / guard)
        assert Ratio(math.sqrt(ends[0] * ends[1]), *ends).is_far(rounds) is far


def test_a_verdict_settles_a_comparison_from_three_processes_on_and_not_before():
    reference, implementation, process = rounds(0, 1.0, noise=0.01, between=0.0)
    two, three = (sum(number < count for number in process) for count in (2, 3))
    assert not is_settled(reference[:two], implementation[:two], process[:two])
    assert is_settled(reference[:three], implementation[:three], process[:three])
    assert not is_settled(*rounds(0, 1 / MARGIN, noise=0.01, between=0.0))  # which needs all rounds


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (MARGIN + 1e-9, 2.0, "faster"),
        (MARGIN, 2.0, "inconclusive"),
        (0.5, 1 / MARGIN - 1e-9, "slower"),
        (0.5, 1 / MARGIN, "inconclusive"),
        (1 / MARGIN, MARGIN, "equivalent"),
        (1 / MARGIN - 1e-9, MARGIN, "inconclusive"),
        (1 / MARGIN, MARGIN + 1e-9, "inconclusive"),
        (0.5, 2.0, "inconclusive"),
    ],
)
def test_the_verdict_turns_exactly_at_the_margin(low, high, verdict):
    assert Ratio(math.sqrt(low * high), low, high).verdict == verdict


def test_swapping_the_two_sides_mirrors_the_ratio():
    reference, implementation, process = rounds(3, 1.3)
    there, back = paired_ratio(reference, implementation, process), paired_ratio(implementation, reference, process)
    assert there.speedup == pytest.approx(1 / back.speedup)
    assert (there.verdict, back.verdict) == ("faster", "slower")


def test_a_shift_of_whole_processes_widens_the_interval():
    steady = paired_ratio(*rounds(1, 1.0, between=0.0))
    shifted = paired_ratio(*rounds(1, 1.0, between=0.2))
    assert math.log(shifted.high / shifted.low) > 3 * math.log(steady.high / steady.low)


def test_processes_with_unequal_numbers_of_rounds_are_all_used():
    reference, process = [2.0] * 10 + [4.0], [0] * 10 + [1]
    ratio = paired_ratio(reference, [1.0] * 11, process)
    assert ratio.speedup == pytest.approx(2.0)
    assert (ratio.low, ratio.high) == (pytest.approx(2.0), pytest.approx(4.0))


def test_the_same_seed_gives_the_same_interval():
    sample = rounds(5, 1.01)
    assert paired_ratio(*sample, seed=1) == paired_ratio(*sample, seed=1)
    assert paired_ratio(*sample, seed=1) != paired_ratio(*sample, seed=2)


def test_one_outlier_does_not_move_the_ratio():
    reference, implementation, process = rounds(2, 1.0)
    before = paired_ratio(reference, implementation, process)
    after = paired_ratio([reference[0] * 1000, *reference[1:]], implementation, process)
    assert after.speedup == pytest.approx(before.speedup, rel=0.02)
    assert after.verdict == before.verdict == "equivalent"


@pytest.mark.parametrize(
    ("reference", "implementation", "process", "message"),
    [([1.0], [1.0], [0], "at least 2"), ([1.0, 2.0], [1.0], [0, 0], "same number"), ([1.0, 0.0], [1.0, 1.0], [0, 0], "not positive")],
)  # fmt: skip
def test_rounds_that_say_nothing_are_refused(reference, implementation, process, message):
    with pytest.raises(ValueError, match=message):
        paired_ratio(reference, implementation, process)
