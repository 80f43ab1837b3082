"""What both ways of evaluating a formula share: numbers, operators and functions."""

from __future__ import annotations

import ast
import functools
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.declare.formulas.reading import COMPARISONS, OF_NUMBERS, OPERATORS

# Functions of numbers by their names in formulas, element by element.
ELEMENTWISE: dict[str, Callable[..., Any]] = {
    name: getattr(torch, name, None) or getattr(F, name) for name in OF_NUMBERS
} | {"max": torch.maximum, "min": torch.minimum}


def _product(array: Tensor, axes: int | tuple[int, ...]) -> Tensor:
    for axis in sorted((axes,) if isinstance(axes, int) else axes, reverse=True):
        array = array.prod(axis)
    return array


# Of an array over some of its axes, and what each gives where there is nothing.
REDUCED: dict[str, Callable[..., Tensor]] = {
    "all": torch.all,
    "any": torch.any,
    "sum": torch.sum,
    "prod": _product,
    "mean": torch.mean,
    "max": torch.amax,
    "min": torch.amin,
    "logsumexp": torch.logsumexp,
}
EMPTY: dict[str, Any] = {
    "all": True,
    "any": False,
    "sum": 0.0,
    "prod": 1.0,
    "mean": math.nan,
    "max": -math.inf,
    "min": math.inf,
    "logsumexp": -math.inf,
}
OF_CONDITIONS = ("all", "any")
# Where a condition leaves a value out, it is computed all the same in a vectorized form; these have no derivative
# everywhere, and 0 * inf would reach the gradient.  What they are given there is 0.5.
SINGULAR = frozenset({"acos", "lgamma", "log", "log1p", "sqrt", "norm"})


class Evaluator(ABC):
    """The value of an expression that `harness.declare.formulas.reading` has read.

    Args:
        numbers: options, and sizes by symbol.
        tensors: by name, with one axis for each dim.
        dtype: in which numbers meet functions.
        device: where tensors are made.
    """

    def __init__(
        self, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device
    ) -> None:
        self.numbers, self.tensors, self.dtype, self.device = numbers, tensors, dtype, device
        self.bound: dict[str, Any] = {}
        self._of: dict[type[ast.expr], Callable[[Any], Any]] = {
            ast.Constant: lambda node: node.value,
            ast.Name: self._name,
            ast.Subscript: self._subscript,
            ast.BinOp: self._operation,
            ast.UnaryOp: self._sign,
            ast.Compare: self._comparison,
            ast.BoolOp: self._combination,
            ast.IfExp: self._choice,
            ast.Call: self._call,
            ast.ListComp: self._listed,
            ast.GeneratorExp: self._listed,
        }

    def _value(self, node: ast.expr) -> Any:
        return self._of[type(node)](node)

    @abstractmethod
    def result(self, tree: ast.expr) -> Tensor:
        """The value of the whole, as a tensor."""

    @abstractmethod
    def _name(self, node: ast.Name) -> Any:
        """A tensor, a size, an option or an index."""

    @abstractmethod
    def _look_up(self, value: Any, indices: Sequence[Any]) -> Any:
        """Elements of an array."""

    @abstractmethod
    def _apply(self, function: Callable[..., Any], *values: Any, singular: bool = False) -> Any:
        """A function of numbers, element by element."""

    @abstractmethod
    def _combination(self, node: ast.BoolOp) -> Any:
        """`and` and `or`; what stands behind is not asked where what stands before has decided."""

    @abstractmethod
    def _choice(self, node: ast.IfExp) -> Any:
        """One of two values."""

    @abstractmethod
    def _over_generator(self, name: str, node: ast.GeneratorExp) -> Any:
        """The sum, mean, maximum ... of what is generated."""

    @abstractmethod
    def _over_array(self, name: str, *values: Any) -> Any:
        """The sum, norm, softmax ... of all elements of an array."""

    @abstractmethod
    def _listed(self, node: ast.ListComp | ast.GeneratorExp) -> Any:
        """The array of what is generated."""

    def _subscript(self, node: ast.Subscript) -> Any:
        indices = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return self._look_up(self._value(node.value), [self._value(index) for index in indices])

    def _operation(self, node: ast.BinOp) -> Any:
        left, right = self._value(node.left), self._value(node.right)
        if isinstance(left, (int, float)) and isinstance(right, (int, float)):
            return _of_numbers(node.op, left, right)
        return self._arithmetic(node.op, left, right)

    def _arithmetic(self, op: ast.operator, left: Any, right: Any) -> Any:
        """Arithmetic with a tensor."""
        return self._apply(OPERATORS[type(op)], left, right, singular=isinstance(op, (ast.Div, ast.Pow)))

    def _sign(self, node: ast.UnaryOp) -> Any:
        """`-`, `+` and `not`."""
        value = self._value(node.operand)
        if isinstance(node.op, ast.Not):
            return not value if isinstance(value, (int, float)) else self._apply(torch.logical_not, value)
        if isinstance(node.op, ast.UAdd):
            return value
        return -value if isinstance(value, (int, float)) else self._apply(operator.neg, value)

    def _comparison(self, node: ast.Compare) -> Any:
        """Comparisons, chained as in Python."""
        values = [self._value(part) for part in (node.left, *node.comparators)]
        found: Any = True
        for op, left, right in zip(node.ops, values, values[1:], strict=False):
            compare = COMPARISONS[type(op)]
            numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
            one = compare(left, right) if numbers else self._apply(compare, left, right)
            found = one if found is True else self._both(found, one)
        return found

    def _both(self, left: Any, right: Any) -> Any:
        """Whether two conditions hold."""
        if isinstance(left, (int, float)) and isinstance(right, (int, float)):
            return bool(left) and bool(right)
        return self._apply(torch.logical_and, left, right)

    def _call(self, node: ast.Call) -> Any:
        assert isinstance(node.func, ast.Name)
        name = node.func.id
        if isinstance(node.args[0], ast.GeneratorExp):
            return self._over_generator(name, node.args[0])
        values = [self._value(argument) for argument in node.args]
        if name in ("max", "min") and len(values) > 1:
            return functools.reduce(functools.partial(self._function, name), values)
        return self._function(name, *values) if name in OF_NUMBERS else self._over_array(name, *values)

    def _function(self, name: str, *values: Any) -> Any:
        """A function of numbers, which meet it in the loss's dtype."""
        return self._apply(ELEMENTWISE[name], *map(self._floating, values), singular=name in SINGULAR)

    @abstractmethod
    def _floating(self, value: Any) -> Any:
        """A value in the loss's dtype; a condition stays one."""

    def _number(self, value: float) -> Tensor:
        """A number as a tensor."""
        return torch.tensor(value, dtype=self.dtype, device=self.device)


def _of_numbers(op: ast.operator, left: float, right: float) -> float:
    """Arithmetic of Python's numbers as tensors do it: x / 0 is infinite or NaN, and no power has a million digits."""
    if isinstance(op, (ast.Div, ast.FloorDiv, ast.Mod)) and right == 0:
        infinite = isinstance(op, ast.Div) and left != 0 and not math.isnan(left)
        return math.copysign(math.inf, left) if infinite else math.nan
    if isinstance(op, ast.Pow):
        try:
            found = math.pow(left, right)
        except OverflowError:
            return math.inf
        except ValueError:
            return math.inf if left == 0 else math.nan
        is_whole = isinstance(left, int) and isinstance(right, int) and abs(found) < 2**53 and right >= 0
        return int(found) if is_whole else found
    return OPERATORS[type(op)](left, right)  # type: ignore[no-any-return]
