from dataclasses import replace

import numpy as np
import pytest
import report_examples
from report_examples import comparison, measurement

from harness.timing.constants import ROUNDS
from property_tests.tools import clock_statistics, verdicts_twice


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        ("adopt", "adopt", verdicts_twice.EQUAL),
        ("adopt", "inconclusive", verdicts_twice.OPEN),
        ("adopt", "adopt with caveats", verdicts_twice.CONTRADICTS),
    ],
)
def test_two_verdicts_are_equal_open_or_contradict(first, second, kind):
    assert verdicts_twice.kind(first, second) == verdicts_twice.kind(second, first) == kind


def test_two_reports_are_told_apart_by_what_they_say_and_by_what_was_measured():
    same = report_examples.report()
    text, is_kept = verdicts_twice.told(same, same)
    assert is_kept
    assert "2 implementations: 2 equal (100.0%), 0 open in one, 0 contradict" in text
    slower = report_examples.report(report_examples.loss(comparisons=(comparison("slower", speedup=0.5),)))
    text, is_kept = verdicts_twice.told(same, slower)
    assert not is_kept
    assert "1 contradict" in text
    lacking = report_examples.report(report_examples.loss(comparisons=()))
    assert verdicts_twice.reached(lacking.losses[0]) == (0, 1)
    unreached = report_examples.loss(measurements=(measurement("naive", "skipped"), measurement()))
    assert verdicts_twice.reached(unreached) == (0, 0)


def test_rounds_stop_where_the_truth_is_clear_and_go_on_where_it_is_at_the_margin():
    generator = np.random.default_rng(0)
    _, clear = clock_statistics.compared(20.0, 0.01, 0.02, generator)
    _, equal = clock_statistics.compared(1.0, 0.0, 0.01, generator)
    ratio, margin = clock_statistics.compared(1 / 1.05, 0.0, 0.01, generator)
    assert clear < equal < margin == ROUNDS
    assert ratio.low < 1 / 1.05 < ratio.high


def test_a_promise_that_is_not_kept_is_said():
    kept = clock_statistics.seen(0, 0, 0.01, 20, 0)
    assert kept.broken == []
    wrong = replace(kept, ratios=tuple(replace(r, low=1.2, high=1.3) for r in kept.ratios))
    assert len(wrong.broken) == 2
