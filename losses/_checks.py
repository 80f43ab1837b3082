"""Refusals that the losses share: nothing is broadcast that is not declared."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def check_reduction(reduction: str, allowed: Sequence[str]) -> None:
    """Refuse a reduction that the loss does not know.

    Raises:
        ValueError: ``reduction`` is not one of ``allowed``.
    """
    if reduction not in allowed:
        raise ValueError(f"reduction={reduction!r}, expected one of {list(allowed)}")


def check_tensor(name: str, value: object) -> None:
    """Refuse what is no tensor, such as a list or an array of NumPy.

    Raises:
        TypeError: another type; the message names it.
    """
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} has type {type(value).__name__}, expected a torch.Tensor; write torch.as_tensor({name})"
        )


def check_floating(name: str, tensor: Tensor) -> None:
    """Refuse a tensor that can have no gradient.

    Raises:
        TypeError: not a tensor, or one whose dtype is not a real floating one.
    """
    check_tensor(name, tensor)
    if not tensor.is_floating_point():
        raise TypeError(f"{name} has dtype {tensor.dtype}, expected floating; write {name}.float() if it holds numbers")


def check_same_shape(labels: Tensor, predictions: Tensor) -> None:
    """Refuse labels that would be broadcast against the predictions, such as [B] against [B, 1].

    Raises:
        TypeError: labels that are not a tensor.
        ValueError: the shapes differ; the message names both.
    """
    check_tensor("labels", labels)
    if labels.shape != predictions.shape:
        raise ValueError(
            f"labels has shape {list(labels.shape)}, but predictions has shape {list(predictions.shape)}; "
            f"nothing is broadcast, so reshape or expand one of them on purpose"
        )


def check_classes(logits: Tensor, labels: Tensor) -> None:
    """Refuse logits that are not one row of classes for each sample, and labels that are not one for each row.

    Raises:
        TypeError: logits that are not floating, or labels that are not an integer tensor.
        ValueError: shapes that do not belong together; the message names both.
    """
    check_floating("logits", logits)
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"logits has shape {list(logits.shape)}, expected [B, C] with C >= 1 classes")
    check_index("labels", labels, tuple(logits.shape[:1]), f"one for each row of logits {list(logits.shape)}")


def check_index(name: str, index: Tensor, shape: tuple[int, ...], meaning: str) -> None:
    """Refuse positions of another shape or dtype; ``meaning`` says what there is one of for every element.

    Raises:
        TypeError: not a tensor of int32 or int64.
        ValueError: another shape; the message names both.
    """
    if not isinstance(index, Tensor) or index.dtype not in (torch.int32, torch.int64):
        came = f"dtype {index.dtype}" if isinstance(index, Tensor) else f"type {type(index).__name__}"
        raise TypeError(f"{name} has {came}, expected an int64 tensor; write torch.tensor([0, 1])")
    if tuple(index.shape) != shape:
        raise ValueError(f"{name} has shape {list(index.shape)}, expected shape {list(shape)}: {meaning}")


def positions(name: str, index: Tensor, size: int) -> list[int]:
    """The positions as Python integers, for loops.

    Raises:
        IndexError: a position is outside [0, size); a negative one counts from no end.
    """
    found: list[int] = index.tolist()
    for position in found:
        if not 0 <= position < size:
            raise IndexError(f"{name} holds {position}, expected in [0, {size})")
    return found


def check_values(name: str, context: Tensor, lowest: float = -math.inf) -> None:
    """Refuse a context that holds NaN, infinity or numbers below ``lowest``; for constructors, as it waits for the device.

    Only values that are there can be read: meta and fake tensors pass, and so does everything under torch.compile and
    torch.func.  What is written or loaded into a buffer later is never read.

    Raises:
        ValueError: such a value; the message names the first.
    """
    context = context.detach()
    if type(context) is not Tensor or context.is_meta:
        return
    if torch.compiler.is_compiling() or torch._C._functorch.maybe_current_level() is not None:
        return
    entries = None if context.layout == torch.strided else context.to_sparse(layout=torch.sparse_coo).coalesce()
    values = context if entries is None else entries.values()
    wrong = ~(values.isfinite() & (values >= lowest))
    if not bool(wrong.any()):
        return
    first = wrong.nonzero()[0]
    place = first.tolist() if entries is None else entries.indices()[:, int(first)].tolist()
    bound = "" if lowest == -math.inf else f" and from {lowest:g} up"
    raise ValueError(f"{name}{place} is {values[tuple(first)].item()}, expected finite{bound}")
