"""The base of modes that watch every ATen operation, and what of such an operation makes the host wait."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness.private_names import HIGHER_ORDER_OPERATORS, DispatchMode, HigherOrderOperator, OpOverload, tree_map


class Watch(DispatchMode):
    """Sees every operation, and what higher-order operators call."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if type(func) is OpOverload:  # nearly always, and asked of thousands
            return self._see(func, args, kwargs or {})
        if isinstance(func, HigherOrderOperator):  # it has no schema; what it calls is seen by itself
            args, kwargs = tree_map(self._watched, (args, kwargs or {}))
            return func(*args, **kwargs)
        return self._see(func, args, kwargs or {})

    def _see(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Call an operation, and take down what there is to know of it."""
        return func(*args, **kwargs)

    def _watched(self, argument: Any) -> Any:
        if isinstance(argument, Tensor) or not callable(argument):
            return argument

        def called(*args: Any, **kwargs: Any) -> Any:
            with self:
                return argument(*args, **kwargs)

        return called


class TooManyOperations(Exception):
    """A call has more operations than whoever counts them waits for."""


class Calls(Watch):
    """Counts ATen calls.

    Args:
        most: beyond which `TooManyOperations` is raised; by default any number will do.
    """

    def __init__(self, most: float = math.inf) -> None:
        super().__init__()
        self.count = 0
        self._most = most

    def _see(self, func: Any, args: Any, kwargs: Any) -> Any:
        self.count += 1
        if self.count > self._most:
            raise TooManyOperations
        return func(*args, **kwargs)


_READS = {"_local_scalar_dense", "is_nonzero", "nonzero", "equal", "_unique2", "unique_dim", "masked_select"}
_BY_INDEX = {"index", "index_put", "index_put_"}


def host_read(func: Any, args: Sequence[Any]) -> str | None:
    """The name of an operation whose result the host must wait for: `.item()`, `nonzero`, boolean indexing; else ``None``.

    What a higher-order operator reads itself, as `torch.cond` its predicate where it is not compiled, is none.
    """
    name = func.overloadpacket.__name__
    if name in _READS:
        return None if _by_higher_order_operator() else f"aten.{name}"
    if name in _BY_INDEX and len(args) > 1:
        masks = [index for index in args[1] if isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)]
        return "boolean indexing" if masks else None
    return None


def _by_higher_order_operator() -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None and not str(frame.f_globals.get("__name__")).startswith(HIGHER_ORDER_OPERATORS):
        frame = frame.f_back
    return frame is not None


class ChecksOfTheCpu(TorchFunctionMode):
    """Knows while `one_hot` with a given number of classes runs: it reads its labels where that costs nothing, on the CPU alone."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        classes = (kwargs or {}).get("num_classes", args[1] if len(args) > 1 else -1)
        before, self.inside = self.inside, self.inside or (_name(func) == "one_hot" and classes != -1)
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.inside = before


def _name(func: Any) -> str:
    return getattr(func, "__name__", "").partition(".")[0]
