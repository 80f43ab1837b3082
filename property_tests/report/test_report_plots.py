"""Marks stand where the numbers say, on axes whose ticks can be read."""

from __future__ import annotations

from dataclasses import replace

import html_examples as examples
import pytest
import report_examples
from hypothesis import given
from hypothesis import strategies as st

from harness.report.plots import FOREST_WIDTH, LogAxis, _median_interval, count_text, forest, log_axis, panels

NUMBERS = st.floats(1e-9, 1e12)


@given(st.lists(NUMBERS, min_size=1, max_size=6))
def test_every_value_lies_on_its_axis_in_order(values):
    axis = log_axis(values, 50, 350)
    places = [axis.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert 50 <= places[0] <= places[-1] <= 350


def test_equal_ratios_are_equally_far_apart():
    axis = LogAxis(1, 10_000, 0, 400)
    assert [axis.at(v) for v in (1, 10, 100, 1000, 10_000)] == [0, 100, 200, 300, 400]


@given(NUMBERS, st.floats(2, 1e12), st.sampled_from([2, 10]))
def test_ticks_are_few_lie_on_the_axis_and_stand_where_they_say(low, ratio, base):
    axis = LogAxis(low, low * ratio, 0, 300)
    ticks = axis.ticks(repr, base)
    assert 1 <= len(ticks) <= 8
    assert all(tick.position == axis.at(float(tick.label)) for tick in ticks)


@pytest.mark.parametrize("bounds", [(0, 1), (-1, 1), (2, 2), (3, 2), (1, float("inf")), (float("nan"), 1)])
def test_bounds_that_no_logarithm_has_are_refused(bounds):
    with pytest.raises(ValueError, match="expected 0 < low < high"):
        LogAxis(*bounds, 0, 1)


def test_a_speedup_stands_between_the_ends_of_its_interval_and_right_of_one_where_it_is_faster():
    made = forest(examples.good())
    (rows,) = made.groups.values()
    assert all(0 <= row.low < row.middle < row.high <= FOREST_WIDTH for row in rows)
    assert all(row.low > made.band[1] > made.one > made.band[0] for row in rows)


def test_an_unknown_speedup_has_a_row_without_a_mark():
    unknown = report_examples.comparison("inconclusive", speedup=None)
    made = forest(replace(examples.good(), comparisons=(unknown,)))
    (rows,) = made.groups.values()
    assert [(row.low, row.middle, row.high) for row in rows] == [(None, None, None)]


def test_nothing_compared_is_no_plot():
    assert forest(replace(examples.good(), comparisons=())) is None


def test_time_and_memory_have_a_panel_each_with_a_curve_an_implementation():
    time, memory = panels(examples.good())
    assert (time.title, memory.title) == (
        "time per call, cpu, float32, full pass",
        "peak memory, cpu, float32, full pass",
    )
    assert [curve.name for curve in time.curves] == ["naive", "vectorized"]
    assert time.along == "N (D=16)"
    assert time.curves[0].points[0].text == "naive: 10 µs at N=64, D=16"
    assert [tick.label for tick in time.x_ticks] == ["64", "256", "1024"]
    assert time.curves[0].path.startswith("M")


def test_what_grows_stands_higher():
    points = panels(examples.good())[0].curves[0].points
    assert [point.y for point in points] == sorted((point.y for point in points), reverse=True)


def test_a_cost_of_nothing_is_left_out_of_a_logarithmic_plot():
    grown = (examples.growth("naive", "peak_bytes"),)
    free = examples.sweep("naive", peaks=(0, 0, 4096))
    (panel,) = panels(replace(examples.good(), growths=grown, measurements=free))
    assert len(panel.curves[0].points) == 1
    nothing = examples.sweep("naive", peaks=(0, 0, 0))
    assert panels(replace(examples.good(), growths=grown, measurements=nothing)) == []


def test_rounds_and_the_interval_of_their_median_stand_around_the_mark():
    time, memory = panels(examples.good())
    for point in time.curves[0].points:
        assert point.high <= point.y <= point.low
        assert point.high < point.low
        assert min(point.rounds) <= point.high + 1
        assert max(point.rounds) >= point.low - 1
    assert all(point.low is None and not point.rounds for point in memory.curves[0].points)


def test_a_median_has_the_interval_of_its_ranks():
    assert _median_interval(list(range(1, 101))) == (41, 61)
    assert _median_interval([1.0, 2.0, 3.0]) == (1.0, 3.0)


def test_an_axis_has_the_symbols_of_the_loss_where_several_change():
    sizes = ({"B": 2, "C": 3, "D": 5}, {"B": 20, "C": 30, "D": 5})
    measured = tuple(report_examples.measurement("naive", sizes=each) for each in sizes)
    grown = (examples.growth("naive", along="elements", sizes={}),)
    (panel,) = panels(replace(examples.good(), growths=grown, measurements=measured))
    assert panel.along == "B × C (D=5)"
    assert [tick.label for tick in panel.x_ticks] == ["2×3", "20×30"]


def test_a_point_that_is_missing_says_why():
    skipped = report_examples.measurement("naive", "skipped", sizes={"N": 4096, "D": 16}, reason="no time was left")
    loss = replace(examples.good(), measurements=(*examples.sweep("naive", "vectorized"), skipped))
    assert {panel.missing for panel in panels(loss)} == {("naive at 4096: no time was left",)}


@pytest.mark.parametrize(
    ("value", "text"),
    [(576, "576"), (8448, "8448"), (12_345, "12.3k"), (0.25, "0.25"), (999_900, "1M"), (3_145_728, "3.15M")],
)
def test_sizes_are_short(value, text):
    assert count_text(value) == text
