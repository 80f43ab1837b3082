import pytest

from harness.report import timings
from harness.results.measured import Crossover, Growth
from property_tests.examples import report_examples as examples

SETTING = {"device": "cpu", "dtype": "float32", "pass_name": "full", "cache": "warm", "clock": "wall"}


def growth(**changes):
    made = {
        "implementation": "vectorized",
        **SETTING,
        "cost": "seconds",
        "along": "N",
        "sizes": {"D": 16},
        "at": (16.0, 64.0),
        "costs": (1e-5, 1.6e-4),
        "exponent": 2.0,
        "low": 1.9,
        "high": 2.1,
        "last_exponent": 2.05,
    }
    return Growth(**made | changes)


def crossover(**changes):
    made = {
        "overtaking": "sparse",
        "overtaken": "dense",
        **SETTING,
        "along": "N",
        "sizes": {"D": 16},
        "below": 128.0,
        "above": 256.0,
        "estimate": 190.4,
    }
    return Crossover(**made | changes)


def rows_of(record):
    """(rows by column name, what stands below)."""
    (header, *rows), notes = timings.timing_table([record])
    return [dict(zip(header, row, strict=True)) for row in rows], notes


def test_a_row_has_median_speedup_interval_and_costs():
    rows, notes = timings.timing_table([examples.loss()])
    assert rows[2] == [
        *("graph_distance", "N=128", "cpu, float32, full pass", "vectorized", "20 µs", "5×", "4.5× to 5.5×", "faster"),
        *("7", "1.5 KiB", "1.5×", "4 KiB", "8 KiB"),
    ]
    assert notes == []


def test_unknown_costs_are_empty_and_not_zero():
    known, unknown = examples.measurement("naive"), examples.measurement(costs={"aten_calls": 3, "read_bytes": 8})
    (_, row), _ = rows_of(examples.loss(measurements=(known, unknown)))
    assert [row[name] for name in ("ATen calls", "moved", "over bound", "saved", "peak")] == ["3", "", "", "", ""]


def test_a_column_in_which_no_row_has_anything_is_left_out():
    rows, _ = rows_of(examples.loss(measurements=(examples.measurement(bound_bytes=None),), comparisons=()))
    assert list(rows[0])[4:] == ["median", "verdict", "ATen calls", "moved", "saved", "peak"]


LONG = "too slow at N=16384, float32, cpu, full, which is no larger: one call takes longer than the 15 s that were left"


def test_why_something_was_not_measured_stands_below_the_table_once():
    measurements = [examples.measurement()]
    for reason in (LONG, "no CUDA device", LONG):
        measurements.append(examples.measurement(status="skipped", reason=reason))
    record = examples.loss(measurements=tuple(measurements), comparisons=())
    rows, notes = rows_of(record)
    assert [row["verdict"] for row in rows[1:]] == ["skipped (1)", "skipped (2)", "skipped (1)"]
    assert notes == [f"(1) {LONG}", "(2) no CUDA device"]
    shown = timings.timings_text(examples.report(record))
    assert shown.count(LONG) == 1
    assert all(len(line) < 150 for line in shown.splitlines())


def test_notes_are_numbered_through_several_losses():
    first, second = (
        examples.loss(name=name, measurements=(examples.measurement(status="failed", reason=name),), comparisons=())
        for name in ("focal", "dice")
    )
    rows, notes = timings.timing_table([first, second])
    assert [row[-1] for row in rows] == ["verdict", "failed (1)", "failed (2)"]
    assert notes == ["(1) focal", "(2) dice"]


def test_where_only_costs_were_taken_one_line_says_so_and_no_row():
    asked = {"status": "skipped", "reason": "only exact costs were asked for"}
    taken = (examples.measurement(costs=examples.COSTS, **asked), examples.measurement("naive", "skipped", reason=LONG))
    rows, notes = rows_of(examples.loss(measurements=taken, comparisons=()))
    assert [row["verdict"] for row in rows] == ["", "skipped (1)"]
    assert notes == ["Nothing was timed: only exact costs were asked for", f"(1) {LONG}"]
    (only,), _ = rows_of(examples.loss(measurements=taken[:1], comparisons=()))
    assert "verdict" not in only


def test_an_estimate_is_shown_as_one():
    slow = examples.measurement(status="skipped", reason="too slow", estimated_seconds=3.2)
    shown = timings.timings_text(examples.report(examples.loss(measurements=(slow,), comparisons=())))
    assert "~3.2 s (estimate)" in shown


def test_no_timing_is_said_in_words():
    assert timings.timings_text(examples.report(examples.loss(measurements=()))) == "nothing was timed"


def test_growth_and_crossovers_stand_below_the_times():
    record = examples.loss(growths=(growth(), growth(cost="flops")), crossovers=(crossover(),))
    shown = timings.timings_text(examples.report(record))
    assert "N^2.00" in shown
    assert "1.90 to 2.10" in shown
    assert "FLOPs" not in shown
    assert (
        "graph_distance: sparse overtakes dense between N=128 and N=256, at about 190 (cpu, float32, full pass; D=16)"
        in shown
    )


@pytest.mark.parametrize(
    ("found", "law"),
    [
        ({"low": None, "high": None}, ["too few sizes to tell", "none from 2 sizes"]),
        ({"low": -4.2, "high": 4.2, "at": (8.0, 64.0, 512.0)}, ["too few sizes to tell", "±4.20 from 3 sizes"]),
        ({"low": 1.01, "high": 2.99}, ["N^2.00", "1.01 to 2.99"]),
    ],
)
def test_an_exponent_that_the_sizes_do_not_tell_is_not_shown_as_one(found, law):
    _, row = timings.growth_table([examples.loss(growths=(growth(**found),))])
    assert row[5:7] == law


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, ""),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (8448, "8.25 KiB"),
        (2**20 - 1, "1024 KiB"),
        (5 * 2**30, "5 GiB"),
    ],
)
def test_bytes_have_a_unit(count, text):
    assert timings.bytes_text(count) == text


def test_a_compiled_row_names_its_time_to_compile_and_its_speedup_is_that_over_the_reference():
    name = "vectorized (compiled)"
    record = examples.loss(
        measurements=(examples.measurement(name, compile_seconds=4.2, costs={"aten_calls": None, "graphs": 1}),),
        comparisons=(
            examples.comparison(implementation=name, speedup=9.0),
            examples.comparison(implementation=name, reference="vectorized", speedup=1.8),
        ),
    )
    [row], _ = rows_of(record)
    assert row["implementation"] == "vectorized (compiled in 4.2 s)"
    assert row["speedup"] == "9×"


def test_a_row_names_whoever_stands_in_for_a_reference_that_was_too_slow():
    made = examples.comparison(reference="dense")
    assert rows_of(examples.loss(comparisons=(made,)))[0][1]["verdict"] == "faster (against dense)"
