"""How much a call does, counted in calls of Python and C functions: the same on every machine."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any


def work(call: Callable[[], object]) -> Counter[str]:
    """Calls of Python functions (``call``) and of C functions (``c_call``) that one call makes."""
    counted: Counter[str] = Counter()

    def count(frame: FrameType, event: str, argument: Any) -> None:
        counted[event] += 1

    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
    counted["c_call"] -= 1  # of setprofile itself
    return Counter({event: counted[event] for event in ("call", "c_call")})


def growth(call: Callable[[], object], larger: Callable[[], object]) -> float:
    """How many times as much the second does as the first, once what both do only at first is done."""
    for each in (call, larger):
        each()
    return work(larger).total() / work(call).total()
