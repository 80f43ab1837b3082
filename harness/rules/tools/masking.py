"""Which elements of the other tensors a weight, a mask or an ignored label stands for: aligned by their symbols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.declare import dims
from harness.declare.spec import LossSpec
from harness.drawing.case import Case
from harness.errors import NotApplicable
from harness.rules.tools.made import scattered


def removable(spec: LossSpec, name: str) -> float | None:
    """The value of tensor ``name`` that removes what it stands for, or ``None`` where its domain has none."""
    domain = spec.tensors[name].domain
    if domain.ignore is not None:
        return float(domain.ignore) if domain.removes else None
    if domain.nan:
        return float("nan")
    return 0.0 if domain.weighs else None


def with_some_removed(spec: LossSpec, tensors: Mapping[str, Tensor], name: str) -> tuple[dict[str, Tensor], Tensor]:
    """(tensors, removed): about a third of the elements of ``name`` removed, at least one kept and counting.

    Raises:
        NotApplicable: fewer than two elements.
    """
    values = tensors[name]
    if values.numel() < 2:
        raise NotApplicable(f"{name} has fewer than two elements")
    removed = torch.zeros_like(values, dtype=torch.bool).reshape(-1)
    removed[scattered(values)[: max(1, values.numel() // 3)]] = True
    removed = removed.reshape(values.shape)
    return with_removed(spec, tensors, name, removed), removed


def with_removed(spec: LossSpec, tensors: Mapping[str, Tensor], name: str, removed: Tensor) -> dict[str, Tensor]:
    """The tensors with these elements of ``name`` removed, and all others counting."""
    value = removable(spec, name)
    assert value is not None
    kept = removable_free(spec, tensors[name], name)
    return {**tensors, name: torch.where(removed, torch.full_like(kept, value), kept)}


def removable_free(spec: LossSpec, values: Tensor, name: str) -> Tensor:
    """The values with every removed element replaced by one that counts."""
    domain = spec.tensors[name].domain
    if domain.ignore is not None:
        return torch.where(values == domain.ignore, torch.full_like(values, float(domain.ignore == 0)), values)
    if domain.nan:
        return torch.nan_to_num(values)
    return torch.where(values == 0, torch.ones_like(values), values)


def aligned(spec: LossSpec, case: Case, removed: Tensor, name: str) -> dict[str, Tensor]:
    """For every input that has all symbols of ``name``: which of its elements are removed.

    Raises:
        NotApplicable: no input has them, or an axis is ambiguous.
    """
    own = dims.axes(spec.tensors[name].dims, case.sizes)
    named = [
        (label, size) for label, size in zip(own, removed.shape, strict=True) if not (label.isdecimal() and size == 1)
    ]
    sizes = dict(named)
    if len(sizes) != len(named) or not sizes:
        raise NotApplicable(f"the axes of {name} do not name distinct sizes")
    found: dict[str, Tensor] = {}
    for other, tensor in spec.inputs.items():
        axes = dims.axes(tensor.dims, case.sizes)
        if other == name or any(axes.count(label) != 1 for label in sizes):
            continue
        moved = broadcastable(removed.reshape([*sizes.values()]), [*sizes], axes)
        found[other] = moved.expand(case.shape(spec, other))
    if not found:
        raise NotApplicable(f"no input has all axes of {name}")
    return found


def broadcastable(values: Tensor, own: Sequence[str], axes: Sequence[str]) -> Tensor:
    """Values whose axes are ``own`` in a shape that broadcasts to ``axes``, among which is each of them once."""
    order = sorted(range(len(own)), key=lambda axis: axes.index(own[axis]))
    sizes = dict(zip(own, values.shape, strict=True))
    return values.permute(order).reshape([sizes.get(label, 1) for label in axes])


def keeps(spec: LossSpec, case: Case, name: str, other: str) -> str:
    """The condition under which ``name`` keeps an element of ``other``, in plain PyTorch and in a shape that fits it."""
    domain, text = spec.tensors[name].domain, _beside(spec, case, name, other)
    if domain.ignore is not None:
        return f"{text} != {domain.ignore}"
    if domain.nan:
        return f"~{text}.isnan()"
    return text if domain.default_dtype == torch.bool else f"{text} > 0"


def replaced_first(spec: LossSpec, case: Case, name: str, other: str) -> str:
    """The line that replaces what ``name`` removes of ``other`` by a legal value."""
    legal = spec.tensors[other].domain.simple[0] if spec.tensors[other].domain.symbol is None else 0.0
    return f"{other} = torch.where({keeps(spec, case, name, other)}, {other}, {legal:g})"


def _beside(spec: LossSpec, case: Case, name: str, other: str) -> str:
    """``name`` with its axes where ``other`` has them: ``mask[:, :, None]`` beside what has one axis more."""
    own = dims.axes(spec.tensors[name].dims, case.sizes)
    theirs = dims.axes(spec.tensors[other].dims, case.sizes)
    if all(label in ("1", there) for label, there in zip(reversed(own), reversed(theirs), strict=False)):
        return name
    text, labels = name, [label for label in own if label != "1"]
    if len(labels) < len(own):
        text += f".squeeze({tuple(axis for axis, label in enumerate(own) if label == '1')})"
    order = sorted(range(len(labels)), key=lambda position: theirs.index(labels[position]))
    if order != sorted(order):
        text += f".permute{tuple(order)}"
    return f"{text}[{', '.join(':' if label in labels else 'None' for label in theirs)}]"


def as_label(spec: LossSpec, name: str) -> str:
    """The declaration of zeros and ones that are a label, as it is written in a file or on the command line."""
    tensor = spec.tensors[name]
    dtype = "" if tensor.domain.kind == "float" else str(tensor.dtype or tensor.domain.default_dtype)
    if spec.is_inline:
        dtype = f"({dtype.removeprefix('torch.')})" if dtype else ""
        return f'"{name}: {tensor.dims} label{dtype}"'
    return f"{name!r}: TensorSpec({tensor.dims!r}, domains.label({dtype}))"
