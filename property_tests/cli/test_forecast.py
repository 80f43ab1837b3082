import pytest

from harness.cli.terminal.forecast import Forecast, duration
from harness.results.observer import Step

CHECKS = [Step(code, f"{name} / {code}") for name in ("naive", "fast") for code in ("B01", "B02", "G01", "G02", "T01")]
TIMING = Step("timing", "timing loss", 30.0)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def run(forecast, clock, steps, seconds):
    for step in steps:
        forecast.begin(step)
        clock.now += seconds[step.kind]


SECONDS = {"B01": 1, "B02": 1, "G01": 2, "G02": 2, "T01": 14}


def test_checks_take_as_long_as_checks_of_their_kind_took():
    clock = Clock()
    forecast = Forecast(CHECKS, clock)
    run(forecast, clock, CHECKS[:5], SECONDS)
    forecast.begin(CHECKS[5])
    assert forecast.left_s == 20
    assert forecast.text == "about 20 s left"
    assert forecast.fraction == 0.5
    clock.now += 0.5
    assert forecast.left_s == 19.5


def test_a_forecast_that_rests_on_kinds_not_seen_yet_says_so():
    clock = Clock()
    forecast = Forecast([*CHECKS, Step("X", "x")], clock)
    assert forecast.text == ""
    run(forecast, clock, CHECKS[:6], SECONDS)
    forecast.begin(CHECKS[6])
    assert forecast.left_s == 19 + 21 / 6
    assert forecast.text == "roughly 23 s left"


def test_timing_has_what_its_budget_has_left_at_most():
    clock = Clock()
    forecast = Forecast([TIMING, TIMING], clock)
    assert forecast.text == "at most 60 s left"
    forecast.begin(TIMING)
    clock.now += 10
    assert forecast.text == "at most 50 s left"
    clock.now += 25
    assert forecast.left_s == 30
    forecast.begin(TIMING)
    assert (forecast.done, forecast.total) == (1, 2)


def test_a_budget_does_not_count_towards_what_a_check_takes():
    clock = Clock()
    forecast = Forecast([*CHECKS, TIMING], clock)
    run(forecast, clock, CHECKS[:5], SECONDS)
    forecast.begin(CHECKS[5])
    assert forecast.left_s == 20 + 30


def test_nothing_planned_is_nothing_left():
    forecast = Forecast([], Clock())
    assert (forecast.left_s, forecast.fraction) == (0, 0)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.2, "1 s"), (99, "99 s"), (100, "2 min"), (3540, "59 min"), (3900, "1 h 5 min")]
)
def test_a_duration_has_no_more_digits_than_a_forecast(seconds, shown):
    assert duration(seconds) == shown
