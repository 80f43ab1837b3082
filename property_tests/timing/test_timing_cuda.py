"""Clocks of a CUDA device: their steps and times on a device that is played, and what they measure on a real one."""

import pytest
import torch
from fake_cuda import CREATION_S, L2_BYTES, LAUNCH_S, MIB, play
from timed_losses import SPECS, spec_of, vectorized

from harness.results.measured import Cell
from harness.timing.clock import NotTimeable
from harness.timing.clocks import WallClock, clock_for, waiting_for
from harness.timing.cold import Flush, flush_bytes
from harness.timing.constants import CAPTURE_WARM_UPS, COLD_CALLS, FLUSH_BYTES
from harness.timing.cuda import EventClock, GraphClock
from harness.timing.workload import Workload, inputs

NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICE = torch.device("cuda:1")
CALL_S = 2e-3


@pytest.fixture
def fake(monkeypatch):
    """A played device."""
    return play(monkeypatch)


def calling(fake):
    """A loss that takes the device 2 ms, and notes on which stream it is called."""

    def call():
        fake.log.append(f"call on {fake.current.name}")
        fake.launch(CALL_S)
        return torch.ones(())

    return call


def steps(fake, *names):
    """What was done, of the steps with these first words."""
    return [step for step in fake.log if step.startswith(names)]


def test_a_warm_block_has_one_pair_of_events_around_all_its_calls(fake):
    clock, call = EventClock(DEVICE), calling(fake)
    assert clock.block(call, 3) == pytest.approx(3 * CALL_S + LAUNCH_S)
    fake.log.clear()
    assert clock.block(call, 3) == pytest.approx(3 * CALL_S + LAUNCH_S)
    assert fake.log == ["wait", "event", *["call on main"] * 3, "event", "wait"]


def test_cold_calls_have_events_of_their_own_and_the_flush_is_outside_them_without_a_wait_between(fake):
    clock = EventClock(DEVICE, lambda: (fake.log.append("flush"), fake.launch(0.1)))
    call = calling(fake)
    clock.block(call, 3)
    fake.log.clear()
    assert clock.block(call, 3) == pytest.approx(3 * CALL_S)
    assert fake.log == ["wait", *["flush", "event", "call on main", "event"] * 3, "wait"]
    assert clock.most_calls == COLD_CALLS["cuda"]


@pytest.mark.parametrize("is_cold", [False, True])
def test_events_are_made_before_what_is_timed_and_once(fake, is_cold):
    clock = EventClock(DEVICE, (lambda: None) if is_cold else None)
    quick = [clock.block(lambda: fake.launch(1e-6), 1) for _ in range(3)]
    assert quick == pytest.approx([LAUNCH_S + 1e-6] * 3)
    assert max(quick) < CREATION_S
    assert fake.log[:5] == ["event is made", "event", "event is made", "event", "wait"]
    assert fake.log.count("event is made") == 2


def test_the_clock_of_a_device_cannot_tell_whether_its_thread_was_away(fake):
    for clock in (EventClock(DEVICE), WallClock(waiting_for(DEVICE))):
        assert clock.block(calling(fake), 1) > 0
        assert clock.idle_s is None


@pytest.mark.parametrize("kind", [EventClock, GraphClock])
def test_what_empties_the_caches_has_its_memory_before_the_loss_is_made(fake, kind):
    clock = kind(DEVICE, Flush(DEVICE))
    call = calling(fake)
    clock.prepare(lambda: fake.log.append("made") or call)
    assert fake.log[:3] == [f"allocate {flush_bytes(DEVICE) // MIB} MiB", "write", "read"]
    assert "made" in fake.log
    fake.log.clear()
    clock.block(call, 2)
    assert steps(fake, "allocate") == []


def test_what_is_written_to_empty_the_caches_is_read_after_it(fake):
    flush = Flush(DEVICE)
    flush()
    fake.log.clear()
    flush()
    assert fake.log == ["write", "read"]


@pytest.mark.parametrize(
    ("l2_bytes", "expected"),
    [(4 * MIB, FLUSH_BYTES), (L2_BYTES, FLUSH_BYTES), (126 * MIB, 630 * MIB), (0, FLUSH_BYTES)],
)
def test_five_times_the_second_level_cache_is_gone_through_and_no_less_than_256_mb(monkeypatch, l2_bytes, expected):
    play(monkeypatch, l2_bytes=l2_bytes)
    assert flush_bytes(DEVICE) == expected


def test_a_device_that_has_no_memory_for_it_says_so(monkeypatch):
    fake = play(monkeypatch, memory=100 * MIB)
    with pytest.raises(torch.OutOfMemoryError):
        EventClock(DEVICE, Flush(DEVICE)).prepare(lambda: calling(fake))


def test_a_call_is_made_warmed_up_and_captured_on_one_side_stream_and_then_replayed(fake):
    clock = GraphClock(DEVICE)
    call = calling(fake)

    def make():
        fake.log.append(f"made on {fake.current.name}")
        return call

    replay = clock.prepare(make)
    warm = ["made on side", *["call on side"] * CAPTURE_WARM_UPS]
    # Two waits: ours, in which an error of the device is the loss's own, and that with which torch begins a capture.
    capture = ["main waits for side", "wait", "wait", "capture", "call on side", "captured"]
    assert fake.log == ["side waits for main", *warm, *capture]
    assert torch.equal(replay(), torch.ones(()))
    clock.block(replay, 2)
    fake.log.clear()
    assert clock.block(replay, 2) == pytest.approx(2 * CALL_S + LAUNCH_S)
    assert fake.log == ["wait", "event", "replay", "replay", "event", "wait"]


def forbidden(fake):
    """A loss that reads a number back."""

    def call():
        fake.launch(CALL_S)
        fake.read_back()
        return torch.ones(())

    return call


def test_what_cannot_be_captured_says_what_went_wrong_first(fake):
    with pytest.raises(NotTimeable) as refused:
        GraphClock(DEVICE).prepare(lambda: forbidden(fake))
    assert str(refused.value) == (
        "cannot be captured into a CUDA graph: RuntimeError: CUDA error: operation not permitted when stream is capturing"
    )


def test_after_a_capture_that_failed_stream_allocator_and_generator_are_as_before_and_the_next_is_captured(fake):
    with pytest.raises(NotTimeable):
        GraphClock(DEVICE).prepare(lambda: forbidden(fake))
    assert fake.current is fake.main
    assert fake.recording == {}
    fake.draw()
    assert torch.equal(GraphClock(DEVICE).prepare(lambda: calling(fake))(), torch.ones(()))


def test_what_torch_has_ended_itself_is_not_ended_again(fake, monkeypatch):
    generator = fake.generator
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda device, pool: fake.end_pool(device, "ended"))
    with pytest.raises(NotTimeable):
        GraphClock(DEVICE).prepare(lambda: forbidden(fake))
    assert list(fake.recording.values()) == [True]  # as torch has left it: nothing was released
    assert fake.generator is generator


def test_memory_that_runs_out_in_a_capture_is_no_fault_of_the_capture(fake):
    def call():
        if fake.capturing is not None:
            fake.allocate(2**40)
        return torch.ones(())

    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        GraphClock(DEVICE).prepare(lambda: call)
    assert fake.recording == {}


def test_a_loss_that_exits_in_a_capture_leaves_none_behind(fake):
    def call():
        if fake.capturing is not None:
            raise SystemExit(3)
        return torch.ones(())

    with pytest.raises(SystemExit):
        GraphClock(DEVICE).prepare(lambda: call)
    assert (fake.current, fake.recording) == (fake.main, {})


def test_what_a_loss_raises_before_the_capture_is_its_own(fake):
    def raises():
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        GraphClock(DEVICE).prepare(lambda: raises)


def test_what_the_device_fails_of_before_the_capture_is_not_taken_for_what_a_capture_forbids(fake):
    def asserts():
        fake.failure = RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        GraphClock(DEVICE).prepare(lambda: asserts)


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
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.cuda.empty_cache()
    assert torch.rand(3, device="cuda").sum().item() > 0  # what the generator of a capture that goes on refuses
    _, replay, _ = prepared(on_device("graph"))
    replay()
    torch.cuda.synchronize()


@pytest.mark.cuda
@NO_CUDA
def test_more_is_gone_through_than_the_second_level_cache_of_this_device_holds():
    assert flush_bytes(torch.device("cuda")) >= 5 * torch.cuda.get_device_properties("cuda").L2_cache_size > 0


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("clock", ["wall", "events", "graph"])
def test_the_second_device_is_timed_on_itself(clock):
    cell = Cell({"B": 64, "C": 64}, "cuda:1", "float32", "full", "warm", clock)
    one, call, _ = prepared(cell)
    one.warm_up(call)
    assert one.block(call, 10) > 0
    assert call().device == torch.device("cuda:1")
