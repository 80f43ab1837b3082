"""Stop-gradients: where a loss cuts the graph, and the replay of what it cut off.

With a declared stop-gradient the derivative that autograd gives is that of the loss with the detached values held
fixed.  So the numeric evaluations replay the detached values of the base point, and any other cut is still seen.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness.calls import evaluation

_CUTS = {"detach", "detach_", "item", "tolist", "__float__", "numpy"}
_DATA = torch.Tensor.data.__get__  # type: ignore[attr-defined]


class DetachTape(TorchFunctionMode):
    """Records what every detach and every operation without grad returns; with ``replay`` returns what was recorded."""

    def __init__(self, replay: DetachTape | None = None) -> None:
        super().__init__()
        self.recorded: list[Any] = []
        self.places: list[str] = []
        self._replay = iter(replay.recorded) if replay is not None else None
        self._custom: tuple[int, set[CodeType]] = (0, set())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        hidden = not torch.is_grad_enabled() and isinstance(returned, Tensor)
        if not (name in _CUTS or func == _DATA or hidden) or self._inside_a_custom_function():
            return returned
        if self._replay is not None:
            return self._replayed(returned, name, args)
        self.recorded.append(returned.detach().clone() if isinstance(returned, Tensor) else returned)
        if any(isinstance(arg, Tensor) and arg.requires_grad for arg in args):  # nothing else has a graph to cut
            self.places.append(placed("no_grad()" if hidden and name not in _CUTS else f"{name}()"))
        return returned

    def _inside_a_custom_function(self) -> bool:
        """Whether the forward of a `torch.autograd.Function` is running: always without grad, and its backward is no cut."""
        derived = len(torch.autograd.Function.__subclasses__())
        if self._custom[0] != derived:  # torch itself has hundreds, and a loss may make one where it is called
            self._custom = derived, set(_code_of(torch.autograd.Function))
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename != evaluation.__file__:
            if frame.f_code in self._custom[1]:
                return True
            frame = frame.f_back
        return False

    def _replayed(self, returned: Any, name: str, args: Any) -> Any:
        assert self._replay is not None
        recorded = next(self._replay, returned)
        same = not isinstance(returned, Tensor) or (isinstance(recorded, Tensor) and recorded.shape == returned.shape)
        if not same:
            return returned
        if isinstance(returned, Tensor) and name.endswith("_") and args and returned is args[0]:
            return returned.copy_(recorded)
        return recorded.clone() if isinstance(recorded, Tensor) else recorded


def _code_of(function: type) -> Iterator[CodeType]:
    """What a custom function and those derived from it run forward; `apply` itself may be C and leave no frame."""
    for name in ("forward", "setup_context"):
        code = getattr(getattr(function, name), "__code__", None)
        if code is not None:
            yield code
    derived: list[type] = function.__subclasses__()
    for one in derived:
        yield from _code_of(one)


def listed(places: Iterable[str]) -> str:
    """The first three of some places, each once, for a message; empty where there are none."""
    return ", ".join(list(dict.fromkeys(places))[:3])


def placed(what: str) -> str:
    """``what at file:line`` of the innermost frame that is neither torch's nor ours, for the mode that asks.

    ``what`` alone where torch itself defines the loss: beyond the evaluation stands only what started the process.
    """
    frame: FrameType | None = sys._getframe(2)
    ours = (str(Path(__file__).parents[2]), str(Path(torch.__file__).parent))
    while frame is not None and frame.f_code.co_filename.startswith(ours):
        if frame.f_code.co_filename == evaluation.__file__:
            return what
        frame = frame.f_back
    return what if frame is None else f"{what} at {Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
