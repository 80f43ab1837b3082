"""One ATen call by the storages that it touches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.calls.aten.kernels import Kernel, Role
from harness.calls.aten.storages import address, components


class Argument(NamedTuple):
    """A component of an argument, or of a result.

    Args:
        part: a dense tensor.
        place: the address of its storage.
        role: what the kernel does with it.
        elements: the most that it can touch of it; ``None``: all.
    """

    part: Tensor
    place: int
    role: Role
    elements: int | None


class Call(NamedTuple):
    """One ATen call.

    Args:
        kernel: the operation.
        positional: its arguments as they came.
        keyword: those that came by name.
        returned: what it returned.
        arguments: the components of its tensors.
        results: the components of what it returned.
        made: those of the results that lie in storages which no argument has.
    """

    kernel: Kernel
    positional: Sequence[Any]
    keyword: Mapping[str, Any]
    returned: Any
    arguments: Sequence[Argument]
    results: Sequence[Argument]
    made: Sequence[Argument]


def describe(kernel: Kernel, args: Sequence[Any], kwargs: Mapping[str, Any], returned: Any) -> Call:
    """A call after it has run."""
    reach = addressed(kernel.name, args, returned)
    arguments: list[Argument] = []
    for position, (role, tensor) in enumerate(_roles(kernel, args, kwargs)):
        elements = reach if position == 0 else None
        for part in components(tensor):
            arguments.append(Argument(part, address(part.untyped_storage()), role, elements))
    results = [
        Argument(part, address(part.untyped_storage()), "write", None)
        for tensor in tensors_in(returned)
        for part in components(tensor)
    ]
    given = [argument.place for argument in arguments]
    made = [result for result in results if result.place not in given]
    return Call(kernel, args, kwargs, returned, arguments, results, made)


def _roles(kernel: Kernel, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[Role, Tensor]]:
    for role, value in zip(kernel.positional, args, strict=False):
        for tensor in tensors_in(value):
            yield role, tensor
    for name, value in kwargs.items():
        for tensor in tensors_in(value):
            yield kernel.keyword[name], tensor


def tensors_in(value: Any) -> Iterable[Tensor]:
    """The tensors of one argument, or of what an operation returns."""
    if isinstance(value, Tensor):
        return (value,)
    return [item for item in value if isinstance(item, Tensor)] if isinstance(value, (list, tuple)) else ()


def addressed(name: str, args: Sequence[Any], returned: Any) -> int | None:
    """Number of elements that an operation by index reads of its source, or changes in place; ``None``: not by index.

    An index that comes twice counts twice; under a boolean mask every element counts that the mask could choose.
    """
    if name in {"index", "gather", "index_select", "embedding", "take", "masked_select"}:
        return int(returned.numel())
    if name in {"nll_loss_forward", "nll_loss2d_forward"}:
        return int(args[1].numel())
    if name in {"scatter_", "scatter_add_", "scatter_reduce_"}:
        return int(args[2].numel())
    if name in {"index_add_", "index_copy_"}:
        return int(args[3].numel())
    if name == "index_fill_":
        return int(args[2].numel() * args[0].numel() // max(args[0].size(args[1]), 1))
    if name == "put_":
        return int(args[1].numel())
    if name in {"index_put_", "_index_put_impl_"}:
        return _indexed(args[0], args[1])
    return None


def _indexed(value: Tensor, indices: Sequence[Tensor | None]) -> int:
    """Elements of ``value[indices]``."""
    chosen = [index for index in indices if index is not None]
    if any(index.dtype in (torch.bool, torch.uint8) for index in chosen):
        return value.numel()
    kept = [size for axis, size in enumerate(value.shape) if axis >= len(indices) or indices[axis] is None]
    shape = torch.broadcast_shapes(*(index.shape for index in chosen))
    return int(torch.Size([*shape, *kept]).numel())
