"""How costs grow along a sweep, and where one implementation overtakes another.

measured = benchmark(spec, sizes=swept(spec, {"N": (64, 128, 256, 512)}))
growths(measured)       seconds of `vectorized` grow as N^1.02 (0.97 to 1.08)
crossovers(measured)    `sparse` overtakes `dense` between N=128 and N=256, at about 190
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from harness.declare.dims import Size
from harness.declare.spec import LossSpec
from harness.errors import DeclarationError, nearest
from harness.results.measured import Cell, Crossover, Growth, Measurement
from harness.timing.measurement import Benchmark, rounds_in_common
from harness.timing.scaling import crossings, fit_power_law
from harness.timing.statistics import paired_ratio
from harness.timing.workload import checked_sizes

if TYPE_CHECKING:
    import pandas as pd

SECONDS = "seconds"
EXACT = ("aten_calls", "moved_bytes", "saved_bytes", "peak_bytes", "flops")
ELEMENTS = "elements"


def swept(
    spec: LossSpec, along: Mapping[str, Sequence[Size]], *, base: Mapping[str, Size] | None = None
) -> tuple[dict[str, Size], ...]:
    """Sizes that change one symbol at a time.

    Args:
        spec: the declaration.
        along: for each symbol, the sizes that it takes.
        base: sizes of the other symbols; by default the first of the declared ``bench_sizes``, or of the ladder.

    Raises:
        DeclarationError: no such symbol, or a base that lacks one.
    """
    chosen = checked_sizes(spec, None if base is None else [base])[0]
    for symbol in along:
        if symbol not in chosen:
            raise DeclarationError(
                f"loss {spec.name!r} has no symbol {symbol!r} to sweep; it has {list(chosen)}{nearest(symbol, chosen)}"
            )
    sizes = [{**chosen, symbol: size} for symbol, values in along.items() for size in values]
    return tuple({tuple(each.items()): each for each in sizes}.values())


def growths(benchmark: Benchmark) -> tuple[Growth, ...]:
    """A power law for every cost of every implementation, along everything that was swept.

    A sweep is a set of measurements that differ in one size or density alone.  Where there is none, but several sizes
    change together, costs are fitted over the number of elements of all tensors.  FLOPs are fitted where every call that
    computes has a formula for them.
    """
    found = []
    for (name, _), rows in _groups(benchmark).items():
        for along, cell, series in _series(rows):
            for cost in (SECONDS, *EXACT):
                known = [(at, _cost(row, cost)) for at, row in series if _cost(row, cost) is not None]
                law = fit_power_law([at for at, _ in known], [float(value or 0) for _, value in known])
                if law is not None:
                    at, costs = zip(*known, strict=True)
                    growth = Growth(
                        **vars(cell),
                        implementation=name,
                        cost=cost,
                        along=along,
                        at=at,
                        costs=tuple(map(float, costs)),
                        **vars(law),
                    )
                    found.append(growth)
    return tuple(found)


def crossovers(benchmark: Benchmark) -> tuple[Crossover, ...]:
    """Where any two implementations change places along everything that was swept.

    The order at a size counts where the whole interval of the paired ratio is outside the margin; sizes at which it is open
    lie inside a crossing.  Nothing is extrapolated.
    """
    groups = _groups(benchmark)
    found = []
    for (one, setting), (other, other_setting) in combinations(groups, 2):
        if setting != other_setting:
            continue
        theirs = {(along, _key(cell.coordinates)): series for along, cell, series in _series(groups[other, setting])}
        for along, cell, series in _series(groups[one, setting]):
            facing = dict(theirs.get((along, _key(cell.coordinates)), ()))
            pairs = [(at, row, facing[at]) for at, row in series if at in facing]
            common = [(at, rounds_in_common(second, first)) for at, first, second in pairs]
            ratios = [(at, paired_ratio(*rounds, benchmark.seed)) for at, rounds in common if len(rounds[0]) > 1]
            for crossing in crossings([at for at, _ in ratios], [ratio for _, ratio in ratios]):
                names = (one, other) if crossing.is_overtaking else (other, one)
                crossover = Crossover(
                    **vars(cell),
                    overtaking=names[0],
                    overtaken=names[1],
                    along=along,
                    below=crossing.below,
                    above=crossing.above,
                    estimate=crossing.estimate,
                )
                found.append(crossover)
    return tuple(found)


_Series = list[tuple[float, Measurement]]


def _groups(benchmark: Benchmark) -> dict[tuple[str, tuple[str, ...]], list[Measurement]]:
    groups: dict[tuple[str, tuple[str, ...]], list[Measurement]] = {}
    for row in benchmark.measurements:
        groups.setdefault((row.implementation, row.setting), []).append(row)
    return groups


def _key(fixed: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(fixed.items()))


def _series(rows: Sequence[Measurement]) -> Iterator[tuple[str, Cell, _Series]]:
    """(what changes, what stays, measurements in order) for every sweep; over the elements where nothing changes alone."""
    is_swept = False
    for along in dict.fromkeys(name for row in rows for name in row.coordinates):
        apart: dict[tuple[tuple[str, float], ...], dict[float, Measurement]] = {}
        for row in rows:
            others = row.coordinates
            if along in others:
                at = others.pop(along)
                apart.setdefault(_key(others), {})[at] = row
        for series in apart.values():
            if len(series) > 1:
                is_swept = True
                yield along, _without(next(iter(series.values())).cell, along), sorted(series.items())
    if not is_swept and len({row.elements for row in rows}) > 1:
        series = {float(row.elements or 0): row for row in rows}
        yield ELEMENTS, replace(rows[0].cell, sizes={}, densities={}), sorted(series.items())


def _without(cell: Cell, along: str) -> Cell:
    """What stays the same of a cell: all but one size or density."""
    sizes = {symbol: size for symbol, size in cell.sizes.items() if symbol != along}
    densities = {name: density for name, density in cell.densities.items() if f"density({name})" != along}
    return replace(cell, sizes=sizes, densities=densities)


def _cost(row: Measurement, cost: str) -> float | None:
    if cost == "moved_bytes":
        return row.moved_bytes
    if cost == SECONDS:
        return row.median_seconds
    if cost == "flops" and row.costs.get("flops_left_out_calls"):
        return None  # FLOPs without those of some calls are no number that grows
    return row.costs.get(cost)


def frame(found: Sequence[Growth]) -> pd.DataFrame:
    """One row per growth and size: the data of a plot, with the fitted law beside it."""
    import pandas as pd

    return pd.DataFrame([row for growth in found for row in _rows(growth)])


def _rows(growth: Growth) -> Iterator[dict[str, Any]]:
    cell = {name: getattr(growth, name) for name in ("device", "dtype", "pass_name", "cache", "clock", "cost", "along")}
    for at, cost in zip(growth.at, growth.costs, strict=True):
        yield {
            "implementation": growth.implementation,
            **cell,
            "fixed": growth.fixed_text,
            "at": at,
            "value": cost,
            "fitted": growth.fitted(at),
            "exponent": growth.exponent,
            "exponent_low": growth.low,
            "exponent_high": growth.high,
            "last_exponent": growth.last_exponent,
        }
