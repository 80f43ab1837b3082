"""Losses that do what no loss should: return anything, raise anything, change everything around them."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from bad_values import LONG, Unspeakable
from torch import Tensor, nn

Loss = Callable[..., Any]


def mean_squared(predictions: Tensor, targets: Tensor) -> Tensor:
    return (predictions - targets).pow(2).mean()


class WithoutWords(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class NoException(BaseException):
    pass


class OwnTensor(Tensor):
    pass


class Unbuildable(nn.Module):
    def __init__(self) -> None:
        raise ValueError("cannot be built")

    def forward(self, predictions, targets):
        return mean_squared(predictions, targets)


def returning(make: Callable[[Tensor], Any]) -> Loss:
    return lambda predictions, targets: make(mean_squared(predictions, targets))


def raising(make: Callable[[], BaseException]) -> Loss:
    def loss(predictions, targets):
        raise make()

    return loss


def doing(effect: Callable[[Tensor, Tensor], Any]) -> Loss:
    def loss(predictions, targets):
        effect(predictions, targets)
        return mean_squared(predictions, targets)

    return loss


def recursing(predictions, targets):
    return recursing(predictions, targets)


# name -> (loss, what its first error says)
RETURNED: dict[str, tuple[Loss, str]] = {
    "None": (returning(lambda value: None), "None"),
    "a tuple": (returning(lambda value: (value, 1)), "a tuple"),
    "an int": (returning(lambda value: 3), "an int"),
    "a float": (returning(float), "a float"),
    "text": (returning(lambda value: LONG), "a str"),
    "complex": (returning(lambda value: value * 1j), "torch.complex128"),
    "truth": (returning(lambda value: value > 0), "torch.bool"),
    "quantized": (
        returning(lambda v: torch.quantize_per_tensor(v.float().reshape(1), 0.1, 0, torch.qint8)),
        "torch.qint8",
    ),
    "nested": (returning(lambda value: torch.nested.nested_tensor([value.reshape(1)] * 2)), "a nested tensor"),
    "sparse of one axis": (returning(lambda value: value.reshape(1).to_sparse()), "[1]"),
    "one axis": (returning(lambda value: value.reshape(1)), "[1]"),
    "no elements": (returning(lambda value: value.reshape(1)[:0]), "[0]"),
    "on meta": (returning(lambda value: value.to("meta")), "a tensor on meta"),
    "detached": (returning(lambda value: value.detach()), "None"),
    "NaN": (returning(lambda value: value * torch.nan), "nan"),
    "unspeakable": (returning(lambda value: Unspeakable()), "an Unspeakable"),
}
RAISED: dict[str, tuple[Loss, str]] = {
    "an error": (raising(lambda: RuntimeError("no luck")), "RuntimeError: no luck"),
    "nothing said": (raising(ValueError), "ValueError"),
    "without words": (raising(WithoutWords), "WithoutWords (its message cannot be written)"),
    "long": (raising(lambda: ValueError(LONG)), "ValueError: xxx"),
    "lines": (raising(lambda: ValueError("first\nsecond\x1b[2J")), "ValueError: first"),
    "escapes": (raising(lambda: ValueError("\x1b[2J\ud800")), "ValueError: \\x1b[2J\\ud800"),
    "exit": (raising(lambda: SystemExit(0)), "SystemExit: 0"),
    "generator exit": (raising(GeneratorExit), "GeneratorExit"),
    "no exception": (raising(lambda: NoException("out")), "NoException: out"),
    "stop iteration": (raising(StopIteration), "StopIteration"),
    "memory": (raising(lambda: MemoryError("all gone")), "MemoryError: all gone"),
    "recursion": (recursing, "RecursionError"),
    "constructor": (Unbuildable, "ValueError: cannot be built"),
}
# name -> (loss, what S02 says changed)
CHANGING: dict[str, tuple[Loss, str]] = {
    "dtype": (doing(lambda p, t: torch.set_default_dtype(torch.float64)), "torch.get_default_dtype()"),
    "seed": (doing(lambda p, t: torch.manual_seed(3)), "torch's global generator"),
    "threads": (doing(lambda p, t: torch.set_num_threads(torch.get_num_threads() + 1)), "torch.get_num_threads()"),
    "grad mode": (doing(lambda p, t: torch.set_grad_enabled(False)), "torch.is_grad_enabled()"),
    "environment": (doing(lambda p, t: os.environ.__setitem__("LOSS_WAS_HERE", "1")), "os.environ['LOSS_WAS_HERE']"),
    "directory": (doing(lambda p, t: os.chdir("/")), "os.getcwd()"),
    "module path": (doing(lambda p, t: sys.path.append("beside")), "sys.path"),
    "stdout": (doing(lambda p, t: setattr(sys, "stdout", sys.__stdout__)), "sys.stdout"),
    "stderr": (doing(lambda p, t: setattr(sys, "stderr", None)), "sys.stderr"),
    "a function": (doing(lambda p, t: setattr(torch, "mean", lambda *given: given[0].mean())), "torch.mean"),
    "recursion limit": (
        doing(lambda p, t: sys.setrecursionlimit(sys.getrecursionlimit() + 1)),
        "sys.getrecursionlimit()",
    ),
}
# They are as right as their twin, and leave nothing behind.
NOISY: dict[str, Loss] = {
    "warns": doing(lambda p, t: warnings.warn(LONG, stacklevel=1)),
    "prints": doing(lambda p, t: print(LONG[:100])),
    "logs": doing(lambda p, t: logging.getLogger().error("logged")),
    "disables logging": doing(lambda p, t: logging.disable(logging.CRITICAL)),
    "filters warnings": doing(lambda p, t: warnings.simplefilter("error")),
    "closes stdout": doing(lambda p, t: sys.stdout.close()),
    "returns its own tensor": returning(lambda value: value.as_subclass(OwnTensor)),
}
# Not a silent pass either, whichever rule says so.
SPOILING: dict[str, Loss] = {
    "default device": doing(lambda p, t: torch.set_default_device("meta")),
    "target in place": doing(lambda p, t: t.add_(1)),
    "prediction in place": doing(lambda p, t: p.data.mul_(2)),
    "resized target": doing(lambda p, t: t.resize_(t.numel() + 1)),
}
