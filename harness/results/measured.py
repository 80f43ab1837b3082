"""What was measured, as frozen data of JSON types: times, exact costs, comparisons, growth, crossovers; without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import median
from typing import Any, Literal, get_args

Speed = Literal["faster", "slower", "equivalent", "inconclusive"]
# A change of 5 % is the smallest that interleaved rounds on a shared machine tell from none: of 300 comparisons of a function
# with itself, on two cores with five busy processes, none had its whole interval outside this margin, and of 100 with 5 %
# more work 99 showed a change (`loss-harness calibrate`).
# The margin is symmetric in log time, [1 / 1.05, 1.05], so that swapping the two sides mirrors the verdict.
MARGIN = 1.05
Pass = Literal["forward", "backward", "full"]
Cache = Literal["warm", "cold"]
ClockName = Literal["wall", "events", "graph"]
PASSES: tuple[Pass, ...] = get_args(Pass)
CACHES: tuple[Cache, ...] = get_args(Cache)
CLOCKS: tuple[ClockName, ...] = get_args(ClockName)
DTYPES = ("float64", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Cell:
    """One input, one pass and one way to time it: what the implementations are compared on.

    In every pass the differentiable inputs require grad, as in training.

    Args:
        sizes: a size for every symbol; several where it stands for several axes.
        device: where the tensors lie.
        dtype: name of the floating dtype.
        pass_name: ``forward``; ``backward`` alone, through a graph that is kept; ``full``, forward and backward.
        cache: ``warm``, or ``cold`` where the caches are emptied before every call, those of the interpreter's own code included.
        clock: ``wall`` time on the host; ``events`` on a CUDA stream; ``graph``, events around the replay of a CUDA graph.
        densities: part of the elements that is not zero, for tensors that are thinned.
    """

    sizes: Mapping[str, int | tuple[int, ...]]
    device: str
    dtype: str
    pass_name: str
    cache: str = "warm"
    clock: str = "wall"
    densities: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        sizes = ", ".join(f"{symbol}={axes_text(size) or '()'}" for symbol, size in self.sizes.items())
        thinned = [f"density({name})={density:g}" for name, density in self.densities.items()]
        unusual = [how for how in (self.cache, self.clock) if how not in ("warm", "wall")]
        return ", ".join([sizes or "fixed sizes", self.dtype, self.device, self.pass_name, *thinned, *unusual])

    @property
    def cell(self) -> Cell:
        """The cell of a record, by itself."""
        return Cell(**{f.name: getattr(self, f.name) for f in fields(Cell)})

    @property
    def setting(self) -> tuple[str, str, str, str, str]:
        """Everything but the input."""
        return (self.device, self.dtype, self.pass_name, self.cache, self.clock)

    @property
    def coordinates(self) -> dict[str, float]:
        """The input as numbers: each size, of several axes by their elements, and each density as ``density(NAME)``."""
        sizes = {symbol: math.prod(size) if isinstance(size, tuple) else size for symbol, size in self.sizes.items()}
        return {**sizes, **{f"density({name})": density for name, density in self.densities.items()}}

    @property
    def fixed_text(self) -> str:
        """The input as ``N=64, density(mask)=0.1``."""
        return ", ".join(f"{name}={value:g}" for name, value in self.coordinates.items())


def axes_text(size: int | Sequence[int]) -> str:
    """``64``, or ``2x3`` for several axes."""
    return str(size) if isinstance(size, int) else "x".join(map(str, size))


@dataclass(frozen=True, kw_only=True)
class Measurement(Cell):
    """One implementation on one input, in one pass.

    Args:
        implementation: name of the implementation.
        status: ``measured``, ``skipped`` or ``failed``; only what is measured has times.
        reason: why not, or what is unusual about it.
        seconds_per_call: raw, one per round.
        process: which process each round ran in.
        calls_per_block: calls that each round's time is the mean of.
        costs: exact costs of one call by the names of `harness.timing.costs.counting.Costs`; empty where unknown.
        compile_seconds: how much longer the first call took than the second, apart from ``seconds_per_call``; ``None`` where
            nothing was compiled.  A kernel that another variant had compiled in this run was found, and took less.
        build_seconds: of the constructor, in which a table of the context may be made; in no call's time.  The least of all processes.
        first_seconds: of the first call in a process, likewise; ``None`` where it counts as any other.
        estimated_seconds: what a call would take by the growth at smaller sizes, where it was too slow to be measured; an
            estimate, never compared with anything.
        elements: number of elements of all tensors together; ``None`` where unknown.
        bound_bytes: least number of bytes that a pass must move, as the spec declares it; ``None`` where it does not.
    """

    implementation: str
    status: str
    reason: str = ""
    seconds_per_call: tuple[float, ...] = ()
    process: tuple[int, ...] = ()
    calls_per_block: int = 0
    costs: Mapping[str, int | None] = field(default_factory=dict)
    compile_seconds: float | None = None
    build_seconds: float | None = None
    first_seconds: float | None = None
    estimated_seconds: float | None = None
    elements: int | None = None
    bound_bytes: int | None = None

    @property
    def is_planned(self) -> bool:
        """Whether it is about one input; else it stands for a loss that was not measured at all."""
        return bool(self.dtype)

    @property
    def moved_bytes(self) -> int | None:
        """Bytes read and written; ``None`` where either is unknown."""
        read, written = self.costs.get("read_bytes"), self.costs.get("written_bytes")
        return None if read is None or written is None else read + written

    @property
    def moved_over_bound(self) -> float | None:
        """Bytes that one call moves over the least that a pass must move: 1 is the best; ``None`` where either is unknown."""
        moved = self.moved_bytes
        return None if moved is None or not self.bound_bytes else moved / self.bound_bytes

    @property
    def median_seconds(self) -> float | None:
        """Median of the rounds, in seconds per call; ``None`` (unknown) where nothing was measured."""
        return median(self.seconds_per_call) if self.seconds_per_call else None

    def row(self, loss: str) -> dict[str, Any]:
        """One row of a table: times in seconds per call, costs in bytes and calls, sizes also as ``size_<symbol>``."""
        times = sorted(self.seconds_per_call)
        return {
            **_place(loss, self),
            "status": self.status,
            "reason": self.reason,
            "median_seconds": self.median_seconds,
            "least_seconds": times[0] if times else None,
            "greatest_seconds": times[-1] if times else None,
            "rounds": len(times),
            "processes": len(set(self.process)),
            "calls_per_block": self.calls_per_block,
            "compile_seconds": self.compile_seconds,
            "build_seconds": self.build_seconds,
            "first_seconds": self.first_seconds,
            "estimated_seconds": self.estimated_seconds,
            **self.costs,
            "elements": self.elements,
            "bound_bytes": self.bound_bytes,
            "moved_over_bound": self.moved_over_bound,
            **size_columns(self.sizes),
        }


@dataclass(frozen=True, kw_only=True)
class Comparison(Cell):
    """An implementation against the reference, or a compiled variant against its eager form, in paired rounds.

    ``speedup`` is reference time / implementation time, ``low`` and ``high`` its 95 % interval.  There is a comparison only
    where both were measured in at least two common rounds.
    """

    implementation: str
    reference: str
    speedup: float | None
    low: float | None
    high: float | None
    verdict: Speed
    rounds: int
    reason: str = ""

    def row(self, loss: str) -> dict[str, Any]:
        """One row of a table."""
        own = ("reference", "speedup", "low", "high", "verdict", "rounds", "reason")
        return {**_place(loss, self), **{name: getattr(self, name) for name in own}, **size_columns(self.sizes)}


def _place(loss: str, record: Measurement | Comparison) -> dict[str, Any]:
    cell = {name: getattr(record, name) for name in ("device", "dtype", "pass_name", "cache", "clock")}
    thinned = {f"density_{name}": density for name, density in record.densities.items()}
    return {"loss": loss, "implementation": record.implementation, **cell, **thinned}


def size_columns(sizes: Mapping[str, int | Sequence[int]]) -> dict[str, Any]:
    """Columns of a table: a number, or as `axes_text` writes it where a symbol stands for several axes."""
    return {f"size_{symbol}": size if isinstance(size, int) else axes_text(size) for symbol, size in sizes.items()}


@dataclass(frozen=True, kw_only=True)
class Growth(Cell):
    """``cost`` of an implementation grows as ``along ** exponent``, while the sizes and densities stay what they are.

    Args:
        implementation: its name.
        cost: ``seconds`` (medians), or the name of an exact cost.
        along: the symbol; ``density(NAME)``; or ``elements`` of all tensors, where several sizes change together.
        at: values along the sweep, ascending.
        costs: the cost at each.
        exponent: the slope in log-log.
        low: lower end of its 95 % interval; ``None`` (unknown) for fewer than three sizes.
        high: the upper end.
        last_exponent: the slope between the two largest sizes.
    """

    implementation: str
    cost: str
    along: str
    at: tuple[float, ...]
    costs: tuple[float, ...]
    exponent: float
    low: float | None
    high: float | None
    last_exponent: float

    def fitted(self, at: float) -> float:
        """The cost at a size by the law: least squares on the logarithms goes through their mean."""
        points = [(math.log(x), math.log(y)) for x, y in zip(self.at, self.costs, strict=True) if x > 0 and y > 0]
        if not points:
            return 0.0
        x, y = (sum(each) / len(points) for each in zip(*points, strict=True))
        return math.exp(y + self.exponent * (math.log(at) - x))


@dataclass(frozen=True, kw_only=True)
class Crossover(Cell):
    """``overtaking`` is slower at ``below`` and faster at ``above`` than ``overtaken``, both settled; ``estimate`` between."""

    overtaking: str
    overtaken: str
    along: str
    below: float
    above: float
    estimate: float
