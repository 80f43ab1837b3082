"""Peak memory as the allocator of a device gives it: also what a kernel takes and gives back before it returns."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import torch

from harness.private_names import memory_profiler, profiler_is_running
from harness.timing.collection import no_collection


def cpu_peak_bytes(call: Callable[[], object]) -> int | None:
    """Greatest number of bytes that a call has taken from the CPU's allocator at a time, above what was there before.

    Sums torch's own events of allocation, on every thread that the call used.  Of torch's two profilers the older one
    records them: it starts in microseconds and is silent, where the newer takes seconds at its first start and writes to
    stderr.  It keeps about ten kilobytes for every ATen call until the end.

    Returns:
        ``None`` (unknown) where another profiler is running, beside which torch allows no second.
    """
    profiler = memory_profiler()
    if profiler is None or profiler_is_running():
        return None
    with no_collection():
        profiler.start()
        try:
            returned = call()
        finally:
            threads = profiler.stop()
    del returned  # only now: what the call returned is part of its peak
    changes = [[int(event.cpu_memory_usage()) for event in events] for events in threads]
    return sum(max(accumulate(of_a_thread, initial=0)) for of_a_thread in changes)


def cuda_peak_bytes(call: Callable[[], object], device: str) -> int:
    """The same from the statistics of CUDA's caching allocator, whose blocks are multiples of 512 bytes."""
    with no_collection():
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        baseline = torch.cuda.memory_allocated(device)
        returned = call()
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device)
    del returned
    return int(peak - baseline)
