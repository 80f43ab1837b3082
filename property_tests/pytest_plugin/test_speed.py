"""Speed of every implementation at its first benchmark size, and what pytest-benchmark does with it in a project of its own.

Each test gives the time of one implementation alone.  Who is faster is for `harness.benchmark`, which interleaves.
"""

import json
import os

import pytest
import torch
from fake_time import AMPLE_S

import harness
from harness.errors import HarnessError
from harness.pytest_plugin.speed import OPTIONS, Speed, parametrize_with_benchmarks
from harness.results.measured import Cell
from harness.timing.workload import checked_sizes
from losses import SPECS

DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


@harness.parametrize_with_benchmarks(SPECS, devices=DEVICES, passes=("full",), sizes="first")
def test_speed(benchmark, speed):
    speed(benchmark)


def body(benchmark, speed):
    speed(benchmark)


def _params(function):
    """Those of the decoration that came last: marks of one function add up."""
    return [mark for mark in function.pytestmark if mark.name == "parametrize"][-1].args[1]


def test_every_implementation_is_timed_at_its_first_size():
    timed = {(speed.spec.name, speed.implementation) for (speed,) in (param.values for param in _params(test_speed))}
    assert timed == {(spec.name, name) for spec in SPECS for name in spec.implementations}


def test_every_fast_implementation_is_timed_at_every_size_and_every_loop_at_the_first():
    every = parametrize_with_benchmarks(SPECS)(body)
    timed = [
        (s.spec.name, s.implementation, s.cell.sizes, s.cell.pass_name) for (s,) in (p.values for p in _params(every))
    ]
    assert timed == [
        (spec.name, name, sizes, pass_name)
        for spec in SPECS
        for rung, sizes in enumerate(checked_sizes(spec, None))
        for name in spec.implementations
        if name != spec.reference or rung == 0
        for pass_name in ("forward", "full")
    ]


def test_a_device_that_is_not_there_is_skipped_with_the_reason():
    params = _params(parametrize_with_benchmarks(SPECS[0], devices=("cuda:99",))(body))
    assert params
    assert all("CUDA" in mark.kwargs["reason"] for param in params for mark in param.marks)


def test_a_loop_over_millions_of_elements_is_skipped_and_the_fast_implementations_are_not():
    both = {"predictions": harness.TensorSpec("B"), "labels": harness.TensorSpec("B")}
    two = {
        "loop": lambda predictions, labels: (predictions - labels).abs(),
        "fast": lambda predictions, labels: (predictions - labels).square(),
    }
    spec = harness.LossSpec("large", two, inputs=both, output=harness.TensorSpec(""), bench_sizes=({"B": 10**6},))
    skipped = {p.id: [m.kwargs["reason"] for m in p.marks] for p in _params(parametrize_with_benchmarks(spec)(body))}
    assert [len(reasons) for reasons in skipped.values()] == [1, 1, 0, 0]
    assert "2000000 elements are more than 100000" in skipped["large-B1000000-cpu-full-loop"][0]


def test_no_spec_and_other_sizes_are_refused():
    with pytest.raises(HarnessError, match="at least one LossSpec"):
        parametrize_with_benchmarks([])
    with pytest.raises(HarnessError, match="sizes='last' came, but it should be 'all' or 'first'"):
        parametrize_with_benchmarks(SPECS, sizes="last")


@pytest.fixture
def patient(monkeypatch):
    """No call is too slow, neither to be counted nor to be held to."""
    monkeypatch.setattr("harness.pytest_plugin.speed.SLOW_S", AMPLE_S)
    monkeypatch.setattr("harness.pytest_plugin.speed.HELD_S", AMPLE_S)


class Bench:
    """What the fixture is to a benchmark, but for the timing."""

    def __init__(self):
        self.group, self.extra_info = "", {}

    def __call__(self, call):
        return call()

    def pedantic(self, call, *, rounds, iterations):
        assert rounds == iterations == 1
        return call()


def _speed(function, pass_name="full"):
    both = {"predictions": harness.TensorSpec("B"), "labels": harness.TensorSpec("B")}
    spec = harness.LossSpec("mine", {"only": function}, inputs=both, output=harness.TensorSpec(""))
    return Speed(spec, "only", Cell({"B": 4}, "cpu", "float32", pass_name))


def test_costs_are_those_of_the_pass(patient):
    found = {}
    for pass_name in ("forward", "full"):
        bench = Bench()
        _speed(lambda predictions, labels: (predictions - labels).square().mean(), pass_name)(bench)
        assert bench.group == f"mine-B4-cpu-{pass_name}"
        found[pass_name] = bench.extra_info
    assert found["forward"]["saved_bytes"] == found["full"]["saved_bytes"] == 16
    assert 0 < found["forward"]["aten_calls"] < found["full"]["aten_calls"]
    assert found["full"]["peak_bytes"] >= 16  # the gradient


def test_a_slow_call_is_timed_once_and_without_costs(monkeypatch):
    monkeypatch.setattr("harness.pytest_plugin.speed.SLOW_S", 0.0)
    bench = Bench()
    _speed(lambda predictions, labels: (predictions - labels).square().mean())(bench)
    assert bench.extra_info == {}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda predictions, labels: (predictions / 0 - labels).mean(), "expected finite"),
        (lambda predictions, labels: (predictions - predictions.detach()).sqrt().mean(), "gradient is not finite"),
    ],
)
def test_what_is_not_finite_is_not_timed_as_if_it_worked(function, message):
    with pytest.raises(AssertionError, match=message):
        _speed(function)(Bench())


def _pair(fast, elements=4, pass_name="full"):
    both = {"predictions": harness.TensorSpec("B"), "labels": harness.TensorSpec("B")}
    two = {"naive": lambda predictions, labels: (predictions - labels).square().mean(), "fast": fast}
    spec = harness.LossSpec("pair", two, inputs=both, output=harness.TensorSpec(""))
    return Speed(spec, "fast", Cell({"B": elements}, "cpu", "float32", pass_name))


@pytest.mark.parametrize(
    ("fast", "message"),
    [
        (
            lambda predictions, labels: (predictions - labels).square().sum(),
            "pair-B4-cpu-full / fast: was not timed.*loss",
        ),
        (
            lambda predictions, labels: (predictions.detach() - labels).square().mean() + 0 * predictions.sum(),
            "gradient",
        ),
        (lambda predictions, labels: predictions @ labels[:1], "was not timed, for it failed: RuntimeError"),
    ],
)
def test_what_differs_from_the_reference_is_not_timed_as_if_it_were_right(patient, fast, message):
    with pytest.raises(AssertionError, match=message):
        _pair(fast)(Bench())


def test_what_agrees_with_the_reference_is_timed_and_the_record_has_no_reservation(patient):
    bench = Bench()
    _pair(lambda predictions, labels: torch.nn.functional.mse_loss(predictions, labels))(bench)
    assert bench.extra_info["aten_calls"] > 0
    assert "not_held" not in bench.extra_info


@pytest.mark.parametrize(
    ("elements", "seconds", "reason"),
    [(60_000, AMPLE_S, "120000 elements are more than 100000"), (4, 0.0, "naive: one call")],
)
def test_where_the_reference_is_too_slow_nothing_is_held_to_it_and_the_record_says_why(
    monkeypatch, elements, seconds, reason
):
    monkeypatch.setattr("harness.pytest_plugin.speed.HELD_S", seconds)
    bench = Bench()
    _pair(lambda predictions, labels: (predictions - labels).square().sum(), elements)(bench)
    assert bench.extra_info["not_held"].startswith(reason)


# The time of the project: a call of the quick loss takes TOOK, and whoever looks at the clock a little.
PLAYED = """
import pytest

now = 0.0


def sleep(seconds):
    global now
    now += seconds


def look():
    sleep(1e-7)
    return now


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    monkeypatch.setattr("harness.pytest_plugin.speed.SLOW_S", float("inf"))
    monkeypatch.setattr("harness.pytest_plugin.speed.HELD_S", 3600.0)
"""
PROJECT = """
import played
import torch

import harness
from harness import LossSpec, TensorSpec
from played import patient


def slow(predictions, labels):
    played.sleep(1e-3)
    return sum((predictions - labels).square().unbind()) / len(predictions)


def quick(predictions, labels):
    played.sleep(TOOK)
    return (predictions - labels).square().mean()


SPEC = LossSpec(
    "squared",
    {"slow": slow, "quick": quick},
    inputs={"predictions": TensorSpec("B"), "labels": TensorSpec("B")},
    output=TensorSpec(""),
    bench_sizes=({"B": 8},),
)


@harness.parametrize_with_benchmarks(SPEC)
def test_speed(benchmark, speed):
    speed(benchmark)
"""


def test_a_later_run_is_compared_with_a_saved_one_and_fails_where_it_is_slower(pytester, monkeypatch):
    """With pytest-benchmark's own options, in a project of its own."""
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
        monkeypatch.delenv(name)  # pytest-benchmark times nothing in a worker, and the runs here are none
    timer = "--benchmark-timer=played.look"
    pytester.makepyfile(played=PLAYED, test_project=PROJECT.replace("TOOK", "1e-4"))
    saved = pytester.runpytest_subprocess(timer, "--benchmark-autosave", "--benchmark-json=first.json")
    saved.assert_outcomes(passed=4)
    found = json.loads((pytester.path / "first.json").read_text())["benchmarks"]
    assert {b["group"] for b in found} == {"squared-B8-cpu-forward", "squared-B8-cpu-full"}
    calls = {b["param"]: b["extra_info"]["aten_calls"] for b in found}
    assert calls["squared-B8-cpu-full-slow"] > calls["squared-B8-cpu-full-quick"] > 0

    pytester.makepyfile(test_project=PROJECT.replace("TOOK", "2e-2"))
    compared = pytester.runpytest_subprocess(
        timer, "--benchmark-compare", "--benchmark-compare-fail=min:900%", "-k", "quick"
    )
    assert compared.ret != 0
    compared.stdout.fnmatch_lines(["*benchmark 'squared-B8-cpu-full': 2 tests*"])
    compared.stderr.fnmatch_lines(["*Performance has regressed*"])
    assert "squared-B8-cpu-full-quick" in compared.stderr.str()


def test_the_options_are_pytest_benchmarks_own():
    (mark,) = [mark for mark in test_speed.pytestmark if mark.name == "benchmark"]
    assert mark.kwargs == OPTIONS
