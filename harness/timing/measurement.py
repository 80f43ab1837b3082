"""What a benchmark found: measurements, paired comparisons, and their tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from statistics import median
from typing import TYPE_CHECKING, Any

from harness.declare.dims import Size
from harness.results.findings import Finding
from harness.timing.admission import Status
from harness.timing.costs.counting import Costs
from harness.timing.statistics import Verdict
from harness.timing.workload import Cache, ClockName, Pass

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Measurement:
    """One implementation on one input, in one pass.

    Args:
        loss: name of the spec.
        implementation: name of the implementation.
        device: where it ran.
        dtype: name of the floating dtype.
        sizes: size of every symbol.
        pass_name: ``forward``, ``backward``, or ``full`` for both.
        status: ``measured``, ``skipped`` or ``failed``; only what is measured has times.
        reason: why not, or what is unusual about it.
        seconds_per_call: raw, one per round.
        process: which process each round ran in.
        calls_per_block: calls that each round's time is the mean of.
        costs: exact costs of one call; ``None`` where unknown.
        cache: ``warm``, or ``cold`` where the caches were emptied before every call, those of the interpreter's own code included.
        clock: ``wall``, ``events`` or ``graph``; see `harness.timing.workload.Cell`.
        densities: part of the elements that is not zero, of the tensors that were thinned.
        compile_seconds: how much longer the first call took than the second, apart from ``seconds_per_call``; ``None`` where
            nothing was compiled.  A kernel that another variant had compiled in this run was found, and took less.
        build_seconds: of the constructor, in which a table of the context may be made; in no call's time.  The least of all processes.
        first_seconds: of the first call in a process, likewise; ``None`` where it counts as any other.
        estimated_seconds: what a call would take by the growth at smaller sizes, where it was too slow to be measured; an
            estimate, never compared with anything.
        elements: number of elements of all tensors together.
        bound_bytes: least number of bytes that a pass must move, as the spec declares it; ``None`` where it does not.
    """

    loss: str
    implementation: str
    device: str
    dtype: str
    sizes: Mapping[str, Size]
    pass_name: Pass
    status: Status
    reason: str = ""
    seconds_per_call: tuple[float, ...] = ()
    process: tuple[int, ...] = ()
    calls_per_block: int = 0
    costs: Costs | None = None
    cache: Cache = "warm"
    clock: ClockName = "wall"
    densities: Mapping[str, float] = field(default_factory=dict)
    compile_seconds: float | None = None
    build_seconds: float | None = None
    first_seconds: float | None = None
    estimated_seconds: float | None = None
    elements: int = 0
    bound_bytes: int | None = None

    @property
    def moved_over_bound(self) -> float | None:
        """Bytes that one call moves over the least that a pass must move: 1 is the best; ``None`` where either is unknown."""
        moved = None if self.costs is None else self.costs.moved_bytes
        return None if moved is None or not self.bound_bytes else moved / self.bound_bytes

    @property
    def median_seconds(self) -> float | None:
        """Median of the rounds, in seconds per call; ``None`` (unknown) where nothing was measured."""
        return median(self.seconds_per_call) if self.seconds_per_call else None


@dataclass(frozen=True)
class Comparison:
    """An implementation against the reference, or a compiled variant against its eager form, in paired rounds.

    ``speedup`` is reference time / implementation time, ``low`` and ``high`` its 95 % interval.  There is a comparison only
    where both were measured in at least two common rounds.
    """

    loss: str
    implementation: str
    reference: str
    device: str
    dtype: str
    sizes: Mapping[str, Size]
    pass_name: Pass
    speedup: float
    low: float
    high: float
    verdict: Verdict
    rounds: int
    reason: str = ""
    cache: Cache = "warm"
    clock: ClockName = "wall"
    densities: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """Every measurement that was asked for, measured or not, and the comparisons that they allow.

    ``findings`` are of rules M01 to M07: why the times of an implementation are not those of the loss.
    """

    loss: str
    seed: int
    environment: Mapping[str, object]
    measurements: tuple[Measurement, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    def frame(self) -> pd.DataFrame:
        """One row per measurement; times in seconds per call, costs in bytes and calls, sizes also as ``size_<symbol>``."""
        return _frame([_measurement_row(m) for m in self.measurements])

    def comparisons_frame(self) -> pd.DataFrame:
        """One row per comparison; ``speedup`` is reference time / implementation time."""
        return _frame([_comparison_row(c) for c in self.comparisons])


def rounds_in_common(base: Measurement, measurement: Measurement) -> tuple[list[float], list[float], list[int]]:
    """Seconds of both in the rounds that both ran, and the process of each round.

    Rounds are paired by process and position: a slow implementation runs in the first rounds of each process.
    """
    theirs, ours = _by_round(base), _by_round(measurement)
    common = [key for key in ours if key in theirs]
    return [theirs[key] for key in common], [ours[key] for key in common], [process for process, _ in common]


def _by_round(measurement: Measurement) -> dict[tuple[int, int], float]:
    seen: Counter[int] = Counter()
    rounds = {}
    for process, seconds in zip(measurement.process, measurement.seconds_per_call, strict=True):
        rounds[process, seen[process]] = seconds
        seen[process] += 1
    return rounds


def _measurement_row(measurement: Measurement) -> dict[str, Any]:
    times, costs = sorted(measurement.seconds_per_call), measurement.costs
    return {
        **_place(measurement),
        "status": measurement.status,
        "reason": measurement.reason,
        "median_seconds": measurement.median_seconds,
        "least_seconds": times[0] if times else None,
        "greatest_seconds": times[-1] if times else None,
        "rounds": len(times),
        "processes": len(set(measurement.process)),
        "calls_per_block": measurement.calls_per_block,
        "compile_seconds": measurement.compile_seconds,
        "build_seconds": measurement.build_seconds,
        "first_seconds": measurement.first_seconds,
        "estimated_seconds": measurement.estimated_seconds,
        **(dict.fromkeys(_COSTS) if costs is None else asdict(costs)),
        "elements": measurement.elements,
        "bound_bytes": measurement.bound_bytes,
        "moved_over_bound": measurement.moved_over_bound,
        **_size_columns(measurement.sizes),
    }


def _comparison_row(comparison: Comparison) -> dict[str, Any]:
    return {
        **_place(comparison),
        "reference": comparison.reference,
        "speedup": comparison.speedup,
        "low": comparison.low,
        "high": comparison.high,
        "verdict": comparison.verdict,
        "rounds": comparison.rounds,
        "reason": comparison.reason,
        **_size_columns(comparison.sizes),
    }


def _place(row: Measurement | Comparison) -> dict[str, Any]:
    cell = {
        "device": row.device,
        "dtype": row.dtype,
        "pass_name": row.pass_name,
        "cache": row.cache,
        "clock": row.clock,
    }
    thinned = {f"density_{name}": density for name, density in row.densities.items()}
    return {"loss": row.loss, "implementation": row.implementation, **cell, **thinned}


def _size_columns(sizes: Mapping[str, Size]) -> dict[str, Any]:
    return {
        f"size_{symbol}": size if isinstance(size, int) else "x".join(map(str, size)) for symbol, size in sizes.items()
    }


_COSTS = tuple(f.name for f in fields(Costs))
_UNKNOWN_INTEGERS = (*(f.name for f in fields(Costs) if "int" in str(f.type)), "bound_bytes")


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd  # half a second that nobody who only verifies should wait for

    frame = pd.DataFrame(list(rows))
    present = [column for column in _UNKNOWN_INTEGERS if column in frame]
    return frame.astype(dict.fromkeys(present, "Int64"))
