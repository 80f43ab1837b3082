"""Private names of torch and Hypothesis, with what happens in a version that lacks one; no other file uses any.

Nothing here loads torch's compiler, which takes seconds, before a function that says so is called.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Documented by torch, at a path that is private: without it no operation can be watched, and nothing here loads.
from torch.utils._python_dispatch import TorchDispatchMode


def _optional(module: str, name: str, otherwise: Any) -> Any:
    """A name of a module, or what stands in for it."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return otherwise


# ---- operations ------------------------------------------------------------------------------------------------------
OpOverload: type = type(torch.ops.aten.add.Tensor)
# Without these two, what `torch.cond` and its like call is not seen.
HigherOrderOperator: Any = _optional("torch._ops", "HigherOrderOperator", ())
tree_map: Callable[..., Any] = _optional("torch.utils._pytree", "tree_map", lambda function, tree: tree)
HIGHER_ORDER_OPERATORS = "torch._higher_order_ops"  # where they are; else their own reads count as those of the loss
schema = attrgetter("_schema")  # of an overload; required
# Without it, the time of a call that is watched counts as that of the loss.
dispatch_modes: Callable[[], int] = _optional("torch.utils._python_dispatch", "_len_torch_dispatch_stack", lambda: 0)
_WITHOUT_FUNCTIONS = _optional("torch._C", "DisableTorchFunction", contextlib.nullcontext)
_WITHOUT_MODES = _optional("torch.utils._python_dispatch", "_disable_current_modes", contextlib.nullcontext)


@contextlib.contextmanager
def unwatched() -> Iterator[None]:
    """No mode sees what happens in the block; without the names, operations of ours count as those of the loss."""
    with _WITHOUT_FUNCTIONS(), _WITHOUT_MODES():
        yield


class DispatchMode(TorchDispatchMode):
    """A dispatch mode that does not load the compiler, and sees what higher-order operators call.

    By default torch wraps `__torch_dispatch__` so that the compiler skips it, and that wrapper imports the whole compiler
    (seconds) on its first call, so it is declined.  `torch.cond` and its like compile themselves where they are called: under
    a mode that does not say ``ignore_compile_internals`` the compiler would give up their code for the rest of the process.
    A version that asks for none of this is only slower.
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Whether the compiler works while the mode is on."""
        return True


# ---- tensors, modules, graphs ----------------------------------------------------------------------------------------
storage_key = attrgetter("_cdata")  # tells storages apart that have no data; required
version = attrgetter("_version")  # of a tensor: how often it was edited; required
# Of a module, those that are None too; required.
buffers, parameters = attrgetter("_buffers"), attrgetter("_parameters")
function_of = attrgetter("_forward_cls")  # the custom Function of a node of a graph; required
# Without it, a loss can switch gradients of fake tensors on.
set_grad_enabled = _optional("torch._C", "_set_grad_enabled", None)
# Without it, a loss that uses torch.func itself is not told from others, and fake tensors say nothing of it.
transform_level: Callable[[], int | None] = _optional("torch._C._functorch", "maybe_current_level", lambda: None)


def indices_and_values(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Those of a sparse COO tensor as it holds them, coalesced or not; required."""
    return tensor._indices(), tensor._values()


def is_view(tensor: Tensor) -> bool:
    """Whether a tensor is a view of another; required."""
    return tensor._is_view()


# ---- CUDA and the profiler -------------------------------------------------------------------------------------------
# Without it another profiler may be running: launches and peak memory are unknown.
profiler_is_running: Callable[[], bool] = _optional("torch.autograd", "_profiler_enabled", lambda: True)


def is_in_bad_fork() -> bool:
    """Whether this process is a fork of one that has used CUDA; without the name, it fails at its first call."""
    return bool(getattr(torch.cuda, "_is_in_bad_fork", bool)())


class Profiler(NamedTuple):
    """The older of torch's two profilers, which records what the CPU's allocator gives and takes."""

    start: Callable[[], None]
    stop: Callable[[], Any]


def memory_profiler() -> Profiler | None:
    """``None`` in a version without it: peak memory is then unknown."""
    try:
        from torch._C._autograd import _disable_profiler_legacy, _enable_profiler_legacy
        from torch._C._profiler import ProfilerConfig, ProfilerState, _ExperimentalConfig
    except ImportError:
        return None
    with_memory = ProfilerConfig(ProfilerState.CPU, False, True, False, False, False, _ExperimentalConfig())
    return Profiler(lambda: _enable_profiler_legacy(with_memory), _disable_profiler_legacy)


def end_capture(device: int, pool: tuple[int, int]) -> bool:
    """End what the allocator takes for a capture that goes on; ``False`` where torch has ended it itself, as newer versions do."""
    end = getattr(torch._C, "_cuda_endAllocateToPool", None)
    if end is None:
        return False
    try:
        end(device, pool)
    except RuntimeError:
        return False
    torch._C._cuda_releasePool(device, pool)
    return True


# ---- the compiler ----------------------------------------------------------------------------------------------------
COMPILER, AUTOGRAD_COMPILER = "torch._dynamo", "torch._functorch"  # modules; the first is the name of its logger too
KERNELS = ("torch._refs", "torch._decomp")  # where torch's own kernels in Python are
UNCOMPILED = "__dynamo_disable"  # where `disabled` keeps what it has made of a function
# Without it, kernels load the compiler, which takes longer.
disabled: Callable[..., Any] | None = getattr(torch, "_disable_dynamo", None)


def compiler_settings(module: str = COMPILER, **values: Any) -> contextlib.AbstractContextManager[Any]:
    """Settings of the compiler for the time of a block; one that a version lacks is left out.  Loads the compiler."""
    config = importlib.import_module(f"{module}.config")
    known = {name: value for name, value in values.items() if hasattr(config, name)}
    patched: contextlib.AbstractContextManager[Any] = config.patch(**known) if known else contextlib.nullcontext()
    return patched


def mark_dynamic(tensor: Tensor, axis: int) -> None:
    """Tell the compiler that an axis changes; without it, each size has a graph of its own.  Loads the compiler."""
    _optional(COMPILER, "maybe_mark_dynamic", lambda tensor, axis: None)(tensor, axis)


def fake_tensor_mode() -> Any:
    """The class of fake tensors' mode; required by what asks for it.  Loads the compiler."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode


@contextlib.contextmanager
def compiled_frames(begun: Callable[[str], None]) -> Iterator[Any]:
    """Tell which frames are compiled in the block, such as ``0/1``: the frame, and how often it had been compiled before.

    Loads the compiler.

    Yields:
        its counters, from the start of the process.

    Raises:
        ImportError: this version reports neither.
    """
    from torch._dynamo import callback, utils

    def compiles(event: callback.CallbackArgs) -> None:
        if event.callback_trigger is callback.CallbackTrigger.DYNAMO:
            begun(event.compile_id)

    callback.callback_handler.register_start_callback(compiles)
    try:
        yield utils.counters
    finally:
        callback.callback_handler.remove_start_callback(compiles)


class Graphs(NamedTuple):
    """What holds the graphs that the compiler has made."""

    guards: Any
    CheckFunctionManager: type
    OutputGraph: Any
    caches: tuple[Any, ...]


def graph_holders() -> Graphs | None:
    """``None`` in a version without them: graphs are then kept until the process ends, 0.1 MB each.  Loads the compiler."""
    try:
        from torch._dynamo import guards
        from torch._dynamo.output_graph import OutputGraph
        from torch.fx.experimental.symbolic_shapes import ShapeEnv

        return Graphs(guards, guards.CheckFunctionManager, OutputGraph, (*vars(ShapeEnv).values(), fake_tensor_mode()))
    except (ImportError, AttributeError):
        return None


# ---- Hypothesis ------------------------------------------------------------------------------------------------------
def constants_of_modules() -> dict[str, Any] | None:
    """Name -> what it is where there are no constants, in the module that draws them; ``None`` where there is no such module.

    Hypothesis also draws constants that it finds in the modules of the session.
    """
    providers = constant_provider()
    if not hasattr(providers, "_get_local_constants"):
        return None
    none = providers.Constants()
    return {"_get_local_constants": lambda: none, "CONSTANTS_CACHE": providers.LRUCache(1024)}


def constant_provider() -> Any:
    """The module of Hypothesis that draws constants, ``None`` without it: the same seed may then draw others elsewhere."""
    with contextlib.suppress(ImportError):
        return importlib.import_module("hypothesis.internal.conjecture.providers")
    return None
