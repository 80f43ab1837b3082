from dataclasses import asdict

import pytest

from harness import DeclarationError, LossSpec, TensorSpec
from harness.results.measured import Cell
from harness.timing import growth as scaling
from harness.timing.benchmark import Benchmark, Costs, Measurement


def row(name, seconds, sizes, *, densities=None, costs=None, elements=0, rounds=10, **changes):
    cell = Cell(sizes, "cpu", "float32", "full", densities=densities or {})
    times = () if seconds is None else tuple(seconds * (1 + 0.001 * number) for number in range(rounds))
    return Measurement(
        **vars(cell),
        implementation=name,
        status="measured" if times else "skipped",
        seconds_per_call=times,
        process=tuple(0 for _ in times),
        costs={} if costs is None else asdict(costs),
        elements=elements,
        **changes,
    )


def measured(*rows):
    return Benchmark("graph", 0, {}, rows, ())


def growth_of(found, cost, name="dense"):
    (growth,) = [growth for growth in found if (growth.cost, growth.implementation) == (cost, name)]
    return growth


def test_every_cost_grows_along_the_symbol_that_changes_alone():
    rows = [row("dense", 1e-9 * n**2, {"N": n, "D": 16}, costs=Costs(7, 4 * n, peak_bytes=n**2)) for n in (16, 64, 256)]
    found = scaling.growths(measured(*rows))
    assert {growth.cost for growth in found} == {"seconds", "aten_calls", "saved_bytes", "peak_bytes"}
    assert {growth.along for growth in found} == {"N"}
    assert growth_of(found, "seconds").exponent == pytest.approx(2.0)
    assert growth_of(found, "aten_calls").exponent == pytest.approx(0.0)
    assert growth_of(found, "saved_bytes").exponent == pytest.approx(1.0)
    assert growth_of(found, "peak_bytes").costs == (256.0, 4096.0, 65536.0)
    assert growth_of(found, "seconds").sizes == {"D": 16}


def test_bytes_that_are_moved_grow_where_both_ways_are_known():
    def found(**costs):
        rows = [row("dense", 1e-6, {"N": n}, costs=Costs(7, 0, read_bytes=8 * n, **costs)) for n in (16, 64, 256)]
        return scaling.growths(measured(*rows))

    assert growth_of(found(written_bytes=0), "moved_bytes").costs == (128.0, 512.0, 2048.0)
    assert "moved_bytes" not in {growth.cost for growth in found()}


def test_flops_that_leave_calls_out_are_not_fitted():
    def found(left_out):
        rows = [
            row("dense", 1e-6, {"N": n}, costs=Costs(7, 0, flops=n**2, flops_left_out_calls=left_out))
            for n in (16, 64, 256)
        ]
        return {growth.cost for growth in scaling.growths(measured(*rows))}

    assert found(0) - found(1) == {"flops"}
    assert "aten_calls" in found(1)


def test_two_symbols_that_are_swept_apart_have_an_exponent_each():
    sizes = [{"N": 8, "D": 8}, {"N": 64, "D": 8}, {"N": 8, "D": 32}]
    rows = [row("dense", 1e-9 * each["N"] ** 2 * each["D"], each) for each in sizes]
    found = {growth.along: growth.exponent for growth in scaling.growths(measured(*rows))}
    assert found == {"N": pytest.approx(2.0), "D": pytest.approx(1.0)}


def test_sizes_that_change_together_are_fitted_over_the_elements():
    rows = [row("dense", 1e-9 * n**3, {"N": n, "D": n}, elements=n * n) for n in (8, 64, 512)]
    (growth,) = scaling.growths(measured(*rows))
    assert (growth.along, growth.at) == ("elements", (64.0, 4096.0, 262144.0))
    assert growth.exponent == pytest.approx(1.5)


def test_a_density_is_swept_as_a_size_is():
    rows = [row("sparse", 1e-6 * d, {"N": 512}, densities={"adjacency": d}) for d in (0.001, 0.01, 0.1)]
    (growth,) = scaling.growths(measured(*rows))
    assert (growth.along, growth.sizes) == ("density(adjacency)", {"N": 512})
    assert growth.exponent == pytest.approx(1.0)


def test_axes_that_one_symbol_stands_for_count_by_their_elements():
    rows = [row("dense", 1e-9 * h * w, {"rest": (h, w)}) for h, w in ((2, 8), (8, 8), (8, 32))]
    (growth,) = scaling.growths(measured(*rows))
    assert growth.at == (16, 64, 256)
    assert growth.exponent == pytest.approx(1.0)


def test_what_was_not_measured_takes_no_part():
    rows = [row("dense", 1e-6, {"N": 16}), row("dense", 4e-6, {"N": 32}), row("dense", None, {"N": 64})]
    assert scaling.growths(measured(*rows))[0].at == (16, 32)


def test_one_size_is_no_sweep():
    assert scaling.growths(measured(row("dense", 1e-6, {"N": 16}))) == ()


def test_two_implementations_cross_where_the_order_turns():
    rows = []
    for n in (16, 64, 256):
        rows += [row("naive", 1e-3, {"N": n}), row("dense", 1e-9 * n**2, {"N": n}), row("sparse", 6.4e-8 * n, {"N": n})]
    (crossover,) = scaling.crossovers(measured(*rows))  # the naive one is behind at every size
    assert (crossover.overtaking, crossover.overtaken, crossover.along) == ("sparse", "dense", "N")
    assert (crossover.below, crossover.above) == (16, 256)  # at 64 they are equal: the order is open
    assert crossover.estimate == pytest.approx(64, rel=0.01)


def test_the_frame_has_the_data_of_a_plot():
    rows = [row("dense", 1e-9 * n**2, {"N": n, "D": 16}) for n in (16, 64, 256)]
    frame = scaling.frame(scaling.growths(measured(*rows)))
    assert list(frame["at"]) == [16, 64, 256]
    assert frame["fitted"].tolist() == pytest.approx(frame["value"].tolist(), rel=0.02)
    assert set(frame["fixed"]) == {"D=16"}


def loss(embeddings):
    return embeddings.sum()


SPEC = LossSpec(
    name="swept",
    implementations={"loss": loss},
    inputs={"embeddings": TensorSpec("N D")},
    context={},
    output=TensorSpec(""),
    bench_sizes=({"N": 8, "D": 4}, {"N": 64, "D": 4}),
)


def test_a_sweep_changes_one_symbol_at_a_time_from_the_first_declared_size():
    assert scaling.swept(SPEC, {"N": (16, 32), "D": (4, 8)}) == (
        {"N": 16, "D": 4},
        {"N": 32, "D": 4},
        {"N": 8, "D": 4},
        {"N": 8, "D": 8},
    )
    assert scaling.swept(SPEC, {"N": (16,)}, base={"N": 1, "D": 2}) == ({"N": 16, "D": 2},)


def test_a_symbol_that_the_loss_has_not_is_refused_by_the_nearest_name():
    with pytest.raises(DeclarationError, match="no symbol 'n' to sweep"):
        scaling.swept(SPEC, {"n": (1, 2)})
