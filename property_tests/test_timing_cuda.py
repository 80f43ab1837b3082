"""Clocks of a CUDA device: their order of steps on a device that is played, and what they measure on a real one."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from timed_losses import SPECS, spec_of, vectorized

from harness.timing import cuda
from harness.timing.clock import NotTimeable
from harness.timing.clocks import clock_for
from harness.timing.constants import CAPTURE_WARM_UPS, COLD_CALLS
from harness.timing.cuda import EventClock, GraphClock
from harness.timing.workload import Cell, Workload, inputs

NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICE = torch.device("cuda:1")


class Played:
    """A CUDA device with one timeline in milliseconds, which notes what it is asked for."""

    def __init__(self):
        self.now, self.log, self.streams = 0.0, [], ["main"]
        played = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at = played.now
                played.log.append("event")

            def elapsed_time(self, end):
                return end.at - self.at

        class Graph:
            def __init__(self):
                self.replays = 0

            def replay(self):
                played.log.append("replay")
                played.now += 2.0

        class Stream:
            def wait_stream(self, other):
                played.log.append(f"side waits for {other}")

            def __str__(self):
                return "side"

        self.Event, self.CUDAGraph = Event, Graph
        self.side = Stream()

    def Stream(self, device):
        assert device == DEVICE
        return self.side

    def current_stream(self, device):
        assert device == DEVICE
        return SimpleNamespace(
            wait_stream=lambda other: self.log.append(f"main waits for {other}"), __str__=lambda: "main"
        )

    @contextmanager
    def device(self, device):
        assert device == DEVICE
        yield

    @contextmanager
    def stream(self, stream):
        self.streams.append(str(stream))
        yield
        self.streams.pop()

    @contextmanager
    def graph(self, graph, stream):
        self.log.append("capture")
        with self.stream(stream):
            try:
                yield
            except BaseException:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")  # noqa: B904
        self.log.append("captured")

    def synchronize(self, device):
        assert device == DEVICE
        self.log.append("wait")

    def call(self):
        self.log.append(f"call on {self.streams[-1]}")
        self.now += 2.0
        return torch.ones(())

    def flush(self):
        self.log.append("flush")
        self.now += 100.0


@pytest.fixture
def played(monkeypatch):
    device = Played()
    monkeypatch.setattr(cuda, "torch", SimpleNamespace(cuda=device))
    return device


def test_a_warm_block_has_one_pair_of_events_around_all_its_calls(played):
    assert EventClock(DEVICE).block(played.call, 3) == pytest.approx(6e-3)
    assert played.log == ["wait", "event", *["call on main"] * 3, "event", "wait"]


def test_cold_calls_have_events_of_their_own_and_the_flush_is_outside_them_without_a_wait_between(played):
    clock = EventClock(DEVICE, played.flush)
    assert clock.block(played.call, 3) == pytest.approx(6e-3)
    assert played.log == ["wait", *["flush", "event", "call on main", "event"] * 3, "wait"]
    assert clock.most_calls == COLD_CALLS["cuda"]


def test_a_call_is_made_warmed_up_and_captured_on_one_side_stream_and_then_replayed(played):
    clock = GraphClock(DEVICE)

    def make():
        played.log.append(f"made on {played.streams[-1]}")
        return played.call

    replay = clock.prepare(make)
    warm = ["made on side", *["call on side"] * CAPTURE_WARM_UPS]
    assert played.log[1:] == [*warm, "main waits for side", "capture", "call on side", "captured"]
    assert torch.equal(replay(), torch.ones(()))
    played.log.clear()
    assert clock.block(replay, 2) == pytest.approx(4e-3)
    assert played.log == ["wait", "event", "replay", "replay", "event", "wait"]


def test_what_cannot_be_captured_says_what_went_wrong_first(played):
    def waits():
        if played.log[-1:] == ["capture"]:
            raise RuntimeError("operation not permitted when stream is capturing\nmore lines")

    with pytest.raises(NotTimeable) as refused:
        GraphClock(DEVICE).prepare(lambda: waits)
    assert str(refused.value) == (
        "cannot be captured into a CUDA graph: RuntimeError: operation not permitted when stream is capturing"
    )


def test_what_a_loss_raises_before_the_capture_is_its_own(played):
    def raises():
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        GraphClock(DEVICE).prepare(lambda: raises)


def on_device(clock, cache="warm", **changes):
    return Cell({"B": 64, "C": 64}, "cuda", "float32", "full", cache, clock, **changes)


def prepared(cell, name="vectorized", spec=SPECS[0]):
    clock = clock_for(cell)
    workload = Workload(spec, name, inputs(spec, cell, 0))
    return clock, clock.prepare(lambda: workload.call(cell.pass_name)), workload


@pytest.mark.cuda
@NO_CUDA
@pytest.mark.parametrize("pass_name", ["forward", "backward", "full"])
def test_a_replay_computes_the_same_loss_and_gradient(pass_name):
    cell = Cell({"B": 64, "C": 64}, "cuda", "float32", pass_name, "warm", "graph")
    _, replay, workload = prepared(cell)
    loss = replay()
    torch.cuda.synchronize()
    expected = vectorized(**inputs(SPECS[0], cell, 0))
    torch.testing.assert_close(loss.detach(), expected.detach())
    if pass_name != "forward":
        [leaf] = workload.leaves
        leaves = inputs(SPECS[0], cell, 0)
        vectorized(**leaves).backward()
        torch.testing.assert_close(leaf.grad, leaves["predictions"].grad)


@pytest.mark.cuda
@NO_CUDA
def test_a_loss_that_waits_for_the_device_is_not_captured_and_the_next_one_is():
    def waits(predictions, labels, weights):
        loss = vectorized(predictions, labels, weights)
        return loss * (1.0 if loss.item() > -1 else 2.0)

    with pytest.raises(NotTimeable, match="cannot be captured"):
        prepared(on_device("graph"), "waits", spec_of("waiting", waits=waits))
    _, replay, _ = prepared(on_device("graph"))
    replay()
    torch.cuda.synchronize()


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("clock", ["wall", "events", "graph"])
def test_the_second_device_is_timed_on_itself(clock):
    cell = Cell({"B": 64, "C": 64}, "cuda:1", "float32", "full", "warm", clock)
    one, call, _ = prepared(cell)
    one.warm_up(call)
    assert one.block(call, 10) > 0
    assert call().device == torch.device("cuda:1")
