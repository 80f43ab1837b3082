"""Speed of every implementation at every benchmark size; exact costs stand in ``extra_info``.

Each test gives the time of one implementation alone.  Who is faster is for `harness.benchmark`, which interleaves.
"""

import pytest

from harness.timing.costs import count
from harness.timing.workload import PASSES, Cell, Workload, checked_sizes, inputs
from losses import SPECS


def _text(sizes):
    return "-".join(
        f"{name}{'x'.join(map(str, size)) if isinstance(size, tuple) else size}" for name, size in sizes.items()
    )


def _benchmarks():
    for spec in SPECS:
        for rung, sizes in enumerate(checked_sizes(spec, None)):
            for name in spec.implementations:
                if name == spec.reference and rung > 0:
                    continue  # a loop's growth is known, and its larger sizes only cost patience
                for pass_name in PASSES:
                    place = f"{spec.name}-{_text(sizes)}-{pass_name}"
                    yield pytest.param(spec, name, sizes, pass_name, place, id=f"{place}-{name}")


@pytest.mark.benchmark(min_time=1e-3, max_time=0.2, min_rounds=5, warmup=True, warmup_iterations=10)
@pytest.mark.parametrize(("spec", "name", "sizes", "pass_name", "place"), list(_benchmarks()))
def test_speed(benchmark, spec, name, sizes, pass_name, place):
    cell = Cell(sizes, "cpu", "float32", pass_name)
    tensors = inputs(spec, cell, seed=0)
    workload = Workload(spec, name, tensors)
    costs = count(workload.call(pass_name))
    benchmark.group = place
    benchmark.extra_info.update(aten_calls=costs.aten_calls, saved_bytes=costs.saved_bytes)
    loss = benchmark(workload.call(pass_name))
    assert bool(loss.isfinite().all())
    for leaf in workload.leaves if pass_name == "full" else ():
        assert leaf.grad is not None
        assert bool(leaf.grad.isfinite().all())


def test_every_fast_implementation_is_timed_at_every_size():
    timed = {(p.values[0].name, p.values[1], tuple(p.values[2].items()), p.values[3]) for p in _benchmarks()}
    expected = {
        (spec.name, name, tuple(sizes.items()), pass_name)
        for spec in SPECS
        for name in list(spec.implementations)[1:]
        for sizes in checked_sizes(spec, None)
        for pass_name in PASSES
    }
    assert expected <= timed


def test_every_loop_is_timed_somewhere():
    timed = {(p.values[0].name, p.values[1]) for p in _benchmarks()}
    assert {(spec.name, spec.reference) for spec in SPECS} <= timed
