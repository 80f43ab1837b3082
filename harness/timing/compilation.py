"""A loss under `torch.compile`, and what that makes of a call; importing this module loads no compiler, asking does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from harness.private_names import compiled_frames


@dataclass(frozen=True)
class Compilation:
    """What the compiler did during some calls.

    Args:
        graphs: graphs that it captured, those of recompilations included; 1 is what a loss should take.
        graph_breaks: places where it gave up a graph and went back to Python.
        recompilations: times it compiled a frame again that it had compiled before, for a size or a type that was new.
    """

    graphs: int
    graph_breaks: int
    recompilations: int


def compilation(calls: Sequence[Callable[[], object]]) -> Compilation:
    """Run calls of compiled functions, and count what the compiler does for them.

    What was compiled before is not compiled again and does not count: give functions that `torch.compile` has just made,
    and `torch.compiler.reset()` before, where what was compiled of the same code should not matter.

    Args:
        calls: run once each, in order; two of one size and one of another size show a recompilation.
    """
    compiled: set[str] = set()
    with compiled_frames(compiled.add) as counters:
        before = _counters(counters)
        for call in calls:
            call()
        after = _counters(counters)
    return Compilation(
        graphs=after[0] - before[0],
        graph_breaks=after[1] - before[1],
        recompilations=sum(not name.endswith("/0") for name in compiled),
    )


def _counters(counters: Any) -> tuple[int, int]:
    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


def freshly_compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A loss under `torch.compile`, for one size, with nothing that was compiled of it before.

    What is compiled is kept with the code object that was compiled, which all instances of a module share: one of its own
    keeps variants, sizes and dtypes apart, and leaves what the user compiled alone.

    Args:
        function: a function, or a module, which is changed.
    """
    if isinstance(function, nn.Module):
        forward = type(function).forward
        if isinstance(forward, FunctionType):
            function.forward = MethodType(_copied(forward), function)
        return torch.compile(function, dynamic=False)
    if isinstance(function, FunctionType):
        return torch.compile(_copied(function), dynamic=False)

    def loss(**given: Any) -> Any:
        return function(**given)

    return torch.compile(_copied(loss), dynamic=False)


def _copied(function: Any) -> FunctionType:
    """The same function with a code object of its own."""
    parts = (function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    copied = FunctionType(function.__code__.replace(), *parts)
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied
