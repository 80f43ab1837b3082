"""Acting on one symbol in all tensors at once: permuting, slicing and repeating along it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.declare import dims
from harness.declare.spec import LossSpec
from harness.drawing.case import Case
from harness.errors import NotApplicable
from harness.rules.tools.made import positions
from harness.rules.trial import Trial


def extent(case: Case, symbol: str) -> int:
    """The size of a symbol; of a variadic one, that of its first axis."""
    size = case.sizes[symbol]
    return size if isinstance(size, int) else (size[0] if size else 0)


def axes_of(spec: LossSpec, case: Case, name: str, symbol: str) -> list[int]:
    """Axes of a tensor that run along a symbol; along a variadic one, its first axis."""
    wanted = f"{symbol}.0" if symbol in spec.variadic else symbol
    return [axis for axis, label in enumerate(dims.axes(spec.tensors[name].dims, case.sizes)) if label == wanted]


def symbol_axes(spec: LossSpec, case: Case, symbol: str) -> dict[str, list[int]]:
    """What `axes_of` gives of each tensor that has any.

    Raises:
        NotApplicable: an axis is computed from the symbol (``N-1``), so that it cannot be acted on alone.
    """
    found: dict[str, list[int]] = {}
    for name, tensor in spec.tensors.items():
        computed = [d.token for d in dims.parse(tensor.dims) if d.expression is not None and symbol in d.symbols]
        if computed:
            raise NotApplicable(f"{name} has the size {computed[0]}, which is computed from {symbol}")
        if axes := axes_of(spec, case, name, symbol):
            found[name] = axes
    return found


def selected(trial: Trial, tensors: Mapping[str, Tensor], symbol: str, index: Sequence[int]) -> dict[str, Tensor]:
    """All tensors with ``index`` taken along ``symbol``; values that are positions along it are left alone."""
    axes = symbol_axes(trial.spec, trial.case, symbol)
    result = dict(tensors)
    for name, along in axes.items():
        for axis in along:
            result[name] = result[name].index_select(axis, positions(index, result[name]))
    return result


def permuted(trial: Trial, tensors: Mapping[str, Tensor], symbol: str) -> dict[str, Tensor]:
    """All tensors permuted along ``symbol``: P A Pᵀ for an N x N one; values that are positions along it are renamed.

    Raises:
        NotApplicable: the symbol has fewer than two positions.
    """
    order = order_of(trial.case, symbol)
    count, result = len(order), selected(trial, tensors, symbol, order)
    for name, tensor in trial.spec.tensors.items():
        if tensor.domain.symbol == symbol:
            values = result[name]
            inside = (values >= 0) & (values < count)
            place = positions([order.index(old) for old in range(count)], values)
            result[name] = torch.where(inside, place[values.clamp(0, count - 1)].to(values.dtype), values)
    return result


def order_of(case: Case, symbol: str) -> list[int]:
    """The order in which `permuted` takes the positions: none stays, since an error at the first or last one must show.

    Raises:
        NotApplicable: the symbol has fewer than two positions.
    """
    count = extent(case, symbol)
    if count < 2:
        raise NotApplicable(f"{symbol} has fewer than two positions")
    if count == 4:
        return [1, 3, 0, 2]  # nor is it a rotation or a reflection, under which a cyclic loss stays the same
    order = [count - 1, *range(count - 1)]
    if count > 4:
        order[0], order[2] = order[2], order[0]
    return order


def sliced(
    trial: Trial, tensors: Mapping[str, Tensor], symbol: str, parts: int | None = None
) -> list[dict[str, Tensor]]:
    """The tensors cut into ``parts`` equal slices along ``symbol``, by default of one position each, the axis kept.

    Raises:
        NotApplicable: a tensor runs along the symbol twice, or its values are positions along it.
    """
    axes = symbol_axes(trial.spec, trial.case, symbol)
    for name, along in axes.items():
        if len(along) > 1:
            raise NotApplicable(f"{name} runs along {symbol} twice and cannot be cut into slices")
    for name, tensor in trial.spec.tensors.items():
        if tensor.domain.symbol == symbol:
            raise NotApplicable(f"the values of {name} are positions along {symbol}")
    count = extent(trial.case, symbol)
    width = 1 if parts is None else count // parts
    return [selected(trial, tensors, symbol, range(at, at + width)) for at in range(0, count, max(width, 1))]
