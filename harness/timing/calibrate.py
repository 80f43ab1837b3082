"""How far the timing can be believed: a function against itself, and against copies that do a known amount more.

Everything runs through `benchmark`, as a user's losses do: processes, order, blocks and statistics are those of a report.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harness.declare.spec import LossSpec
from harness.declare.tensor_spec import TensorSpec
from harness.errors import HarnessError
from harness.timing.benchmark import Benchmark, Comparison, benchmark
from harness.timing.constants import ROUNDS
from harness.timing.rates import Rate

ALLOWED_FALSE_ALARMS = 0.01
# Some 0.2 ms a call: 100 times the same kernel, so that the calls of the loss are counted in whole per cent.
UNITS = 100
SLOWDOWNS = (3, 5, 10)  # per cent
# Comparisons that share their three processes: a fifth of the time then goes to the starts of processes.
GROUP = 25
# What a group takes on a machine that does nothing else, and a margin for one that does.
GROUP_S = 60.0
# In a report: enough to see what the machine scatters by at that moment, in some ten seconds.
SHORT_PAIRS = 16
# The smallest size; every comparison has one of its own, hence its own tensors and its own random order.
SMALLEST = 256


def _repeat(units: int) -> Callable[[Tensor], Tensor]:
    """A loss that computes the same mean ``units`` times: ``units`` ATen calls and nothing else."""

    def repeated(values: Tensor) -> Tensor:
        for _ in range(units):
            result = values.mean()
        return result

    return repeated


_ONCE = _repeat(UNITS)
SPEC = LossSpec(
    "calibration",
    {"base": _ONCE, "same": _ONCE, **{f"plus_{more}": _repeat(UNITS + more) for more in SLOWDOWNS}},
    inputs={"values": TensorSpec("N")},
    context={},
    output=TensorSpec(""),
)


@dataclass(frozen=True)
class Level:
    """All comparisons with one amount of extra work.

    Args:
        percent: extra work, counted in ATen calls; 0 is the function against itself.
        comparisons: of the function with it; a speedup below 1 is a slowdown.
    """

    percent: float
    comparisons: tuple[Comparison, ...]

    @property
    def called(self) -> Rate:
        """Called faster or slower: the whole interval outside +-5 %."""
        return self._rate(lambda c: c.verdict in ("faster", "slower"))

    @property
    def seen(self) -> Rate:
        """The interval excludes no change: as a slowdown where there is one, and to either side where there is none."""
        return self._rate(self._is_seen)

    @property
    def found(self) -> Rate:
        """Seen, and not called equivalent: right for a slowdown of 5 % or more, while one of 3 % is equivalent."""
        return self._rate(lambda c: self._is_seen(c) and c.verdict != "equivalent")

    @property
    def measured_percent(self) -> float:
        """Median of the measured slowdowns."""
        return 100 * (statistics.median(1 / c.speedup for c in self.comparisons if c.speedup) - 1)

    @property
    def half_width_percent(self) -> float:
        """Median half width of the intervals."""
        return 50 * statistics.median(c.high / c.low - 1 for c in self.comparisons if c.high and c.low)

    def _is_seen(self, made: Comparison) -> bool:
        return (made.high or math.inf) < 1 or (not self.percent and (made.low or 0.0) > 1)

    def _rate(self, counts: Callable[[Comparison], bool]) -> Rate:
        return Rate(sum(counts(c) for c in self.comparisons), len(self.comparisons))


@dataclass(frozen=True)
class Calibration:
    """What the harness says about things whose truth is known.

    Args:
        levels: by extra work, the function against itself first.
        rounds: of each comparison.
        seconds: all of it.
        environment: what it was measured under.
        notes: what went otherwise than planned.
    """

    levels: tuple[Level, ...]
    rounds: int
    seconds: float
    environment: Mapping[str, object]
    notes: tuple[str, ...] = ()

    @property
    def false_alarms(self) -> Rate:
        """How often the function was called faster or slower than itself."""
        return self.levels[0].called

    @property
    def ok(self) -> bool:
        """Whether the false alarms do not refute a rate of 1 %."""
        return not self.false_alarms.is_above(ALLOWED_FALSE_ALARMS)

    def summary(self) -> dict[str, Any]:
        """The figures as JSON types, without the single comparisons."""
        return {
            "rounds": self.rounds,
            "seconds": self.seconds,
            "ok": self.ok,
            "levels": [
                {
                    "slowdown_percent": level.percent,
                    "measured_percent": level.measured_percent,
                    "half_width_percent": level.half_width_percent,
                    "comparisons": len(level.comparisons),
                    "called": level.called.count,
                    "called_interval": list(level.called.interval),
                    "seen": level.seen.count,
                    "seen_interval": list(level.seen.interval),
                    "found": level.found.count,
                    "found_interval": list(level.found.interval),
                }
                for level in self.levels
            ],
            "notes": list(self.notes),
        }

    def to_json(self) -> dict[str, Any]:
        """The figures and the single comparisons, as JSON types."""
        raw = [
            {
                "slowdown_percent": level.percent,
                "comparisons": [
                    {"speedup": c.speedup, "low": c.low, "high": c.high, "verdict": c.verdict, "rounds": c.rounds}
                    for c in level.comparisons
                ],
            }
            for level in self.levels
        ]
        return {**self.summary(), "environment": dict(self.environment), "raw": raw}


def calibrate(
    pairs: int = 300,
    *,
    rounds: int = ROUNDS,
    budget_s: float | None = None,
    device: str = "cpu",
    seed: int = 0,
    slowdowns: tuple[int, ...] = SLOWDOWNS,
    watch: Callable[[str, int, int], None] = lambda text, done, total: None,
) -> Calibration:
    """Compare a function with itself, and with copies that call the same kernel 3, 5 and 10 % more often.

    Every comparison has three processes and ``rounds`` rounds, as in a report; comparisons share processes in groups, and
    each group of 25 has one of the slowdowns beside the function and its double.

    Args:
        pairs: comparisons of the function with itself; up to 25 try only the first slowdown, up to 50 the first two, and a
            note says so.
        rounds: of each.
        budget_s: seconds for everything; what does not fit is left out, and a note says so.
        device: where.
        seed: of inputs, order and resampling.
        slowdowns: per cent of extra work, some of 3, 5 and 10.
        watch: told how many comparisons are done.

    Raises:
        HarnessError: no comparison came about; the message says why.
    """
    begin = time.perf_counter()
    found: dict[int, list[Comparison]] = {percent: [] for percent in (0, *slowdowns)}
    notes: dict[str, str] = {}  # one of each kind: how busy the machine was, each group says anew
    environment: Mapping[str, object] = {}
    why = "no time was left"
    for number, first in enumerate(range(0, pairs, GROUP)):
        watch("comparing", first, pairs)
        left_s = GROUP_S if budget_s is None else budget_s - (time.perf_counter() - begin)
        if left_s <= 0:
            notes["budget"] = (
                f"{len(found[0])} of {pairs} comparisons: the budget of {budget_s:g} s had no time for more"
            )
            break
        more = [slowdowns[number % len(slowdowns)]] if slowdowns else []
        group = range(first, min(first + GROUP, pairs))
        result = _compare(group, more, rounds=rounds, budget_s=min(left_s, GROUP_S), device=device, seed=seed)
        environment = result.environment or environment
        notes |= {note.partition(":")[0]: note for note in result.notes}
        why = next((m.reason for m in result.measurements if m.status != "measured"), why)
        for comparison in result.comparisons:
            found[_percent(comparison.implementation)].append(comparison)
    if not found[0]:
        raise HarnessError(f"no comparison was made on {device}: {why}")
    untried = [percent for percent in slowdowns if not found[percent]]
    if untried:
        notes["untried"] = (
            f"{', '.join(f'+{percent} %' for percent in untried)} not tried: every {GROUP} pairs try one slowdown, so that "
            f"{len(slowdowns)} need {GROUP * (len(slowdowns) - 1) + 1} pairs or more, and the time for them"
        )
    levels = tuple(Level(percent, tuple(made)) for percent, made in found.items() if made)
    return Calibration(levels, rounds, time.perf_counter() - begin, environment, tuple(notes.values()))


def _compare(group: range, more: list[int], *, rounds: int, budget_s: float, device: str, seed: int) -> Benchmark:
    return benchmark(
        SPEC,
        sizes=[{"N": SMALLEST + position} for position in group],
        devices=(device,),
        passes=("forward",),
        implementations=["same", *(f"plus_{percent}" for percent in more)],
        caches=("warm",),
        clocks=("events" if device.startswith("cuda") else "wall",),
        budget_s=budget_s,
        rounds=rounds,
        seed=seed,
    )


def _percent(implementation: str) -> int:
    return 0 if implementation == "same" else int(implementation.removeprefix("plus_"))
