import pytest

from harness.timing import quiet
from harness.timing.constants import WARY_BLOCKS
from harness.timing.quiet import Quiet


class Machine:
    """A clock of the wall and one of the thread, by a script of (seconds of work, seconds in which another process runs)."""

    def __init__(self, script):
        self.script, self.wall, self.worked, self.blocks, self.pauses = script, 0.0, 0.0, 0, 0

    def perf_counter(self):
        return self.wall

    def thread_time(self):
        return self.worked

    def block(self):
        work, away = self.script[min(self.blocks, len(self.script) - 1)]
        self.blocks += 1
        self.wall += work + away
        self.worked += work
        return work + away

    def sleep(self, seconds):
        self.wall += seconds
        self.pauses += 1


@pytest.mark.parametrize(
    ("script", "seconds", "repeated"),
    [
        ([(2e-3, 0.0)], 2e-3, 0),
        ([(2e-3, 1e-5)], 2.01e-3, 0),  # half a per cent is what a clock tick takes
        ([(2e-3, 4e-3), (2e-3, 0.0)], 2e-3, 1),
        ([(2e-3, 4e-3)], 6e-3, 4),  # one that always waits is believed in the end
        (
            [(1.9e-3, 2e-4), (2e-3, 1e-4), (1.8e-3, 3e-4)],
            2.1e-3,
            4,
        ),  # the least interrupted, though another was quicker
        ([(0.02, 0.02)], 0.04, 0),  # too much work to escape the scheduler
        ([(1e-4, 0.15)], 0.1501, 0),  # waits for something of its own
    ],
)
def test_a_short_block_that_is_interrupted_runs_again(monkeypatch, script, seconds, repeated):
    machine = Machine(script)
    monkeypatch.setattr(quiet, "time", machine)
    blocks = Quiet()
    assert blocks.run(machine.block, warm=int) == pytest.approx(seconds)
    assert blocks.repeated == repeated


def test_where_it_may_run_once_no_block_runs_again(monkeypatch):
    machine = Machine([(2e-3, 4e-3), (2e-3, 0.0)])
    monkeypatch.setattr(quiet, "time", machine)
    assert Quiet(tries=1).run(machine.block, warm=int) == pytest.approx(6e-3)
    assert (machine.blocks, machine.pauses) == (1, 0)


def test_after_an_interruption_blocks_begin_with_a_pause_and_a_warm_call_until_it_is_calm(monkeypatch):
    machine = Machine([(2e-3, 4e-3), (2e-3, 0.0)])
    monkeypatch.setattr(quiet, "time", machine)
    blocks, warm = Quiet(), []
    for _ in range(WARY_BLOCKS + 5):
        blocks.run(machine.block, warm=lambda: warm.append(1))
    assert machine.pauses == len(warm) == WARY_BLOCKS


@pytest.mark.parametrize(
    ("idle_s", "repeated"),
    [
        ([0.0], 0),  # whatever happened while the caches were emptied
        ([1e-5], 0),  # less than a block of 2 ms may be away, though as much as the call itself
        ([1e-3, 0.0], 1),
        ([1e-3], 4),
        ([None], 0),  # a wait for a device tells nothing
    ],
)
def test_a_cold_call_runs_again_where_it_was_interrupted_itself(monkeypatch, idle_s, repeated):
    machine = Machine([(0.03, 0.01)])
    monkeypatch.setattr(quiet, "time", machine)
    told = iter([*idle_s, *idle_s[-1:] * 4])
    blocks = Quiet()
    assert blocks.run(lambda: machine.block() and 1e-5, int, lambda: next(told)) == 1e-5
    assert blocks.repeated == repeated
