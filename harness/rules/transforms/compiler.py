"""torch's compiler for the time of a check: without log lines, and without what its own reset leaves in the process."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any
from unittest import mock

import torch

_NOTED = "__dynamo_disable"  # where `torch._disable_dynamo` keeps what it has made of a function


@contextlib.contextmanager
def quiet_compiler() -> Iterator[None]:
    """The compiler without log lines; its caches are emptied afterwards, so that it is as if nothing was compiled."""
    import torch._dynamo

    logger = logging.getLogger("torch._dynamo")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), uncached(), _forgotten():
            # The compiler instantiates every Function, which torch deprecates.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\._dynamo")
            yield
    finally:
        logger.setLevel(level)
        torch._dynamo.reset()


def uncached() -> contextlib.AbstractContextManager[Any]:
    """No cache of what operations give for fake tensors: a loss hardly does one twice, and a key costs as much as the operation."""
    from torch._dynamo import config  # loads the compiler

    known = hasattr(config, "fake_tensor_cache_enabled")
    return config.patch(fake_tensor_cache_enabled=False) if known else contextlib.nullcontext()


@contextlib.contextmanager
def unloaded_compiler() -> Iterator[None]:
    """Torch's own kernels in Python load no compiler, which takes two seconds, only to tell it to leave them out.

    They do so at their first call, such as that of an addition in forward mode, unless they have noted how to be called.
    """
    kernels = () if "torch._dynamo" in sys.modules else _kernels_in_python()
    for kernel in kernels:
        setattr(kernel, _NOTED, kernel)
    try:
        yield
    finally:
        for kernel in kernels:
            if getattr(kernel, _NOTED, None) is kernel:
                delattr(kernel, _NOTED)


@functools.cache
def _kernels_in_python() -> tuple[Any, ...]:
    """What `torch._disable_dynamo` wraps of the kernels; none where torch lacks it, and then it loads the compiler."""
    disable = getattr(torch, "_disable_dynamo", None)
    if disable is None:
        return ()
    wrapper = disable(lambda: None).__code__
    homes = [module for name, module in sys.modules.items() if name.startswith(("torch._refs", "torch._decomp"))]
    left = [value for home in homes for value in vars(home).values()]
    seen, found = set(), []
    while left:
        kernel = left.pop()
        if not isinstance(kernel, FunctionType) or id(kernel) in seen:
            continue
        seen.add(id(kernel))
        with contextlib.suppress(ValueError):  # a cell that is still empty
            # Not `__wrapped__`, which some of them have set to another function.
            inside = [cell.cell_contents for cell in kernel.__closure__ or ()]
            left += inside
            found += [each for each in inside if kernel.__code__ is wrapper and isinstance(each, FunctionType)]
    return tuple(found)


@contextlib.contextmanager
def _forgotten() -> Iterator[None]:
    """Let go of every graph that is made in the block: torch would keep 0.1 MB of each until the process ends.

    Fake tensors hold their symbolic sizes through C++, where no garbage collector sees it, and these hold the tensors.  Caches
    of methods hold the sizes.  A guard is held by whatever it guards, which may be as lasting as a module.
    """
    try:
        from torch._dynamo import guards as guarding
        from torch._dynamo.guards import CheckFunctionManager
        from torch._dynamo.output_graph import OutputGraph
        from torch._subclasses.fake_tensor import FakeTensorMode
        from torch.fx.experimental.symbolic_shapes import ShapeEnv
    except ImportError:  # parts of torch that nobody promises: without them memory grows, and nothing else
        yield
        return

    environments: list[weakref.ref[Any]] = []
    guards: list[weakref.finalize[Any, Any]] = []
    begin = OutputGraph.__init__

    def noted(graph: Any, *given: Any, **named: Any) -> None:
        begin(graph, *given, **named)
        environments.append(weakref.ref(graph.shape_env))

    class Noted(weakref.finalize):  # type: ignore[type-arg]
        def __init__(self, guarded: Any, function: Callable[..., Any], *given: Any, **named: Any) -> None:
            super().__init__(guarded, function, *given, **named)
            called = function.func if isinstance(function, functools.partial) else function
            if isinstance(getattr(called, "__self__", None), CheckFunctionManager):
                guards.append(self)

    try:
        with (
            mock.patch.object(OutputGraph, "__init__", noted),
            mock.patch.object(weakref, "finalize", Noted),
            mock.patch.object(
                guarding, "profile_guard_manager", return_value=0.0, create=True
            ),  # it flushes all caches
        ):
            yield
    finally:
        for guard in guards:
            guard.detach()
        for environment in environments:
            if (made := environment()) is not None:
                made.tracked_fakes = None
        for cached in (*vars(ShapeEnv).values(), FakeTensorMode):
            if hasattr(cached, "cache_clear"):
                cached.cache_clear()
