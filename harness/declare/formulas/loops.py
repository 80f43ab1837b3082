"""A formula as the loops that it says, one term after the other."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.declare.formulas.evaluating import EMPTY, OF_CONDITIONS, REDUCED, Evaluator
from harness.declare.formulas.reading import running


class Loops(Evaluator):
    """Indices are Python's numbers, and so is every element of a tensor of whole numbers; other elements are tensors."""

    def result(self, tree: ast.expr) -> Tensor:
        """The value of the whole, as a tensor."""
        found = self._value(tree)
        return self._floating(found) if isinstance(found, Tensor) else self._number(float(found))

    def _name(self, node: ast.Name) -> Any:
        if node.id in self.bound:
            return self.bound[node.id]
        if node.id in self.tensors:
            return _plain(self.tensors[node.id])
        return self.numbers[node.id]

    def _look_up(self, value: Any, indices: Sequence[Any]) -> Any:
        places = tuple(int(index) for index in indices)
        for axis, place in enumerate(places):
            if not 0 <= place < value.shape[axis]:
                raise IndexError(f"formula: index {place} is outside of an axis of {value.shape[axis]}")
        return _plain(value[places])

    def _apply(self, function: Callable[..., Any], *values: Any, singular: bool = False) -> Any:
        return function(*values)

    def _floating(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value if value.is_floating_point() or value.dtype == torch.bool else value.to(self.dtype)
        return torch.tensor(value, device=self.device) if isinstance(value, bool) else self._number(float(value))

    def _combination(self, node: ast.BoolOp) -> Any:
        wanted = isinstance(node.op, ast.Or)
        values = (self._value(part) for part in node.values)
        first = next(values)
        if isinstance(first, Tensor) and first.ndim:
            combine = torch.logical_or if wanted else torch.logical_and
            for other in values:
                first = combine(first, torch.as_tensor(other, device=self.device))
            return first
        return bool(first) if bool(first) == wanted else next((wanted for v in values if bool(v) == wanted), not wanted)

    def _choice(self, node: ast.IfExp) -> Any:
        return self._value(node.body if self._value(node.test) else node.orelse)

    def _over_generator(self, name: str, node: ast.GeneratorExp) -> Any:
        if name in OF_CONDITIONS:
            return self._decided(name, node)
        terms = list(self._generated(node, 0))
        if not terms:
            return EMPTY[name]
        if name == "sum" and not any(isinstance(term, Tensor) for term in terms):
            return sum(terms)
        stacked = torch.stack([self._floating(_counted(term)) for term in terms])
        return REDUCED[name](stacked, 0)

    def _decided(self, name: str, node: ast.GeneratorExp) -> bool:
        """`all` or `any`, which asks no further than it has to."""
        before = dict(self.bound)
        found = (any if name == "any" else all)(bool(term) for term in self._generated(node, 0))
        self.bound = before  # what has decided leaves the loops as they are
        return found

    def _generated(self, node: ast.GeneratorExp | ast.ListComp, position: int) -> Iterator[Any]:
        if position == len(node.generators):
            yield self._value(node.elt)
            return
        clause = node.generators[position]
        assert isinstance(clause.target, ast.Name)
        name, before = clause.target.id, self.bound.get(clause.target.id)
        values = map(self._value, clause.iter.elts) if isinstance(clause.iter, ast.List) else self._range(clause.iter)
        for index in values:
            self.bound[name] = index
            if all(map(self._value, clause.ifs)):
                yield from self._generated(node, position + 1)
        self.bound.pop(name, None)
        if before is not None:
            self.bound[name] = before

    def _range(self, node: ast.expr) -> range:
        if isinstance(node, ast.Call):
            return range(*(int(self._value(end)) for end in node.args))
        return range(int(self._value(node)))

    def _over_array(self, name: str, *values: Any) -> Any:
        if name in OF_CONDITIONS:
            return bool(REDUCED[name](values[0] != 0))
        first, *others = [self._floating(_counted(value)) for value in values]
        if name == "dot":
            return (first * others[0]).sum()
        if name == "norm":
            return torch.linalg.vector_norm(first)
        if name in ("softmax", "log_softmax"):
            return getattr(torch, name)(first, -1)
        if not first.numel():
            return self._number(EMPTY[name])
        return REDUCED[name](first, tuple(range(first.ndim)))

    def _listed(self, node: ast.ListComp | ast.GeneratorExp) -> Any:
        shape = [len(self._range(clause.iter)) for clause in running(node)]
        terms = [self._floating(term) for term in self._generated(node, 0)]
        if not terms:
            return torch.zeros(shape, dtype=self.dtype, device=self.device)
        return torch.stack(terms).reshape(*shape, *terms[0].shape)


def _plain(value: Tensor) -> Any:
    return value.item() if not value.ndim and not value.is_floating_point() and not value.is_complex() else value


def _counted(value: Any) -> Any:
    """A condition as 0 or 1."""
    if isinstance(value, bool):
        return int(value)
    return value.to(torch.int64) if isinstance(value, Tensor) and value.dtype == torch.bool else value
