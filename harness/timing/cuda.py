"""Clocks of a CUDA device: events on its stream, around calls or around the replay of a graph."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

from harness.calls.evaluation import is_out_of_memory
from harness.private_names import end_capture
from harness.timing.clock import Call, NotTimeable, Result, repeat_until
from harness.timing.collection import no_collection
from harness.timing.constants import CAPTURE_WARM_UPS, COLD_CALLS, WARM_UP_S
from harness.timing.keeper import Witness

Span = tuple[torch.cuda.Event, torch.cuda.Event]


class EventClock:
    """Events on the current stream: the time of the device's work, launches included where the host cannot keep up.

    Args:
        device: the device, which is made the current one.
        flush: empties the caches; it runs on the same stream before every call, which then has two events of its own.
        witness: the clock of another process, which sees what all streams of the device take together, where caches are warm.
    """

    idle_s: float | None = None  # the device works on while this thread is away

    def __init__(self, device: torch.device, flush: Call | None = None, witness: Witness | None = None) -> None:
        self._device, self._flush, self._witness = device, flush, witness or Witness()
        self.most_calls = sys.maxsize if flush is None else COLD_CALLS["cuda"]
        self._spans: list[Span] = []

    def prepare(self, make: Callable[[], Result]) -> Result:
        """The call itself; what empties the caches takes its memory first."""
        with torch.cuda.device(self._device):
            if self._flush is not None:
                self._flush()
            return make()

    def warm_up(self, call: Call) -> None:
        """Call until the device's clocks have risen; synchronised after every call, at least once."""
        with torch.cuda.device(self._device):
            repeat_until(WARM_UP_S["cuda"], call, self._wait)

    def block(self, call: Call, calls: int) -> float:
        """Seconds between an event before the first call and one after the last; of cold calls, the sum of theirs."""
        with torch.cuda.device(self._device), no_collection():
            spans = self._recorded(1 if self._flush is None else calls)
            self._wait()
            if self._flush is None:
                self._witness.begin()
                self._time(spans[0], call, calls)
            else:
                for span in spans:
                    self._flush()
                    self._time(span, call, 1)
            self._wait()
            seconds = sum(float(begin.elapsed_time(end)) for begin, end in spans) / 1000
            if self._flush is None:
                self._witness.end(seconds)
            return seconds

    def _recorded(self, number: int) -> list[Span]:
        """Pairs of events that have been recorded before: the first record makes an event, which would be timed too."""
        while len(self._spans) < number:
            span = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            for event in span:
                event.record()
            self._spans.append(span)
        return self._spans[:number]

    def _time(self, span: Span, call: Call, calls: int) -> None:
        begin, end = span
        begin.record()
        for _ in range(calls):
            call()
        end.record()

    def _wait(self) -> None:
        torch.cuda.synchronize(self._device)


class GraphClock(EventClock):
    """Events around the replay of a CUDA graph: the device's work without the host's part in it.

    A call is captured as https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs asks for: it is made and warmed up on
    the side stream of the capture, for a backward pass runs on the stream of its forward pass, and its gradients are set to
    ``None`` first, so that backward makes them in the memory of the graph.
    """

    def prepare(self, make: Callable[[], Result]) -> Result:
        """The replay of the call's graph, which returns the loss that the graph computes.

        Raises:
            NotTimeable: it cannot be captured, for it waits for the device, copies from the host or the like.
        """
        with torch.cuda.device(self._device):
            if self._flush is not None:
                self._flush()
            side = torch.cuda.Stream(self._device)
            side.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(side):
                call = make()
                for _ in range(CAPTURE_WARM_UPS):
                    call()
            torch.cuda.current_stream(self._device).wait_stream(side)
            self._wait()  # what failed on the device raises here, and is not taken for what a capture forbids
            graph, loss = _captured(call, side)

        def replay() -> torch.Tensor:
            graph.replay()
            return loss

        return replay


def _captured(call: Result, stream: torch.cuda.Stream) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
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
