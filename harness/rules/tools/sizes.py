"""Cases of chosen sizes: emptied, grown or filled up, with values from a seed."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.calls.aten.storages import components
from harness.calls.evaluation import LossRaised
from harness.calls.watch import Calls, TooManyOperations
from harness.declare import dims
from harness.declare.dims import Size
from harness.declare.spec import LossSpec
from harness.drawing.case import Case, Recipe
from harness.errors import DeclarationError, NotApplicable

if TYPE_CHECKING:
    from harness.rules.trial import Run, Trial

OPERATIONS = 6000  # of one forward along a long axis: a Python loop over pairs is looked at where it has fewer
ELEMENTS = 2**21  # of any tensor that it makes: 16 MiB
DOUBLINGS = (4, 8, 16)  # lengths before any longer one: what grows like a factorial shows in time that it does
# Lengths of an axis at which operations are not counted, which takes as long as ten times as many: the last one
# before each of them that is counted is at least half of it.
UNCOUNTED = frozenset((17, 31, 32, 128, 257, 512, 1024, 1025))


class Effort(Calls):
    """Counts the operations of a forward, up to `OPERATIONS`, and the elements of the largest tensor that one returns."""

    def __init__(self) -> None:
        super().__init__(OPERATIONS)
        self.largest = 1

    def _see(self, func: Any, args: Any, kwargs: Any) -> Any:
        returned = super()._see(func, args, kwargs)
        if type(returned) is Tensor and returned.layout is torch.strided:  # nearly always, and asked of thousands
            self.largest = max(self.largest, returned.numel())
            return returned
        for made in returned if isinstance(returned, (tuple, list)) else (returned,):
            if isinstance(made, Tensor):
                self.largest = max([self.largest, *(part.numel() for part in components(made))])
        return returned


def along(
    trial: Trial, known: dict[Any, Any], takes: torch.dtype | None = None, *, counts: bool = True
) -> tuple[Run, Effort]:
    """(the evaluation of a resized case, what its forward took), made once for all rules that make an axis longer.

    Args:
        trial: the implementation on that case.
        known: where it is kept.
        takes: the dtype of the tensors; by default the widest that the implementation takes.
        counts: whether what the forward takes is counted, and bounded.

    Raises:
        LossRaised: as `Trial.run`; `TooManyOperations` may be its error.
    """
    chosen = trial.precision.takes if takes is None else takes
    key = ("along", trial.implementation, trial.case.key, trial.values_in, chosen, counts, trial.device)
    if key not in known:
        effort = Effort()
        known[key] = trial.run(trial.tensors(chosen), mode=effort if counts else None), effort
    found: tuple[Run, Effort] = known[key]
    return found


def grown(
    at: Callable[[int], Trial], known: dict[Any, Any], lengths: Sequence[int] = DOUBLINGS
) -> list[tuple[int, Effort]]:
    """What forwards take as an axis grows: (length, effort), shortest first, up to the last that is not too much.

    Nobody jumps from a few rows to many: a loss over all permutations takes 8! steps with 8 rows, which is nothing, and with 16 it
    never ends.  `is_too_much` tells from these what a longer axis takes.

    Args:
        at: the implementation on a case with the axis at a length.
        known: as for `along`.
        lengths: each at most about twice the one before, up to where two tell what more takes.

    Raises:
        LossRaised: as `Trial.run`, for another reason than operations that are too many.
        NotApplicable: there is no such length.
    """
    made: list[tuple[int, Effort]] = []
    for length in lengths:
        trial = at(length)
        if is_too_much(trial, made, length):
            break
        try:
            made.append((length, along(trial, known)[1]))
        except LossRaised as raised:
            if not isinstance(raised.error, TooManyOperations):
                raise
            break
    return made


def passes_operations(made: Sequence[tuple[int, Effort]], size: int) -> bool:
    """Whether a forward has more than `OPERATIONS` at a size, by the line through the two longest: nested loops have still more."""
    if len(made) < 2:
        return False
    (shorter, before), (longer, last) = made[-2:]
    return last.count + (last.count - before.count) / (longer - shorter) * (size - longer) > OPERATIONS


def expected_elements(made: Sequence[tuple[int, int]], size: int) -> float:
    """How large the largest tensor will be at a size, from the power with which it grew last.

    Args:
        made: (size, elements of the largest tensor that a forward returned), shortest first.
        size: not below the longest of them.
    """
    if len(made) < 2:
        return 0.0
    (shorter, fewer), (longer, more) = made[-2:]
    power = math.log(more / fewer) / math.log(longer / shorter)
    return float(more * (size / longer) ** max(power, 0.0))


def is_too_much(trial: Trial, made: Sequence[tuple[int, Effort]], size: int) -> bool:
    """Whether a forward at a size is left out: it has more than `OPERATIONS`, or a tensor of more than `ELEMENTS`.

    Args:
        trial: on a case of that size.
        made: what forwards at smaller sizes took.
        size: along the axis that grows.
    """
    largest = expected_elements([(length, effort.largest) for length, effort in made], size)
    return max(elements(trial.spec, trial.case), largest) > ELEMENTS or passes_operations(made, size)


def resized(spec: LossSpec, case: Case, sizes: Mapping[str, Size]) -> Case:
    """The case with some symbols' sizes replaced and generic values in every tensor.

    Raises:
        NotApplicable: a computed axis (``N-1``) would be shorter than nothing.
    """
    recipes = {name: Recipe(seed=zlib.crc32(name.encode()), mode="smooth") for name in spec.tensors}
    changed = replace(case, sizes={**case.sizes, **sizes}, tensors=recipes, layouts={})
    for name in spec.tensors:
        try:
            changed.shape(spec, name)
        except DeclarationError as error:
            raise NotApplicable(f"{name} has no such size: {error}") from error
    return changed


def with_room(spec: LossSpec, case: Case, sizes: Mapping[str, Size]) -> dict[str, Size]:
    """The case's sizes with some replaced, raised where a computed axis, distinct positions or rows have no room to differ.

    Raises:
        NotApplicable: no sizes nearby have any room.
    """
    chosen = {**case.sizes, **sizes}
    start = {symbol: size for symbol, size in chosen.items() if isinstance(size, int)}
    for least in (2, 1):  # in what has room for one alone, rows are equally long
        try:
            return {**chosen, **dims.least_sizes(spec.all_dims, least, start, spec.fixed_sizes)}
        except DeclarationError:
            continue
    raise NotApplicable("no sizes nearby have room for what is declared")


def growable(spec: LossSpec) -> tuple[str, ...]:
    """Symbols that have no fixed size, in declared order; one that stands for several axes is among them."""
    return tuple(s for s in (*spec.symbols, *spec.variadic) if s not in spec.fixed_sizes)


def uniform(spec: LossSpec, size: int, *, axes: int = 1) -> dict[str, Size]:
    """Every growable symbol at one size; a variadic one stands for ``axes`` axes of it."""
    return {s: (size,) * axes if s in spec.variadic else size for s in growable(spec)}


def equally_sized(trial: Trial, size: int) -> Trial:
    """The implementation on its case with every growable symbol at one size, and generic values."""
    return trial.at(resized(trial.spec, trial.case, uniform(trial.spec, size)))


def one(spec: LossSpec, symbol: str, size: int) -> dict[str, Size]:
    """One symbol at a size; a variadic one stands for one axis of it."""
    return {symbol: (size,) if symbol in spec.variadic else size}


def elements(spec: LossSpec, case: Case) -> int:
    """Number of elements of the largest tensor of a case."""
    return max((math.prod(case.shape(spec, name)) for name in spec.tensors), default=0)


def equal_sizes(spec: LossSpec, case: Case, limit: int) -> int:
    """The greatest size that all growable symbols may have at once, so that no tensor passes ``limit`` elements; at least 2."""
    size = 2
    while growable(spec) and size < limit:
        if elements(spec, resized(spec, case, uniform(spec, size + 1))) > limit:
            break
        size += 1
    return size


def batch_symbol(spec: LossSpec) -> str:
    """The symbol of the first axis of the first differentiable input; the length of a list is no batch.

    Raises:
        NotApplicable: there is none, or its size is fixed.
    """
    for name in spec.differentiable[:1]:
        first = [dim for dim in dims.parse(spec.tensors[name].dims) if dim.symbol not in spec.list_lengths][:1]
        if first and first[0].symbol is not None and first[0].symbol not in spec.fixed_sizes:
            return first[0].symbol
    raise NotApplicable("no batch axis of free size is declared")


def repeated_code(spec: LossSpec, case: Case, symbol: str) -> str:
    """Code of a dict of the ``tensors``, each repeated ``times`` times along a symbol."""
    label = f"{symbol}.0" if symbol in spec.variadic else symbol
    parts = []
    for name, tensor in spec.tensors.items():
        counts = ["times" if axis == label else "1" for axis in dims.axes(tensor.dims, case.sizes)]
        grown = f".repeat({', '.join(counts)})" if "times" in counts else ""
        parts.append(f"{name!r}: tensors[{name!r}]{grown}")
    return f"{{{', '.join(parts)}}}"
