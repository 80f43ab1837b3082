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
        found = self.listed(tree) if isinstance(tree, ast.GeneratorExp) else self.value(tree)
        return self.floating(found) if isinstance(found, Tensor) else self.number(float(found))

    def name(self, node: ast.Name) -> Any:
        """A tensor, a size, an option or an index."""
        if node.id in self.bound:
            return self.bound[node.id]
        if node.id in self.tensors:
            return _plain(self.tensors[node.id])
        return self.numbers[node.id]

    def look_up(self, value: Any, indices: Sequence[Any]) -> Any:
        """Elements of an array."""
        places = tuple(int(index) for index in indices)
        for axis, place in enumerate(places):
            if not 0 <= place < value.shape[axis]:
                raise IndexError(f"formula: index {place} is outside of an axis of {value.shape[axis]}")
        return _plain(value[places])

    def apply(self, function: Callable[..., Any], *values: Any, singular: bool = False) -> Any:
        """A function of numbers, element by element."""
        return function(*values)

    def floating(self, value: Any) -> Any:
        """A value in the loss's dtype; a condition stays one."""
        if isinstance(value, bool) or (isinstance(value, Tensor) and value.dtype == torch.bool):
            return torch.tensor(value, device=self.device) if isinstance(value, bool) else value
        if isinstance(value, Tensor):
            return value if value.is_floating_point() else value.to(self.dtype)
        return self.number(float(value))

    def combination(self, node: ast.BoolOp) -> Any:
        """`and` and `or`; what stands behind is not asked where what stands before has decided."""
        wanted = isinstance(node.op, ast.Or)
        values = (self.value(part) for part in node.values)
        first = next(values)
        if isinstance(first, Tensor) and first.ndim:
            combine = torch.logical_or if wanted else torch.logical_and
            for other in values:
                first = combine(first, torch.as_tensor(other, device=self.device))
            return first
        return bool(first) if bool(first) == wanted else next((wanted for v in values if bool(v) == wanted), not wanted)

    def choice(self, node: ast.IfExp) -> Any:
        """One of two values."""
        return self.value(node.body if bool(self.value(node.test)) else node.orelse)

    def over_generator(self, name: str, node: ast.GeneratorExp) -> Any:
        """The sum, mean, maximum ... of what is generated."""
        if name in OF_CONDITIONS:
            return self._decided(name, node)
        terms = list(self._generated(node, 0))
        if not terms:
            return EMPTY[name]
        if name == "sum" and not any(isinstance(term, Tensor) for term in terms):
            return sum(terms)
        stacked = torch.stack([self.floating(_counted(term)) for term in terms])
        return REDUCED[name](stacked, 0)

    def _decided(self, name: str, node: ast.GeneratorExp) -> bool:
        """`all` or `any`, which asks no further than it has to."""
        before = dict(self.bound)
        found = (any if name == "any" else all)(bool(term) for term in self._generated(node, 0))
        self.bound = before  # what has decided leaves the loops as they are
        return found

    def _generated(self, node: ast.GeneratorExp | ast.ListComp, position: int) -> Iterator[Any]:
        if position == len(node.generators):
            yield self.value(node.elt)
            return
        clause = node.generators[position]
        assert isinstance(clause.target, ast.Name)
        name, before = clause.target.id, self.bound.get(clause.target.id)
        values = map(self.value, clause.iter.elts) if isinstance(clause.iter, ast.List) else self._range(clause.iter)
        for index in values:
            self.bound[name] = index
            if all(bool(self.value(test)) for test in clause.ifs):
                yield from self._generated(node, position + 1)
        self.bound.pop(name, None)
        if before is not None:
            self.bound[name] = before

    def _range(self, node: ast.expr) -> range:
        if isinstance(node, ast.Call):
            return range(*(int(self.value(end)) for end in node.args))
        return range(int(self.value(node)))

    def over_array(self, name: str, *values: Any) -> Any:
        """The sum, norm, softmax ... of all elements of an array."""
        if name in OF_CONDITIONS:
            return bool(REDUCED[name](values[0] != 0))
        first, *others = [self.floating(_counted(value)) for value in values]
        if name == "dot":
            return (first * others[0]).sum()
        if name == "norm":
            return torch.linalg.vector_norm(first)
        if name in ("softmax", "log_softmax"):
            return getattr(torch, name)(first, -1)
        if not first.numel():
            return self.number(EMPTY[name])
        return REDUCED[name](first, tuple(range(first.ndim)))

    def listed(self, node: ast.ListComp | ast.GeneratorExp) -> Any:
        """The array of what is generated."""
        shape = [len(self._range(clause.iter)) for clause in running(node)]
        terms = [self.floating(term) for term in self._generated(node, 0)]
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
