"""Losses that harm the process in which they run, each beside one that does not."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from harness import LossSpec


def good(predictions: Float[Tensor, "B C"], labels: Float[Tensor, "B C"]) -> Float[Tensor, ""]:
    return ((predictions - labels) ** 2).mean()


def segfault(predictions: Tensor, labels: Tensor) -> Tensor:
    if len(predictions) == 1:
        ctypes.string_at(0)
    return good(predictions, labels)


def endless(predictions: Tensor, labels: Tensor) -> Tensor:
    while len(predictions) == 1:
        pass
    return good(predictions, labels)


def bomb(predictions: Tensor, labels: Tensor) -> Tensor:
    if len(predictions) == 1:
        torch.ones(1 << 34, dtype=torch.uint8)
    return good(predictions, labels)


def leaves(predictions: Tensor, labels: Tensor) -> Tensor:
    if len(predictions) == 1:
        os._exit(0)
    return good(predictions, labels)


def forks(predictions: Tensor, labels: Tensor) -> Tensor:
    os.fork()
    return good(predictions, labels)


def deadlocks(predictions: Tensor, labels: Tensor) -> Tensor:
    lock = threading.Lock()
    lock.acquire()
    threading.Thread(target=lock.acquire).start()
    return good(predictions, labels)


def prints(predictions: Tensor, labels: Tensor) -> Tensor:
    print("noise", flush=True)
    os.write(1, b"noise of a library\n")
    sys.stderr.write("more noise\n")
    return good(predictions, labels)


def poisons(predictions: Tensor, labels: Tensor) -> Tensor:
    torch.set_default_dtype(torch.float64)
    torch.nn.functional.mse_loss = None  # type: ignore[assignment]
    return good(predictions, labels)


def cuda_assert(predictions: Tensor, labels: Tensor) -> Tensor:
    """An index out of bounds inside a kernel: the process can use the device no more."""
    if len(predictions) == 1:
        torch.zeros(1, device="cuda")[torch.tensor([5], device="cuda")].sum().item()
    return good(predictions, labels)


HOSTILE: tuple[Callable[..., Tensor], ...] = (segfault, endless, bomb, leaves, forks, deadlocks, prints, poisons)

SPECS = [LossSpec(name=loss.__name__, implementations={"good": good, loss.__name__: loss}) for loss in HOSTILE]
# What never ends is stopped at a limit that is waited for; all others can have one that no machine is slow enough to reach.
ENDLESS = [spec for spec in SPECS if spec.name == "endless"]
ENDING = [spec for spec in SPECS if spec.name != "endless"]
