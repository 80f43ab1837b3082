"""Devices: whether one is there, whether it still works, and what running out of its memory looks like."""

from __future__ import annotations

import gc
from contextlib import AbstractContextManager, nullcontext

import torch

from harness.calls.devices import lost as lost  # what is timed asks it too
from harness.errors import told_in_a_line
from harness.results.measured import Cell


def unavailable(device: str) -> str | None:
    """Why nothing can run on ``device`` here, or ``None`` where it can."""
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        return f"torch knows no device {device!r}: {told_in_a_line(error)}"
    if kind == "cpu":
        return None
    if kind == "cuda":
        if not torch.cuda.is_available():
            built = "no CUDA device is visible" if torch.version.cuda else "this torch is built without CUDA"
            return f"{built} (torch {torch.__version__})"
        index = torch.device(device).index or 0
        count = torch.cuda.device_count()
        return None if index < count else f"device {device!r} came, but there are {count} CUDA devices"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        return f"no tensor can be made on {device!r}: {told_in_a_line(error)}"
    return None


def current(device: str) -> AbstractContextManager[object]:
    """Make a CUDA device the current one, as kernels that are launched without naming a device need it."""
    return torch.cuda.device(device) if torch.device(device).type == "cuda" else nullcontext()


def unusable(device: str) -> str | None:
    """Why a device that is there does nothing for this process, or ``None``; after it, the device is awake.

    The first use of a device makes its context and loads libraries, which takes seconds and is no loss's time.  It fails
    where others have all of the device's memory, or the device to themselves.
    """
    if torch.device(device).type != "cuda":
        return None
    try:
        with current(device):
            value = torch.ones(8, 8, device=device, requires_grad=True)
            (value @ value).sum().backward()
            torch.cuda.synchronize(device)
    except RuntimeError as error:
        return f"{device} is there, but nothing can run on it: {told_in_a_line(error)}"
    return None


def out_of_memory(cell: Cell) -> str:
    """What a row says where memory ran out."""
    return f"out of memory at {cell}: needs a smaller size"


def release(device: str) -> None:
    """Give back what was allocated before memory ran out, so that what comes next has it."""
    gc.collect()
    if torch.device(device).type == "cuda" and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
