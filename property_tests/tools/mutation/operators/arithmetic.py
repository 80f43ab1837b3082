"""Mistakes in a formula: terms, factors, signs, operators, constants, powers."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .operator import (
    Replacement,
    Site,
    called,
    expression,
    is_value,
    number,
    operator,
    receiver,
    renamed,
    replaced,
    subject,
    whole,
    with_changes,
)

EPSILON = 1e-3  # smaller literals are there for stability


def _small(node: ast.AST | None) -> bool:
    constant = isinstance(node, ast.Constant) and isinstance(node.value, float) and 0 < node.value <= EPSILON
    return constant or (isinstance(node, ast.Name) and node.id.lower().startswith("eps"))


@operator("drop-term")
def drop_term(site: Site) -> Iterator[Replacement]:
    """One term of a sum or difference is missing."""
    node = site.node
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        if not _small(node.right):
            yield node.left
        if not _small(node.left):
            yield node.right if isinstance(node.op, ast.Add) else ast.UnaryOp(ast.USub(), node.right)


@operator("drop-factor")
def drop_factor(site: Site) -> Iterator[Replacement]:
    """One factor of a product, or a divisor, is missing."""
    node = site.node
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div | ast.MatMult):
        yield node.left
        if not isinstance(node.op, ast.Div):
            yield node.right


_OTHER_OPERATOR = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.MatMult: ast.Mult}


@operator("swap-operator")
def swap_operator(site: Site) -> Iterator[Replacement]:
    """Plus for minus, times for divided by, an elementwise product for a matrix product."""
    node = site.node
    if isinstance(node, ast.BinOp) and type(node.op) in _OTHER_OPERATOR:
        yield with_changes(node, op=_OTHER_OPERATOR[type(node.op)]())


@operator("swap-operands")
def swap_operands(site: Site) -> Iterator[Replacement]:
    """The two sides of a difference or quotient, or two arguments of a call, have changed places."""
    node = site.node
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub | ast.Div):
        yield with_changes(node, left=node.right, right=node.left)
    if isinstance(node, ast.Call) and len(node.args) >= 2 and all(is_value(a) for a in node.args[-2:]):
        *before, first, second = node.args
        yield with_changes(node, args=[*before, second, first])


@operator("flip-sign")
def flip_sign(site: Site) -> Iterator[Replacement]:
    """A minus is missing, or one too many stands before what is returned."""
    node = site.node
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and whole(node) is None:
        yield node.operand
    if isinstance(node, ast.Return) and node.value is not None and is_value(node.value):
        yield with_changes(node, value=ast.UnaryOp(ast.USub(), node.value))


@operator("near-constant")
def near_constant(site: Site) -> Iterator[Replacement]:
    """A constant of the formula is a little off."""
    node = site.node
    if isinstance(node, ast.Constant) and type(node.value) is float and not _small(node):
        yield number(node.value * 1.01 if node.value else 0.01)
    if isinstance(node, ast.BinOp):
        for side in ("left", "right"):
            if (value := whole(getattr(node, side))) is not None:
                yield with_changes(node, **{side: number(value + 1)})
    if isinstance(node, ast.Compare) and (value := whole(node.comparators[0])) is not None:
        yield with_changes(node, comparators=[number(value + 1)])


_OTHER_POWER = {"square": "abs", "abs": "square", "sqrt": "square", "exp": "abs", "log": "exp", "relu": "abs"}


@operator("swap-function")
def swap_function(site: Site) -> Iterator[Replacement]:
    """Another elementwise function: the absolute value for the square, the minimum for the maximum."""
    node = site.node
    name = called(node)
    if isinstance(node, ast.Call) and name in _OTHER_POWER and (receiver(node) is not None or len(node.args) == 1):
        yield renamed(node, _OTHER_POWER[name])
    extremes = {"amax": "amin", "amin": "amax", "maximum": "minimum", "minimum": "maximum"}
    if isinstance(node, ast.Call) and name in extremes:
        yield renamed(node, extremes[name])


_ELEMENTWISE = {
    "abs",
    "square",
    "sqrt",
    "exp",
    "log",
    "relu",
    "clamp",
    "sigmoid",
    "tanh",
    "softmax",
    "normalize",
    "rsqrt",
}


@operator("drop-call")
def drop_call(site: Site) -> Iterator[Replacement]:
    """An elementwise function is missing."""
    node = site.node
    found = subject(node)
    if called(node) in _ELEMENTWISE and found is not None:
        yield found


@operator("drop-epsilon")
def drop_epsilon(site: Site) -> Iterator[Replacement]:
    """The small number that keeps a root, logarithm or quotient finite is missing."""
    node = site.node
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        if _small(node.right):
            yield node.left
        if _small(node.left):
            yield node.right
    found = subject(node)
    if isinstance(node, ast.Call) and called(node) in {"clamp", "clamp_min"} and found is not None:
        bounds = [*node.args[-1:], *(k.value for k in node.keywords)]
        if any(_small(bound) for bound in bounds):
            yield found
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg == "eps":
                yield with_changes(
                    node, keywords=[ast.keyword("eps", number(0.0)) if k is keyword else k for k in node.keywords]
                )


@operator("move-epsilon")
def move_epsilon(site: Site) -> Iterator[Replacement]:
    """The small number is added outside the root, or added where it was a lower bound."""
    node = site.node
    found = subject(node)
    if (
        called(node) == "sqrt"
        and isinstance(found, ast.BinOp)
        and isinstance(found.op, ast.Add)
        and _small(found.right)
    ):
        yield expression("_x.sqrt() + _e", _x=found.left, _e=found.right)
    if isinstance(node, ast.Call) and called(node) == "clamp" and found is not None:
        for keyword in node.keywords:
            if keyword.arg == "min" and _small(keyword.value):
                yield expression("_x + _e", _x=found, _e=keyword.value)


_UNSTABLE = {
    "logsumexp": "_x.exp().sum(*_a).log()",
    "log_softmax": "_x.softmax(*_a).log()",
    "softplus": "(1 + _x.exp()).log()",
    "log1p": "(1 + _x).log()",
    "logsigmoid": "_x.sigmoid().log()",
    "vector_norm": "_x.square().sum(*_a).sqrt()",
}


@operator("unstable-formula")
def unstable_formula(site: Site) -> Iterator[Replacement]:
    """A fused function is written out, so that it overflows, cancels or has no gradient at zero."""
    node = site.node
    found = subject(node)
    name = called(node)
    if isinstance(node, ast.Call) and name in _UNSTABLE and found is not None:
        written = expression(_UNSTABLE[name].replace("*_a", ""), _x=found)
        yield _with_arguments(written, node, found) if "*_a" in _UNSTABLE[name] else written


def _with_arguments(written: ast.AST, node: ast.Call, found: ast.expr) -> Replacement:
    """Give the one call in ``written`` that takes an axis the arguments of the call that it stands for."""
    axis = next(n for n in ast.walk(written) if called(n) in {"sum", "softmax"} and not getattr(n, "args", None))
    given = [a for a in node.args if a is not found]
    taken = with_changes(axis, args=given, keywords=node.keywords)
    return replaced(written, axis, taken)


OPERATORS = (
    drop_term,
    drop_factor,
    swap_operator,
    swap_operands,
    flip_sign,
    near_constant,
    swap_function,
    drop_call,
    drop_epsilon,
    move_epsilon,
    unstable_formula,
)
