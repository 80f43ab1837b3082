"""Exact costs of one call: numbers that do not drift, so that a gate may rest on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.dispatch import Watch


@dataclass(frozen=True)
class Costs:
    """What one call takes, exactly.

    Args:
        aten_calls: calls that reach ATen below autograd, those of the backward pass included where it runs.
        saved_bytes: bytes of the storages that the graph keeps for backward.  A storage counts once and whole, however
            many views of it are kept, and a sparse tensor by its components.  A tensor that the loss was given counts
            too: the graph keeps it alive until backward.
        peak_bytes: bytes above those allocated before the call, from the CUDA allocator; ``None`` (unknown) elsewhere.
    """

    aten_calls: int
    saved_bytes: int
    peak_bytes: int | None = None


class TookTooLong(BaseException):
    """A call was stopped at its deadline; no `Exception`, so that a loss that catches those does not go on."""


class _Counter(Watch):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.calls = 0
        self._deadline = time.perf_counter() + seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if time.perf_counter() > self._deadline:
            raise TookTooLong
        self.calls += 1
        return func(*args, **(kwargs or {}))


def components(tensor: Tensor) -> Sequence[Tensor]:
    """The dense tensors that hold a tensor's data: itself, or the indices and values of a sparse one."""
    if tensor.layout == torch.sparse_coo:
        return (tensor._indices(), tensor._values())
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return (tensor.crow_indices(), tensor.col_indices(), tensor.values())
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return (tensor.ccol_indices(), tensor.row_indices(), tensor.values())
    return (tensor,)


class _Saved:
    """Storages that the graph kept, held here so that no later one can have the same address."""

    def __init__(self) -> None:
        self._storages: dict[tuple[torch.device, int], torch.UntypedStorage] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        for part in components(tensor):
            storage = part.untyped_storage()
            self._storages[(part.device, storage.data_ptr())] = storage
        return tensor

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self._storages.values())


class Counter:
    """Counts what runs inside, and stops it at its first ATen call after ``seconds``.

    A loop over elements makes an ATen call at every step, and is stopped; a single kernel is not interrupted.

    Args:
        seconds: when to stop.
        saved: count saved bytes too; torch allows no hooks on saved tensors inside the transforms of `torch.func`, so a
            loss that uses those raises ``RuntimeError`` under it.

    Raises:
        TookTooLong: from inside the call, when time is up.
    """

    def __init__(self, seconds: float = float("inf"), *, saved: bool = True) -> None:
        self.seconds = seconds
        self._mode = _Counter(seconds)
        self._saved = _Saved()
        self._hooks = (
            torch.autograd.graph.saved_tensors_hooks(self._saved.pack, lambda tensor: tensor) if saved else None
        )

    def __enter__(self) -> Counter:
        if self._hooks is not None:
            self._hooks.__enter__()
        self._mode.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._mode.__exit__(*exception)
        if self._hooks is not None:
            self._hooks.__exit__(*exception)

    @property
    def costs(self) -> Costs:
        """What was counted so far."""
        return Costs(self._mode.calls, self._saved.bytes)


def count(call: Callable[[], object]) -> Costs:
    """Exact costs of one call, the peak apart."""
    with Counter() as counter:
        call()
    return counter.costs


def peak_bytes(call: Callable[[], object], device: str) -> int | None:
    """Greatest number of bytes that one call has allocated at a time above those before it; ``None`` but on CUDA."""
    if torch.device(device).type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    baseline = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device) - baseline)
