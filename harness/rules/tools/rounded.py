"""A mode that rounds what a loss computes on the way, to see whether that reaches its value or its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness.private_names import is_view
from harness.rules.tools.made import directions


class Rounded(TorchFunctionMode):
    """Rounds what each function of torch returns by eps up or down; no view and no edit in place.

    The gradient goes through the same rounding.  A custom backward and what is inside a kernel are left as they are.

    Args:
        eps: the part of itself by which a number moves.
        generator: draws the directions.
        sizes: only elements of which the absolute value is above the first and up to the second, in whatever tensor; by
            default all of what is on the graph of the loss.
    """

    def __init__(self, eps: float, generator: torch.Generator, sizes: tuple[float, float] | None = None) -> None:
        super().__init__()
        self._eps, self._generator, self._sizes = eps, generator, sizes
        self.any = False  # whether there was anything to round

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        if not isinstance(returned, Tensor) or not returned.is_floating_point() or is_view(returned):
            return returned
        if any(returned is a for a in args):
            return returned
        if self._sizes is None:
            if not returned.requires_grad or returned.is_leaf:
                return returned
            self.any = True
            return returned * self._factors(returned)
        if returned.layout != torch.strided:
            return returned
        size = returned.detach().abs()
        # An infinity, and the largest number of a dtype that is written for one, stay what they are.
        chosen = (size > self._sizes[0]) & (size <= self._sizes[1]) & (size < torch.finfo(returned.dtype).max)
        if not bool(chosen.any()):
            return returned
        self.any = True
        return torch.where(chosen, returned * self._factors(returned), returned)

    def _factors(self, like: Tensor) -> Tensor:
        return 1 + self._eps * directions(like.detach(), self._generator)
