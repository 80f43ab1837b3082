"""`Formula`: an implementation of a loss that is made of its formula."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.declare import dims
from harness.declare.dims import Size
from harness.declare.formulas.evaluating import Evaluator
from harness.declare.formulas.loops import Loops
from harness.declare.formulas.reading import Names, read, running
from harness.declare.formulas.vectors import Vectors

LOOPED = 256  # terms of the longest sum that are still added one by one


class Formula:
    """A loss as its formula says it: loops at small sizes, vectorized over the names of the indices at large ones.

    Args:
        text: the formula.
        tensors: name -> dims of every tensor that it may name.
        fixed: sizes that no tensor has to bind.
        options: constants that it may name.

    Raises:
        DeclarationError: the text is no formula over these names; the message points at the column.
    """

    is_formula = True  # it is the loss itself, from which nothing has to be selected

    def __init__(
        self,
        text: str,
        tensors: Mapping[str, str],
        fixed: Mapping[str, Size] | None = None,
        options: Collection[str] = (),
    ) -> None:
        self.text = " ".join(text.split()) if isinstance(text, str) else text
        self.tensors = dict(tensors)
        self.fixed = dict(fixed or {})
        parsed = {name: dims.parse(each) for name, each in tensors.items()}
        bound = {dim.offset[0] for each in parsed.values() for dim in each if dim.offset is not None} | set(self.fixed)
        axes = {name: len(each) for name, each in parsed.items()}
        names = Names(axes, frozenset(name for name in bound if name.isidentifier()), frozenset(options))
        self._tree = read(text, names)
        self._generators = _generators(self._tree)
        used = {node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)}
        self.used = tuple(name for name in tensors if name in used)
        by_keyword = inspect.Parameter.KEYWORD_ONLY
        self.__signature__ = inspect.Signature(
            [inspect.Parameter(name, by_keyword) for name in tensors]
            + [inspect.Parameter(name, by_keyword, default=None) for name in sorted(options) if name not in tensors]
        )
        self.__name__ = self.__qualname__ = "formula"

    def __repr__(self) -> str:
        return f"Formula({self.text!r})"

    def __call__(self, **given: Any) -> Tensor:
        """The value of the formula.

        Raises:
            ValueError: shapes that do not fit the dims.
            IndexError: an index outside of its axis.
        """
        terms = _terms(self._generators, _counts(self._sizes(given)))
        return self.evaluated(given, Loops if terms <= LOOPED else Vectors)

    def evaluated(self, given: Mapping[str, Any], how: type[Evaluator]) -> Tensor:
        """The value, by loops or vectorized, whatever the sizes."""
        sizes = self._sizes(given)
        flat = {name: self._flattened(name, given[name], sizes) for name in self.used}
        tensors: list[Tensor] = [given[name] for name in self.tensors]
        floating = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
        dtype = functools.reduce(torch.promote_types, floating, floating[0]) if floating else torch.get_default_dtype()
        device = tensors[0].device if tensors else torch.device("cpu")
        options = {name: value for name, value in given.items() if name not in self.tensors}
        found = how({**options, **_counts(sizes)}, flat, dtype, device).result(self._tree)
        # A sum of nothing has a gradient of zero, as torch's has: zero times a tensor would be NaN where that is infinite.
        return sum((flat[n].reshape(-1)[:0].sum() for n in self.used if flat[n].requires_grad), start=found)

    def _sizes(self, given: Mapping[str, Any]) -> dict[str, Size]:
        shapes = {name: tuple(given[name].shape) for name in self.tensors}
        return dims.unify(self.tensors, shapes, self.fixed)

    def _flattened(self, name: str, tensor: Tensor, sizes: Mapping[str, Size]) -> Tensor:
        """With one axis for each dim: broadcast axes at their full size, several of one symbol as one."""
        parsed = dims.parse(self.tensors[name])
        if tensor.ndim == len(parsed) and not any(dim.broadcastable or dim.variadic for dim in parsed):
            return tensor
        several = tensor.ndim - sum(not dim.variadic for dim in parsed)
        extents = iter(tensor.shape)
        given: list[int] = []
        whole: list[list[int]] = []
        for dim in parsed:
            own = list(itertools.islice(extents, several if dim.variadic else 1))
            size = sizes[str(dim.symbol)] if dim.broadcastable and dim.symbol else tuple(own)
            full = list(size) if isinstance(size, tuple) else [size]
            given += [1] * (len(full) - len(own)) + own
            whole.append(full)
        return tensor.reshape(given).expand(list(itertools.chain(*whole))).reshape(list(map(math.prod, whole)))


def _counts(sizes: Mapping[str, Size]) -> dict[str, int]:
    """The extent of each symbol; of several axes, that of them as one."""
    return {name: math.prod(size) if isinstance(size, tuple) else size for name, size in sizes.items()}


class _Generator(NamedTuple):
    """What the clauses of a generator run over, ``""`` where a tensor ends a range, and the generators inside of it."""

    over: tuple[str, ...]
    inside: tuple[_Generator, ...]


def _generators(node: ast.AST) -> tuple[_Generator, ...]:
    inside = tuple(itertools.chain.from_iterable(map(_generators, ast.iter_child_nodes(node))))
    if not isinstance(node, (ast.GeneratorExp, ast.ListComp)):
        return inside
    over = tuple(clause.iter.id if isinstance(clause.iter, ast.Name) else "" for clause in running(node))
    return (_Generator(over, inside),)


def _terms(generators: Sequence[_Generator], sizes: Mapping[str, int]) -> int:
    """How often the innermost value is looked at; a range that a tensor ends counts as the longest size."""
    longest = max(sizes.values(), default=1)
    return max(
        (
            math.prod(max(sizes.get(name, longest), 1) for name in each.over) * _terms(each.inside, sizes)
            for each in generators
        ),
        default=1,
    )
