"""Exact costs of one call: numbers that do not drift, so that a gate may rest on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.calls.aten.calls import Call, describe
from harness.calls.aten.kernels import kernel_of
from harness.calls.aten.storages import Storages, components
from harness.calls.watch import Watch, host_read
from harness.timing.budget import Budget
from harness.timing.collection import no_collection
from harness.timing.costs.allocator import cpu_peak_bytes, cuda_peak_bytes
from harness.timing.costs.flops import flops
from harness.timing.costs.launches import host_syncs, kernel_launches
from harness.timing.costs.traffic import moved

# At about 10 KB of events a call, 200 MB.
RECORDED_CALLS = 20_000

_DETACH = torch.ops.aten.detach.default


@dataclass(frozen=True)
class Costs:
    """What one call takes, exactly; ``None`` is unknown.

    Args:
        aten_calls: calls that reach ATen below autograd, those of the backward pass included where it runs; ``None`` for what
            is compiled, whose kernels ATen does not see.  `detach` is left out: it moves nothing, and autograd calls it for its own books, otherwise when it is observed than when not.
        saved_bytes: bytes of the storages that the graph keeps for backward.  A storage counts once and whole, however
            many views of it are kept, and a sparse tensor by its components.  A tensor that the loss was given counts
            too: the graph keeps it alive until backward.  So does, in the trial before the timing, whatever else the call
            made and something holds beside its result, such as an attribute of a Function's context or of the module.
        saved_above_inputs_bytes: those of `saved_bytes` whose storage the call made itself: what training with this loss
            keeps in memory beyond the tensors that exist anyway.
        saved_sparse_bytes: those of `saved_bytes` that are indices and values of sparse tensors; the rest is dense.
        read_bytes: bytes that ATen calls read, as `harness.timing.costs.traffic.moved` defines them.
        written_bytes: bytes that ATen calls write, by the same definition.
        peak_tensor_bytes: greatest number of bytes, at a time, in storages that the call made and that ATen calls returned,
            on all devices together.  What the call returns counts, and so do gradients that a backward pass leaves in
            ``.grad``: they lie above the inputs.  What was allocated before and is freed inside takes nothing off.  Under
            observation autograd adds gradients of one tensor up in a new one, not in place, so that a tensor that is used
            more than once may count one gradient more than it takes.
        peak_bytes: greatest number of bytes allocated at a time above those before the call, as the allocator of the device
            gave them, unobserved: also what kernels take for themselves and give back before they return.
        flops: floating-point operations, as `harness.timing.costs.flops.flops` defines them.
        product_flops: those of `flops` in matrix products, convolutions and the like.
        flops_left_out_calls: ATen calls that compute and that no formula is known for.
        host_reads: ATen calls whose result the host waits for, such as `.item()`: those that rule P02 counts, and on the CPU
            those that happen there alone.
        kernel_launches: kernels launched on CUDA, as `torch.profiler` sees them; ``None`` on the CPU, which launches none, and
            where the profiler cannot see them.
        host_syncs: waits of the host for the CUDA device, as torch's synchronization debug mode reports them; ``None`` on the
            CPU, which waits for nothing.
        graphs: graphs that `torch.compile` captured; ``None`` but for what is compiled.
        graph_breaks: places where it went back to Python, likewise.
        recompilations: times that it compiled a frame again, likewise.
    """

    aten_calls: int | None
    saved_bytes: int
    saved_above_inputs_bytes: int | None = None
    saved_sparse_bytes: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    peak_tensor_bytes: int | None = None
    peak_bytes: int | None = None
    flops: int | None = None
    product_flops: int | None = None
    flops_left_out_calls: int | None = None
    host_reads: int | None = None
    kernel_launches: int | None = None
    host_syncs: int | None = None
    graphs: int | None = None
    graph_breaks: int | None = None
    recompilations: int | None = None


class TookTooLong(BaseException):
    """A call was stopped at its deadline; no `Exception`, so that a loss that catches those does not go on."""


class Counter(Watch):
    """Takes down at every ATen call what can be known there; see `observed`."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.calls = self.read = self.written = self.host_reads = 0
        self.flops = self.product_flops = self.flops_left_out = 0
        self.storages = Storages()
        self.paused = False
        self.narrowest = 8  # bytes of an element of the narrowest floating tensor that was made
        self._budget = Budget(seconds)

    def _see(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self.paused or func is _DETACH:
            return func(*args, **kwargs)
        if self._budget.left < 0:
            raise TookTooLong
        self.calls += 1
        kernel = kernel_of(func)
        returned = func(*args, **kwargs)
        if kernel.moves:
            self._account(func, describe(kernel, args, kwargs, returned))
        elif kernel.lifts:
            self.storages.make(components(returned))
        return returned

    def _account(self, func: Any, call: Call) -> None:
        read, written = moved(call)
        self.read += read
        self.written += written
        self.storages.make([result.part for result in call.made])
        self.narrowest = min([self.narrowest, *(m.part.itemsize for m in call.made if m.part.is_floating_point())])
        self.host_reads += host_read(func, call.positional) is not None
        if not read and not written:
            return
        found = flops(call, func)
        if found is None:
            self.flops_left_out += 1
            return
        self.flops += found[0]
        self.product_flops += found[1]

    def pack(self, tensor: Tensor) -> Tensor:
        """Count what the graph saves; taking a sparse tensor apart is no call of the loss.

        An output that is returned as it is would hold the graph that holds it.
        """
        self.paused = True
        try:
            self.storages.save(tensor)
            return tensor.detach()
        finally:
            self.paused = False

    @property
    def costs(self) -> Costs:
        """What was counted so far."""
        return Costs(
            aten_calls=self.calls,
            saved_bytes=self.storages.saved_bytes(),
            saved_above_inputs_bytes=self.storages.saved_bytes(made=True),
            saved_sparse_bytes=self.storages.saved_bytes(sparse=True),
            read_bytes=self.read,
            written_bytes=self.written,
            peak_tensor_bytes=self.storages.peak_bytes,
            flops=self.flops,
            product_flops=self.product_flops,
            flops_left_out_calls=self.flops_left_out,
            host_reads=self.host_reads,
        )


@contextmanager
def observed(seconds: float = float("inf"), *, saved: bool = True) -> Iterator[Counter]:
    """Count what runs inside, in one pass, and stop it at its first ATen call after ``seconds``.

    A loop over elements makes an ATen call at every step, and is stopped; a single kernel is not interrupted.  Garbage is
    not collected inside.

    Args:
        seconds: when to stop.
        saved: count saved bytes too; torch allows no hooks on saved tensors inside the transforms of `torch.func`, so a
            loss that uses those raises ``RuntimeError`` under it.

    Raises:
        TookTooLong: from inside the call, when time is up.
    """
    counter = Counter(seconds)
    saving = torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda tensor: tensor) if saved else nullcontext()
    with no_collection(), saving, counter:
        yield counter


def count(call: Callable[[], object]) -> Costs:
    """Exact costs of one call, in one pass over it; those that need passes of their own are ``None``."""
    with observed() as counter:
        call()
    return counter.costs


def peak_bytes(call: Callable[[], object], device: str) -> int | None:
    """Greatest number of bytes that one call has allocated at a time above those before it; see `Costs.peak_bytes`.

    What the call frees of earlier memory makes room below the baseline: set old gradients to ``None`` before.
    """
    return cuda_peak_bytes(call, device) if torch.device(device).type == "cuda" else cpu_peak_bytes(call)


def completed(costs: Costs, call: Callable[[], object], device: str) -> Costs:
    """Costs and what takes calls of its own, unobserved by anything else.

    On the CPU one call, for the peak; on CUDA four, for the peak, syncs and (after one that warms up) launches.  As in
    `peak_bytes`, set old gradients to ``None`` before.
    """
    if torch.device(device).type == "cuda":
        peak = cuda_peak_bytes(call, device)
        syncs = host_syncs(call)
        return replace(costs, peak_bytes=peak, host_syncs=syncs, kernel_launches=kernel_launches(call, device))
    return costs if (costs.aten_calls or 0) > RECORDED_CALLS else replace(costs, peak_bytes=cpu_peak_bytes(call))
