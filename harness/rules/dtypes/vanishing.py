"""Why a number that float64 holds is not finite in low precision: what vanishes, and whose derivative has no room."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from harness.calls.watch import Watch
from harness.rules.dtypes.kept import short
from harness.rules.dtypes.overflow import are_finite, tensors_of
from harness.rules.rule import Mismatch
from harness.rules.tools.detach import placed
from harness.rules.tools.made import copied
from harness.rules.tools.remarks import first_in_backward, first_not_finite
from harness.rules.trial import UNSET, Trial

_CANCELS = {"sub", "sub_", "rsub", "add", "add_"}
_DIVIDES = {"div", "truediv", "rdiv", "rtruediv", "divide", "true_divide", "reciprocal"}
_CASTS = {"_to_copy", "clone", "detach", "alias"}  # that one of two dtypes may need, and that make no zero


@dataclass(frozen=True)
class _Made:
    """What an operation returned: how many zeros, and where it was called."""

    name: str
    place: str
    zeros: int


class Zeros(Watch):
    """Records the zeros that each operation returns, up to the first number that is not finite, and the smallest constant.

    Args:
        least: below which a number that the loss writes down, such as an epsilon, is a small ``constant``.
    """

    def __init__(self, least: float) -> None:
        super().__init__()
        self.made: list[_Made] = []
        self.constant = self.constant_place = ""
        self._least = least
        self._is_over = False

    def _see(self, func: Any, args: Any, kwargs: Any) -> Any:
        returned = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if self._is_over or name in UNSET or name in _CASTS:
            return returned
        for number in (item for item in (*args, *kwargs.values()) if isinstance(item, float)):
            if 0 < abs(number) < self._least:
                self._least, self.constant_place = abs(number), placed(name)
                self.constant = f"{self.constant_place} has {abs(number):.1g}"
        self._is_over = not are_finite(returned)
        zeros = sum(int((tensor == 0).sum()) for tensor in tensors_of(returned))
        self.made.append(_Made(name, placed(name), zeros))
        return returned


def _first_vanished(low: Zeros, wide: Zeros) -> _Made | None:
    """The first operation that returns more zeros in the low precision than in the wide one."""
    for ours, theirs in zip(low.made, wide.made, strict=False):
        if ours.name != theirs.name:
            return None
        if ours.zeros > theirs.zeros:
            return ours
    return None


def not_finite_in_low_precision(trial: Trial, mismatch: Mismatch) -> Mismatch:
    """What makes the first number that is not finite, and what has vanished before it: an epsilon is named where there is one."""
    noted = first_not_finite(trial, mismatch)
    dtype = _lowest(mismatch)
    if mismatch.finite or mismatch.aspect.startswith("range") or noted.hint != mismatch.hint or dtype is None:
        return noted
    tensors, limit, kind = copied(mismatch.tensors or {}), torch.finfo(dtype), short(dtype)
    low, wide = Zeros(limit.eps), Zeros(limit.eps)
    for given, seen in ((tensors, low), (trial.widened(tensors), wide)):
        with seen:  # the backward too, where the gradient is asked for: a custom one has epsilons of its own
            trial.run(given, wrt=None if mismatch.kind == "gradient" else ())
    vanished, causes = _first_vanished(low, wide), []
    if low.constant:
        small = f"below {limit.eps:.1g} it vanishes beside 1, and below {limit.smallest_normal:.1g} it may be 0"
        causes.append(f"{low.constant}, an epsilon too small for {kind}: {small}")
    if vanished is not None and vanished.place != low.constant_place:
        cancels = "differences of large numbers cancel: subtract first, or in float32"
        vanishes = "work with logarithms, as log_softmax and logsumexp do, or bound what it is given"
        why = cancels if vanished.name in _CANCELS else vanishes
        causes.append(f"{vanished.place} gives 0 in {kind} alone; {why}")
    if not causes and mismatch.kind == "gradient":
        causes += _derivative(first_in_backward(trial, tensors), kind)
    return replace(noted, hint="; ".join(causes)) if causes else noted


def _lowest(mismatch: Mismatch) -> torch.dtype | None:
    """The coarsest floating dtype of the tensors that show it."""
    floating = {t.dtype for t in (mismatch.tensors or {}).values() if t.is_floating_point()}
    return max(floating, key=lambda dtype: torch.finfo(dtype).eps, default=None)


def _derivative(place: str, kind: str) -> list[str]:
    if not place:
        return []
    quotient = ", 1 / x**2 where it divides by x," if place.partition("(")[0] in _DIVIDES else ""
    return [
        f"the derivative of {place}{quotient} leaves the range of {kind}: keep what it takes away from 0, or work with logarithms"
    ]
