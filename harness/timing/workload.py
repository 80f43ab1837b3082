"""What is timed: one implementation on one input, as calls without arguments."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.calls.aten.storages import components
from harness.calls.evaluation import Candidate, LossRaised, is_of_the_loss
from harness.declare import dims
from harness.declare.dims import Size
from harness.declare.spec import LossSpec
from harness.drawing.case import Case, Recipe
from harness.errors import DeclarationError, nearest
from harness.results.measured import Cell
from harness.results.variants import eager_name
from harness.timing import timers as time
from harness.timing.compilation import freshly_compiled
from harness.timing.constants import LADDER, MAX_ELEMENTS
from harness.timing.costs.counting import TookTooLong
from harness.timing.density import thinned


def elements(spec: LossSpec, sizes: Mapping[str, Size]) -> int:
    """Number of elements of all tensors together."""
    return sum(math.prod(dims.shape(tensor.dims, sizes)) for tensor in spec.tensors.values())


def bound_bytes(spec: LossSpec, cell: Cell) -> int | None:
    """The least bytes that a pass must move, as the spec declares it."""
    return None if spec.bytes_bound is None else int(spec.bytes_bound(cell.sizes, getattr(torch, cell.dtype)))


def ladder(spec: LossSpec) -> tuple[dict[str, Size], ...]:
    """Sizes for a spec that names none: every symbol 8, 64 and 512, halved until the tensors fit 2 ** 22 elements.

    A symbol that stands for several axes has none of them, unless nothing else can grow.
    """
    least = dims.least_sizes(spec.all_dims)
    rungs: dict[tuple[tuple[str, Size], ...], dict[str, Size]] = {}
    for step in LADDER:
        size = step
        while elements(spec, sizes := _rung(spec, size, least)) > MAX_ELEMENTS and size > 1:
            size //= 2
        rungs[tuple(sizes.items())] = sizes
    return tuple(rungs.values())


def _rung(spec: LossSpec, size: int, least: Mapping[str, int]) -> dict[str, Size]:
    grows = bool(spec.symbols)
    return {
        **{symbol: () if grows else (size,) for symbol in spec.variadic},
        **{symbol: max(size, least.get(symbol, 1)) for symbol in spec.symbols},
        **spec.fixed_sizes,
    }


def checked_sizes(spec: LossSpec, sizes: Sequence[Mapping[str, Size]] | None) -> tuple[dict[str, Size], ...]:
    """The sizes to measure at: those given, else the declared ``bench_sizes``, else the ladder.

    Raises:
        DeclarationError: a symbol without a size, or a size for no symbol.
    """
    chosen = spec.bench_sizes if sizes is None else sizes
    if chosen is None:
        return ladder(spec)
    needed = (*spec.variadic, *spec.symbols)
    complete = tuple({**spec.fixed_sizes, **given} for given in chosen)
    for given in complete:
        strangers = [symbol for symbol in given if symbol not in needed]
        missing = [symbol for symbol in needed if symbol not in given]
        if strangers or missing:
            hint = nearest(strangers[0], needed) if strangers else ""
            raise DeclarationError(
                f"loss {spec.name!r}: sizes {given} came, but there should be one for each of {list(needed)}{hint}"
            )
    return complete


def inputs(
    spec: LossSpec, cell: Cell, seed: int, dtype: torch.dtype | None = None, batch: str = ""
) -> dict[str, Tensor]:
    """Seeded smooth tensors of a cell; the differentiable ones are leaves that require grad.

    Args:
        spec: the declaration.
        cell: sizes, device and dtype.
        seed: the same seed gives the same values in every process.
        dtype: computes in another dtype on the same (rounded) values.
        batch: another name gives other inputs beside the same context, as the next batch of a training does.
    """
    seeds = {name: f"{seed} {name}" if name in spec.context else f"{seed} {batch}{name}" for name in spec.tensors}
    recipes = {name: Recipe(seed=zlib.crc32(text.encode()), mode="smooth") for name, text in seeds.items()}
    case = Case(spec.name, dict(cell.sizes), recipes, dtype=cell.dtype, regime="large")
    made = case.materialize(spec, device=cell.device)
    if dtype is not None:
        rounded = getattr(torch, cell.dtype)
        made = {name: tensor.to(dtype) if tensor.dtype == rounded else tensor for name, tensor in made.items()}
    for name, density in cell.densities.items():
        made[name] = thinned(spec, name, made[name], density, seed)
    for name in spec.differentiable:
        made[name].requires_grad_()
    return made


def _bound(built: Callable[..., Any], positional: Sequence[Any], named: Mapping[str, Any]) -> Callable[[], Any]:
    """The call without arguments; by position where it can be, which costs 0.03 us, and by keyword 0.1 us."""
    try:
        arguments = inspect.signature(built, follow_wrapped=False).bind(*positional, **named)
    except (TypeError, ValueError):  # no signature, or one that does not fit: the call itself will say so
        return functools.partial(built, *positional, **named)
    return functools.partial(built, *arguments.args, **arguments.kwargs)


class Workload:
    """One implementation, built and bound to its tensors, so that a call costs nothing but the loss.

    The first call of a compiled variant compiles it.

    Raises:
        LossRaised: the constructor raised.
    """

    def __init__(self, spec: LossSpec, name: str, tensors: Mapping[str, Tensor]) -> None:
        eager = eager_name(spec.implementations, name)
        self._made_of = (spec, name, tensors)
        candidate = Candidate(spec, eager or name)
        begin = time.perf_counter()
        built = candidate.build(tensors)
        self.build_seconds = time.perf_counter() - begin
        self._candidate, self._built = candidate, built
        self._function = built if eager is None else freshly_compiled(built)
        self._select = candidate.select
        self._bind(tensors)

    def _bind(self, tensors: Mapping[str, Tensor]) -> None:
        over = self._candidate.written_over
        self.given = tensors if over is None else {**tensors, over: tensors[over].detach().clone()}
        self._bound_to = tensors
        self._call = _bound(self._function, *self._candidate.arguments(tensors))
        self.leaves = [tensors[differentiable] for differentiable in self._candidate.spec.differentiable]
        learned = self._built.parameters() if isinstance(self._built, nn.Module) else ()
        self._all_leaves = [*self.leaves, *learned]

    def on(self, tensors: Mapping[str, Tensor]) -> Workload:
        """What was built, bound to other tensors of the same sizes; the context that it was built with stays."""
        other = copy.copy(self)
        other._bind(tensors)
        return other

    def state(self) -> list[str]:
        """A sum over each registered buffer: running statistics change it."""
        buffers = self._built.buffers() if isinstance(self._built, nn.Module) else ()
        parts = [part.detach() for buffer in buffers for part in components(buffer)]
        return [str(float((part.abs() if part.is_complex() else part).double().sum())) for part in parts]

    def again(self) -> Workload:
        """The same one, built anew; a compiled variant of it is compiled anew."""
        return Workload(*self._made_of)

    def forward(self) -> Tensor:
        """The loss.

        Raises:
            LossRaised: it raised what is no `Exception`, such as `SystemExit`; an `Exception` goes through as it is.
        """
        try:
            returned = self._call()
            picked: Tensor = returned if self._select is None else self._select(returned)
            return picked
        except Exception:
            raise
        except BaseException as error:
            if isinstance(error, TookTooLong) or not is_of_the_loss(error):
                raise
            raise LossRaised(error) from error

    def backward(self, loss: Tensor) -> None:
        """Gradients in the leaves' ``grad``; a loss that is no scalar is differentiated in its sum."""
        (loss if loss.ndim == 0 else loss.sum()).backward()

    def full(self) -> Tensor:
        """The loss and its gradients, which start from ``None``."""
        self.reset()
        loss = self.forward()
        self.backward(loss)
        return loss

    def restore(self) -> None:
        """Give the input over which the loss writes its gradient its values again; untimed, and before gradients are read."""
        over = self._candidate.written_over
        if over is not None:
            with torch.no_grad():
                self._bound_to[over].copy_(self.given[over])

    def reset(self) -> None:
        """Set the gradients to ``None``."""
        for leaf in self._all_leaves:
            leaf.grad = None

    def call(self, pass_name: str) -> Callable[[], Tensor]:
        """The callable of a pass; ``backward`` runs through one graph that is kept, and its calls give the same loss."""
        if pass_name == "backward":
            return self._kept_backward()
        if pass_name == "full":
            return self.full
        return self._call if self._select is None else self.forward

    def _kept_backward(self) -> Callable[[], Tensor]:
        self.restore()
        self.reset()
        loss = self.forward()
        start = loss if loss.ndim == 0 else loss.sum()

        def backward() -> Tensor:
            self.reset()
            start.backward(retain_graph=True)
            return loss

        return backward
