"""Special points: the places where losses break, each made from a smooth draw of the same shape."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Point = Callable[[Tensor], Tensor]


def fill(value: float) -> Point:
    """Every element is ``value``."""
    return lambda smooth: torch.full_like(smooth, value)


def zero_row(smooth: Tensor) -> Tensor:
    """The first slice of the first axis is 0; the rest is as drawn."""
    result = smooth.clone()
    if result.ndim and result.shape[0]:
        result[0] = 0.0
    return result


def one_hot(value: float, rest: float = 0.0) -> Point:
    """The first element of every row of the last axis is ``value``, all others are ``rest``."""

    def point(smooth: Tensor) -> Tensor:
        result = torch.full_like(smooth, rest)
        if result.ndim and result.numel():
            result[..., 0] = value
        return result

    return point


def single(value: float, rest: float = 0.0) -> Point:
    """One element of the whole tensor is ``value``, all others are ``rest``."""

    def point(smooth: Tensor) -> Tensor:
        result = torch.full(smooth.shape, rest, dtype=smooth.dtype)
        if result.numel():
            result.view(-1)[0] = value
        return result

    return point


def equal_rows(smooth: Tensor) -> Tensor:
    """Every slice of the first axis equals the first: ties."""
    return smooth[:1].expand_as(smooth).clone() if smooth.ndim and smooth.shape[0] else smooth


def all_equal(smooth: Tensor) -> Tensor:
    """Every element is the greatest."""
    return smooth.max().expand_as(smooth).clone() if smooth.numel() else smooth


def alternating(high: float, low: float) -> Point:
    """``high`` and ``low`` in turn."""

    def point(smooth: Tensor) -> Tensor:
        values = torch.full((smooth.numel(),), low, dtype=smooth.dtype)
        values[::2] = high
        return values.view(smooth.shape)

    return point


def single_missing(smooth: Tensor) -> Tensor:
    """One element is NaN, no other is."""
    result = torch.nan_to_num(smooth).contiguous()
    if result.numel():
        result.view(-1)[0] = math.nan
    return result


def one_hot_along(smooth: Tensor, axis: int) -> Tensor:
    """The first element along ``axis`` is 1, all others are 0."""
    if smooth.ndim == 0:
        return torch.ones_like(smooth)
    moved = torch.zeros_like(smooth).movedim(axis, -1)
    if moved.numel():
        moved[..., 0] = 1
    return moved.movedim(-1, axis).contiguous()


def ignored_once(ignore: int) -> Point:
    """One element has the ignored value, no other has."""

    def point(smooth: Tensor) -> Tensor:
        result = torch.where(smooth == ignore, _counted(smooth, ignore), smooth).contiguous()
        if result.numel():
            result.view(-1)[0] = ignore
        return result

    return point


def kept_once(ignore: int) -> Point:
    """Every element but one has the ignored value."""
    return lambda smooth: single(_counted(smooth, ignore), float(ignore))(smooth)


def _counted(smooth: Tensor, ignore: int) -> float:
    """A legal value that is not ignored, where there is one."""
    if ignore != 0:
        return 0.0
    kept = smooth[smooth != ignore]
    return float(kept[0]) if kept.numel() else 0.0
