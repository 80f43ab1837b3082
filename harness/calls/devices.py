"""Devices: the generators that a process has, and whether a device still works in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from harness.errors import told_in_a_line
from harness.private_names import is_in_bad_fork


def is_cpu(device: str) -> bool:
    """Whether a device is the host itself."""
    return torch.device(device).type == "cpu"


def generators() -> dict[str, torch.Generator]:
    """torch's global generators by name: the CPU's, and those of CUDA devices once this process uses CUDA.

    Before that they are not asked for, as asking would start CUDA; what is drawn from a device starts it.
    """
    found = {"torch's global generator": torch.default_generator}
    if torch.cuda.is_initialized():
        found |= {f"the global generator of cuda:{n}": each for n, each in enumerate(torch.cuda.default_generators)}
    return found


def seed(state: int) -> None:
    """Begin all of torch's global generators anew, so that what a loss draws is the same on every device."""
    for generator in generators().values():
        generator.manual_seed(state)


@contextmanager
def kept() -> Iterator[None]:
    """Put torch's global generators back at the end of the block, but for one that it has started, which was at no state before."""
    before = [(generator, generator.get_state()) for generator in generators().values()]
    try:
        yield
    finally:
        for generator, state in before:
            generator.set_state(state)


def is_barred() -> bool:
    """Whether CUDA is closed to this process, which was forked from one that had asked the CUDA runtime for anything.

    Asking whether a device is there is enough, where torch does not ask by NVML (``PYTORCH_NVML_BASED_CUDA_CHECK=1``) or NVML
    does not answer.  So no process that forks jobs asks.
    """
    return is_in_bad_fork()


def lost(device: str) -> str | None:
    """Why a device that was there no longer works in this process, or ``None`` where it does.

    After some errors, such as an assertion on the device, every later call on a CUDA device fails with the same error, and
    only a new process can use it again.
    """
    if torch.device(device).type != "cuda" or not torch.cuda.is_initialized():
        return None
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        return f"{device} works no more in this process: {told_in_a_line(error)}"
    return None
