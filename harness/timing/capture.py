"""Capturing a call into a CUDA graph, and leaving a capture that failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from harness.calls.evaluation import is_out_of_memory
from harness.private_names import end_capture
from harness.timing.clock import NotTimeable

T = TypeVar("T")


def captured(call: Callable[[], T], stream: torch.cuda.Stream) -> tuple[torch.cuda.CUDAGraph, T]:
    """The graph of a call, and what the call returned while it was captured, which lies in the memory of the graph.

    The caller has made the stream's device the current one, has warmed the call up on the stream and has waited for it.

    Raises:
        NotTimeable: the call does what a capture forbids; the device, its allocator and the current stream are as before.
        torch.OutOfMemoryError: there is not memory enough for it.
    """
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    try:
        # The outer context leaves the stream where the inner one, whose end of the capture raises, would stay on it.
        with torch.cuda.stream(stream), torch.cuda.graph(graph, pool=pool, stream=stream):
            returned = call()
    except BaseException as error:  # whatever the call does that a capture forbids, or a loss that exits
        _leave(graph, pool, torch.cuda.current_device())
        first = _first(error)
        if is_out_of_memory(first) or not isinstance(first, Exception):
            raise first from None
        text = (str(first).splitlines() or [""])[0]
        raise NotTimeable(f"cannot be captured into a CUDA graph: {type(first).__name__}: {text}") from error
    return graph, returned


def _leave(graph: torch.cuda.CUDAGraph, pool: tuple[int, int], device: int) -> None:
    """Undo what a capture that failed leaves behind.

    In torch 2.11 a failed end of a capture raises before the allocator and the generator are told of it: the allocator then
    takes the capture for one that goes on, puts off what other streams free, and keeps its memory; and every random operation
    raises.  Newer versions end this themselves, and refuse the second end, which is how they are told apart here:
    https://github.com/pytorch/pytorch/pull/180395 and 176752.
    """
    graph.reset()
    if not end_capture(device, pool):
        return  # ended by torch, whose is what remains of it
    generator = torch.cuda.default_generators[device]
    generator.graphsafe_set_state(generator.clone_state())


def _first(error: BaseException) -> BaseException:
    """What went wrong first: the end of a capture that failed raises an error of its own."""
    while error.__context__ is not None:
        error = error.__context__
    return error
