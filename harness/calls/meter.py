"""Where the time of a verification goes: evaluations of the loss, seconds inside it and inside autograd.

A meter counts only while it runs, and nothing that it counts reaches a finding.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


_RUNNING: list[Meter] = []
_INSIDE: list[str] = []  # what is being timed; what it calls is not timed again


@contextmanager
def metered() -> Iterator[Meter]:
    """Count what happens in the block, in this thread."""
    meter = Meter()
    names = ("grad", "backward")
    originals = {name: getattr(torch.autograd, name) for name in names}
    for name, original in originals.items():
        setattr(torch.autograd, name, _timed(original))
    _RUNNING.append(meter)
    try:
        yield meter
    finally:
        _RUNNING.pop()
        for name, original in originals.items():
            setattr(torch.autograd, name, original)


def evaluation(call: Callable[..., R], /, *positional: Any, **named: Any) -> R:
    """Call the loss, as one evaluation."""
    if not _RUNNING:
        return call(*positional, **named)
    _RUNNING[-1].evaluations += 1
    return _inside("loss_seconds", call, *positional, **named)


def construction(make: Callable[..., R], /, *positional: Any, **named: Any) -> R:
    """Build the loss."""
    return _inside("loss_seconds", make, *positional, **named) if _RUNNING else make(*positional, **named)


def _timed(function: Callable[..., R]) -> Callable[..., R]:
    @functools.wraps(function)
    def timed(*positional: Any, **named: Any) -> R:
        return _inside("autograd_seconds", function, *positional, **named)

    return timed


def _inside(what: str, function: Callable[..., R], /, *positional: Any, **named: Any) -> R:
    if _INSIDE:
        return function(*positional, **named)
    meter, counter = _RUNNING[-1], "watched_seconds" if dispatch_modes() else what
    _INSIDE.append(what)
    start = time.perf_counter()
    try:
        return function(*positional, **named)
    finally:
        setattr(meter, counter, getattr(meter, counter) + time.perf_counter() - start)
        _INSIDE.pop()
