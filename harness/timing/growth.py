"""How costs grow along a sweep, and where one implementation overtakes another.

measured = benchmark(spec, sizes=swept(spec, {"N": (64, 128, 256, 512)}))
growths(measured)       seconds of `vectorized` grow as N^1.02 (0.97 to 1.08)
crossovers(measured)    `sparse` overtakes `dense` between N=128 and N=256, at about 190
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from harness.declare.dims import Size
from harness.declare.spec import LossSpec
from harness.errors import DeclarationError, nearest
from harness.timing.measurement import Benchmark, Measurement, rounds_in_common
from harness.timing.scaling import Crossing, PowerLaw, crossings, fit_power_law
from harness.timing.statistics import paired_ratio
from harness.timing.workload import checked_sizes

if TYPE_CHECKING:
    import pandas as pd

SECONDS = "seconds"
EXACT = ("aten_calls", "moved_bytes", "saved_bytes", "peak_bytes", "flops")
ELEMENTS = "elements"


@dataclass(frozen=True)
class Growth:
    """One cost of one implementation along one symbol or density.

    Args:
        implementation: its name.
        device: where it ran.
        dtype: name of the floating dtype.
        pass_name: ``forward``, ``backward`` or ``full``.
        cache: ``warm`` or ``cold``.
        clock: by which clock.
        cost: ``seconds`` (medians), or the name of an exact cost.
        along: the symbol; ``density(NAME)``; or ``elements`` of all tensors, where several sizes change together.
        fixed: what stays the same.
        sizes: values along the sweep, ascending.
        costs: the cost at each.
        law: the fitted power law.
    """

    implementation: str
    device: str
    dtype: str
    pass_name: str
    cache: str
    clock: str
    cost: str
    along: str
    fixed: Mapping[str, float]
    sizes: tuple[float, ...]
    costs: tuple[float, ...]
    law: PowerLaw


@dataclass(frozen=True)
class Crossover:
    """Where ``implementation`` and ``other`` change places along a sweep; the rest as in `Growth`."""

    implementation: str
    other: str
    device: str
    dtype: str
    pass_name: str
    cache: str
    clock: str
    along: str
    fixed: Mapping[str, float]
    crossing: Crossing


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
    for rows in _groups(benchmark).values():
        for along, fixed, series in _series(rows):
            for cost in (SECONDS, *EXACT):
                known = [(at, _cost(row, cost)) for at, row in series if _cost(row, cost) is not None]
                law = fit_power_law([at for at, _ in known], [float(value or 0) for _, value in known])
                if law is not None:
                    at, costs = zip(*known, strict=True)
                    found.append(Growth(*_setting(rows[0]), cost, along, fixed, at, tuple(map(float, costs)), law))
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
        theirs = {(along, _key(fixed)): series for along, fixed, series in _series(groups[other, setting])}
        for along, fixed, series in _series(groups[one, setting]):
            facing = dict(theirs.get((along, _key(fixed)), ()))
            pairs = [(at, row, facing[at]) for at, row in series if at in facing]
            common = [(at, rounds_in_common(second, first)) for at, first, second in pairs]
            ratios = [(at, paired_ratio(*rounds, benchmark.seed)) for at, rounds in common if len(rounds[0]) > 1]
            found += [
                Crossover(one, other, *setting, along, fixed, crossing)
                for crossing in crossings([at for at, _ in ratios], [ratio for _, ratio in ratios])
            ]
    return tuple(found)


_Setting = tuple[str, str, str, str, str]
_Series = list[tuple[float, Measurement]]


def _groups(benchmark: Benchmark) -> dict[tuple[str, _Setting], list[Measurement]]:
    groups: dict[tuple[str, _Setting], list[Measurement]] = {}
    for row in benchmark.measurements:
        name, *setting = _setting(row)
        groups.setdefault((name, (setting[0], setting[1], setting[2], setting[3], setting[4])), []).append(row)
    return groups


def _setting(row: Measurement) -> tuple[str, str, str, str, str, str]:
    return (row.implementation, row.device, row.dtype, row.pass_name, row.cache, row.clock)


def _coordinates(row: Measurement) -> dict[str, float]:
    sizes = {symbol: math.prod(size) if isinstance(size, tuple) else size for symbol, size in row.sizes.items()}
    return {**sizes, **{f"density({name})": density for name, density in row.densities.items()}}


def _key(fixed: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(fixed.items()))


def _series(rows: Sequence[Measurement]) -> Iterator[tuple[str, dict[str, float], _Series]]:
    """(what changes, what stays, measurements in order) for every sweep; over the elements where nothing changes alone."""
    is_swept = False
    for along in dict.fromkeys(name for row in rows for name in _coordinates(row)):
        apart: dict[tuple[tuple[str, float], ...], dict[float, Measurement]] = {}
        for row in rows:
            others = _coordinates(row)
            if along in others:
                at = others.pop(along)
                apart.setdefault(_key(others), {})[at] = row
        for fixed, series in apart.items():
            if len(series) > 1:
                is_swept = True
                yield along, dict(fixed), sorted(series.items())
    if not is_swept and len({row.elements for row in rows}) > 1:
        yield ELEMENTS, {}, sorted({float(row.elements): row for row in rows}.items())


def _cost(row: Measurement, cost: str) -> float | None:
    if cost == SECONDS:
        return row.median_seconds
    if row.costs is None or (cost == "flops" and row.costs.flops_left_out_calls):
        return None  # FLOPs without those of some calls are no number that grows
    found: float | None = getattr(row.costs, cost)
    return found


def frame(found: Sequence[Growth]) -> pd.DataFrame:
    """One row per growth and size: the data of a plot, with the fitted law beside it."""
    import pandas as pd

    return pd.DataFrame([row for growth in found for row in _rows(growth)])


def _rows(growth: Growth) -> Iterator[dict[str, Any]]:
    law = growth.law
    for at, cost in zip(growth.sizes, growth.costs, strict=True):
        yield {
            "implementation": growth.implementation,
            "device": growth.device,
            "dtype": growth.dtype,
            "pass_name": growth.pass_name,
            "cache": growth.cache,
            "clock": growth.clock,
            "cost": growth.cost,
            "along": growth.along,
            "fixed": ", ".join(f"{name}={value:g}" for name, value in growth.fixed.items()),
            "at": at,
            "value": cost,
            "fitted": law.at(at),
            "exponent": law.exponent,
            "exponent_low": law.low,
            "exponent_high": law.high,
            "last_exponent": law.last_exponent,
        }
