"""A formula vectorized over the names of its indices: every `for` becomes an axis.

Conditions become masks.  What they leave out is computed all the same, at harmless values, and not added.
"""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.declare.formulas.evaluating import EMPTY, OF_CONDITIONS, REDUCED, Evaluator

# What there is of nothing changes nothing among their terms, either.
_NEUTRAL = ("all", "any", "prod", "max", "min", "logsumexp")


@dataclass(frozen=True)
class Named:
    """A tensor whose first axes are named by indices; the others are those of an array.

    ``counts`` says that it is the index of that name itself: 0, 1, 2 ...
    """

    tensor: Tensor
    names: tuple[str, ...] = ()
    counts: bool = False

    @property
    def rank(self) -> int:
        """The number of axes that no index names."""
        return self.tensor.ndim - len(self.names)


class Vectors(Evaluator):
    """Values are Python's numbers or `Named`."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.extents: dict[str, int] = {}
        self.active: Named | None = None  # where a condition around a value holds

    def result(self, tree: ast.expr) -> Tensor:
        """The value of the whole, as a tensor."""
        return self._named(self._floating(self._value(tree))).tensor

    def _name(self, node: ast.Name) -> Any:
        if node.id in self.bound:
            return self.bound[node.id]
        return Named(self.tensors[node.id]) if node.id in self.tensors else self.numbers[node.id]

    def _named(self, value: Any) -> Named:
        return value if isinstance(value, Named) else Named(torch.as_tensor(value, device=self.device))

    def _floating(self, value: Any) -> Any:
        if not isinstance(value, Named):
            return Named(
                torch.tensor(value, device=self.device) if isinstance(value, bool) else self._number(float(value))
            )
        fits = value.tensor.is_floating_point() or value.tensor.dtype == torch.bool
        return value if fits else Named(value.tensor.to(self.dtype), value.names)

    def _counted(self, value: Any) -> Named:
        """A number in the loss's dtype, where a condition is 0 or 1."""
        found = self._named(self._floating(value))
        return Named(found.tensor.to(self.dtype), found.names) if found.tensor.dtype == torch.bool else found

    def _aligned(self, values: Sequence[Named]) -> tuple[list[Tensor], tuple[str, ...]]:
        """Tensors that broadcast against each other, and the names of their first axes."""
        names = tuple(dict.fromkeys(name for value in values for name in value.names))
        rank = max(value.rank for value in values)
        return [self._spread(value, names, rank) for value in values], names

    def _spread(self, value: Named, names: tuple[str, ...], rank: int) -> Tensor:
        if value.names == names and value.rank == rank:
            return value.tensor
        order = sorted(range(len(value.names)), key=lambda axis: names.index(value.names[axis]))
        own = value.rank
        tensor = value.tensor.permute([*order, *range(len(value.names), value.tensor.ndim)])
        sizes = dict(zip((value.names[axis] for axis in order), tensor.shape, strict=False))
        shape = [sizes.get(name, 1) for name in names] + [1] * (rank - own) + list(tensor.shape[len(order) :])
        return tensor.reshape(shape)

    def _apply(self, function: Callable[..., Any], *values: Any, singular: bool = False) -> Any:
        if not any(isinstance(value, Named) for value in values):
            return Named(function(*map(torch.as_tensor, values)))
        named = [value for value in values if isinstance(value, Named)]
        if singular and self.active is not None:
            values = tuple(self._harmless(value) if isinstance(value, Named) else value for value in values)
            named = [value for value in values if isinstance(value, Named)]
        tensors, names = self._aligned(named)
        left = iter(tensors)
        return Named(function(*(next(left) if isinstance(value, Named) else value for value in values)), names)

    def _arithmetic(self, op: ast.operator, left: Any, right: Any) -> Any:
        divides = isinstance(op, (ast.Div, ast.Pow))
        values = [self._whole(value) if isinstance(value, Named) else value for value in (left, right)]
        if divides:
            values = [self._floating(value) if isinstance(value, Named) else value for value in values]
        return super()._arithmetic(op, *values)

    @staticmethod
    def _whole(value: Named) -> Named:
        return Named(value.tensor.to(torch.int64), value.names) if value.tensor.dtype == torch.bool else value

    def _harmless(self, value: Named) -> Named:
        """A value, and 0.5 where a condition leaves it out."""
        assert self.active is not None
        if not value.tensor.is_floating_point():
            return value
        (active, tensor), names = self._aligned([self.active, value])
        return Named(torch.where(active, tensor, 0.5), names)

    @contextmanager
    def _where(self, condition: Named | None) -> Iterator[None]:
        before = self.active
        if condition is not None:
            self.active = condition if before is None else self._both(before, condition)
        try:
            yield
        finally:
            self.active = before

    def _look_up(self, value: Any, indices: Sequence[Any]) -> Any:
        base: Named = value
        left: list[Any] = []  # indices of the first axes of the array that are not named
        for index in indices:
            place = len(base.names) + len(left)
            whole = isinstance(index, Named) and index.counts and index.names[0] not in base.names
            if whole and base.tensor.shape[place] == self.extents[index.names[0]]:
                base = Named(base.tensor.movedim(place, len(base.names)), (*base.names, index.names[0]))
            else:
                left.append(index)
        return self._gathered(base, left) if left else base

    def _gathered(self, base: Named, indices: Sequence[Any]) -> Named:
        extents = base.tensor.shape[len(base.names) :]
        places = [self._inside(self._named(index), extent) for index, extent in zip(indices, extents, strict=False)]
        only, *others = places
        if not others and not base.names and len(only.names) <= 1 and only.tensor.ndim <= 1:
            return Named(base.tensor[only.tensor], only.names)
        ranks = [
            Named(torch.arange(extent, device=self.device), (name,))
            for name, extent in zip(base.names, base.tensor.shape, strict=False)
        ]
        aligned, names = self._aligned([*ranks, *places])
        return Named(base.tensor[tuple(aligned)], names)

    def _inside(self, index: Named, extent: int) -> Named:
        """An index where a condition holds, and 0 elsewhere."""
        tensor, names = index.tensor.to(torch.int64), index.names
        outside = (tensor < 0) | (tensor >= extent)
        if not bool(outside.any()):
            return Named(tensor, names)
        if self.active is not None:
            (active, beyond, places), names = self._aligned([self.active, Named(outside, names), Named(tensor, names)])
            tensor, outside = torch.where(beyond, 0, places), active & beyond
        if bool(outside.any()):
            raise IndexError(f"formula: an index is outside of an axis of {extent}")
        return Named(tensor, names)

    def _combination(self, node: ast.BoolOp) -> Any:
        wanted = isinstance(node.op, ast.Or)
        found = self._condition(self._value(node.values[0]))
        for part in node.values[1:]:
            undecided = self._apply(torch.logical_not, found) if wanted else found
            with self._where(undecided):
                other = self._condition(self._value(part))
            found = self._apply(torch.logical_or if wanted else torch.logical_and, found, other)
        return found

    def _condition(self, value: Any) -> Named:
        named = self._named(value)
        return named if named.tensor.dtype == torch.bool else Named(named.tensor != 0, named.names)

    def _choice(self, node: ast.IfExp) -> Any:
        test = self._value(node.test)
        if not isinstance(test, Named):
            return self._value(node.body if test else node.orelse)
        condition = self._condition(test)
        with self._where(condition):
            body = self._counted(self._value(node.body))
        with self._where(self._apply(torch.logical_not, condition)):
            other = self._counted(self._value(node.orelse))
        return self._apply(torch.where, condition, body, other)

    @contextmanager
    def _bound(self, node: ast.GeneratorExp | ast.ListComp) -> Iterator[tuple[list[str], Named | None]]:
        """(the names of the axes that the clauses make, where their conditions hold) while what is generated is looked at."""
        before, active = dict(self.bound), self.active
        names: list[str] = []
        holds: Named | None = None
        try:
            for clause in node.generators:
                assert isinstance(clause.target, ast.Name)
                limits: list[Named] = []
                if isinstance(clause.iter, ast.List):
                    self.bound[clause.target.id] = self._value(clause.iter.elts[0])
                else:
                    name = f"{clause.target.id}@{clause.target.col_offset}"
                    names.append(name)
                    self.bound[clause.target.id], limits = self._index(clause.iter, name)
                for test in itertools.chain(limits, map(self._value, clause.ifs)):
                    condition = self._condition(test)
                    holds = condition if holds is None else self._both(holds, condition)
                    self.active = condition if self.active is None else self._both(self.active, condition)
            yield names, holds
        finally:
            self.bound, self.active = before, active

    def _index(self, node: ast.expr, name: str) -> tuple[Named, list[Named]]:
        """(an index over the longest extent of a range, which conditions keep it inside)."""
        ends = [self._value(end) for end in node.args] if isinstance(node, ast.Call) else [self._value(node)]
        start, stop = ends if len(ends) == 2 else (0, ends[0])
        least = int(start.tensor.min()) if isinstance(start, Named) else int(start)
        most = (int(stop.tensor.max()) if stop.tensor.numel() else least) if isinstance(stop, Named) else int(stop)
        self.extents[name] = max(0, most - least)
        places = torch.arange(least, least + self.extents[name], device=self.device)
        index = Named(places, (name,), counts=least == 0)
        above = [self._apply(torch.ge, index, start)] if isinstance(start, Named) else []
        return index, above + ([self._apply(torch.lt, index, stop)] if isinstance(stop, Named) else [])

    def _over_generator(self, name: str, node: ast.GeneratorExp) -> Any:
        with self._bound(node) as (names, holds):
            value = self._value(node.elt)
            terms = self._condition(value) if name in OF_CONDITIONS else self._counted(value)
        if holds is None:
            times = math.prod(self.extents[axis] for axis in names if axis not in terms.names)
            count: Any = math.prod(self.extents[axis] for axis in names)
        else:
            extents = [Named(torch.ones(self.extents[axis], device=self.device), (axis,)) for axis in names]
            (tensor, *others), all_names = self._aligned([terms, holds, *extents])
            held = torch.broadcast_tensors(*others)[0]
            terms = Named(torch.where(held, tensor, EMPTY[name] if name in _NEUTRAL else 0.0), all_names)
            kept = Named(held.to(self.dtype).expand(terms.tensor.shape), all_names)
            times, count = 1, self._reduced(kept, names, torch.sum)
        if name in _NEUTRAL:
            if any(self.extents[axis] == 0 for axis in names):
                found = self._reduced(terms, names, torch.sum)
                return Named(torch.full_like(found.tensor, EMPTY[name], dtype=terms.tensor.dtype), found.names)
            return self._neutral(name, terms, names, times)
        total = self._reduced(terms, names, torch.sum)
        total = total if times == 1 else self._apply(torch.mul, total, times)
        if name == "sum":
            return total
        if isinstance(count, Named):
            return super()._arithmetic(ast.Div(), total, count)
        return self._apply(torch.div, total, float(count)) if count else self._apply(torch.mul, total, math.nan)

    def _neutral(self, name: str, terms: Named, names: Sequence[str], times: int) -> Any:
        found = self._reduced(terms, names, REDUCED[name])
        if times > 1 and name == "logsumexp":
            return self._apply(torch.add, found, math.log(times))
        return self._apply(torch.pow, found, times) if times > 1 and name == "prod" else found

    @staticmethod
    def _reduced(value: Named, names: Sequence[str], function: Callable[..., Tensor]) -> Named:
        axes = tuple(axis for axis, name in enumerate(value.names) if name in names)
        kept = tuple(name for name in value.names if name not in names)
        return Named(function(value.tensor, axes), kept) if axes else value

    def _over_array(self, name: str, *values: Any) -> Any:
        named = [self._condition(value) if name in OF_CONDITIONS else self._counted(value) for value in values]
        if name == "dot":
            return self._contracted(*named)
        (value,) = named
        axes = tuple(range(len(value.names), value.tensor.ndim))
        if name in ("softmax", "log_softmax"):
            return Named(getattr(torch, name)(value.tensor, -1), value.names)
        if name == "norm":
            harmless = value if self.active is None else self._harmless(value)
            axes = tuple(range(len(harmless.names), harmless.tensor.ndim))
            return Named(torch.linalg.vector_norm(harmless.tensor, dim=axes), harmless.names)
        if name in _NEUTRAL and not all(value.tensor.shape[axis] for axis in axes):
            return Named(value.tensor.new_full(value.tensor.shape[: len(value.names)], EMPTY[name]), value.names)
        return Named(REDUCED[name](value.tensor, axes), value.names)

    @staticmethod
    def _contracted(left: Named, right: Named) -> Named:
        """The sum of products over the axes of two arrays, without the products where a matrix product gives it."""
        names = tuple(dict.fromkeys((*left.names, *right.names)))
        number = {name: position for position, name in enumerate(names)}
        arrays = [len(names) + axis for axis in range(max(left.rank, right.rank))]
        given = [
            part
            for value in (left, right)
            for part in (value.tensor, [*(number[name] for name in value.names), *arrays[: value.rank]])
        ]
        return Named(torch.einsum(*given, list(range(len(names)))), names)

    def _listed(self, node: ast.ListComp | ast.GeneratorExp) -> Any:
        with self._bound(node) as (names, _):
            value = self._counted(self._value(node.elt))
        outer = tuple(name for name in value.names if name not in names)
        tensor = self._spread(value, (*outer, *names), value.rank)
        shape = [
            *tensor.shape[: len(outer)],
            *(self.extents[name] for name in names),
            *tensor.shape[len(outer) + len(names) :],
        ]
        return Named(tensor.expand(shape), outer)
