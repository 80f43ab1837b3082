"""Memory as tensors hold it: which storages a call makes, how long they live, and which of them the graph keeps."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.private_names import indices_and_values, storage_key

_COMPRESSED_ROWS = (torch.sparse_csr, torch.sparse_bsr)
_COMPRESSED_COLUMNS = (torch.sparse_csc, torch.sparse_bsc)


def components(tensor: Tensor) -> Sequence[Tensor]:
    """The dense tensors that hold a tensor's data: itself, or the indices and values of a sparse one.

    A tensor of a layout that gives no access to its storage (MKL-DNN, nested) has none.
    """
    if tensor.layout == torch.strided:
        return (tensor,)
    if tensor.layout == torch.sparse_coo:
        return indices_and_values(tensor)
    if tensor.layout in _COMPRESSED_ROWS:
        return (tensor.crow_indices(), tensor.col_indices(), tensor.values())
    if tensor.layout in _COMPRESSED_COLUMNS:
        return (tensor.ccol_indices(), tensor.row_indices(), tensor.values())
    return ()


def address(storage: torch.UntypedStorage) -> int:
    """What tells two storages that are alive apart, also where they have no data."""
    return int(storage_key(storage))


class Storages:
    """Storages that a call made or met: how long they live, how many bytes at a time, and which of them the graph keeps.

    None is kept alive by being watched.  A storage counts once and whole, however many views there are of it, and a sparse
    tensor by its components.  One that is resized counts with the size that it had when an operation last returned it.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self.peak_bytes = 0
        self._alive: dict[int, _Storage] = {}
        self._saved: list[_Storage] = []

    def make(self, parts: Iterable[Tensor]) -> None:
        """Count the storages of tensors that an operation of the call made."""
        for part in parts:
            known = self._meet(part.untyped_storage(), made=True)
            if known.made:
                size = part.untyped_storage().nbytes()
                self.bytes += size - known.bytes
                known.bytes = size
        self.peak_bytes = max(self.peak_bytes, self.bytes)

    def save(self, tensor: Tensor) -> None:
        """Count the storages of a tensor that the graph keeps for backward."""
        for part in components(tensor):
            known = self._meet(part.untyped_storage(), made=False)
            if not known.saved:
                known.saved = True
                known.bytes = part.untyped_storage().nbytes()
                self._saved.append(known)
            known.sparse |= part is not tensor

    def keep(self, returned: Tensor) -> None:
        """Count as saved what the call made and something still holds, whoever does, but for what it returned."""
        places = [address(part.untyped_storage()) for part in components(returned)]
        for place, known in self._alive.items():
            if known.made and not known.saved and place not in places:
                known.saved = True
                self._saved.append(known)

    def saved_bytes(self, *, made: bool | None = None, sparse: bool | None = None) -> int:
        """Of all storages that the graph kept, of those that the call made itself, or of components of sparse tensors."""
        return sum(
            storage.bytes
            for storage in self._saved
            if made in (None, storage.made) and sparse in (None, storage.sparse)
        )

    def _meet(self, storage: torch.UntypedStorage, *, made: bool) -> _Storage:
        place = address(storage)
        if place not in self._alive:
            self._alive[place] = _Storage(made, weakref.ref(storage, lambda _: self._forget(place)))
        return self._alive[place]

    def _forget(self, place: int) -> None:
        gone = self._alive.pop(place)
        self.bytes -= gone.bytes if gone.made else 0


@dataclass(slots=True, eq=False)
class _Storage:
    made: bool
    watch: weakref.ref[torch.UntypedStorage]  # its address is another's as soon as it is freed
    bytes: int = 0
    saved: bool = False
    sparse: bool = False
