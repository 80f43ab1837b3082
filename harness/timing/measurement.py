"""A benchmark: its measurements and paired comparisons, and their tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from harness.results.findings import Finding
from harness.results.measured import Comparison, Measurement
from harness.results.shown import Shown
from harness.timing.costs.counting import Costs

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Benchmark(Shown):
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

    def __repr__(self) -> str:
        return f"Benchmark({self.loss!r}, measurements={len(self.measurements)}, comparisons={len(self.comparisons)})"

    def frame(self) -> pd.DataFrame:
        """One row per measurement; times in seconds per call, costs in bytes and calls, sizes also as ``size_<symbol>``."""
        return _frame([dict.fromkeys(_COSTS) | m.row(self.loss) for m in self.measurements])

    def comparisons_frame(self) -> pd.DataFrame:
        """One row per comparison; ``speedup`` is reference time / implementation time."""
        return _frame([c.row(self.loss) for c in self.comparisons])


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


_COSTS = tuple(f.name for f in fields(Costs))


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd  # half a second that nobody who only verifies should wait for

    frame = pd.DataFrame(list(rows))
    unknown = [column for column in (*_COSTS, "elements", "bound_bytes") if column in frame]
    return frame.astype(dict.fromkeys(unknown, "Int64"))
