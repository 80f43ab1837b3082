"""Cold caches: what empties them before a call."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import torch
from torch import Tensor

from harness.calls.environment import last_level_cache_bytes
from harness.results.measured import Cell
from harness.timing.constants import FLUSH_BYTES, FLUSH_CACHES


class Flush:
    """Goes through more memory than the caches hold; the memory is taken at the first use, which belongs before a block.

    To take it may be dear: on a virtual machine, a gigabyte that nobody has touched yet is seconds.

    On the CPU every element is read and written: to write alone may bypass the caches, and leave in them what was there.
    On a CUDA device all of it is written and then read: what is written stays in the second-level cache until something
    else needs the room, and writing it back would be timed as if it were the call's.

    Args:
        device: whose caches.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffer: Tensor | None = None

    def __call__(self) -> None:
        """Empty the caches.

        Raises:
            RuntimeError: there is not memory enough for it.
        """
        if self._buffer is None:
            self._buffer = torch.zeros(flush_bytes(self._device) // 8, dtype=torch.int64, device=self._device)
        if self._device.type == "cpu":
            self._buffer.add_(1)
        else:
            self._buffer.zero_()
            self._buffer.sum()


def flushes(cells: Iterable[Cell]) -> dict[str, Flush]:
    """By device, what empties the caches for cold cells, with its memory taken; for want of it, the clock says so of its cell."""
    made = {cell.device: Flush(torch.device(cell.device)) for cell in cells if cell.cache == "cold"}
    for flush in made.values():
        with suppress(RuntimeError):
            flush()
    return made


def flush_bytes(device: torch.device) -> int:
    """Bytes to go through: a multiple of the last cache where its size is known, on a CUDA device at least 256 MB."""
    if device.type == "cpu":
        known = last_level_cache_bytes()
        return FLUSH_BYTES if known is None else FLUSH_CACHES["cpu"] * known
    cache = int(torch.cuda.get_device_properties(device).L2_cache_size)
    return max(FLUSH_BYTES, FLUSH_CACHES["cuda"] * cache)
