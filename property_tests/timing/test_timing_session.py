"""What a session does where memory or time runs out, a device is lost or its clocks change."""

import pytest
import torch
from fake_time import AMPLE_S
from timed_losses import SPECS, raises, spec_of, vectorized

from harness.calls import environment
from harness.results.measured import Cell
from harness.timing import session as sessions
from harness.timing.admission import Trial
from harness.timing.constants import ROUNDS
from harness.timing.session import Course

ROWS = (2, 3, 5)


@pytest.fixture
def here(monkeypatch):
    """Timing in this process, which starts at once."""
    monkeypatch.setattr(sessions, "target_of", lambda spec: (None, "the test says so"))


def cells(*passes, caches=("warm",), device="cpu"):
    sizes = [{"B": rows, "C": 3} for rows in ROWS]
    return [Cell(s, device, "float32", p, cache) for s in sizes for p in passes for cache in caches]


def admitted(spec, made):
    session = Course(spec, list(spec.implementations), made, budget_s=AMPLE_S, seed=0)
    session.admit_all()
    return session


def too_large(predictions, labels, weights):
    if predictions.shape[0] > 2:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return vectorized(predictions, labels, weights)


class LargeBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, upstream):
        return upstream if upstream.shape[0] <= 2 else torch.empty(2**46)


def too_large_backward(predictions, labels, weights):
    return vectorized(LargeBackward.apply(predictions), labels, weights)


def test_what_does_not_fit_is_a_row_with_its_reason_and_larger_sizes_are_not_tried():
    calls = []

    def counted(predictions, labels, weights):
        calls.append(predictions.shape[0])
        return too_large(predictions, labels, weights)

    session = admitted(spec_of("large", counted=counted, vectorized=vectorized), cells("full"))
    found = [session.trials[at, "counted"] for at in range(3)]
    assert [trial.status for trial in found] == ["measured", "skipped", "skipped"]
    assert found[1].reason == "out of memory at B=3, C=3, float32, cpu, full: needs a smaller size"
    assert found[2].reason == f"known not to fit: {found[1].reason}"
    assert 5 not in calls
    assert {session.trials[at, "vectorized"].status for at in range(3)} == {"measured"}


def test_a_forward_pass_that_fits_is_tried_at_every_size():
    made = cells("forward", "full", caches=("warm", "cold"))
    session = admitted(spec_of("half", half=too_large_backward), made)
    statuses = {
        (made[at].sizes["B"], made[at].pass_name): trial.status
        for (at, n), trial in session.trials.items()
        if n == "half"
    }
    assert statuses == {
        (rows, name): "skipped" if name == "full" and rows > 2 else "measured"
        for rows in ROWS
        for name in ("forward", "full")
    }


def test_memory_that_runs_out_in_the_rounds_skips_the_row_and_the_others_are_timed(here):
    calls = []

    def grows(predictions, labels, weights):
        calls.append(0)
        if len(calls) > 12:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return vectorized(predictions, labels, weights)

    session = admitted(spec_of("growing", grows=grows, vectorized=vectorized), cells("full")[:1])
    session.time_all()
    [(_, samples)] = session.samples[0, "grows"]
    assert (samples.status, samples.reason[:13]) == ("skipped", "out of memory")
    assert len(session.times(0, "vectorized")) > 1


def test_who_cannot_be_stopped_pays_for_it_and_the_quick_are_still_timed(here, fake_time):
    quick, spins = (fake_time.lasting(seconds, vectorized) for seconds in (1e-4, 2.2))
    spec = spec_of("spinning", "one", one=quick, spins=spins, two=quick)
    session = Course(spec, list(spec.implementations), cells("full")[:1], budget_s=2, seed=0)
    session.admit_all()
    session.time_all()
    assert fake_time.now < 2.2 + 2 + 1
    assert session.trials[0, "spins"].status == "skipped"
    assert len(session.times(0, "one")) == len(session.times(0, "two")) == ROUNDS


@pytest.mark.parametrize(
    ("budget_s", "taken", "for_trials", "for_rounds"),
    [
        (30, 7.4, 7.6, 15),  # in time
        (30, 20, 5, 5),  # rounds give what they can spare
        (30, 100, 5, 5),  # the budget grows
        (4, 100, 1, 2),  # never beyond what there would have been
    ],
)
def test_what_overruns_leaves_the_others_a_reserve(monkeypatch, fake_time, budget_s, taken, for_trials, for_rounds):
    session = Course(SPECS[0], ["naive"], cells("full")[:1], budget_s=budget_s, seed=0)

    def admit(*_, **__):
        fake_time.sleep(taken)
        return {"full": Trial("measured")}

    monkeypatch.setattr(sessions, "admit", admit)
    session._admit([0], "naive")
    assert session.budget.left - session._kept_s == pytest.approx(for_trials)
    assert session._kept_s == pytest.approx(for_rounds)


def test_a_device_that_is_lost_ends_its_cells_with_the_reason_and_no_others(monkeypatch):
    calls = []

    def counted(predictions, labels, weights):
        calls.append(0)
        return vectorized(predictions, labels, weights)

    lost = "cpu works no more in this process: CUDA error: device-side assert triggered"
    monkeypatch.setattr(sessions, "lost", lambda device: lost)
    session = admitted(spec_of("asserts", counted=counted, raises=raises, late=counted), cells("full"))
    assert session.trials[0, "counted"].status == "measured"
    assert session.trials[0, "raises"].status == "failed"
    before = len(calls)
    for entry in [(0, "late"), *((at, name) for at in (1, 2) for name in session.names)]:
        assert session.trials[entry].status == "skipped"
        assert session.trials[entry].reason == f"not tried: {lost}; that was raises at B=2, C=3, float32, cpu, full"
    assert len(calls) == before
    assert len(session.notes) == 1


def test_clocks_that_change_while_it_is_timed_are_noted(here, monkeypatch):
    states = iter(
        [{"cuda:0": {"sm_clock_mhz": 1980.0, "limits": []}}, {"cuda:0": {"sm_clock_mhz": 1500.0, "limits": []}}]
    )
    monkeypatch.setattr(environment, "gpu_states", lambda devices: next(states))
    session = admitted(SPECS[0], cells("forward")[:1])
    session.time_all()
    assert session.environment["gpu_states"]["after"]["cuda:0"]["sm_clock_mhz"] == 1500.0
    assert "cuda:0: the clock of its processors went from 1980 to 1500 MHz" in session.notes
