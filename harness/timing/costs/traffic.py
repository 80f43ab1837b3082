"""Bytes that ATen calls read and write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from harness.calls.aten.calls import Argument, Call

_WRITES = ("write", "update")


def touched_elements(tensor: Tensor) -> int:
    """Distinct elements of a tensor: an axis that is expanded counts once, and windows that overlap what they cover."""
    if tensor.is_contiguous() or tensor.numel() == 0:
        return tensor.numel()
    distinct, extent = 1, 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        if stride:
            distinct *= size
            extent += (size - 1) * stride
    return min(distinct, extent)


def moved(call: Call) -> tuple[int, int]:
    """Bytes that one call reads and writes, as if each kernel touched each element once.

        read    = sum over storages of the distinct elements of the arguments there, in bytes
        written = the same of what is returned in storages of its own, and of the arguments that are changed in place

    - A view, a change of sizes or flags, and a call that returns nothing but views move nothing; `empty` writes nothing, and
      `ones_like` does not read what gives it the shape.
    - In place means read and written; `copy_`, `fill_`, `zero_`, the random fills and ``out=`` write without reading.
    - An expanded axis counts once.  A sparse tensor counts by its indices and values.
    - Operations by index (`index`, `gather`, `index_select`, `embedding`, the nll losses, and in place `index_put_`,
      `index_add_`, `scatter_` and others) touch as many elements of the indexed tensor as are addressed, at most all: a
      loss that looks up its batch in a larger context pays for the batch.

    What a kernel moves beyond that (several passes of a sort or a softmax, temporaries of its own) is not seen, and caches
    are not modelled: this is the traffic of a machine that runs call after call from memory.
    """
    changes = any(argument.role in _WRITES for argument in call.arguments)
    if call.results and not call.made and not changes:
        return 0, 0
    args = call.positional
    overwrites = call.kernel.name in {"index_put_", "_index_put_impl_"} and not (len(args) > 3 and args[3])
    read = [a for a in call.arguments if a.role == "read" or (a.role == "update" and not overwrites)]
    written = [a for a in call.arguments if a.role in _WRITES]
    fresh = () if call.kernel.allocates else call.made
    return _distinct_bytes(read), _distinct_bytes([*written, *fresh])


def _distinct_bytes(arguments: Sequence[Argument]) -> int:
    """Bytes of what arguments touch: distinct views of one storage add up, at most to the whole of it."""
    if len({argument.place for argument in arguments}) == len(arguments):
        return sum(_touched_bytes(argument.part, argument.elements) for argument in arguments)
    views: dict[int, dict[tuple[Any, ...], int]] = {}
    sizes: dict[int, int] = {}
    for part, place, _, elements in arguments:
        view = (part.storage_offset(), part.shape, part.stride())
        views.setdefault(place, {})[view] = _touched_bytes(part, elements)
        sizes[place] = part.untyped_storage().nbytes()
    return sum(min(sum(touched.values()), sizes[place]) for place, touched in views.items())


def _touched_bytes(part: Tensor, elements: int | None) -> int:
    touched = touched_elements(part)
    return (touched if elements is None else min(touched, elements)) * part.element_size()
