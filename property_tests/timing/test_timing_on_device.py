"""Trials and rounds on a CUDA device that is played: what counts as a loss's time and memory, and what does not."""

import pytest
import torch
from fake_cuda import MIB, play
from timed_losses import spec_of, vectorized

from harness.results.measured import Cell
from harness.timing import session
from harness.timing.admission import Patience, Trial, admit
from harness.timing.costs.allocator import cuda_peak_bytes
from harness.timing.costs.launches import kernel_launches
from harness.timing.design import Contestant, Heat, measure
from harness.timing.devices import unusable
from harness.timing.session import Course

DEVICE = "cuda:1"


@pytest.fixture
def fake(monkeypatch):
    """A played device, beside which losses compute their values on the CPU."""
    made = play(monkeypatch)
    made.compute_on_cpu(monkeypatch)
    return made


def losing(fake, seconds, *, first_s=0.0, out_of_memory_at=None):
    """A loss that takes the device so long, and the host some more at its first call."""
    calls = []

    def loss(predictions, labels, weights):
        calls.append(0)
        if out_of_memory_at is not None and len(calls) >= out_of_memory_at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        if len(calls) == 1:
            fake.run_on_host(first_s)
        fake.launch(seconds)
        return vectorized(predictions, labels, weights)

    loss.calls = calls
    return loss


def cell(clock="wall", pass_name="forward", cache="warm"):
    return Cell({"B": 3, "C": 3}, DEVICE, "float32", pass_name, cache, clock)


def tried(loss, *, seconds=60.0, passes=("forward",)):
    return admit(spec_of("played", "loss", loss=loss), "loss", cell(), passes, {}, seed=0, patience=Patience(seconds))


def timed(losses, contestants, *, clock="wall", rounds=4, seconds=300.0, cache="warm"):
    """What one process measures of losses, by name."""
    found = []
    spec = spec_of("played", next(iter(losses)), **losses)
    measure(
        spec,
        [Heat(cell(clock, cache=cache), contestants, rounds)],
        looks=(),
        seconds=seconds,
        seed=0,
        process=0,
        report=found.append,
    )
    return {samples.implementation: samples for samples in found}


# ---- trials ----------------------------------------------------------------------------------------------------------


def test_a_trial_counts_the_work_of_the_device_and_not_its_launch(fake):
    trial = tried(losing(fake, 0.5))["forward"]
    assert (trial.status, trial.seconds) == ("measured", pytest.approx(0.5, rel=0.01))


def test_each_pass_of_a_trial_has_its_own_work(fake):
    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            fake.launch(0.5)
            return value.clone()

        @staticmethod
        def backward(ctx, upstream):
            fake.launch(2.0)
            return upstream

    def loss(predictions, labels, weights):
        return vectorized(Backward.apply(predictions), labels, weights)

    trials = tried(loss, passes=("forward", "backward", "full"))
    assert {name: trial.seconds for name, trial in trials.items()} == pytest.approx(
        {"forward": 0.5, "backward": 2.0, "full": 2.5}, rel=0.01
    )


def test_what_the_device_still_has_to_do_is_not_charged_to_the_next_trial(fake):
    fake.launch(30.0)
    assert tried(losing(fake, 0.5))["forward"].seconds == pytest.approx(0.5, rel=0.01)


def test_what_the_first_call_compiles_is_not_a_calls_time_and_stands_apart(fake):
    trial = tried(losing(fake, 0.01, first_s=7.0))["forward"]
    assert trial.seconds == pytest.approx(0.01, rel=0.05)
    assert trial.start_seconds == pytest.approx(7.0, rel=0.01)


def test_a_first_call_for_which_no_time_was_left_says_that_it_may_have_compiled(fake):
    reason = tried(losing(fake, 0.01, first_s=7.0), seconds=2.0)["forward"].reason
    assert reason.startswith("the first call, which may compile kernels, takes longer than the 2 s")


def test_a_session_notes_what_first_calls_took_once_for_the_passes_of_an_input(fake, monkeypatch):
    monkeypatch.setattr(session, "unusable", lambda device: None)
    spec = spec_of("played", "slow", slow=losing(fake, 0.01, first_s=7.0), quick=losing(fake, 0.01))
    made = Course(spec, ["slow", "quick"], [cell(), cell("events")], budget_s=100, seed=0)
    made.admit_all()
    assert {trial.status for trial in made.trials.values()} == {"measured"}
    [note] = made.notes
    assert note == (
        "slow at B=3, C=3, float32, cuda:1, forward: its first call took 7 s longer than the second, in which kernels are "
        "loaded and compiled; no time includes that"
    )


def test_to_wake_a_device_is_taken_off_no_budget(fake, monkeypatch):
    monkeypatch.setattr(session, "unusable", lambda device: fake.run_on_host(40.0))
    made = Course(spec_of("played", "one", one=losing(fake, 0.01)), ["one"], [cell()], budget_s=20, seed=0)
    made.admit_all()
    assert made.budget.left > 19
    assert made.trials[0, "one"].status == "measured"


def test_a_device_on_which_nothing_can_run_skips_its_cells_with_the_reason(fake, monkeypatch):
    def busy(*_, **__):
        raise torch.AcceleratorError("CUDA error: all CUDA-capable devices are busy or unavailable\nmore lines")

    monkeypatch.setattr(torch, "ones", busy)
    reason = unusable(DEVICE)
    assert reason.startswith(
        "cuda:1 is there, but nothing can run on it: AcceleratorError: CUDA error: all CUDA-capable"
    )
    assert unusable("cpu") is None
    monkeypatch.undo()
    monkeypatch.setattr(session, "unavailable", lambda device: None)
    monkeypatch.setattr(session, "unusable", lambda device: reason)
    made = Course(spec_of("played", "one", one=losing(fake, 0.01)), ["one"], [cell()], budget_s=20, seed=0)
    made.admit_all()
    assert (made.trials[0, "one"].status, made.trials[0, "one"].reason) == ("skipped", reason)


# ---- rounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["wall", "events"])
def test_the_first_call_of_a_slow_loss_is_in_no_round(fake, clock):
    found = timed({"slow": losing(fake, 0.5, first_s=5.0)}, {"slow": Contestant(0.5)}, clock=clock)["slow"]
    assert found.seconds_per_call == pytest.approx([0.5] * 4, rel=0.01)


def test_a_loss_that_was_slow_only_in_the_trial_that_compiled_it_fills_blocks_as_a_quick_one(fake):
    found = timed({"quick": losing(fake, 1e-4)}, {"quick": Contestant(5.0)})["quick"]
    assert found.calls_per_block > 10
    assert found.seconds_per_call == pytest.approx([1e-4] * 4, rel=0.1)


def test_a_graph_of_a_slow_loss_is_not_begun_where_the_calls_of_its_capture_do_not_fit(fake):
    loss = losing(fake, 2.0)
    found = timed({"slow": loss}, {"slow": Contestant(2.0)}, clock="graph", seconds=11.0)["slow"]
    assert (found.status, loss.calls) == ("skipped", [])
    assert found.reason.startswith(
        "one call takes about 2 s and its clock needs 6, but 11 s of the budget were left for it"
    )


def test_a_wait_in_which_the_thread_sleeps_is_no_interruption(fake):
    loss = losing(fake, 5e-3)
    found = timed({"one": loss}, {"one": Contestant(5e-3, calls_per_block=1)})["one"]
    assert found.repeated == 0
    assert found.seconds_per_call == pytest.approx([5e-3] * 4, rel=0.01)


def test_cold_calls_on_a_device_run_once_and_without_what_empties_the_caches(fake):
    found = timed({"one": losing(fake, 1e-3)}, {"one": Contestant(1e-3)}, clock="events", cache="cold")["one"]
    assert found.repeated == 0
    assert found.seconds_per_call == pytest.approx([1e-3] * 4, rel=0.01)


def test_a_loss_that_cannot_be_captured_is_skipped_and_the_next_is_timed(fake):
    def reads(predictions, labels, weights):
        fake.read_back()
        return vectorized(predictions, labels, weights)

    losses = {"reads": reads, "fine": losing(fake, 1e-3)}
    found = timed(losses, dict.fromkeys(losses, Contestant(1e-3)), clock="graph")
    assert found["reads"].status == "skipped"
    assert (
        "cannot be captured into a CUDA graph: RuntimeError: CUDA error: operation not permitted"
        in found["reads"].reason
    )
    assert found["fine"].seconds_per_call == pytest.approx([1e-3] * 4, rel=0.1)


def test_a_capture_that_loses_the_device_says_so_of_who_comes_after(fake):
    def asserts(predictions, labels, weights):
        if fake.capturing is not None:
            fake.failure = RuntimeError("CUDA error: device-side assert triggered")
            raise fake.failure
        return vectorized(predictions, labels, weights)

    losses = {"asserts": asserts, "late": losing(fake, 1e-3)}
    found = timed(losses, dict.fromkeys(losses, Contestant(1e-3)), clock="graph")
    assert found["late"].reason.startswith(
        "cuda:1 works no more in this process: RuntimeError: CUDA error: device-side"
    )


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_memory_that_runs_out_in_a_trial_is_no_failure_and_is_given_back(fake):
    trial = tried(losing(fake, 0.01, out_of_memory_at=1))["forward"]
    assert (trial.status, trial.fits) == ("skipped", False)
    assert trial.reason == "out of memory at B=3, C=3, float32, cuda:1, forward: needs a smaller size"
    assert fake.log[-1] == "empty cache"


@pytest.mark.parametrize("out_of_memory_at", [1, 130])
def test_memory_that_runs_out_in_the_rounds_is_given_back_before_others_go_on(fake, out_of_memory_at):
    losses = {"large": losing(fake, 1e-3, out_of_memory_at=out_of_memory_at), "fine": losing(fake, 1e-3)}
    known = {name: Contestant(1e-3, calls_per_block=2) for name in losses}
    found = timed(losses, known, rounds=30)
    assert (found["large"].status, found["large"].reason[:13]) == ("skipped", "out of memory")
    assert len(found["fine"].seconds_per_call) == 30
    assert fake.log.count("empty cache") == 1


def test_fresh_processes_find_the_memory_that_trials_have_used(fake, monkeypatch):
    made = Course(spec_of("played", "one", one=losing(fake, 0.01)), ["one"], [cell()], budget_s=20, seed=0)
    made.trials[0, "one"] = Trial("measured", values=(torch.ones(()),))
    monkeypatch.setattr(session.environment, "describe", lambda device: {})
    monkeypatch.setattr(made, "_in_fresh_processes", lambda target, device: fake.log.append("fresh process") or "")
    made.time_all()
    assert [step for step in fake.log if step in ("empty cache", "fresh process")] == ["empty cache", "fresh process"]


def test_the_peak_is_what_a_call_takes_above_what_was_there(fake):
    fake.allocate(100 * MIB)

    def call():
        spare = torch.zeros(2 * MIB, dtype=torch.uint8, device=DEVICE)
        del spare
        return torch.zeros(MIB, dtype=torch.uint8, device=DEVICE)

    assert cuda_peak_bytes(call, DEVICE) == 2 * MIB


# ---- launches --------------------------------------------------------------------------------------------------------


def two_kernels(fake):
    """A call of two kernels, a graph and a function on the host."""
    fake.launch(1e-6)
    fake.launch(1e-6, name="cuLaunchKernelEx")
    fake.launch(1e-6, name="cudaGraphLaunch_v10000")
    fake.launch(0.0, name="cudaLaunchHostFunc")


def test_launches_are_those_of_the_call_alone(fake):
    assert kernel_launches(lambda: two_kernels(fake), DEVICE) == 3
    assert kernel_launches(lambda: None, DEVICE) == 0


def test_launches_that_no_profiler_sees_are_unknown(fake, monkeypatch):
    fake.has_cupti = False
    assert kernel_launches(lambda: two_kernels(fake), DEVICE) is None
    fake.has_cupti = True
    monkeypatch.setattr(torch.profiler, "supported_activities", lambda: {torch.profiler.ProfilerActivity.CPU})
    assert kernel_launches(lambda: two_kernels(fake), DEVICE) is None


def test_launches_beside_another_profiler_are_unknown(monkeypatch):
    with torch.autograd.profiler.profile(use_kineto=True):
        assert kernel_launches(lambda: None, DEVICE) is None
