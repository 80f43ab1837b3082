"""Arguments of a loss that hold tensors: lists, tuples, dicts, named tuples and dataclasses, and the flat names of their tensors.

Everything above sees one mapping from flat names, such as ``boxes.0`` and ``targets.mask``, to tensors; the argument is made of
them where the loss is called.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.declare import dims, domains
from harness.declare.tensor_spec import TensorSpec
from harness.errors import DeclarationError, shown
from harness.private_names import unwatched


@dataclass(frozen=True)
class Several:
    """What `several` declares: a list of drawn length, all of whose elements are alike."""

    symbol: str
    element: Any


def several(symbol: str, element: Any) -> Several:
    """A list whose length is the size ``symbol``: one tensor for each image, layer or view.

    Args:
        symbol: the size; tensors elsewhere may have it too.
        element: a `TensorSpec`, or a list, tuple or dict of them; every element of the list has the same shapes.

    Raises:
        DeclarationError: no name of a size.
    """
    if not isinstance(symbol, str) or not symbol.isidentifier():
        raise DeclarationError(
            f'several({shown(symbol)}, ...): got {shown(symbol)}, expected the name of a size: several("L", TensorSpec("B C"))'
        )
    return Several(symbol, element)


def changed(declared: Any, path: Sequence[str], role: str) -> Any:
    """What stands for an argument, with the role of the tensor at ``path`` of it overruled.

    Raises:
        DeclarationError: there is no tensor.
    """
    if isinstance(declared, Several):
        return replace(declared, element=changed(declared.element, path, role))
    if not path and dataclasses.is_dataclass(declared) and not isinstance(declared, type):
        return replace(declared, role=role)
    keys = _keys(declared) or {}
    found = next((key for key in keys if path and str(key) == path[0]), None)
    if found is None:
        raise DeclarationError(f"role {role!r}: got {'.'.join(path)!r}, expected one of {list(map(str, keys))}")
    parts = {key: changed(part, path[1:], role) if key == found else part for key, part in keys.items()}
    return parts if isinstance(declared, dict) else tuple(parts.values())


@dataclass(frozen=True)
class Leaf:
    """One tensor of an argument, by its flat name.

    ``form`` is what the loss is given instead: a Python number by the kind of its domain, or a complex, sparse or nested tensor,
    whose rows begin at the ``offsets``, a tensor by its flat name.
    """

    name: str
    form: str = ""
    optional: bool = False
    ndim: int | None = None
    offsets: str = ""


@dataclass(frozen=True)
class Group:
    """Several parts under one argument: ``keys`` are those of a dict or the fields of a class, else positions."""

    kind: type
    keys: tuple[Any, ...]
    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Repeated:
    """A list with one element for each slice along the first axis, ``symbol``, of the tensors in ``part``."""

    symbol: str
    part: Node


Node = Leaf | Group | Repeated
Tensors = Mapping[str, Tensor]


def flatten(name: str, declared: Any, read: Callable[[str, Any], TensorSpec]) -> tuple[Node, dict[str, TensorSpec]]:
    """The structure of one declared argument, and its tensors by flat name.

    Args:
        name: of the argument.
        declared: what stands for it: what ``read`` takes, or a list, tuple, dict, named tuple, dataclass or `several` of that.
        read: makes a `TensorSpec`, or refuses.

    Raises:
        DeclarationError: an empty structure, a key that cannot be part of a name, or what ``read`` refuses.
    """
    if isinstance(declared, Several):
        part, tensors = flatten(name, declared.element, read)
        for leaf, tensor in tensors.items():
            if tensor.optional or tensor.number or tensor.domain.form in SPARSE or tensor.jagged:
                raise DeclarationError(
                    f"{leaf}: several({declared.symbol!r}, ...) repeats tensors; write a list of fixed length for what may be "
                    f"None, is sparse, is nested or is a number"
                )
        repeated = {leaf: replace(t, dims=f"{declared.symbol} {t.dims}".strip()) for leaf, t in tensors.items()}
        return Repeated(declared.symbol, _with_axes(part, 1)), repeated
    keys = _keys(declared)
    if keys is None:
        tensor = read(name, declared)
        fixed = not any(dim.variadic for dim in dims.parse(tensor.dims))
        form = tensor.domain.kind if tensor.number else tensor.domain.form
        if form == "complex":
            tensor = replace(tensor, dims=f"{tensor.dims} 2".strip())
        ndim = len(dims.parse(tensor.dims)) if fixed else None
        if tensor.jagged is None:
            return Leaf(name, form, tensor.optional, ndim), {name: tensor}
        total = tensor.dims.split()[0]
        offsets = replace(tensor, dims=f"{tensor.jagged}+1", domain=domains.offsets(total, empty=False), **_OFFSETS)
        return Leaf(name, "jagged", ndim=ndim, offsets=f"{total}.offsets"), {name: tensor, f"{total}.offsets": offsets}
    if not keys:
        raise DeclarationError(
            f"{name}: got an empty {type(declared).__name__}, expected one with at least one TensorSpec"
        )
    parts: list[Node] = []
    found: dict[str, TensorSpec] = {}
    for key, value in keys.items():
        if not str(key).replace("_", "").isalnum():
            raise DeclarationError(
                f"{name}: got the key {shown(key)}, expected letters, digits and '_', such as 'mask'"
            )
        part, tensors = flatten(f"{name}.{key}", value, read)
        parts.append(part)
        found |= tensors
    return Group(type(declared), tuple(keys), tuple(parts)), found


def _with_axes(part: Node, more: int) -> Node:
    """The structure of tensors that have so many axes more."""
    if isinstance(part, Leaf):
        return replace(part, ndim=None if part.ndim is None else part.ndim + more)
    if isinstance(part, Repeated):
        return replace(part, part=_with_axes(part.part, more))
    return replace(part, parts=tuple(_with_axes(each, more) for each in part.parts))


def _keys(declared: Any) -> dict[Any, Any] | None:
    """The parts of a structure by key; ``None`` for what is no structure."""
    if isinstance(declared, Mapping):
        return dict(declared)
    if isinstance(declared, tuple) and hasattr(declared, "_fields"):
        return dict(zip(declared._fields, declared, strict=True))
    if isinstance(declared, (list, tuple)):
        return dict(enumerate(declared))
    if dataclasses.is_dataclass(declared) and not isinstance(declared, type) and not hasattr(declared, "domain"):
        return {field.name: getattr(declared, field.name) for field in dataclasses.fields(declared) if field.init}
    return None


def _nodes(node: Node) -> Iterator[Node]:
    """A structure and all parts of it, in order."""
    yield node
    if not isinstance(node, Leaf):
        for part in node.parts if isinstance(node, Group) else (node.part,):
            yield from _nodes(part)


def leaves(node: Node) -> Iterator[Leaf]:
    """The tensors of a structure, in order."""
    for leaf in _nodes(node):
        if isinstance(leaf, Leaf):
            yield from (leaf, Leaf(leaf.offsets)) if leaf.offsets else (leaf,)


def lengths(node: Node) -> set[str]:
    """The sizes that are lengths of lists."""
    return {each.symbol for each in _nodes(node) if isinstance(each, Repeated)}


def rebuild(node: Node, tensors: Tensors) -> Any:
    """The argument, made of tensors by flat name; what may be ``None`` and is not there is ``None``.

    Raises:
        ValueError: a tensor has more or fewer axes than the declared list or number is made of.
    """
    if isinstance(node, Leaf):
        if node.optional and node.name not in tensors:
            return None
        if node.offsets:
            return _nested(tensors[node.name], tensors[node.offsets], node)
        return _FORMS[node.form](tensors[node.name], node) if node.form else tensors[node.name]
    if isinstance(node, Group):
        return _made(node, [rebuild(part, tensors) for part in node.parts])
    inside = {leaf.name: _slices(tensors[leaf.name], leaf) for leaf in leaves(node.part)}
    count = min(len(slices) for slices in inside.values())
    part = _with_axes(node.part, -1)
    return [rebuild(part, {name: slices[k] for name, slices in inside.items()}) for k in range(count)]


def _slices(tensor: Tensor, leaf: Leaf) -> tuple[Tensor, ...]:
    if tensor.ndim == 0 or (leaf.ndim is not None and tensor.ndim != leaf.ndim):
        raise ValueError(f"{leaf.name} has {tensor.ndim} axes, expected {leaf.ndim}")
    return tensor.unbind()


def _made(node: Group, parts: list[Any]) -> Any:
    if issubclass(node.kind, Mapping):
        return dict(zip(node.keys, parts, strict=True))
    if node.kind is tuple:
        return tuple(parts)
    if issubclass(node.kind, list):
        return parts
    return node.kind(**dict(zip(node.keys, parts, strict=True)))


def _number(kind: Callable[[Any], Any]) -> Callable[[Tensor, Leaf], Any]:
    """The Python number that a tensor holds; reading it is no operation of the loss."""

    def read(tensor: Tensor, leaf: Leaf) -> Any:
        if tensor.ndim:
            raise ValueError(f"{leaf.name} has shape {list(tensor.shape)}, expected one number")
        with unwatched():
            return kind(tensor.detach().item())

    return read


def _complex(tensor: Tensor, leaf: Leaf) -> Tensor:
    """The complex tensor whose real and imaginary parts stand along the last axis."""
    if tensor.shape[-1:] != (2,) or (leaf.ndim is not None and tensor.ndim != leaf.ndim):
        raise ValueError(
            f"{leaf.name} has shape {list(tensor.shape)}, expected a last axis of real and imaginary parts"
        )
    wide = tensor if tensor.dtype == torch.float64 else tensor.float()
    return torch.complex(wide[..., 0], wide[..., 1])


def _sparse(tensor: Tensor, leaf: Leaf) -> Tensor:
    """The sparse tensor of the elements that are not zero; finding them is no operation of the loss."""
    if leaf.ndim is not None and tensor.ndim != leaf.ndim:
        raise ValueError(f"{leaf.name} has {tensor.ndim} axes, expected {leaf.ndim}")
    with unwatched():
        if leaf.form == "bsr":
            return tensor.to_sparse_bsr((1, 1))
        return tensor.to_sparse() if leaf.form == "coo" else tensor.to_sparse_csr()


def _nested(rows: Tensor, offsets: Tensor, leaf: Leaf) -> Tensor:
    """The nested tensor of rows that stand one after another; finding out how long they are is no operation of the loss."""
    if leaf.ndim is not None and rows.ndim != leaf.ndim:
        raise ValueError(f"{leaf.name} has {rows.ndim} axes, expected {leaf.ndim}")
    with unwatched():
        lengths = [] if offsets.is_meta else offsets.diff().tolist()
        if lengths and (offsets[0] != 0 or offsets[-1] != len(rows) or min(lengths) < 0):
            raise ValueError(
                f"{leaf.name} has {len(rows)} elements in rows, expected the {sum(lengths)} of its offsets"
            )
    bounds = {"min_seqlen": min(lengths), "max_seqlen": max(lengths)} if lengths else {}
    nested: Tensor = torch.nested.nested_tensor_from_jagged(rows, offsets, **bounds)
    return nested


SPARSE = ("coo", "csr", "bsr")
_FORMS: dict[str, Callable[[Tensor, Leaf], Any]] = {
    "float": _number(float),
    "integer": _number(int),
    "boolean": _number(bool),
    "complex": _complex,
    **dict.fromkeys(SPARSE, _sparse),
}


# What offsets do not take over from the tensor whose rows they part.
_OFFSETS: dict[str, Any] = {"dtype": None, "jagged": None, "role": None}

_CODE = {
    **dict.fromkeys(("float", "integer", "boolean"), "{}.item()"),
    "complex": "torch.view_as_complex({}.contiguous())",
    "coo": "{}.to_sparse()",
    "csr": "{}.to_sparse_csr()",
    "bsr": "{}.to_sparse_bsr((1, 1))",
}


def code(node: Node, tensor: Callable[[Leaf], str]) -> str:
    """Python that makes the argument; ``tensor`` says how each tensor is written."""
    if isinstance(node, Leaf):
        if node.offsets:
            return f"torch.nested.nested_tensor_from_jagged({tensor(node)}, {tensor(Leaf(node.offsets))})"
        return _CODE.get(node.form, "{}").format(tensor(node))
    if isinstance(node, Group):
        parts = [code(part, tensor) for part in node.parts]
        if issubclass(node.kind, Mapping):
            return "{" + ", ".join(f"{key!r}: {part}" for key, part in zip(node.keys, parts, strict=True)) + "}"
        if issubclass(node.kind, list):
            return f"[{', '.join(parts)}]"
        if node.kind is tuple:
            return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
        named = ", ".join(f"{key}={part}" for key, part in zip(node.keys, parts, strict=True))
        return f"{node.kind.__module__}.{node.kind.__qualname__}({named})"
    first = next(leaves(node.part))
    if isinstance(node.part, Leaf) and not node.part.form:
        return f"list({tensor(first)})"
    return f"[{code(node.part, lambda leaf: f'{tensor(leaf)}[i]')} for i in range(len({tensor(first)}))]"


def modules(node: Node) -> set[str]:
    """The modules whose classes `code` names."""
    kinds = {each.kind for each in _nodes(node) if isinstance(each, Group)}
    return {kind.__module__ for kind in kinds if not issubclass(kind, (list, Mapping)) and kind is not tuple}
