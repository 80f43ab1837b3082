"""Figures about one loss alone: its time over that of moving its bytes, and its peak where nobody else fits."""

from __future__ import annotations

import math

from harness.timing.constants import ROUNDS

from . import copying, large_bank
from .contest import OURS
from .contests import squared_errors
from .figure import Figure
from .measure import MIB, wrong

Round = tuple[str, str, str, str, int, float]  # contest, input, pass, implementation, process, seconds per call

MOST_COPIES = 3.0
MOST_PEAK_MIB = 64.0


# Measured beside it: a Function that stores the gradient in its forward pass is a sixth faster at twice the peak.
_WHY_NOT_THE_BOUND = (
    "torch has no kernel that takes the weighted squares or their gradient in one pass: 5 passes move 52 bytes"
)

# One call is a fifth of a block, and its time scatters as much more.
ROUNDS_IN_TURN = 150


def weighted_mse_over_copy(seed: int = 0) -> tuple[Figure, list[Round]]:
    """Time of the weighted squared error over that of a copy that moves as many bytes as it must, one call of each in turn."""
    return _over_copy("one call of each in turn", "weighted_mse_over_copy", seed, is_warm=False, rounds=ROUNDS_IN_TURN)


def weighted_mse_over_warm_copy(seed: int = 0) -> tuple[Figure, list[Round]]:
    """The same in blocks of calls, whose copies find both of their tensors in the cache."""
    return _over_copy(
        "blocks of calls in warm caches", "weighted_mse_over_warm_copy", seed, is_warm=True, rounds=ROUNDS
    )


def _over_copy(how: str, name: str, seed: int, *, is_warm: bool, rounds: int) -> tuple[Figure, list[Round]]:
    contest = squared_errors.CONTESTS[0]
    moved = squared_errors.BYTES_PER_ELEMENT * math.prod(squared_errors.GRID[axis] for axis in ("H", "W"))
    bytes_each = squared_errors.BYTES_PER_ELEMENT
    what = f"weighted_mse, 4 MiB tensors: time over that of a copy that moves {bytes_each} bytes an element, {how}"
    reason = wrong(contest, [OURS], seed).get(OURS)
    if reason is not None:
        return Figure(what, None, MOST_COPIES, is_most=True, reason=reason), []
    copied = copying.time_over_copy(
        contest.spec, OURS, squared_errors.GRID, moved, rounds=rounds, seed=seed, is_warm=is_warm
    )
    ratio = copied.ratio
    loss_ms, copy_ms = (1e3 * sorted(s)[len(s) // 2] for s in (copied.loss_seconds, copied.copy_seconds))
    detail = f"ours {loss_ms:.3g} ms, copy {copy_ms:.3g} ms; {_WHY_NOT_THE_BOUND}"
    figure = Figure(what, ratio.speedup, MOST_COPIES, True, False, ratio.low, ratio.high, detail=detail)
    place = (name, ", ".join(f"{axis}={squared_errors.GRID[axis]}" for axis in ("H", "W")), "full")
    sides = {OURS: copied.loss_seconds, copying.COPY: copied.copy_seconds}
    rounds = [(*place, who, *pair) for who, times in sides.items() for pair in zip(copied.process, times, strict=True)]
    return figure, rounds


def large_bank_peak(seed: int = 0) -> tuple[Figure, list[Round]]:
    """Peak of the contrastive loss with a bank of a million rows."""
    found = large_bank.measure(seed=seed)
    what = (
        f"memory_bank_contrastive, bank of {found.rows:,} x {large_bank.FEATURES}, {large_bank.BATCH} queries: "
        f"peak above the inputs"
    )
    similarities = large_bank.BATCH * found.rows * 4 / MIB
    detail = (
        f"one call {found.seconds:.2g} s; all similarities at once would take {similarities:.0f} MiB for themselves"
    )
    peak = None if found.wrong or found.peak_bytes is None else found.peak_bytes / MIB
    return Figure(what, peak, MOST_PEAK_MIB, is_most=True, unit=" MiB", reason=found.wrong, detail=detail), []
