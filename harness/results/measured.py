"""What was measured, as records of the report: times, exact costs, comparisons, growth, crossovers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class MeasurementRecord:
    """Seconds per call of one implementation at one size, raw, with costs that do not drift.

    ``process`` says in which process each round ran; ``calls_per_block`` of how many calls each round's time is the mean.
    ``costs`` are the exact costs of one call by the names of `harness.timing.costs.counting.Costs`, empty where unknown.
    ``bound_bytes`` is the least that a pass must move, as the loss declares it.
    ``estimated_seconds`` is what a call that was too slow to be measured would take, by its growth at smaller sizes.
    """

    implementation: str
    device: str
    dtype: str
    sizes: dict[str, Any]
    pass_name: str
    status: str
    reason: str
    seconds_per_call: tuple[float, ...]
    process: tuple[int, ...]
    calls_per_block: int
    costs: dict[str, Any] = field(default_factory=dict)
    cache: str = "warm"
    clock: str = "wall"
    densities: dict[str, float] = field(default_factory=dict)
    compile_seconds: float | None = None
    build_seconds: float | None = None
    first_seconds: float | None = None
    estimated_seconds: float | None = None
    bound_bytes: int | None = None

    @property
    def median_seconds(self) -> float | None:
        """Median of the raw times, or ``None`` where nothing was measured."""
        if not self.seconds_per_call:
            return None
        ordered = sorted(self.seconds_per_call)
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


@dataclass(frozen=True)
class ComparisonRecord:
    """Speedup over the reference at one size: above 1 is faster; ``low`` and ``high`` bound it with 95 % confidence."""

    implementation: str
    reference: str
    device: str
    dtype: str
    sizes: dict[str, Any]
    pass_name: str
    speedup: float | None
    low: float | None
    high: float | None
    verdict: str
    rounds: int
    reason: str
    cache: str = "warm"
    clock: str = "wall"
    densities: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GrowthRecord:
    """``cost`` of an implementation grows as ``along ** exponent``, with its 95 % interval (unknown below three sizes).

    ``cost`` is ``seconds`` or the name of an exact cost; ``along`` a symbol, ``density(NAME)``, or ``elements`` of all tensors;
    ``fixed`` is what stayed the same, ``last_exponent`` the slope between the two largest sizes.
    """

    implementation: str
    device: str
    dtype: str
    pass_name: str
    cache: str
    clock: str
    cost: str
    along: str
    fixed: dict[str, float]
    sizes: tuple[float, ...]
    costs: tuple[float, ...]
    exponent: float
    low: float | None
    high: float | None
    last_exponent: float


@dataclass(frozen=True)
class CrossoverRecord:
    """``overtaking`` is slower at ``below`` and faster at ``above`` than ``overtaken``, both settled; ``estimate`` between."""

    overtaking: str
    overtaken: str
    device: str
    dtype: str
    pass_name: str
    cache: str
    clock: str
    along: str
    fixed: dict[str, float]
    below: float
    above: float
    estimate: float
