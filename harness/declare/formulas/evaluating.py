"""What both ways of evaluating a formula share: numbers, operators and functions."""

from __future__ import annotations

import ast
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "atan": torch.atan,
    "ceil": torch.ceil,
    "clamp": torch.clamp,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "detach": torch.detach,
    "erf": torch.erf,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "floor": torch.floor,
    "lgamma": torch.lgamma,
    "log": torch.log,
    "log1p": torch.log1p,
    "logsigmoid": F.logsigmoid,
    "max": torch.maximum,
    "min": torch.minimum,
    "relu": torch.relu,
    "round": torch.round,
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "sin": torch.sin,
    "softplus": F.softplus,
    "sqrt": torch.sqrt,
    "tan": torch.tan,
    "tanh": torch.tanh,
    "where": torch.where,
}


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
            ast.Name: self.name,
            ast.Subscript: self.subscript,
            ast.BinOp: self.operation,
            ast.UnaryOp: self.sign,
            ast.Compare: self.comparison,
            ast.BoolOp: self.combination,
            ast.IfExp: self.choice,
            ast.Call: self.call,
            ast.ListComp: self.listed,
        }

    def value(self, node: ast.expr) -> Any:
        """The value of a part."""
        return self._of[type(node)](node)

    @abstractmethod
    def result(self, tree: ast.expr) -> Tensor:
        """The value of the whole, as a tensor."""

    @abstractmethod
    def name(self, node: ast.Name) -> Any:
        """A tensor, a size, an option or an index."""

    @abstractmethod
    def look_up(self, value: Any, indices: Sequence[Any]) -> Any:
        """Elements of an array."""

    @abstractmethod
    def apply(self, function: Callable[..., Any], *values: Any, singular: bool = False) -> Any:
        """A function of numbers, element by element."""

    @abstractmethod
    def combination(self, node: ast.BoolOp) -> Any:
        """`and` and `or`; what stands behind is not asked where what stands before has decided."""

    @abstractmethod
    def choice(self, node: ast.IfExp) -> Any:
        """One of two values."""

    @abstractmethod
    def over_generator(self, name: str, node: ast.GeneratorExp) -> Any:
        """The sum, mean, maximum ... of what is generated."""

    @abstractmethod
    def over_array(self, name: str, *values: Any) -> Any:
        """The sum, norm, softmax ... of all elements of an array."""

    @abstractmethod
    def listed(self, node: ast.ListComp) -> Any:
        """The array of what is generated."""

    def subscript(self, node: ast.Subscript) -> Any:
        """Elements of an array."""
        indices = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return self.look_up(self.value(node.value), [self.value(index) for index in indices])

    def operation(self, node: ast.BinOp) -> Any:
        """Arithmetic."""
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(left, (int, float)) and isinstance(right, (int, float)):
            return _of_numbers(node.op, left, right)
        return self.arithmetic(node.op, left, right)

    def arithmetic(self, op: ast.operator, left: Any, right: Any) -> Any:
        """Arithmetic with a tensor."""
        return self.apply(OPERATORS[type(op)], left, right, singular=isinstance(op, (ast.Div, ast.Pow)))

    def sign(self, node: ast.UnaryOp) -> Any:
        """`-`, `+` and `not`."""
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            return not value if isinstance(value, (int, float)) else self.apply(torch.logical_not, value)
        if isinstance(node.op, ast.UAdd):
            return value
        return -value if isinstance(value, (int, float)) else self.apply(operator.neg, value)

    def comparison(self, node: ast.Compare) -> Any:
        """Comparisons, chained as in Python."""
        values = [self.value(part) for part in (node.left, *node.comparators)]
        found: Any = True
        for op, left, right in zip(node.ops, values, values[1:], strict=False):
            compare = COMPARISONS[type(op)]
            numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
            one = compare(left, right) if numbers else self.apply(compare, left, right)
            found = one if found is True else self.both(found, one)
        return found

    def both(self, left: Any, right: Any) -> Any:
        """Whether two conditions hold."""
        if isinstance(left, (int, float)) and isinstance(right, (int, float)):
            return bool(left) and bool(right)
        return self.apply(torch.logical_and, left, right)

    def call(self, node: ast.Call) -> Any:
        """A function."""
        assert isinstance(node.func, ast.Name)
        name = node.func.id
        if isinstance(node.args[0], ast.GeneratorExp):
            return self.over_generator(name, node.args[0])
        values = [self.value(argument) for argument in node.args]
        if name in ELEMENTWISE and not (name in ("max", "min") and len(values) == 1):
            found = values[0]
            if name in ("max", "min"):
                for other in values[1:]:
                    found = self.function(name, found, other)
                return found
            return self.function(name, *values)
        return self.over_array(name, *values)

    def function(self, name: str, *values: Any) -> Any:
        """A function of numbers, which meet it in the loss's dtype."""
        return self.apply(ELEMENTWISE[name], *map(self.floating, values), singular=name in SINGULAR)

    @abstractmethod
    def floating(self, value: Any) -> Any:
        """A value in the loss's dtype; a condition stays one."""

    def number(self, value: float) -> Tensor:
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
        return (
            int(found)
            if isinstance(left, int) and isinstance(right, int) and abs(found) < 2**53 and right >= 0
            else found
        )
    return float(OPERATORS[type(op)](left, right)) if isinstance(op, ast.Div) else OPERATORS[type(op)](left, right)
