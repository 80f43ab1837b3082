"""Variants of implementations under `torch.compile`: how they are made, and what their first calls take."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.errors import told_in_a_line
from harness.private_names import AUTOGRAD_COMPILER, compiler_settings
from harness.timing import timers as time
from harness.timing.compilation import Compilation, compilation, freshly_compiled

if TYPE_CHECKING:
    from harness.timing.workload import Workload

_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_UNLIMITED = 10**6


@contextmanager
def compiling(pass_name: str) -> Iterator[None]:
    """Compile whatever comes and run it, for one pass.

    At its limit of variants of one frame, the compiler would go on without compiling.  The graph of a backward pass that is
    timed alone is kept, so that its buffers must not be given away, neither when it is compiled nor when it runs.  What the
    compiler warns of on its way, and where warnings are errors fails of, is not the loss's.
    """
    unlimited = compiler_settings(recompile_limit=_UNLIMITED, accumulated_recompile_limit=_UNLIMITED)
    with unlimited, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with compiler_settings(AUTOGRAD_COMPILER, donated_buffer=False) if pass_name == "backward" else nullcontext():
            yield


@functools.cache
def _own_folder() -> str:
    folder = tempfile.mkdtemp(prefix="loss-harness-compiler-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def own_cache() -> Iterator[None]:
    """Keep what is compiled in a folder of this process and those that it starts, empty at first.

    Else the time to compile would be that of finding what an earlier run compiled.
    """
    before = os.environ.get(_CACHE)
    os.environ[_CACHE] = _own_folder()
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CACHE]
        else:
            os.environ[_CACHE] = before


@functools.cache
def unavailable_compiler(device: str) -> str | None:
    """Why nothing can be compiled for a device here, or ``None`` where it can: no C++ compiler, no Triton and the like.

    Loads the compiler, which takes seconds and is no loss's time.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch's modules warn of while they are loaded is nobody's here
            call = freshly_compiled(lambda value: (value * value).sum())
            call(value=torch.ones(2, device=device, requires_grad=True)).backward()
    except Exception as error:  # what the compiler raises has many types
        return f"torch.compile does not work on {device} here: {told_in_a_line(error)}"
    return None


@dataclass(frozen=True)
class FirstCalls:
    """The first and the second call of a compiled loss.

    Args:
        seconds: of ``forward``, ``backward`` and ``full``, for each of both calls.
        losses: what they returned.
        compilation: what the compiler did for both.
    """

    seconds: list[Mapping[str, float]]
    losses: list[Tensor]
    compilation: Compilation

    def compile_seconds(self, pass_name: str) -> float:
        """How much longer the first call took than the second; a backward pass needs the forward pass compiled, too."""
        first, second = self.seconds
        needed = "forward" if pass_name == "forward" else "full"
        return max(first[needed] - second[needed], 0.0)


def first_calls(workload: Workload, pass_name: str, wait: Callable[[], None] | None) -> FirstCalls:
    """Call a compiled loss twice, with one thread, as it will be timed.

    Args:
        workload: the loss and its tensors.
        pass_name: ``forward`` leaves the backward pass out.
        wait: waits for a device that works beside the host.
    """
    seconds: list[Mapping[str, float]] = []
    losses: list[Tensor] = []

    def lap(since: float) -> float:
        if wait is not None:
            wait()
        return time.perf_counter() - since

    def call() -> None:
        workload.restore()
        workload.reset()
        if wait is not None:
            wait()  # for what was before
        begin = time.perf_counter()
        loss = workload.forward()
        forward = full = lap(begin)
        if pass_name != "forward":
            workload.backward(loss)
            full = lap(begin)
        seconds.append({"forward": forward, "backward": full - forward, "full": full})
        losses.append(loss)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return FirstCalls(seconds, losses, compilation([call, call]))
    finally:
        torch.set_num_threads(threads)
