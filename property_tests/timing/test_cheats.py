import statistics

import cheats
import numpy
import patched_timers
import pytest
from cheats import CHEATS, HONEST, LAZY, PAIRS
from fake_time import AMPLE_S

from harness import benchmark
from harness.judging.verdict import judged
from harness.results.measured import Cell
from harness.results.schema import DO_NOT_ADOPT
from harness.runs import records
from harness.timing.audit import impossible, least_bytes, read
from harness.timing.design import Samples
from harness.timing.keeper import Outside, compared
from harness.timing.session import clocks_apart
from harness.timing.statistics import paired_ratio
from harness.timing.workload import inputs

CELL = Cell({"B": 256, "D": 16}, "cpu", "float32", "full")
FEW = {"budget_s": AMPLE_S, "rounds": 6}


@pytest.fixture(scope="module")
def cheated():
    return benchmark(CHEATS, passes="full", **FEW)


@pytest.mark.parametrize("name", PAIRS)
def test_a_cheat_is_caught_and_not_ranked(cheated, name):
    (row,) = [m for m in cheated.measurements if m.implementation == name]
    found = [finding for finding in cheated.findings if finding.implementation == name]
    assert (row.status, row.seconds_per_call) == ("failed", ())
    assert not [c for c in cheated.comparisons if c.implementation == name]
    if codes := PAIRS[name].codes:
        assert [finding.severity for finding in found] == ["error"]
        assert found[0].rule in codes, found[0].message


def test_nothing_is_said_against_what_runs_beside_cheats(cheated):
    assert [finding for finding in cheated.findings if finding.implementation == "value"] == []
    assert [m.status for m in cheated.measurements if m.implementation == "value"] == ["measured"]


def test_the_verdict_on_a_cheat_says_what_was_seen(cheated):
    record = judged(records.from_benchmark(CHEATS, cheated))
    verdicts = {verdict.implementation: verdict for verdict in record.verdicts}
    assert [name for name in PAIRS if verdicts[name].verdict != DO_NOT_ADOPT] == []
    assert "M03 new inputs take as long" in verdicts["by_bytes"].reasons[0]
    assert "a call on new inputs" in verdicts["by_bytes"].reasons[0]


def test_every_honest_twin_is_timed_and_nothing_is_said_against_it():
    found = benchmark(HONEST, passes=("forward", "full"), **FEW)
    assert found.findings == ()
    assert {m.implementation: m.status for m in found.measurements} == dict.fromkeys(HONEST.implementations, "measured")


def test_what_is_put_off_until_the_loss_is_read_is_done_within_its_calls(monkeypatch):
    done = []
    monkeypatch.setattr(cheats, "value", lambda *given: done.append(1) or real(*given))
    real, (batch,) = HONEST.implementations["value"], [dict(inputs(LAZY, CELL, 0))]
    loss = cheats.lazy(**batch)
    assert done == []
    assert read(loss) is loss
    assert done == [1]


def test_a_lazy_loss_is_timed_with_its_work_and_one_of_a_subclass_as_ever():
    found = benchmark(LAZY, passes="forward", **FEW)
    assert found.findings == ()
    assert {m.status for m in found.measurements} == {"measured"}


def test_a_timer_that_the_user_replaces_moves_no_clock():
    found = benchmark(patched_timers.SPEC, passes="forward", **FEW)
    assert found.environment["timed_in"] == "fresh processes"
    assert found.findings == ()
    assert {m.status for m in found.measurements} == {"measured"}


def test_a_clock_of_ours_that_is_replaced_is_told_from_outside(monkeypatch):
    monkeypatch.setenv("PATCHES_OURS", "1")
    found = benchmark(patched_timers.SPEC, passes="forward", **FEW)
    assert found.environment["timed_in"] == "fresh processes"
    codes = {finding.rule for finding in found.findings}
    assert "M01" in codes
    assert codes <= {"M01", "M03"}  # a process whose blocks were all cut by others is judged by the false clock
    assert found.comparisons == ()


def test_statistics_that_are_replaced_change_no_interval(monkeypatch):
    given = ([1.0, 1.1, 0.9, 1.2, 1.0, 1.05] * 5, [0.5, 0.6, 0.4, 0.5, 0.55, 0.5] * 5, [0, 1, 2] * 10)
    before = paired_ratio(*given, 0)
    for module, names in ((numpy, ("median", "nanmedian", "percentile", "log")), (statistics, ("median", "fmean"))):
        for name in names:
            monkeypatch.setattr(module, name, lambda *_, **__: 1000.0)
    assert paired_ratio(*given, 0) == before


def seen(blocks, passed=(0.1, 0.1), knows_processor=True):
    outside = compared(blocks, passed, knows_processor)
    return clocks_apart(Samples(0, "loss", "measured", outside=outside), CELL)


def test_clocks_that_agree_are_silent_however_busy_the_machine_is():
    busy = [((0.002 + late, 0.0021), 0.002) for late in (0.01, 0.02, 0.00005, 0.014)]
    assert seen(busy) == seen([]) == []
    late = [((wall + 0.02, cpu), inside) for (wall, cpu), inside in busy]
    assert seen(late) == []
    assert seen([((0.0014, 0.0013), 0.001)]) == []  # a single cold call, and a round trip through emptied caches
    assert seen([((0.008, 0.008), 0.002)] * 2) == []  # into two short ones, threads of a neighbour may have worked
    assert seen([((0.0053, 0.0007), 0.0005)] * 2) == []  # what is short and lasts long was waiting for the processor


@pytest.mark.parametrize(
    ("blocks", "passed", "knows"),
    [
        ([((0.021, 0.0205), 0.002)] * 5, (0.1, 0.1), True),
        ([((0.021, 0.0001), 0.002)] * 5, (0.5, 5.0), True),
        ([((0.021, 0.0), 0.002)] * 5, (0.5, 5.0), False),
    ],
)
def test_a_clock_that_runs_slowly_is_seen_by_processor_time_or_by_all_that_passed(blocks, passed, knows):
    assert [code for code, _ in seen(blocks, passed, knows)] == ["M01"]


def test_several_threads_are_charged_and_no_lie():
    blocks = [((0.00205, 0.004), 0.002)] * 5
    assert seen(blocks) == []
    assert compared(blocks, (0.1, 0.1), True) == Outside(5, pytest.approx(1.025), pytest.approx(2.0), None)


def test_a_time_below_what_the_bytes_take_is_impossible():
    values = [patched_timers.value(*(t.double() for t in _tensors())).detach(), _tensors()[0].double()]
    least = least_bytes(HONEST, CELL, values)
    assert least == 256 * 16 * 4
    assert impossible(CELL, 2**20, lambda count: 1e9, [1e-4]) != []
    assert impossible(CELL, 2**20, lambda count: 1e9, [1e-3]) == []
    assert impossible(CELL, least, lambda count: 1.0, [1e-9]) == []  # so few bytes lie in the nearest cache


def _tensors():
    return [tensor.detach() for tensor in inputs(HONEST, CELL, 0).values()]
