"""What the schema and the name of an ATen operation say about what it does with its arguments."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from harness.private_names import schema as schema_of

Role = Literal["read", "write", "update", "unread"]

# Returns a tensor on the storage of another, or changes nothing but sizes and flags, without the schema's saying so.
_METADATA = frozenset({
    "_coalesced_", "_dimI", "_dimV", "_nnz", "dense_dim", "detach_", "is_coalesced", "is_pinned", "is_same_size",
    "is_set_to", "resize_", "resize_as_", "set_", "sparse_dim", "sparse_resize_", "sparse_resize_and_clear_",
})  # fmt: skip
# Fills what it is given, whatever was in it.
_OVERWRITES = frozenset({
    "bernoulli_", "cauchy_", "copy_", "exponential_", "fill_", "geometric_", "index_copy_", "index_fill_", "log_normal_",
    "normal_", "put_", "random_", "scatter_", "uniform_", "zero_",
})  # fmt: skip
# Looks at the shape of these arguments alone.
_SHAPE_ONLY = {"nll_loss_backward": {"self"}, "nll_loss2d_backward": {"self"}}
_ALLOCATES = ("empty", "new_empty")


@dataclass(frozen=True)
class Kernel:
    """One ATen operation.

    Args:
        name: without namespace and overload.
        moves: whether it reads or writes data at all; a view does not.
        lifts: whether it is the one view that brings in a tensor made outside ATen, by `torch.tensor` for one.
        allocates: whether it makes tensors and leaves their values open.
        pointwise: whether each element of its result is computed from one element of each argument.
        positional: what it does with each argument.
        keyword: the same, by name.
    """

    name: str
    moves: bool
    lifts: bool
    allocates: bool
    pointwise: bool
    positional: tuple[Role, ...]
    keyword: Mapping[str, Role]


@functools.cache
def kernel_of(func: Any) -> Kernel:
    """The kernel of an overload that `__torch_dispatch__` was given."""
    name, schema = func.overloadpacket.__name__, schema_of(func)
    roles = {argument.name: _role(name, argument) for argument in schema.arguments}
    return Kernel(
        name=name,
        moves=not (name in _METADATA or torch.Tag.inplace_view in func.tags or _is_view(func)),
        lifts=name == "lift_fresh",
        allocates=name.startswith(_ALLOCATES),
        pointwise=torch.Tag.pointwise in func.tags,
        positional=tuple(roles.values()),
        keyword=roles,
    )


def _is_view(func: Any) -> bool:
    """Whether all that is returned is declared to share its storage, unwritten, with an argument."""
    if torch.Tag.maybe_aliasing_or_mutating in func.tags:
        return False
    returned = [value.alias_info for value in schema_of(func).returns]
    return bool(returned) and all(alias is not None and not alias.is_write for alias in returned)


def _role(name: str, argument: Any) -> Role:
    alias = argument.alias_info
    if alias is not None and alias.is_write:
        return "write" if name in _OVERWRITES or argument.kwarg_only else "update"
    # The first argument of a factory such as ones_like or new_zeros gives a shape, a dtype and a device.
    by_example = argument.name == "self" and (name.startswith("new_") or name.endswith("_like"))
    return "unread" if by_example or argument.name in _SHAPE_ONLY.get(name, ()) else "read"
