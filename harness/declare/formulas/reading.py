"""Reads a formula, and refuses what is none with the column at fault.

    VALUE    = number | NAME | VALUE[INDEX, ...] | VALUE + VALUE | -VALUE | VALUE if TEST else VALUE | NAME(VALUE, ...)
             | sum(VALUE for NAME in RANGE ... if TEST) | [VALUE for NAME in RANGE ...]
    RANGE    = SYMBOL | range(VALUE) | range(VALUE, VALUE) | [VALUE], which gives one value a name
    TEST     = VALUE < VALUE | TEST and TEST | not TEST | VALUE

A value is a number or, where a tensor is given fewer indices than it has axes, an array of the axes that are left.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import DeclarationError, nearest

LONGEST = 2000  # characters

# Of a generator, or of all elements of an array.
OVER_ANY = ("all", "any", "sum", "prod", "mean", "max", "min", "logsumexp")
OVER_ARRAYS = {"softmax": 1, "log_softmax": 1, "norm": 1, "dot": 2}
OF_NUMBERS = {
    **dict.fromkeys(
        ("abs", "acos", "atan", "ceil", "cos", "cosh", "detach", "erf", "exp", "expm1", "floor", "lgamma", "log"), 1
    ),
    **dict.fromkeys(
        ("log1p", "logsigmoid", "relu", "round", "sigmoid", "sign", "sin", "softplus", "sqrt", "tan", "tanh"), 1
    ),
    "clamp": 3,
    "where": 3,
}
FUNCTIONS = tuple(sorted((*OVER_ANY, *OVER_ARRAYS, *OF_NUMBERS)))

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


@dataclass(frozen=True)
class Names:
    """What a formula may name: tensors with their number of axes, sizes, and options."""

    axes: Mapping[str, int]
    sizes: frozenset[str]
    options: frozenset[str] = frozenset()


def read(text: str, names: Names) -> ast.expr:
    """The expression that a text stands for.

    Raises:
        DeclarationError: it is no formula over these names; the message points at the column.
    """
    if not isinstance(text, str) or not text.strip():
        raise DeclarationError(
            'got an empty formula, expected one such as "sum(w[b] * (p[b] - y[b])**2 for b in B) / B"'
        )
    if len(text) > LONGEST:
        raise DeclarationError(f"got a formula of {len(text)} characters, expected at most {LONGEST}")
    line = " ".join(text.split())
    try:
        tree: ast.expr = _Flat(names).visit(_parsed(line))
    except SyntaxError as error:
        raise refused(line, (error.offset or 1) - 1, f"it is no Python expression ({error.msg})") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise DeclarationError(f"got a formula that cannot be read ({type(error).__name__})") from error
    try:
        _Reader(line, names).rank(tree, {}, outermost=True)
    except RecursionError as error:
        raise DeclarationError("got a formula that is nested too deep") from error
    return tree


def _parsed(line: str) -> ast.expr:
    try:
        return ast.parse(line, mode="eval").body
    except SyntaxError as error:
        try:  # a generator without its parentheses, whose columns stay
            return ast.parse(f"(\n{line})", mode="eval").body
        except SyntaxError:
            raise error from None


class _Flat(ast.NodeTransformer):
    """Names a tensor of a structure, such as `targets.boxes`, as the call of a formula does: `targets_boxes`."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        flat = ast.unparse(node).replace(".", "_")
        return ast.copy_location(ast.Name(flat, ast.Load()), node) if flat in self.names.axes else node


def refused(text: str, column: int, why: str) -> DeclarationError:
    """An error that shows where the text is at fault."""
    before = text[max(0, column - 60) : column]
    shown = text[max(0, column - 60) : column + 60]
    return DeclarationError(f"formula, column {column + 1}: {why}\n    {shown}\n    {' ' * len(before)}^")


class _Reader:
    """Gives every part its rank: the number of axes of an array, 0 for a number."""

    def __init__(self, text: str, names: Names) -> None:
        self.text, self.names = text, names
        self._of: dict[type[ast.expr], Callable[..., int]] = {
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.Attribute: self._attribute,
            ast.Subscript: self._subscript,
            ast.BinOp: self._operation,
            ast.UnaryOp: self._sign,
            ast.Compare: self._comparison,
            ast.BoolOp: self._combination,
            ast.IfExp: self._choice,
            ast.Call: self._call,
            ast.ListComp: self._list,
        }

    def rank(self, node: ast.expr, bound: Mapping[str, int], *, outermost: bool = False) -> int:
        if outermost and isinstance(node, ast.GeneratorExp):
            return self._list(node, bound)
        found = self._of.get(type(node))
        if found is None:
            raise self._refused(node, f"{ast.unparse(node)[:40]!r} has no place in a formula")
        return found(node, bound)

    def _refused(self, node: ast.expr, why: str) -> DeclarationError:
        return refused(self.text, node.col_offset, why)

    def _number(self, node: ast.expr, bound: Mapping[str, int], what: str) -> None:
        if rank := self.rank(node, bound):
            raise self._refused(node, f"{what} is an array of {_axes(rank)}, expected a number; give it more indices")

    def _constant(self, node: ast.Constant, bound: Mapping[str, int]) -> int:
        if type(node.value) not in (int, float, bool):
            raise self._refused(node, f"got {node.value!r}, expected a number")
        return 0

    def _name(self, node: ast.Name, bound: Mapping[str, int]) -> int:
        if node.id in bound:
            return bound[node.id]
        if node.id in self.names.axes:
            return self.names.axes[node.id]
        if node.id in self.names.sizes or node.id in self.names.options:
            return 0
        if node.id in FUNCTIONS:
            raise self._refused(node, f"{node.id!r} is a function; write {node.id}(...)")
        raise self._undeclared(node, node.id, bound)

    def _attribute(self, node: ast.Attribute, bound: Mapping[str, int]) -> int:
        raise self._undeclared(node, ast.unparse(node), bound)

    def _undeclared(self, node: ast.expr, name: str, bound: Mapping[str, int]) -> DeclarationError:
        known = (*self.names.axes, *self.names.sizes, *self.names.options, *bound)
        return self._refused(
            node,
            f"nothing declares {name!r}{nearest(name, known)}; there are the tensors {', '.join(self.names.axes)}"
            + (f" and the sizes {', '.join(sorted(self.names.sizes))}" if self.names.sizes else ""),
        )

    def _subscript(self, node: ast.Subscript, bound: Mapping[str, int]) -> int:
        indices = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        rank = self.rank(node.value, bound)
        for index in indices:
            if isinstance(index, (ast.Slice, ast.Starred)):
                raise self._refused(
                    node, "a slice has no place in a formula; leave the last indices out for all of an axis"
                )
            self._number(index, bound, "an index")
        if len(indices) > rank:
            what = ast.unparse(node.value)
            raise self._refused(node, f"{what} has {_axes(rank)}, but got {len(indices)} indices")
        return rank - len(indices)

    def _alike(self, node: ast.expr, parts: Iterable[ast.expr], bound: Mapping[str, int]) -> int:
        ranks = [self.rank(part, bound) for part in parts]
        if len({rank for rank in ranks if rank}) > 1:
            raise self._refused(node, f"arrays of {' and '.join(_axes(r) for r in ranks if r)} meet; give them indices")
        return max(ranks)

    def _operation(self, node: ast.BinOp, bound: Mapping[str, int]) -> int:
        if type(node.op) not in OPERATORS:
            raise self._refused(node, "expected one of + - * / // % **")
        return self._alike(node, (node.left, node.right), bound)

    def _sign(self, node: ast.UnaryOp, bound: Mapping[str, int]) -> int:
        if not isinstance(node.op, (ast.USub, ast.UAdd, ast.Not)):
            raise self._refused(node, "expected - or not")
        return self.rank(node.operand, bound)

    def _comparison(self, node: ast.Compare, bound: Mapping[str, int]) -> int:
        if not all(type(op) in COMPARISONS for op in node.ops):
            raise self._refused(node, "expected one of == != < <= > >=")
        return self._alike(node, (node.left, *node.comparators), bound)

    def _combination(self, node: ast.BoolOp, bound: Mapping[str, int]) -> int:
        return self._alike(node, node.values, bound)

    def _choice(self, node: ast.IfExp, bound: Mapping[str, int]) -> int:
        self._number(node.test, bound, "a condition")
        return self._alike(node, (node.body, node.orelse), bound)

    def _list(self, node: ast.GeneratorExp | ast.ListComp, bound: Mapping[str, int]) -> int:
        return self._generated(node, bound, ragged=False) + len(running(node))

    def _call(self, node: ast.Call, bound: Mapping[str, int]) -> int:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in FUNCTIONS:
            label = name or ast.unparse(node.func)
            raise self._refused(
                node, f"{label!r} is no function{nearest(label, FUNCTIONS)}; there are {', '.join(FUNCTIONS)}"
            )
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            raise self._refused(node, f"{name} takes its values by position")
        count = len(node.args)
        if name in OVER_ANY:
            return self._over_any(node, name, bound)
        expected = OVER_ARRAYS.get(name) or OF_NUMBERS[name]
        if count != expected:
            raise self._refused(node, f"{name} takes {expected} value{'s' * (expected > 1)}, but got {count}")
        rank = self._alike(node, node.args, bound)
        if name in OVER_ARRAYS and not rank:
            raise self._refused(
                node, f"{name} takes an array, such as z[b] of a tensor with one more axis; got a number"
            )
        return 0 if name in ("norm", "dot") else rank

    def _over_any(self, node: ast.Call, name: str, bound: Mapping[str, int]) -> int:
        if len(node.args) == 1 and isinstance(node.args[0], ast.GeneratorExp):
            return self._generated(node.args[0], bound)
        if len(node.args) > 1 and name in ("max", "min"):
            return self._alike(node, node.args, bound)
        if len(node.args) != 1:
            raise self._refused(node, f"{name} takes one generator, such as {name}(x[b] for b in B), or one array")
        if not self.rank(node.args[0], bound):
            raise self._refused(
                node, f"{name} takes a generator, such as {name}(x[b] for b in B), or an array; got a number"
            )
        return 0

    def _generated(
        self, node: ast.GeneratorExp | ast.ListComp, bound: Mapping[str, int], *, ragged: bool = True
    ) -> int:
        inside = dict(bound)
        for clause in node.generators:
            if not isinstance(clause.target, ast.Name):
                raise self._refused(clause.target, "expected one name after 'for'")
            inside[clause.target.id] = self._range(clause.iter, inside, ragged=ragged)
            for test in clause.ifs:
                if not ragged:
                    raise self._refused(test, "a condition leaves rows of different lengths; write sum(... if ...)")
                self._number(test, inside, "a condition")
        return self.rank(node.elt, inside)

    def _range(self, node: ast.expr, bound: Mapping[str, int], *, ragged: bool) -> int:
        if isinstance(node, ast.List) and len(node.elts) == 1:
            return self.rank(node.elts[0], bound)
        if isinstance(node, ast.Name) and node.id in self.names.sizes and node.id not in bound:
            return 0
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
            if not 1 <= len(node.args) <= 2 or node.keywords:
                raise self._refused(node, "range takes one or two values")
            for end in node.args:
                self._number(end, bound, "an end of a range")
                if not ragged and any(isinstance(part, ast.Subscript) for part in ast.walk(end)):
                    raise self._refused(end, "a range that a tensor ends leaves rows of different lengths")
            return 0
        got = ast.unparse(node)[:40]
        sizes = ", ".join(sorted(self.names.sizes))
        raise self._refused(
            node,
            f"nothing says what size {got!r} is{nearest(got, self.names.sizes)}; after 'in' stands a size "
            f"({sizes or 'none is declared'}), or range(...)",
        )


def running(node: ast.GeneratorExp | ast.ListComp) -> list[ast.comprehension]:
    """The clauses whose index runs; the others name a value."""
    return [clause for clause in node.generators if not isinstance(clause.iter, ast.List)]


def _axes(rank: int) -> str:
    return f"{rank} axis" if rank == 1 else f"{rank} axes"
