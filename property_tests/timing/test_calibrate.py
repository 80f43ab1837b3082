import json
import math
from types import SimpleNamespace

import pytest
import torch
from fake_time import AMPLE_S

from harness import HarnessError, cli
from harness.cli.terminal.calibration import calibration_text
from harness.report.self_check import self_check_sentence
from harness.timing import calibrate
from harness.timing.benchmark import Comparison
from harness.timing.calibrate import GROUP, SLOWDOWNS, SPEC, UNITS, Calibration, Level
from harness.timing.costs.counting import count


def comparison(low, high, implementation="same", rounds=30):
    speedup = math.sqrt(low * high)
    verdict = "faster" if low > 1.05 else "slower" if high < 1 / 1.05 else "inconclusive"
    if low >= 1 / 1.05 and high <= 1.05:
        verdict = "equivalent"
    return Comparison(
        *({}, "cpu", "float32", "forward"),
        implementation=implementation,
        reference="base",
        speedup=speedup,
        low=low,
        high=high,
        verdict=verdict,
        rounds=rounds,
    )


SAME, SLOWER, ALARM = comparison(0.99, 1.01), comparison(0.94, 0.97), comparison(1.06, 1.08)


def test_the_extra_work_is_what_it_says_counted_in_operations():
    values = torch.ones(256, requires_grad=True)
    calls = {name: count(lambda f=f: f(values)).aten_calls for name, f in SPEC.implementations.items()}
    assert calls == {"base": UNITS, "same": UNITS, **{f"plus_{more}": UNITS + more for more in SLOWDOWNS}}


@pytest.fixture
def scripted(monkeypatch):
    """Groups whose comparisons are given, so that the tallies can be checked."""
    asked = []

    def compare(group, more, **options):
        asked.append((len(group), more, options["rounds"]))
        slower = [comparison(0.94, 0.97, f"plus_{percent}") for percent in more for _ in group]
        return SimpleNamespace(
            comparisons=[SAME for _ in group] + slower, environment={"torch": "2"}, notes=(), measurements=()
        )

    monkeypatch.setattr(calibrate, "_compare", compare)
    return asked


def test_every_comparison_is_tallied_under_its_amount_of_work(scripted):
    made = calibrate.calibrate(3 * GROUP + 1, rounds=7)
    assert scripted == [(GROUP, [3], 7), (GROUP, [5], 7), (GROUP, [10], 7), (1, [3], 7)]
    assert [(level.percent, len(level.comparisons)) for level in made.levels] == [
        (0, 3 * GROUP + 1),
        (3, GROUP + 1),
        (5, GROUP),
        (10, GROUP),
    ]
    assert made.false_alarms.count == 0
    assert made.levels[1].seen.value == 1.0
    assert made.ok
    assert made.notes == ()


@pytest.mark.parametrize(("pairs", "untried"), [(GROUP, "+5 %, +10 %"), (2 * GROUP, "+10 %"), (2 * GROUP + 1, None)])
def test_slowdowns_that_too_few_pairs_leave_out_are_said(scripted, pairs, untried):
    notes = calibrate.calibrate(pairs).notes
    wanted = (
        f"{untried} not tried: every 25 pairs try one slowdown, so that 3 need 51 pairs or more, and the time for them"
    )
    assert notes == (() if untried is None else (wanted,))


def test_what_does_not_fit_the_budget_is_left_out_and_said(scripted, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(calibrate.time, "perf_counter", lambda: next(clock))
    made = calibrate.calibrate(10 * GROUP, budget_s=25)
    assert len(made.levels[0].comparisons) == 2 * GROUP
    assert made.notes[0] == (f"{2 * GROUP} of {10 * GROUP} comparisons: the budget of 25 s had no time for more")


def test_seen_is_an_interval_without_no_change_and_called_one_outside_the_margin():
    level = Level(5, (SAME, SLOWER, ALARM, comparison(0.9, 0.94), comparison(0.96, 0.99)))
    assert level.called.count == 2
    assert level.seen.count == 3
    assert level.found.count == 2  # the last one is equivalent
    assert Level(0, (SAME, SLOWER, ALARM)).seen.count == 2  # to either side, where there is nothing to see
    assert level.measured_percent == pytest.approx(100 * (1 / math.sqrt(0.96 * 0.99) - 1))


def made_of(*comparisons):
    return Calibration((Level(0, comparisons),), 30, 12.0, {"torch": "2"})


@pytest.mark.parametrize(("alarms", "ok"), [(0, True), (2, True), (9, False)])
def test_it_fails_where_false_alarms_are_significantly_more_than_one_per_cent(alarms, ok):
    assert made_of(*[SAME] * (300 - alarms), *[ALARM] * alarms).ok is ok


def test_the_text_says_both_rates_and_what_they_mean():
    made = Calibration((Level(0, (SAME,) * 300), Level(10, (comparison(0.9, 0.92),) * 40)), 30, 12.0, {})
    text = calibration_text(made)
    assert "false alarms: 0 of 300 = 0.0% (95 % interval 0.0% to 1.2%), which does not refute the allowed 1%" in text
    assert "called in 95% of the comparisons from +10 % on" in text
    assert "seen: the interval excludes no change" in text
    [same] = [line for line in text.splitlines() if line.startswith("the same")]
    assert same.count("0 of 300") == 3  # called, seen, found


def test_few_pairs_say_that_they_refute_little_and_how_many_would_tell():
    shown = calibration_text(made_of(*[SAME] * 10))
    assert "10 pairs refute no rate up to 30.8% either: to rule out more than 1% takes 368 without" in shown
    assert "refute no rate" not in calibration_text(made_of(*[SAME] * 368))
    assert "significantly more than the allowed 1%" in calibration_text(made_of(*[SAME] * 8, *[ALARM] * 2))


def test_a_report_has_one_sentence_on_it():
    sentence = self_check_sentence(json.loads(json.dumps(made_of(SAME, SAME).summary())))
    assert "compared with itself 2 times and called faster or slower 0 times" in sentence
    assert "narrower than ±1.0 %" in sentence
    assert "too few comparisons to say how often" in sentence
    assert "interval of the rate" not in sentence
    assert self_check_sentence(None) == ""
    assert self_check_sentence({"levels": [], "notes": ["no time"]}) == "The timing was not tried on itself: no time."
    assert "itself 1 time and called faster or slower 0 times" in self_check_sentence(made_of(SAME).summary())
    assert "95 % interval of the rate 0% to 31%" in self_check_sentence(made_of(*[SAME] * 10).summary())


@pytest.mark.parametrize(("alarms", "code"), [(0, 0), (9, 1)])
def test_the_command_saves_every_comparison_and_its_exit_code_tells(tmp_path, monkeypatch, alarms, code):
    made = made_of(*[SAME] * (300 - alarms), *[ALARM] * alarms)
    monkeypatch.setattr(calibrate, "calibrate", lambda pairs, **_: made)
    with pytest.raises(SystemExit) as ended:
        cli.cli(["calibrate", "--save", str(tmp_path / "c.json")], standalone_mode=False)
    assert ended.value.code == code
    saved = json.loads((tmp_path / "c.json").read_text())
    assert len(saved["raw"][0]["comparisons"]) == 300
    assert saved["levels"][0]["called"] == alarms


def test_a_real_one_runs_through_fresh_processes(monkeypatch):
    monkeypatch.setattr(calibrate, "GROUP_S", AMPLE_S)
    made = calibrate.calibrate(3, rounds=6, slowdowns=(10,))
    assert made.environment["timed_in"] == "fresh processes"
    assert [(level.percent, len(level.comparisons)) for level in made.levels] == [(0, 3), (10, 3)]
    assert all(c.rounds >= 6 for level in made.levels for c in level.comparisons)


def test_a_device_that_is_not_here_is_an_error_that_says_so():
    with pytest.raises(HarnessError, match="CUDA"):
        calibrate.calibrate(1, device=f"cuda:{torch.cuda.device_count()}")
