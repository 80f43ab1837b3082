"""What a call makes a CUDA device do: kernels that are launched, and waits of the host for the device."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

from harness.private_names import profiler_is_running

# Not `cudaLaunchHostFunc`, which launches no kernel.
_LAUNCHES = tuple(
    prefix + what for prefix in ("cuda", "cu") for what in ("LaunchKernel", "LaunchCooperativeKernel", "GraphLaunch")
)


def kernel_launches(call: Callable[[], object], device: str) -> int | None:
    """Launches of kernels on CUDA in one call, as `torch.profiler` saw them; a graph that is replayed is one.

    Copies and fills by the driver are no launches of kernels.

    Returns:
        ``None`` (unknown) where the profiler sees no launches: it was built or runs without NVIDIA's CUPTI, lacks the right
        to ask the driver, or another profiler is running.  One launch of our own beside the call tells that from none.
    """
    if profiler_is_running():
        return None
    from torch.profiler import ProfilerActivity, profile, supported_activities

    if ProfilerActivity.CUDA not in supported_activities():
        return None
    own = torch.zeros(1, device=device)
    own.add_(1)
    call()  # the first call under a profiler that starts may load modules of kernels
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as seen:
        own.add_(1)
        call()
        torch.cuda.synchronize(device)
    launches = sum(event.count for event in seen.key_averages() if event.key.startswith(_LAUNCHES))
    return launches - 1 if launches else None


def host_syncs(call: Callable[[], object]) -> int:
    """Waits of the host for a CUDA device in one call, as torch's synchronization debug mode reports them.

    An explicit `torch.cuda.synchronize()` is not among them.
    """
    previous = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode(previous)
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)
