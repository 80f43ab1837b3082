import random
import sys
from dataclasses import asdict

import pytest
import torch
from fake_time import AMPLE_S
from timed_losses import SPECS, naive, raises, spec_of, vectorized

from harness.results.measured import PASSES, Cell
from harness.results.schema import record
from harness.timing import design
from harness.timing.admission import Patience, admit
from harness.timing.constants import BLOCK_S, TIMED_BATCHES
from harness.timing.design import Contestant, Heat, affordable, calibrate, measure, order

CELL = Cell({"B": 3, "C": 3}, "cpu", "float32", "full")


class FakeClock:
    """A clock whose calls take as long as they say, with an overhead of each block."""

    def __init__(self, seconds, overhead=0.0, most_calls=sys.maxsize):
        self.seconds, self.overhead, self.most_calls = seconds, overhead, most_calls

    def warm_up(self, call):
        call()

    def block(self, call, calls):
        return self.overhead + self.seconds * calls


@pytest.mark.parametrize("seconds", [1e-7, 1e-5, 1.9e-3, 2e-3, 0.5])
def test_a_calibrated_block_is_long_enough_and_not_much_longer(seconds):
    calls = calibrate(FakeClock(seconds), lambda: None)
    assert calls * seconds >= BLOCK_S
    assert calls == 1 or calls * seconds <= 2 * BLOCK_S


@pytest.mark.parametrize("most", [1, 20])
def test_a_block_has_no_more_calls_than_the_clock_allows(most):
    assert calibrate(FakeClock(1e-6, most_calls=most), lambda: None) == most


def test_a_slow_first_block_does_not_end_the_calibration():
    assert calibrate(FakeClock(1e-6, overhead=1e-3), lambda: None) >= 1000


def test_the_order_is_random_fair_and_the_same_for_the_same_seed():
    names = ["a", "b", "c"]
    orders = [order(names, random.Random(seed)) for seed in range(300)]
    assert orders == [order(names, random.Random(seed)) for seed in range(300)]
    assert all(sorted(one) == names for one in orders)
    for name in names:
        assert 70 <= sum(one[0] == name for one in orders) <= 130


def test_everyone_gets_a_round_and_the_quick_leave_their_time_to_the_slow():
    assert affordable({"quick": 0.002, "slow": 0.5}, 10, 3.0) == {"quick": 10, "slow": 5}
    assert affordable({"quick": 0.002, "slow": 5.0}, 10, 3.0) == {"quick": 10, "slow": 1}
    assert affordable({"quick": 0.002, "slow": 0.01}, 10, 3.0) == {"quick": 10, "slow": 10}


def measured(heats, looks=(), seconds=AMPLE_S, process=0, spec=SPECS[0]):
    found = []
    measure(spec, heats, looks=looks, seconds=seconds, seed=0, process=process, report=found.append)
    return {(samples.heat, samples.implementation): samples for samples in found}


def test_every_contestant_of_every_heat_is_timed_in_every_round(fake_time):
    quick, slow = fake_time.lasting(1e-4, vectorized), fake_time.lasting(1e-3, naive)
    heats = [Heat(CELL, {"naive": Contestant(1e-3), "vectorized": Contestant(1e-4)}, 3, "naive")] * 2
    found = measured(heats, spec=spec_of("timed", naive=slow, vectorized=quick))
    assert sorted(found) == [(0, "naive"), (0, "vectorized"), (1, "naive"), (1, "vectorized")]
    for samples in found.values():
        assert samples.status == "measured"
        assert len(samples.seconds_per_call) == 3
        each = 1e-3 if samples.implementation == "naive" else 1e-4
        assert samples.seconds_per_call == pytest.approx((each,) * 3)
        assert samples.calls_per_block * each >= BLOCK_S
        assert samples.loss == found[0, "naive"].loss or samples.loss == pytest.approx(found[0, "naive"].loss)


class ScriptedClock:
    """A clock by which each implementation takes as long as the script says, whatever the machine does meanwhile."""

    most_calls = 10**9
    idle_s = None

    def __init__(self, seconds):
        self.seconds, self.names = seconds, {}

    def prepare(self, make):
        call = make()
        self.names[call] = list(self.seconds)[len(self.names) // TIMED_BATCHES]
        return call

    def warm_up(self, call):
        call()

    def block(self, call, calls):
        return self.seconds[self.names[call]] * calls


def rounds_by(monkeypatch, seconds, reference, *, rounds=8, looks=(3, 6)):
    monkeypatch.setattr(design, "clock_for", lambda *_: ScriptedClock(seconds))
    spec = spec_of("scripted", **dict.fromkeys(seconds, vectorized))
    found = measured([Heat(CELL, dict.fromkeys(seconds, Contestant(1e-4)), rounds, reference)], looks=looks, spec=spec)
    return {name: len(found[0, name].seconds_per_call) for name in seconds}


def test_who_is_far_from_the_reference_stops_at_a_look_and_the_others_go_on(monkeypatch):
    seconds = {"base": 1e-3, "far": 1e-4, "close": 0.9e-3}
    assert rounds_by(monkeypatch, seconds, "base") == {"base": 8, "far": 3, "close": 8}


def test_the_reference_stops_once_nobody_is_left_to_run_beside_it(monkeypatch):
    seconds = {"base": 1e-3, "far": 1e-4, "farther": 1e-5}
    assert rounds_by(monkeypatch, seconds, "base") == {"base": 3, "far": 3, "farther": 3}
    assert rounds_by(monkeypatch, {"base": 1e-3}, "base") == {"base": 8}


def test_without_the_reference_beside_them_all_run_their_rounds(monkeypatch):
    assert rounds_by(monkeypatch, {"far": 1e-4, "close": 1e-3}, "base") == {"far": 8, "close": 8}


def test_what_an_earlier_process_calibrated_is_kept():
    found = measured([Heat(CELL, {"naive": Contestant(1e-3, calls_per_block=5)}, 3)])
    assert found[0, "naive"].calls_per_block == 5


def test_what_takes_longer_than_is_left_is_skipped_and_says_so():
    found = measured([Heat(CELL, {"naive": Contestant(2 * AMPLE_S), "vectorized": Contestant(1e-4)}, 3, "naive")])
    assert found[0, "naive"].status == "skipped"
    assert f"one call takes about {2 * AMPLE_S:.2g} s" in found[0, "naive"].reason
    assert found[0, "vectorized"].status == "measured"


def test_what_the_first_call_takes_beyond_the_others_is_in_no_round(fake_time):
    calls = []

    def compiles_first(predictions, labels, weights):
        fake_time.sleep(1e-4 if calls else 5.0)
        calls.append(0)
        return vectorized(predictions, labels, weights)

    heat = Heat(CELL, {"compiles": Contestant(1e-4, compile_s=5.0)}, 3)
    found = measured([heat], spec=spec_of("compiling", compiles=compiles_first))
    assert found[0, "compiles"].seconds_per_call == pytest.approx((1e-4,) * 3)


def test_who_raises_is_failed_and_the_others_are_timed():
    spec = spec_of("raising", raises=raises)
    found = measured([Heat(CELL, {"raises": Contestant(1e-3), "naive": Contestant(1e-3)}, 3)], spec=spec)
    assert found[0, "raises"].status == "failed"
    assert found[0, "raises"].reason.startswith("ValueError: no such thing")
    assert found[0, "naive"].status == "measured"


@pytest.mark.parametrize("fine_calls", [0, 20])
def test_who_exits_is_failed_and_the_others_are_timed(fine_calls):
    calls = []

    def exits(predictions, labels, weights):
        calls.append(0)
        if len(calls) > fine_calls:
            sys.exit(3)
        return vectorized(predictions, labels, weights)

    heat = Heat(CELL, {"exits": Contestant(1e-3, calls_per_block=1), "naive": Contestant(1e-3)}, 30)
    found = measured([heat], spec=spec_of("exiting", exits=exits))
    assert (found[0, "exits"].status, found[0, "exits"].reason) == ("failed", "SystemExit: 3")
    assert found[0, "naive"].status == "measured"


def test_a_heat_survives_json():
    heat = Heat(Cell({"B": 3, "rest": (2, 4)}, "cpu", "float32", "full"), {"naive": Contestant(1.0, 7)}, 4, "naive")
    assert record(Heat, asdict(heat), "heat") == heat


class WritesOver(torch.autograd.Function):
    """mean of w (p - y)²; the gradient is written over the predictions past autograd, as fused kernels do."""

    @staticmethod
    def forward(ctx, predictions, labels, weights):
        value = vectorized(predictions, labels, weights)
        gradient = 2 * weights[:, None] * (predictions - labels) / predictions.numel()
        ctx.written = predictions.data.copy_(gradient)
        return value

    @staticmethod
    def backward(ctx, upstream):
        return ctx.written * upstream, None, None


def writes_over(predictions, labels, weights):
    return WritesOver.apply(predictions, labels, weights)


@pytest.mark.parametrize("pass_name", PASSES)
def test_who_writes_its_gradient_over_an_input_is_timed_on_the_same_values_again(pass_name):
    cell = Cell({"B": 3, "C": 3}, "cpu", "float64", pass_name)
    heats = [Heat(cell, {"naive": Contestant(1e-4), "fused": Contestant(1e-5)}, 3, "naive")]
    spec = spec_of("fused", fused=writes_over)
    undeclared, declared = (
        measured(heats, spec=each)[0, "fused"] for each in (spec, spec.replace(writes_gradient_into="predictions"))
    )
    of_values = {"M02", "M05"}  # the others go by time
    assert {code for code, _ in undeclared.violations} & of_values
    assert not {code for code, _ in declared.violations} & of_values
    assert len(declared.seconds_per_call) == 3


def test_its_trial_is_held_to_the_reference_on_the_values_that_it_was_given():
    cell = Cell({"B": 3, "C": 3}, "cpu", "float64", "full")
    spec = spec_of("fused", fused=writes_over).replace(writes_gradient_into="predictions")
    passes = ("forward", "full")
    reference = admit(spec, "naive", cell, passes, {}, seed=0, patience=Patience(AMPLE_S))
    trials = admit(spec, "fused", cell, passes, reference, seed=0, patience=Patience(AMPLE_S))
    assert [trials[name].status for name in passes] == ["measured", "measured"]
