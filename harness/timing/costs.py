"""Exact costs of one call: numbers that do not drift, so that a gate may rest on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


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


class _Counter(TorchDispatchMode):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.calls = 0
        self._deadline = time.perf_counter() + seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if time.perf_counter() > self._deadline:
            raise TookTooLong
        self.calls += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Stop what runs inside at its first ATen call after ``seconds``.

    A loop over elements makes one at every step; a single kernel is not interrupted.

    Raises:
        TookTooLong: from inside the call.
    """
    with _Counter(seconds):
        yield


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


def count(call: Callable[[], object], device: str = "cpu", seconds: float = float("inf")) -> Costs:
    """Exact costs of one call.

    Args:
        call: called twice on CUDA (the second time for the peak), else once.
        device: where it runs.
        seconds: stop at the first ATen call after that many.

    Raises:
        TookTooLong: it ran past ``seconds``.
        Exception: whatever the call raises; a call that uses `torch.func` inside raises ``RuntimeError`` here, because
            torch allows no hooks on saved tensors in its transforms.
    """
    saved = _Saved()
    with _Counter(seconds) as counter, torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
        call()
    aten_calls, saved_bytes = counter.calls, saved.bytes
    del saved  # its storages would count as allocated before the call
    return Costs(aten_calls, saved_bytes, _peak_bytes(call, device))


def _peak_bytes(call: Callable[[], object], device: str) -> int | None:
    if torch.device(device).type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    baseline = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device) - baseline)
