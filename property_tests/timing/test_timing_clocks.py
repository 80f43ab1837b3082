import gc
import time
from types import SimpleNamespace

import pytest
from fake_time import AMPLE_S
from timed_losses import SPECS, spec_of, vectorized
from work import work

from harness.results.measured import Cell
from harness.timing import clocks, design
from harness.timing.clock import NotTimeable
from harness.timing.clocks import WallClock, clock_for
from harness.timing.constants import COLD_CALLS, WARM_UP_S
from harness.timing.cuda import EventClock, GraphClock
from harness.timing.design import Contestant, Heat, measure


def test_a_block_takes_as_long_as_its_calls(fake_time):
    assert WallClock().block(lambda: fake_time.sleep(0.005), 4) == pytest.approx(0.02)


def test_a_block_goes_by_the_clock_of_the_machine():
    assert WallClock().block(lambda: time.sleep(0.005), 4) >= 0.02  # a sleep is never shorter


def test_a_block_does_nothing_between_its_calls():
    def of(calls):
        return work(lambda: WallClock().block(lambda: None, calls))

    assert of(20) - of(10) == {"call": 10}


def test_a_block_waits_for_the_device_before_and_after():
    events = []
    WallClock(lambda: events.append("wait")).block(lambda: events.append("call"), 2)
    assert events == ["wait", "call", "call", "wait"]


@pytest.mark.parametrize(("seconds", "calls"), [(0.05, 1), (WARM_UP_S["cpu"] / 8, 8)])
def test_the_warm_up_calls_for_a_while_and_at_least_once_even_if_that_is_long(fake_time, seconds, calls):
    called = []
    WallClock().warm_up(lambda: (called.append(0), fake_time.sleep(seconds)))
    assert len(called) == calls


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_is_collected_inside_a_block_and_the_setting_is_restored(enabled):
    seen = []
    (gc.enable if enabled else gc.disable)()
    try:
        WallClock().block(lambda: seen.append(gc.isenabled()), 1)
        assert gc.isenabled() == enabled
        with pytest.raises(ZeroDivisionError):
            WallClock().block(lambda: 1 / 0, 1)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
    assert seen == [False]


def cell(device, clock="wall", cache="warm"):
    return Cell({"B": 3}, device, "float32", "full", cache, clock)


def test_a_cell_has_the_clock_that_it_names():
    assert type(clock_for(cell("cpu"))) is WallClock
    assert type(clock_for(cell("cuda:1"))) is WallClock
    assert type(clock_for(cell("cuda:1", "events"))) is EventClock
    assert type(clock_for(cell("cuda:1", "graph"))) is GraphClock


def test_cold_caches_are_a_part_of_the_cell():
    assert clock_for(cell("cpu", cache="cold")).most_calls == COLD_CALLS["cpu"]
    assert clock_for(cell("cuda:1", "events", "cold")).most_calls == COLD_CALLS["cuda"]
    assert clock_for(cell("cpu")).most_calls > 1e6


def test_cold_calls_are_timed_one_by_one_and_emptying_the_caches_is_not(fake_time):
    done = []

    def flush():
        done.append("flush")
        fake_time.sleep(0.02)

    def call():
        done.append("call")
        fake_time.sleep(0.001)

    clock = WallClock(lambda: done.append("wait"), flush)
    seconds = clock.block(call, 2)
    assert done == ["flush", "wait", "call", "wait"] * 2
    assert seconds == pytest.approx(0.002)


@pytest.mark.parametrize(("away_in", "idle_s"), [("flush", 0.0), ("call", 0.25), ("neither", 0.0)])
def test_only_time_away_within_a_cold_call_counts_as_idle(monkeypatch, away_in, idle_s):
    now = {"wall": 0.0, "worked": 0.0}

    def work(step):
        now["wall"] += 0.01 + (0.25 if step == away_in else 0.0)
        now["worked"] += 0.01

    played = SimpleNamespace(perf_counter=lambda: now["wall"], thread_time=lambda: now["worked"])
    monkeypatch.setattr(clocks, "time", played)
    clock = WallClock(None, lambda: work("flush"))
    assert clock.block(lambda: work("call"), 1) == pytest.approx(0.01 + idle_s)
    assert clock.idle_s == pytest.approx(idle_s)


def test_a_cold_block_has_emptied_the_caches_once_before_it_even_of_a_slow_call():
    done = []
    clock = WallClock(None, lambda: done.append("flush"))
    clock.prepare(lambda: done.append("made"))
    assert done == ["flush", "made"]


class NeverClock(WallClock):
    def prepare(self, make):
        raise NotTimeable("cannot be captured into a CUDA graph: it waits")


def timed(monkeypatch, spec, clock, names=("vectorized",)):
    monkeypatch.setattr(design, "clock_for", lambda *_: clock)
    found = []
    heat = Heat(Cell({"B": 3, "C": 3}, "cpu", "float32", "full"), dict.fromkeys(names, Contestant(1e-4)), rounds=3)
    measure(spec, [heat], looks=(), seconds=AMPLE_S, seed=0, process=0, report=found.append)
    return {samples.implementation: samples for samples in found}


def test_what_a_clock_cannot_time_is_skipped_with_the_reason_and_no_failure(monkeypatch):
    found = timed(monkeypatch, SPECS[0], NeverClock())["vectorized"]
    assert (found.status, found.reason) == ("skipped", "cannot be captured into a CUDA graph: it waits")


def test_one_that_raises_in_its_rounds_fails_alone(monkeypatch, fake_time):
    calls = []
    quick = fake_time.lasting(1e-4, vectorized)

    def tires(predictions, labels, weights):
        calls.append(0)
        if len(calls) > 500:
            raise ValueError("tired")
        return quick(predictions, labels, weights)

    spec = spec_of("tiring", tires=tires, vectorized=quick)
    monkeypatch.setattr(design, "calibrate", lambda clock, call: 200)
    found = timed(monkeypatch, spec, WallClock(), ("tires", "vectorized"))
    assert (found["tires"].status, found["tires"].reason) == ("failed", "ValueError: tired")
    assert len(found["vectorized"].seconds_per_call) == 3
