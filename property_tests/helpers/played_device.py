"""A device that is played on the CPU, as strict as CUDA: what mixes devices there raises here, and no GPU is needed.

Tensors on it hold numbers of the CPU and say that they are on `PLAYED`, a device that torch has everywhere and autograd knows.
Every operation on them goes through `_performed`, which asks what CUDA's kernels ask:

- tensors of one axis or more are all on one device; a CPU number of none may meet the device's;
- an index of whole numbers or truth values may be on the CPU (``x[i]``), the index of index_select, gather and scatter not;
- copies, ``x.copy_(y)`` and ``x.to(device)``, go from any device to any;
- a generator of the CPU draws nothing on the device;
- nothing of it is given to NumPy.

Asked of CUDA, the same lines raise the same errors (`test_played_device.py`, marked ``cuda``).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

PLAYED = "meta"
TWO_DEVICES = "Expected all tensors to be on the same device, but found at least two devices, played:0 and cpu!"
CPU_GENERATOR = "Expected a 'played' device type for generator but found 'cpu'"
NO_NUMPY = (
    "can't convert played:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
)

# Where an index comes with a tensor: CUDA takes it from the CPU too.
_BY_INDEX = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
_COPIES = {"copy_", "_to_copy", "_copy_from"}
_READS = {"_local_scalar_dense", "equal", "is_nonzero"}


class On(torch.Tensor):
    """A tensor on the played device; ``held`` has its numbers."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> On:
        dense = held.layout == torch.strided
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride() if dense else None,
            storage_offset=held.storage_offset() if dense else None,
            dtype=held.dtype,
            layout=held.layout,
            device=PLAYED,
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"On({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _performed(func, args, kwargs or {})


class _Device(TorchDispatchMode):
    """Makes on the played device what is to be made there, also from a tensor of the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if kwargs and kwargs.get("device") is not None:
            return _performed(func, args, kwargs)
        return func(*args, **(kwargs or {}))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # see `harness.calls.watch.Watch`


@contextmanager
def played() -> Iterator[str]:
    """The device is there inside the block; what was made on it stays of use only there."""
    with contextlib.ExitStack() as patches:
        for owner, name, made in _PATCHED:
            patches.enter_context(mock.patch.object(owner, name, made(getattr(owner, name))))
        patches.enter_context(_Device())
        yield PLAYED


def _reading(tolist: Any) -> Any:
    return lambda tensor: tolist(tensor.held.detach() if isinstance(tensor, On) else tensor)


def _refusing(numpy: Any) -> Any:
    def refused(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if isinstance(tensor, On):
            raise TypeError(NO_NUMPY)
        return numpy(tensor, *args, **kwargs)

    return refused


def _placing(make: Any) -> Any:
    """A function that makes a tensor of Python's numbers, which torch places without asking anybody."""

    def placed(*args: Any, device: Any = None, **kwargs: Any) -> Any:
        like = args[0] if make.__name__ == "new_tensor" else None
        device = like.device if device is None and isinstance(like, On) else device
        if device is None or torch.device(device).type != PLAYED:
            return make(*args, **kwargs) if device is None else make(*args, device=device, **kwargs)
        needs_grad = kwargs.pop("requires_grad", False)
        return make(*args, device="cpu", **kwargs).to(PLAYED).requires_grad_(needs_grad)

    return functools.wraps(make)(placed)


_PATCHED: tuple[tuple[Any, str, Callable[[Any], Any]], ...] = (
    (torch.Tensor, "tolist", _reading),
    (torch.Tensor, "numpy", _refusing),
    (torch.Tensor, "new_tensor", _placing),
    (torch, "tensor", _placing),
    (torch, "as_tensor", _placing),
)


def _performed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func.overloadpacket.__name__
    if func.namespace == "prims":  # torch asks for the shape of a sum with zeros that autograd does not make
        return func(
            *(_held(each, "meta") for each in args), **{key: _held(each, "meta") for key, each in kwargs.items()}
        )
    is_on = any(isinstance(each, On) for each in _tensors((*args, *kwargs.values())))
    target = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
    if is_on:
        _refuse_a_mix(name, args, kwargs)
    is_made = target == PLAYED or (is_on and target is None)
    if is_made and kwargs.get("generator") is not None:
        raise RuntimeError(CPU_GENERATOR)
    if target == PLAYED:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    returned = func(*(_held(each) for each in args), **{key: _held(each) for key, each in kwargs.items()})
    if name == "_to_copy" and is_on and target == "cpu":
        return returned.clone()  # another tensor, though its numbers are there already
    if not is_made or name in _READS:
        return returned
    if torch.Tag.inplace_view in func.tags or "out" in kwargs:
        return return_and_correct_aliasing(func, args, kwargs, _placed(returned))
    if func._schema.is_mutable and name.endswith("_"):
        return args[0]
    return _placed(returned)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for each in values:
        if isinstance(each, torch.Tensor):
            yield each
        elif isinstance(each, (list, tuple)):
            yield from _tensors(each)


def _held(value: Any, device: str = "cpu") -> Any:
    if isinstance(value, On):
        return value.held.to(device)
    return type(value)(_held(each, device) for each in value) if type(value) in (list, tuple) else value


def _placed(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return On(value)
    return type(value)(map(_placed, value)) if type(value) in (list, tuple) else value


def _refuse_a_mix(name: str, args: Any, kwargs: dict[str, Any]) -> None:
    if name in _COPIES:
        return
    # The tensor, what is looked up in it, and what is written: where the index is does not matter.
    given = (args[0], *args[2:3]) if name in _BY_INDEX else (*args, *kwargs.values())
    if any(not isinstance(each, On) and each.ndim > 0 for each in _tensors(given)):
        raise RuntimeError(f"{TWO_DEVICES} (when checking arguments of {name})")
