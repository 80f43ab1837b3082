"""Calls on inputs that nobody has seen: made as those of a block are, so that only what is new can make them slow."""

import threading

import pytest
import torch

from harness import LossSpec, TensorSpec
from harness.results.measured import Cell
from harness.timing import audit as audits
from harness.timing import design
from harness.timing.audit import Batches, audited
from harness.timing.workload import Workload


@pytest.fixture
def idle_thread():
    """Another thread of this process, for which the timing waits before it says who has worked."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    yield
    over.set()
    thread.join()


def audit_of(loss, dtype, pass_name="full"):
    cell = Cell({"B": 4, "C": 3}, "cpu", dtype, pass_name)
    declared = {"inputs": {"x": TensorSpec("B C")}, "context": {"w": TensorSpec("C")}, "output": TensorSpec("")}
    spec = LossSpec("audited", {"loss": loss}, **declared)
    batches = Batches(spec, cell, 0, 0, 1)
    timed = batches.copies(batches.timed)
    workload = Workload(spec, "loss", timed[0])
    return audited(workload, batches, batches.unseen, timed, workload.state(), None, most=8)


def weighted(x, w):
    return (w * x**2).mean()


def test_nothing_waits_between_the_calls(monkeypatch, idle_thread):
    events = []
    monkeypatch.setattr(audits.time, "sleep", lambda seconds: events.append("wait"))
    audit = audit_of(lambda x, w: (events.append("call"), weighted(x, w))[1], "float32")
    assert len(audit.seconds) == 8
    first, last = events.index("call"), len(events) - 1 - events[::-1].index("wait")
    calls = [n for n, event in enumerate(events) if event == "call"]
    assert "wait" not in events[first : calls[8] + 1]
    assert last > calls[8]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pass_name", ["forward", "full"])
def test_what_changes_after_its_call_is_seen_in_every_dtype(monkeypatch, idle_thread, dtype, pass_name):
    """In float64 nothing has to be converted, so that what is kept must be a copy all the same."""
    returned = []

    def loss(x, w):
        returned.append(weighted(x, w))
        return returned[-1]

    def write(seconds):
        for value in returned:
            value.data.add_(1)

    assert not audit_of(loss, dtype, pass_name).changed
    monkeypatch.setattr(audits.time, "sleep", write)
    assert audit_of(loss, dtype, pass_name).changed


@pytest.mark.parametrize(("states", "left_s"), [("RRR", 1.0), ("RS", 0.0), ("S", 0.0)])
def test_a_thread_that_waits_for_a_processor_is_waited_for(monkeypatch, states, left_s):
    """On a busy machine 5 ms may pass before a thread that is at work gets any of them."""
    waits = []
    monkeypatch.setattr(audits, "_others", lambda: ["1"])
    monkeypatch.setattr(audits, "_is_at_work", lambda thread: states[min(len(waits), len(states)) - 1] == "R")
    monkeypatch.setattr(audits, "others_s", lambda: 1.0 if len(waits) == 3 else 0.0)
    monkeypatch.setattr(audits.time, "sleep", waits.append)
    assert audits.left_over_s() == left_s


def test_a_thread_at_work_is_seen():
    over = threading.Event()
    square = torch.ones(300, 300)

    def work():
        while not over.is_set():
            square @ square

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert any(audits._is_at_work(str(thread.native_id)) for _ in range(10_000))
    finally:
        over.set()
        thread.join()
    assert not audits._is_at_work("gone")


@pytest.mark.parametrize(("first_s", "looks"), [(1e-3, 2), (1.0, 1)])
def test_what_looks_remembered_once_is_asked_again_where_that_is_quick(monkeypatch, first_s, looks):
    """A page that the system has yet to give makes one call slow; with no budget left it was called a cheat for that."""
    cell = Cell({"B": 4, "C": 3}, "cpu", "float32", "full")
    declared = {"inputs": {"x": TensorSpec("B C")}, "context": {"w": TensorSpec("C")}, "output": TensorSpec("")}
    batches = Batches(LossSpec("audited", {"loss": weighted}, **declared), cell, 0, 0, 1)
    taken = iter([first_s, 1e-5])

    class Spent:
        spent, left = 0.0, 0.0

    def audited(*given, **named):
        seconds = next(taken)
        Spent.spent += seconds
        asked.append(seconds)
        return audits.Audit([seconds], [], 0.0, [], None, [], False, False)

    asked = []
    monkeypatch.setattr(design, "audited", audited)
    entry = design._Entry(batches.spec, "loss", batches)
    found = entry.audited(batches, None, [1e-5], Spent)
    assert len(asked) == looks
    assert audits.is_remembered(found, [1e-5], cell) is (looks == 1)
