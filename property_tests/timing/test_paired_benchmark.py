"""This must not be slower than that: the comparison, its assertion, and the fixture in projects of their own."""

import math
import sys
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from fake_time import AMPLE_S

import harness
import harness.timing.paired
from harness.errors import HarnessError
from harness.timing.costs.counting import count
from harness.timing.paired import PairedBenchmark, PairedComparison
from losses import SPECS


class PlayedClock:
    """A clock by which a call takes what it returns, and every seventh block one tenth longer."""

    most_calls = sys.maxsize

    def __init__(self):
        self.blocks = []

    def warm_up(self, call):
        call()

    def block(self, call, calls):
        self.blocks.append(call)
        return call() * calls * (1.1 if len(self.blocks) % 7 == 0 else 1.0)


@pytest.fixture
def clock(monkeypatch):
    """The clock of this test, in place of the machine's."""
    played = PlayedClock()
    monkeypatch.setattr(harness.timing.paired, "clock_for", lambda cell: played)
    return played


def quick():
    return 1e-4


def slow():
    return 1.5e-4


def measured(ratios, seconds=1e-4):
    """A comparison whose candidate took these multiples of the baseline's time, round by round."""
    return PairedComparison(
        "new",
        "old",
        "cpu",
        tuple(seconds * ratio for ratio in ratios),
        (seconds,) * len(ratios),
        (20, 21),
        3,
        "pytest x",
    )


SLOWER = measured([1.2, 1.21, 1.22] * 10)
EQUAL = measured([0.99, 1.0, 1.01] * 10)
OPEN = measured([0.8, 1.04, 1.3] * 10)


def test_a_call_that_takes_half_again_as_long_is_slower_and_its_mirror_is_faster(clock):
    slower = PairedBenchmark()(slow, quick)
    assert slower.verdict == "slower"
    assert slower.speedup == pytest.approx(1 / 1.5)
    assert slower.low <= slower.speedup <= slower.high < 1 / 1.05
    with pytest.raises(AssertionError):
        slower.must_not_be_slower()
    faster = PairedBenchmark()(quick, slow)
    assert faster.verdict == "faster"
    assert faster.speedup == pytest.approx(1.5)
    faster.must_not_be_slower(decided=True)


def test_the_same_call_twice_is_equivalent(clock):
    found = PairedBenchmark()(quick, quick)
    assert found.verdict == "equivalent"
    assert (found.candidate, found.baseline) == ("candidate", "baseline")


def test_every_round_has_one_block_of_each_in_random_order(clock):
    found = PairedBenchmark()(slow, quick, rounds=20)
    assert len(found.candidate_seconds) == len(found.baseline_seconds) == 20
    rounds = list(zip(clock.blocks[-40::2], clock.blocks[-39::2], strict=True))
    assert set(rounds) == {(slow, quick), (quick, slow)}
    assert all(2e-3 <= calls * call() <= 4e-3 for calls, call in zip(found.calls_per_block, (slow, quick), strict=True))


def test_the_same_seed_gives_the_same_order(clock):
    orders = []
    for seed in (1, 1, 2):
        PairedBenchmark()(slow, quick, rounds=20, seed=seed)
        orders.append(clock.blocks[-40:])
    assert orders[0] == orders[1] != orders[2]


def test_a_budget_that_is_over_leaves_the_least_number_of_rounds(clock):
    assert len(PairedBenchmark()(quick, quick, budget_s=0.0).candidate_seconds) == 6


def test_the_message_says_what_came_what_is_allowed_and_how_to_repeat_it():
    with pytest.raises(AssertionError) as raised:
        SLOWER.must_not_be_slower()
    first, ratio, times, repeat = str(raised.value).splitlines()
    assert first == "new / not slower than old / cpu"
    assert ratio.startswith("  time of new = 1.21 times that of old (95 % interval 1.2")
    assert ratio.endswith("), expected at most 1.05 times")
    assert times == "  medians 121 and 100 us a call, 30 paired rounds of 20 and 21 calls, seed=3"
    assert repeat == "  repeat: pytest x"


@pytest.mark.parametrize(
    ("comparison", "by", "fails", "fails_when_decided"),
    [
        (SLOWER, 1.05, True, True),
        (SLOWER, 1.25, False, False),
        (SLOWER, 1.21, False, True),
        (EQUAL, 1.05, False, False),
        (EQUAL, 1.0, False, True),
        (OPEN, 1.05, False, True),
    ],
)
def test_only_an_interval_wholly_above_what_is_allowed_fails(comparison, by, fails, fails_when_decided):
    for decided, expected in ((False, fails), (True, fails_when_decided)):
        if expected:
            with pytest.raises(AssertionError, match="expected at most"):
                comparison.must_not_be_slower(by=by, decided=decided)
        else:
            comparison.must_not_be_slower(by=by, decided=decided)


def test_an_open_interval_says_that_it_decides_nothing():
    with pytest.raises(AssertionError, match="the interval decides nothing, and decided=True came"):
        OPEN.must_not_be_slower(decided=True)
    assert OPEN.verdict == "inconclusive"


def test_where_timing_is_disabled_each_is_called_once_and_nothing_is_asserted():
    calls = []
    found = PairedBenchmark(disabled=True)(lambda: calls.append("new"), lambda: calls.append("old"))
    assert calls == ["new", "old"]
    assert not found.is_measured
    assert (found.verdict, math.isnan(found.speedup)) == ("not measured", True)
    found.must_not_be_slower(decided=True)


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (lambda p: p(quick, quick, rounds=5), HarnessError, "rounds=5 came, but an interval needs 6"),
        (lambda p: p(3, quick), TypeError, "two callables without arguments, but got 3"),
        (lambda p: p(quick, quick, device="cuda:99"), HarnessError, "nothing can be timed on cuda:99"),
        (lambda p: EQUAL.must_not_be_slower(by=0.5), HarnessError, r"by=0.5 came.*comparison.low > 2"),
        (lambda p: p.implementations(SPECS[0], "vectorised"), HarnessError, "did you mean 'vectorized'"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_is_allowed(request_, error, message):
    with pytest.raises(error, match=message):
        request_(PairedBenchmark())


class CountingClock(PlayedClock):
    """A clock by which every ATen call takes a microsecond."""

    def block(self, call, calls):
        return 1e-6 * count(call).aten_calls * calls


def test_implementations_of_a_spec_are_timed_on_one_input(monkeypatch):
    monkeypatch.setattr(harness.timing.paired, "clock_for", lambda cell: CountingClock())
    found = PairedBenchmark().implementations(SPECS[0], "vectorized", rounds=6, budget_s=AMPLE_S)
    assert (found.candidate, found.baseline) == ("vectorized", SPECS[0].reference)
    assert found.verdict == "faster"
    assert SPECS[0].name in found.where
    assert "full" in found.where


def test_an_implementation_that_is_wrong_is_not_timed():
    both = {"input": harness.TensorSpec("B"), "target": harness.TensorSpec("B")}
    good = torch.nn.functional.mse_loss
    spec = harness.LossSpec(
        "mse",
        {"good": good, "wrong": lambda input, target: 2 * good(input, target)},
        inputs=both,
        output=harness.TensorSpec(""),
    )
    with pytest.raises(AssertionError, match=r"mse / wrong / B=8.*\n  was not timed, for it failed: "):
        PairedBenchmark().implementations(spec, "wrong")


# The clock of the project: a call takes what it returns.
CLOCK = """
import sys

import pytest


class PlayedClock:
    most_calls = sys.maxsize

    def warm_up(self, call):
        call()

    def block(self, call, calls):
        return call() * calls


@pytest.fixture(autouse=True)
def played(monkeypatch):
    monkeypatch.setattr("harness.timing.paired.clock_for", lambda cell: PlayedClock())
"""
TEST = """
def slow():
    return 30e-3


def quick():
    return 1e-3


def test_quick(paired_benchmark):
    paired_benchmark(quick, slow, rounds=6).must_not_be_slower()


def test_slow(paired_benchmark):
    paired_benchmark(slow, quick, rounds=6).must_not_be_slower()
"""


@pytest.fixture
def project(pytester):
    """A project of its own with a test that passes and one that fails, on every machine."""
    pytester.makeconftest(CLOCK)
    pytester.makepyfile(test_project=TEST)
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    return pytester


@pytest.mark.parametrize("options", [[], ["-p", "no:benchmark"]], ids=["with", "without"])
def test_a_project_sees_the_failure_and_a_line_for_each_comparison(project, options):
    """With pytest-benchmark and without it."""
    done = project.runpytest_inprocess("--junitxml=out.xml", *options)
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(
        [
            "E * slow / not slower than quick / cpu",
            "E * time of slow = * times that of quick (95 % interval * to *), expected at most 1.05 times",
            'E * repeat: pytest "test_project.py::test_slow"',
            "*= paired benchmarks =*",
            "test_project.py::test_quick: quick against slow (cpu): faster, speedup *, 6 rounds",
            "test_project.py::test_slow: slow against quick (cpu): slower, speedup *, 6 rounds",
        ]
    )
    properties = list(ElementTree.parse(project.path / "out.xml").iter("property"))
    assert [p.get("name") for p in properties] == ["paired_benchmark", "paired_benchmark"]
    assert properties[0].get("value", "").startswith("quick against slow (cpu): faster")


def test_benchmark_disable_asserts_nothing_about_time_and_benchmark_skip_skips(project):
    project.runpytest_inprocess("--benchmark-disable").assert_outcomes(passed=2)
    project.runpytest_inprocess("--benchmark-skip").assert_outcomes(skipped=2)


def test_a_project_that_does_not_use_the_fixture_imports_no_torch(pytester):
    pytester.makepyfile("import sys\n\ndef test_light():\n    assert 'torch' not in sys.modules\n")
    done = pytester.runpytest_subprocess()
    done.assert_outcomes(passed=1)
    done.stdout.no_fnmatch_line("*paired benchmarks*")
