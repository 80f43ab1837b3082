"""One contest: everyone is held to the loops on a small input, then who agrees is timed on the large one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from harness.timing.benchmark import Benchmark, Measurement, benchmark, rounds_in_common
from harness.timing.statistics import Ratio, paired_ratio

from .contest import OURS, Claim, Contest
from .figure import Figure

MIB = 2**20
# The loops on a handful of elements take milliseconds; this is for a package that is slow at its first call.
CHECK_S = 20.0


@dataclass(frozen=True)
class Outcome:
    """What a contest showed.

    Args:
        contest: which.
        excluded: name of a contestant -> why it was not timed.
        benchmark: measurements of the others; ``None`` where ours is wrong.
    """

    contest: Contest
    excluded: Mapping[str, str]
    benchmark: Benchmark | None

    def cells(self) -> Iterator[dict[str, Measurement]]:
        """The measurements of each input, by contestant, ours first."""
        rows = () if self.benchmark is None else self.benchmark.measurements
        cells: dict[str, dict[str, Measurement]] = {}
        for row in rows:
            cells.setdefault(str(row.sizes), {})[row.implementation] = row
        yield from cells.values()

    def figures(self) -> list[Figure]:
        """A figure for each claim and input."""
        cells = list(self.cells())
        if not cells:
            return [_unmeasured(self, claim, self.excluded[OURS]) for claim in self.contest.claims]
        return [_figure(self, claim, cell) for cell in cells for claim in self.contest.claims]


def run(contest: Contest, seed: int = 0) -> Outcome:
    """Check everyone, then time whoever agrees with the loops.

    Args:
        contest: which.
        seed: of inputs, order and resampling.
    """
    excluded = {one.name: one.missing for one in contest.contestants if one.missing}
    present = [one.name for one in contest.contestants if one.name not in excluded]
    excluded |= wrong(contest, present, seed)
    if OURS in excluded:
        return Outcome(contest, excluded, None)
    measured = benchmark(
        contest.spec,
        sizes=contest.sizes,
        passes=(contest.pass_name,),
        implementations=[name for name in present if name not in excluded],
        budget_s=contest.seconds,
        seed=seed,
    )
    return Outcome(contest, excluded, measured)


def wrong(contest: Contest, names: Sequence[str], seed: int = 0) -> dict[str, str]:
    """Who does not compute the value and the gradient of the loops on the small input, in float64, and how they differ."""
    checked = benchmark(
        contest.small_spec,
        sizes=[contest.small],
        dtypes=(torch.float64,),
        passes=(contest.pass_name,),
        implementations=names,
        timed=False,
        budget_s=CHECK_S,
        seed=seed,
    )
    loops, *others = checked.measurements
    if not loops.costs:
        return dict.fromkeys(names, f"the loops gave nothing to be held to: {loops.reason}")
    return {row.implementation: row.reason for row in others if row.status == "failed" or not row.costs}


def speedup(ours: Measurement, other: Measurement, seed: int) -> Ratio | None:
    """How many times our time the other takes, by paired rounds; ``None`` below two rounds in common."""
    mine, theirs, process = rounds_in_common(ours, other)
    return paired_ratio(theirs, mine, process, seed) if len(process) > 1 else None


def peak_ratio(ours: Measurement, other: Measurement) -> float | None:
    """How many times our peak memory the other takes; ``None`` where either is unknown."""
    mine, theirs = (row.costs.get("peak_bytes") for row in (ours, other))
    if mine is None or theirs is None:
        return None
    return theirs / mine if mine else math.inf


def _what(outcome: Outcome, claim: Claim, cell: Mapping[str, Measurement] | None, best: str) -> str:
    where = "" if cell is None or len(list(outcome.cells())) == 1 else f", {place(cell[OURS])}"
    cost = "time" if claim.cost == "seconds" else "peak memory"
    ratio = f"{cost} of ours / {best}" if claim.most is not None else f"{cost} of {best} / ours"
    return f"{outcome.contest.title}{where}: {ratio}"


def place(row: Measurement) -> str:
    """The sizes of a measurement."""
    sizes = {name: "x".join(map(str, size)) if isinstance(size, tuple) else size for name, size in row.sizes.items()}
    return ", ".join(f"{name}={size}" for name, size in sizes.items() if size != "")


def _unmeasured(outcome: Outcome, claim: Claim, reason: str, cell: Mapping[str, Measurement] | None = None) -> Figure:
    target, is_most, is_strict = _target(claim)
    return Figure(_what(outcome, claim, cell, " or ".join(claim.over)), None, target, is_most, is_strict, reason=reason)


def _target(claim: Claim) -> tuple[float, bool, bool]:
    if claim.most is not None:
        return claim.most, True, False
    assert claim.least is not None
    return claim.least, False, claim.least == 1


def _figure(outcome: Outcome, claim: Claim, cell: Mapping[str, Measurement]) -> Figure:
    assert outcome.benchmark is not None
    ours = cell[OURS]
    found: dict[str, Ratio] = {}
    for name in claim.over:
        if name not in cell:
            continue
        if claim.cost == "seconds":
            ratio = speedup(ours, cell[name], outcome.benchmark.seed)
        else:
            exact = peak_ratio(ours, cell[name])
            ratio = None if exact is None else Ratio(exact, exact, exact)
        if ratio is not None:
            found[name] = ratio
    if not found:
        reasons = dict.fromkeys(_why_unknown(outcome, claim, cell, name) for name in claim.over)
        return _unmeasured(outcome, claim, "; ".join(reasons), cell)
    best = min(found, key=lambda name: found[name].speedup)
    ratio = found[best]
    target, is_most, is_strict = _target(claim)
    value, low, high = ratio.speedup, ratio.low, ratio.high
    if claim.most is not None:
        value, low, high = 1 / value, 1 / high, 1 / low
    interval = (low, high) if claim.cost == "seconds" else (None, None)
    return Figure(
        _what(outcome, claim, cell, best),
        value,
        target,
        is_most,
        is_strict,
        *interval,
        reason=claim.why_not,
        detail=_detail(claim, ours, cell[best]),
    )


def _why_unknown(outcome: Outcome, claim: Claim, cell: Mapping[str, Measurement], name: str) -> str:
    """Why there is no ratio with a contestant."""
    if name in outcome.excluded:
        return outcome.excluded[name]
    row = next((cell[who] for who in (name, OURS) if cell[who].status != "measured"), None)
    if row is not None:
        return row.reason
    return "too few rounds in common" if claim.cost == "seconds" else "the peak of a slow loop of calls is not taken"


def _detail(claim: Claim, ours: Measurement, other: Measurement) -> str:
    shown = [milliseconds(row) if claim.cost == "seconds" else mebibytes(row) for row in (ours, other)]
    return f"ours {shown[0]}, theirs {shown[1]}"


def milliseconds(row: Measurement) -> str:
    """The median time of a call."""
    return "-" if row.median_seconds is None else f"{1e3 * row.median_seconds:.3g} ms"


def mebibytes(row: Measurement) -> str:
    """The peak of a call above its inputs."""
    peak = row.costs.get("peak_bytes")
    return "-" if peak is None else f"{peak / MIB:.3g} MiB"
