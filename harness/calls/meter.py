"""Where the time of a verification goes: evaluations of the loss, seconds inside it and inside autograd.

A meter counts only while it runs, and nothing that it counts reaches a finding.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from harness.private_names import dispatch_modes

R = TypeVar("R")


@dataclass
class Meter:
    """What was counted.

    ``loss_seconds`` is the time in the user's constructor and forward, ``autograd_seconds`` the time in
    `torch.autograd.grad` and `backward`; what a loss differentiates itself counts as the loss's.  ``watched_seconds`` is the
    time of evaluations under a dispatch mode of ours, which is mostly the mode's: it counts as neither.
    """

    evaluations: int = 0
    loss_seconds: float = 0.0
    autograd_seconds: float = 0.0
    watched_seconds: float = 0.0
    is_inside: bool = False  # what is timed; what that calls is not timed again


_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered() -> Iterator[Meter]:
    """Count what happens in the block, in this thread."""
    meter = Meter()
    names = ("grad", "backward")
    originals = {name: getattr(torch.autograd, name) for name in names}
    for name, original in originals.items():
        setattr(torch.autograd, name, _timed(original))
    before = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(before)
        for name, original in originals.items():
            setattr(torch.autograd, name, original)


def evaluation(call: Callable[..., R], /, *positional: Any, **named: Any) -> R:
    """Call the loss, as one evaluation."""
    meter = _METER.get()
    if meter is not None:
        meter.evaluations += 1
    return _inside("loss_seconds", call, *positional, **named)


def construction(make: Callable[..., R], /, *positional: Any, **named: Any) -> R:
    """Build the loss."""
    return _inside("loss_seconds", make, *positional, **named)


def _timed(function: Callable[..., R]) -> Callable[..., R]:
    @functools.wraps(function)
    def timed(*positional: Any, **named: Any) -> R:
        return _inside("autograd_seconds", function, *positional, **named)

    return timed


def _inside(what: str, function: Callable[..., R], /, *positional: Any, **named: Any) -> R:
    meter = _METER.get()
    if meter is None or meter.is_inside:
        return function(*positional, **named)
    counter = "watched_seconds" if dispatch_modes() else what
    meter.is_inside = True
    start = time.perf_counter()
    try:
        return function(*positional, **named)
    finally:
        setattr(meter, counter, getattr(meter, counter) + time.perf_counter() - start)
        meter.is_inside = False
