"""torch's compiler for the time of a check: without log lines, and without what its own reset leaves in the process."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any
from unittest import mock

import torch

from harness.private_names import COMPILER, KERNELS, UNCOMPILED, compiler_settings, disabled, graph_holders


@contextlib.contextmanager
def quiet_compiler() -> Iterator[None]:
    """The compiler without log lines; its caches are emptied afterwards, so that it is as if nothing was compiled."""
    importlib.import_module(COMPILER)
    logger = logging.getLogger(COMPILER)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), uncached(), _forgotten():
            # The compiler instantiates every Function, which torch deprecates.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\._dynamo")
            yield
    finally:
        logger.setLevel(level)
        torch.compiler.reset()


def uncached() -> contextlib.AbstractContextManager[Any]:
    """No cache of what operations give for fake tensors: a loss hardly does one twice, and a key costs as much as the operation."""
    return compiler_settings(fake_tensor_cache_enabled=False)


@contextlib.contextmanager
def unloaded_compiler() -> Iterator[None]:
    """Torch's own kernels in Python load no compiler, which takes two seconds, only to tell it to leave them out.

    They do so at their first call, such as that of an addition in forward mode, unless they have noted how to be called.
    """
    kernels = () if COMPILER in sys.modules else _kernels_in_python()
    for kernel in kernels:
        setattr(kernel, UNCOMPILED, kernel)
    try:
        yield
    finally:
        for kernel in kernels:
            if getattr(kernel, UNCOMPILED, None) is kernel:
                delattr(kernel, UNCOMPILED)


@functools.cache
def _kernels_in_python() -> tuple[Any, ...]:
    """What `disabled` wraps of the kernels."""
    if disabled is None:
        return ()
    wrapper = disabled(lambda: None).__code__
    homes = [module for name, module in sys.modules.items() if name.startswith(KERNELS)]
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
    holders = graph_holders()
    if holders is None:
        yield
        return

    environments: list[weakref.ref[Any]] = []
    guards: list[weakref.finalize[Any, Any]] = []
    begin, manager = holders.OutputGraph.__init__, holders.CheckFunctionManager

    def noted(graph: Any, *given: Any, **named: Any) -> None:
        begin(graph, *given, **named)
        environments.append(weakref.ref(graph.shape_env))

    class Noted(weakref.finalize):  # type: ignore[type-arg]
        def __init__(self, guarded: Any, function: Callable[..., Any], *given: Any, **named: Any) -> None:
            super().__init__(guarded, function, *given, **named)
            called = function.func if isinstance(function, functools.partial) else function
            if isinstance(getattr(called, "__self__", None), manager):
                guards.append(self)

    try:
        with (
            mock.patch.object(holders.OutputGraph, "__init__", noted),
            mock.patch.object(weakref, "finalize", Noted),
            # It flushes all caches.
            mock.patch.object(holders.guards, "profile_guard_manager", return_value=0.0, create=True),
        ):
            yield
    finally:
        for guard in guards:
            guard.detach()
        for environment in environments:
            if (made := environment()) is not None:
                made.tracked_fakes = None
        for cached in holders.caches:
            if hasattr(cached, "cache_clear"):
                cached.cache_clear()
