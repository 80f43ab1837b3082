"""What a trial makes of losses that are wrong, slow, or too large for the memory."""

import os
import re
import sys

import pytest
import torch
from fake_time import AMPLE_S
from timed_losses import SPECS, naive, raises, spec_of, vectorized, wrong_axis

from harness import LossSpec, TensorSpec
from harness.results.measured import Cell
from harness.timing import admission
from harness.timing.admission import Patience, admit

CELL = Cell({"B": 3, "C": 4}, "cpu", "float32", "full")
PASSES = ("forward", "backward", "full")


def tried(spec, name, *, cell=CELL, reference=None, seconds=AMPLE_S):
    return admit(spec, name, cell, PASSES, reference or {}, seed=0, patience=Patience(seconds))


def statuses(trials):
    return {name: trials[name].status for name in PASSES}


def test_what_is_right_may_be_timed_in_every_pass_and_has_its_costs():
    trials = tried(SPECS[0], "vectorized", reference=tried(SPECS[0], "naive"))
    assert statuses(trials) == dict.fromkeys(PASSES, "measured")
    assert all(trial.costs.peak_bytes > 0 and trial.fits for trial in trials.values())


class SavesErrors(torch.autograd.Function):
    """sum of w (p - y)^2; the errors are saved as they should be."""

    @staticmethod
    def forward(ctx, predictions, labels, weights):
        errors = predictions - labels
        ctx.save_for_backward(errors, weights)
        return (weights.unsqueeze(-1) * errors.square()).mean()

    @staticmethod
    def backward(ctx, upstream):
        errors, weights = ctx.saved_tensors
        return 2 * upstream * weights.unsqueeze(-1) * errors / errors.numel(), None, None


class HoldsErrors(SavesErrors):
    """The same, with the errors in an attribute that autograd knows nothing of."""

    @staticmethod
    def forward(ctx, predictions, labels, weights):
        ctx.errors = predictions - labels
        ctx.save_for_backward(weights)
        return (weights.unsqueeze(-1) * ctx.errors.square()).mean()

    @staticmethod
    def backward(ctx, upstream):
        (weights,) = ctx.saved_tensors
        return 2 * upstream * weights.unsqueeze(-1) * ctx.errors / ctx.errors.numel(), None, None


def test_what_lives_until_backward_is_saved_whoever_holds_it():
    costs = []
    for function in (SavesErrors, HoldsErrors):

        def loss(predictions, labels, weights, apply=function.apply):
            return apply(predictions, labels, weights)

        spec = spec_of("saving", candidate=loss)
        costs.append(tried(spec, "candidate", reference=tried(spec, "naive"))["forward"].costs)
    saves, holds = costs
    assert saves.saved_above_inputs_bytes == holds.saved_above_inputs_bytes == 3 * 4 * 4
    assert saves.saved_bytes == holds.saved_bytes


def exits(predictions, labels, weights):
    sys.exit(3)


class ExitsWhenBuilt:
    def __init__(self, weights):
        sys.exit(3)

    def __call__(self, predictions, labels):
        return predictions.sum()


@pytest.mark.parametrize(
    ("implementation", "status", "reason"),
    [
        (wrong_axis, "failed", "has shape|differs from the reference|RuntimeError"),
        (raises, "failed", "ValueError: no such thing$"),
        (exits, "failed", "^SystemExit: 3$"),
        (ExitsWhenBuilt, "failed", "^SystemExit: 3$"),
    ],
)
def test_what_may_not_be_timed_says_why(implementation, status, reason):
    spec = spec_of("faulty", candidate=implementation)
    trials = tried(spec, "candidate", reference=tried(spec, "naive"))
    assert statuses(trials) == dict.fromkeys(PASSES, status)
    for trial in trials.values():
        assert re.search(reason, trial.reason)


def test_what_does_not_end_is_stopped_and_says_so(fake_time):
    def endless(predictions, labels, weights):
        total = predictions.sum()
        while True:
            fake_time.sleep(0.01)
            total = total + weights[0]

    spec = spec_of("faulty", candidate=endless)
    trials = tried(spec, "candidate", reference=tried(spec, "naive"), seconds=0.2)
    assert statuses(trials) == dict.fromkeys(PASSES, "skipped")
    assert {trial.reason for trial in trials.values()} == {
        "one call takes longer than the 0.2 s that the budget had left for it"
    }


def test_how_long_a_call_takes_is_said_by_one_that_nobody_counts(fake_time, monkeypatch):
    """To count costs a loop of small calls twenty times its time."""
    see = admission.costs.Counter._see
    monkeypatch.setattr(admission.costs.Counter, "_see", fake_time.lasting(0.01, see))
    spec = spec_of("looping", loop=fake_time.lasting(1e-3, naive))
    trial = tried(spec, "loop")["full"]
    assert (trial.status, trial.seconds) == ("measured", pytest.approx(1e-3))
    assert trial.counting > 20
    assert trial.costs.aten_calls > 0


def test_what_takes_too_long_to_count_is_timed_without_its_costs(fake_time, monkeypatch):
    see = admission.costs.Counter._see
    monkeypatch.setattr(admission.costs.Counter, "_see", fake_time.lasting(0.01, see))
    spec = spec_of("looping", loop=fake_time.lasting(1e-3, naive))
    found = [
        admit(spec, "loop", CELL, PASSES, {}, seed=0, patience=Patience(0.1, times))["full"] for times in (None, 1e3)
    ]
    assert [(trial.status, trial.costs) for trial in found] == [("measured", None)] * 2
    assert found[0].reason == "exact costs unknown: to count them takes longer than the 0.098 s that were left for it"
    assert found[1].reason == "exact costs unknown: to count them takes about 1 s"


def test_what_could_not_be_stopped_in_time_says_so_and_is_not_called_again(fake_time):
    calls = []
    spins_first = fake_time.lasting(0.3, vectorized)

    def spins_last(predictions, labels, weights):
        calls.append(0)
        loss = vectorized(predictions, labels, weights)
        fake_time.sleep(0.3)
        return loss

    spec = spec_of("spinning", first=spins_first, last=spins_last)
    first = tried(spec, "first", seconds=0.1)["full"]
    assert first.status == "skipped"
    assert re.search(r"longer than the 0.1 s .*; it could not be stopped before 0.3 s were over$", first.reason)
    assert first.seconds == pytest.approx(0.3)
    last = tried(spec, "last", seconds=0.1)
    assert statuses(last) == {"forward": "measured", "backward": "skipped", "full": "skipped"}
    assert len(calls) == 1


def out_of_memory_in_forward(predictions, labels, weights):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")


def really_out_of_memory(predictions, labels, weights):
    pairs = torch.empty(2**46, device=predictions.device)  # 256 TiB
    return vectorized(predictions, labels, weights) + pairs.sum()


@pytest.mark.parametrize("implementation", [out_of_memory_in_forward, really_out_of_memory])
def test_memory_that_runs_out_is_skipped_with_where_it_did_and_is_no_failure(implementation):
    trials = tried(spec_of("large", large=implementation), "large")
    for trial in trials.values():
        assert (trial.status, trial.fits) == ("skipped", False)
        assert trial.reason == "out of memory at B=3, C=4, float32, cpu, full: needs a smaller size"


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, upstream):
        return torch.empty(2**46)[: upstream.numel()]


def test_a_forward_pass_that_fits_is_timed_where_the_backward_pass_does_not():
    def large_backward(predictions, labels, weights):
        return vectorized(Backward.apply(predictions), labels, weights)

    trials = tried(spec_of("half", half=large_backward), "half", reference=tried(SPECS[0], "naive"))
    assert statuses(trials) == {"forward": "measured", "backward": "skipped", "full": "skipped"}
    assert [trials[name].fits for name in PASSES] == [True, False, False]


def returns_a_number(predictions, labels, weights):
    return vectorized(predictions, labels, weights).item()


def returns_two(predictions, labels, weights):
    return vectorized(predictions, labels, weights), predictions


def detaches(predictions, labels, weights):
    return vectorized(predictions, labels, weights).detach()


@pytest.mark.parametrize(
    ("implementation", "forward", "reason"),
    [
        (
            returns_a_number,
            "failed",
            r"^returned \d+\.\d+, float, expected a tensor that has a graph, so that the gradient reaches predictions$",
        ),
        (
            returns_two,
            "failed",
            "^returned tuple, expected a tensor .*reaches predictions; .* declare `select`$",
        ),
        (
            detaches,
            "measured",
            "^returned a tensor without a graph, expected one that has a graph, so that the gradient reaches "
            "predictions; is it detached",
        ),
    ],
)
def test_what_cannot_be_differentiated_says_what_came_and_what_should_have_come(implementation, forward, reason):
    trials = tried(spec_of("graphless", candidate=implementation), "candidate", reference=tried(SPECS[0], "naive"))
    assert statuses(trials) == {"forward": forward, "backward": "failed", "full": "failed"}
    assert re.search(reason, trials["full"].reason)


def test_inputs_that_cannot_be_made_are_no_failure_of_any_implementation():
    cell = Cell({"B": 10**8, "C": 10**5}, "cpu", "float32", "full")
    trials = tried(SPECS[0], "naive", cell=cell)
    assert statuses(trials) == dict.fromkeys(PASSES, "skipped")
    for trial in trials.values():
        assert trial.reason.startswith("the inputs cannot be made: the case has 20000100000000 elements, but at most")


def test_inputs_that_do_not_fit_are_skipped_before_any_loss_is_built(monkeypatch):
    monkeypatch.setattr(admission, "inputs", lambda *_: {"predictions": torch.empty(2**46)})
    trials = tried(spec_of("huge", huge=raises), "huge")
    assert {trial.reason[:13] for trial in trials.values()} == {"out of memory"}
    assert not any(trial.fits for trial in trials.values())


def test_an_interrupt_from_the_keyboard_is_no_failure_of_a_loss():
    def interrupted(predictions, labels, weights):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tried(spec_of("interrupted", interrupted=interrupted), "interrupted")


def test_what_a_loss_prints_in_its_trial_goes_to_stderr_and_later_prints_do_not(capfd):
    def talks_in_every_way(predictions, labels, weights):
        print("by name")
        os.write(1, b"by descriptor\n")
        return vectorized(predictions, labels, weights)

    tried(spec_of("talking", talks=talks_in_every_way), "talks")
    print("afterwards")
    came = capfd.readouterr()
    assert came.out == "afterwards\n"
    assert {"by name", "by descriptor"} == set(came.err.splitlines())


@pytest.mark.parametrize("error", [ValueError("tired"), SystemExit("tired")])
def test_a_loss_that_tires_when_its_peak_is_taken_fails_and_ends_nothing(error):
    calls = []

    def tires(predictions, labels, weights):
        calls.append(0)
        if len(calls) > 2:
            raise error
        return vectorized(predictions, labels, weights)

    trials = tried(spec_of("tiring", tires=tires), "tires", reference=tried(SPECS[0], "naive"))
    assert {(trial.status, trial.reason) for trial in trials.values()} == {("failed", f"{type(error).__name__}: tired")}


def test_low_precision_is_held_to_the_reference_in_float32():
    cell = Cell({"B": 3, "C": 4}, "cpu", "bfloat16", "full")
    seen = []

    def noted(predictions, labels, weights):
        seen.append(predictions.dtype)
        return naive(predictions, labels, weights)

    trials = tried(spec_of("low", noted=noted), "noted", cell=cell, reference=tried(SPECS[0], "naive", cell=cell))
    assert statuses(trials) == dict.fromkeys(PASSES, "measured")
    assert set(seen) == {torch.bfloat16, torch.float32}


def test_rounding_is_measured_on_each_input_with_its_own_gradient_in_whatever_order_they_are_declared():
    def both(short, long):
        return (short**2).sum() + (long**3).sum()

    spec = LossSpec(
        "ordered",
        {"both": both, "again": both},
        inputs={"short": TensorSpec("B"), "long": TensorSpec("B C")},
        context={},
        differentiable=("long", "short"),
    )
    trials = tried(spec, "again", reference=tried(spec, "both"))
    assert statuses(trials) == dict.fromkeys(PASSES, "measured")
