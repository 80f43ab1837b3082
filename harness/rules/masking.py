"""Which elements of the other tensors a weight, a mask or an ignored label stands for: aligned by their symbols."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from harness import dims
from harness.case import Case
from harness.errors import NotApplicable
from harness.rules.made import scattered
from harness.spec import LossSpec


def removable(spec: LossSpec, name: str) -> float | None:
    """The value of tensor ``name`` that removes what it stands for, or ``None`` where its domain has none."""
    domain = spec.tensors[name].domain
    if domain.ignore is not None:
        return float(domain.ignore)
    if domain.nan:
        return float("nan")
    return 0.0 if domain.weighs else None


def with_some_removed(spec: LossSpec, tensors: Mapping[str, Tensor], name: str) -> tuple[dict[str, Tensor], Tensor]:
    """(tensors, removed): about a third of the elements of ``name`` removed, at least one kept and counting.

    Raises:
        NotApplicable: fewer than two elements.
    """
    values = tensors[name].clone()
    if values.numel() < 2:
        raise NotApplicable(f"{name} has fewer than two elements")
    value = removable(spec, name)
    assert value is not None
    count = max(1, values.numel() // 3)
    removed = torch.zeros_like(values, dtype=torch.bool).reshape(-1)
    removed[scattered(values)[:count]] = True
    removed = removed.reshape(values.shape)
    kept = removable_free(spec, values, name)
    values = torch.where(removed, torch.full_like(values, value), kept)
    return {**tensors, name: values}, removed


def removable_free(spec: LossSpec, values: Tensor, name: str) -> Tensor:
    """The values with every removed element replaced by one that counts."""
    domain = spec.tensors[name].domain
    if domain.ignore is not None:
        return torch.where(values == domain.ignore, torch.zeros_like(values), values)
    if domain.nan:
        return torch.nan_to_num(values)
    return torch.where(values == 0, torch.ones_like(values), values)


def aligned(spec: LossSpec, case: Case, removed: Tensor, name: str) -> dict[str, Tensor]:
    """For every input that has all symbols of ``name``: which of its elements are removed.

    Raises:
        NotApplicable: no differentiable input has them, or an axis is ambiguous.
    """
    own = dims.axes(spec.tensors[name].dims, case.sizes)
    labels = [label for label, size in zip(own, removed.shape, strict=True) if not (label.isdecimal() and size == 1)]
    squeezed = removed.reshape(
        [s for label, s in zip(own, removed.shape, strict=True) if not (label.isdecimal() and s == 1)]
    )
    if len(set(labels)) != len(labels) or not labels:
        raise NotApplicable(f"the axes of {name} do not name distinct sizes")
    found: dict[str, Tensor] = {}
    for other, tensor in spec.inputs.items():
        axes = dims.axes(tensor.dims, case.sizes)
        if other == name or any(axes.count(label) != 1 for label in labels):
            continue
        order = sorted(range(len(labels)), key=lambda position: axes.index(labels[position]))
        moved = squeezed.permute(order)
        shape = [moved.shape[[labels[o] for o in order].index(label)] if label in labels else 1 for label in axes]
        found[other] = moved.reshape(shape).expand(case.shape(spec, other))
    if not set(found) & set(spec.differentiable):
        raise NotApplicable(f"no differentiable input has all axes of {name}")
    return found
