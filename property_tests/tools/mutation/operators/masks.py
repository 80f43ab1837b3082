"""Mistakes in masks, comparisons and conditions."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .operator import Replacement, Site, called, expression, operator, receiver, with_changes

_INVERSE = {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Lt: ast.GtE, ast.GtE: ast.Lt}
_BOUNDARY = {ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Eq: ast.LtE}


def _guards(site: Site) -> bool:
    """Whether the node is the condition of a check or a branch, which other operators treat."""
    return any(isinstance(n, ast.If | ast.IfExp) and n.test is site.node for n in ast.walk(site.function))


@operator("invert-mask")
def invert_mask(site: Site) -> Iterator[Replacement]:
    """A mask selects what it should leave out."""
    node = site.node
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _INVERSE and not _guards(site):
        yield with_changes(node, ops=[_INVERSE[type(node.ops[0])]()])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
        yield node.operand
    if called(node) in {"masked_fill", "where"} and isinstance(node, ast.Call) and isinstance(node.args[0], ast.Name):
        yield with_changes(node, args=[ast.UnaryOp(ast.Invert(), node.args[0]), *node.args[1:]])


@operator("move-boundary")
def move_boundary(site: Site) -> Iterator[Replacement]:
    """A comparison counts the boundary on the other side."""
    node = site.node
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _BOUNDARY and not _guards(site):
        yield with_changes(node, ops=[_BOUNDARY[type(node.ops[0])]()])


@operator("drop-comparison")
def drop_comparison(site: Site) -> Iterator[Replacement]:
    """The numbers themselves are used where only their being above a threshold should count."""
    node = site.node
    if isinstance(node, ast.Compare) and not _guards(site) and isinstance(node.ops[0], ast.Gt):
        yield node.left


@operator("drop-mask")
def drop_mask(site: Site) -> Iterator[Replacement]:
    """A mask is not applied."""
    node = site.node
    if called(node) in {"masked_fill", "nan_to_num"} and (found := receiver(node)) is not None:
        yield found
    if called(node) == "where" and isinstance(node, ast.Call) and len(node.args) == 3:
        yield node.args[1]
        yield node.args[2]
    if (
        isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Compare | ast.UnaryOp)
        and isinstance(node.ctx, ast.Load)
    ):
        yield node.value


@operator("mask-by-product")
def mask_by_product(site: Site) -> Iterator[Replacement]:
    """What is masked is multiplied by zero, so that a NaN or infinity stays."""
    node = site.node
    if called(node) == "masked_fill" and isinstance(node, ast.Call) and (found := receiver(node)) is not None:
        yield expression("_x * ~(_m) + (_m) * _v", _x=found, _m=node.args[0], _v=node.args[1])
    if called(node) == "where" and isinstance(node, ast.Call) and len(node.args) == 3:
        yield expression("(_c) * _a + ~(_c) * _b", _c=node.args[0], _a=node.args[1], _b=node.args[2])


@operator("mask-too-late")
def mask_too_late(site: Site) -> Iterator[Replacement]:
    """The mask is applied after the function that has no value or slope there, not before it."""
    node = site.node
    inner = receiver(node)
    if (
        called(node) in {"sqrt", "log", "square", "exp"}
        and isinstance(inner, ast.Call)
        and called(inner) == "masked_fill"
    ):
        outer = with_changes(node, func=with_changes(node.func, value=receiver(inner)))
        yield with_changes(inner, func=with_changes(inner.func, value=outer))


@operator("negate-condition")
def negate_condition(site: Site) -> Iterator[Replacement]:
    """A branch is taken where the other should be."""
    node = site.node
    if isinstance(node, ast.If) and not any(isinstance(s, ast.Raise) for s in node.body):
        yield with_changes(node, test=ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.IfExp):
        yield with_changes(node, body=node.orelse, orelse=node.body)


@operator("drop-alternative")
def drop_alternative(site: Site) -> Iterator[Replacement]:
    """One of two conditions is not looked at."""
    node = site.node
    if isinstance(node, ast.BoolOp):
        yield from node.values


@operator("drop-branch")
def drop_branch(site: Site) -> Iterator[Replacement]:
    """A special case is not treated."""
    node = site.node
    if isinstance(node, ast.If) and not any(isinstance(s, ast.Raise) for s in node.body):
        yield list(node.orelse) or [ast.Pass()]
    if isinstance(node, ast.IfExp):
        yield node.orelse


@operator("drop-statement")
def drop_statement(site: Site) -> Iterator[Replacement]:
    """A line that changes a name is missing."""
    node = site.node
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
        if any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(node.value)):
            yield [ast.Pass()]
    if isinstance(node, ast.AugAssign):
        yield [ast.Pass()]


OPERATORS = (
    invert_mask,
    move_boundary,
    drop_comparison,
    drop_mask,
    mask_by_product,
    mask_too_late,
    negate_condition,
    drop_alternative,
    drop_branch,
    drop_statement,
)
