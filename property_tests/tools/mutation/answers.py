"""Questions to a loss, their answers, and when two answers are the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from harness import LossSpec

Reached = frozenset[str]  # tensors that a gradient flows to without being declared to
Answer = Mapping[str, Tensor | str | Reached | None]

# Two orders of one sum of a few dozen terms differ by a few units in the last place of the largest, and what is computed
# from it by a few dozen.
ULPS = 64


@dataclass(frozen=True)
class Question:
    """Something that is done with a loss.

    Args:
        name: what is done.
        put: does it, and says what came out.
        legal: whether the declaration allows the call.
    """

    name: str
    put: Callable[[LossSpec], Answer]
    legal: bool = True


def alike(first: Answer, second: Answer) -> bool:
    """Whether the second answer holds the words of the first, and its tensors up to `ULPS` units of the largest element.

    A gradient that flows to fewer of the tensors that are not declared to have one is no difference.
    """
    return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)


def _same(first: Tensor | str | Reached | None, second: Tensor | str | Reached | None) -> bool:
    if isinstance(first, frozenset) and isinstance(second, frozenset):
        return second <= first
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return type(first) is type(second) and first == second
    if first.dtype != second.dtype or first.shape != second.shape or first.layout != second.layout:
        return False
    if first.layout != torch.strided:
        first, second = first.to_dense(), second.to_dense()
    if not first.is_floating_point():
        return torch.equal(first, second)
    if not bool(((first.isfinite() == second.isfinite()) & (first.isnan() == second.isnan())).all()):
        return False
    if not bool((first == second)[first.isinf()].all()):
        return False
    a, b = (torch.nan_to_num(t.double(), 0.0, 0.0, 0.0) for t in (first, second))
    largest = float(torch.maximum(a.abs(), b.abs()).max()) if a.numel() else 0.0
    return bool(((a - b).abs() <= ULPS * torch.finfo(first.dtype).eps * largest).all())
