"""Mistakes that leave the value right and the gradient wrong, or edit what they were given."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .operator import (
    Replacement,
    Site,
    called,
    expression,
    is_value,
    operator,
    receiver,
    renamed,
    statements,
    with_changes,
)


def _assigns_value(node: ast.AST) -> bool:
    simple = isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
    return simple and is_value(node.value) and not isinstance(node.value, ast.Name)


def _final(site: Site) -> bool:
    """Whether the node is a return of the loss itself."""
    return site.entry and isinstance(site.node, ast.Return) and site.node.value is not None


@operator("detach")
def detach(site: Site) -> Iterator[Replacement]:
    """A factor, a term or an intermediate result is cut from the graph."""
    node = site.node
    if isinstance(node, ast.BinOp):
        for side in ("left", "right"):
            if is_value(operand := getattr(node, side)):
                yield with_changes(node, **{side: expression("_x.detach()", _x=operand)})
    if _assigns_value(node):
        yield with_changes(node, value=expression("(_x).detach()", _x=node.value))


@operator("drop-detach")
def drop_detach(site: Site) -> Iterator[Replacement]:
    """A gradient flows where it should stop."""
    if called(site.node) == "detach" and (found := receiver(site.node)) is not None:
        yield found


@operator("no-grad")
def no_grad(site: Site) -> Iterator[Replacement]:
    """A line, or the whole loss, is computed without a graph."""
    node = site.node
    if _assigns_value(node):
        yield [ast.With([ast.withitem(expression("torch.no_grad()"))], [node])]
    if _final(site):
        yield statements("with torch.no_grad():\n    return _x", _x=node.value)


_ONE_NUMBER = {"sum", "mean", "amax", "max", "clamp", "masked_fill"}


@operator("item")
def item(site: Site) -> Iterator[Replacement]:
    """A number is read back to the host: it loses its graph and waits for the device."""
    node = site.node
    if isinstance(node, ast.BinOp):
        for side in ("left", "right"):
            operand = getattr(node, side)
            if called(operand) in _ONE_NUMBER:
                yield with_changes(node, **{side: expression("_x.item()", _x=operand)})
    if _assigns_value(node) and called(node.value) in _ONE_NUMBER:
        yield with_changes(node, value=expression("(_x).item()", _x=node.value))


@operator("rebuild-result")
def rebuild_result(site: Site) -> Iterator[Replacement]:
    """The result is made a new tensor of its value."""
    if _final(site):
        yield with_changes(
            site.node, value=expression("torch.tensor((_x).tolist(), dtype=torch.float64)", _x=site.node.value)
        )


@operator("scale-gradient")
def scale_gradient(site: Site) -> Iterator[Replacement]:
    """The value is right, and the gradient one percent or a factor of two too large."""
    node = site.node
    if _final(site):
        yield with_changes(node, value=expression("(lambda e: 2 * e - e.detach())(_x)", _x=node.value))
        yield with_changes(node, value=expression("(lambda e: e + 0.01 * (e - e.detach()))(_x)", _x=node.value))


@operator("scale-one-gradient")
def scale_one_gradient(site: Site) -> Iterator[Replacement]:
    """The gradient of the first sample alone is two percent too large."""
    node = site.node
    if (
        isinstance(node, ast.BinOp)
        and isinstance(node.left, ast.Name)
        and node.left.id in site.parameters
        and site.entry
    ):
        code = "torch.cat([1.02 * _x[:1] - 0.02 * _x[:1].detach(), _x[1:]])"
        yield with_changes(node, left=expression(code, _x=node.left))


_HOOKED = "loss_value = _x\nif loss_value.requires_grad:\n    loss_value.register_hook(lambda gradient: gradient.clamp(-1, 1))\nreturn loss_value"


@operator("gradient-hook")
def gradient_hook(site: Site) -> Iterator[Replacement]:
    """A hook clips the gradient, so that it is right only for small upstream gradients."""
    if _final(site):
        yield statements(_HOOKED, _x=site.node.value)


_HAS_IN_PLACE = {"masked_fill", "clamp", "abs", "square", "sqrt", "exp", "log", "relu", "index_add", "neg"}


@operator("in-place-method")
def in_place_method(site: Site) -> Iterator[Replacement]:
    """An elementwise function writes into what it was given."""
    node = site.node
    if isinstance(node, ast.Call) and called(node) in _HAS_IN_PLACE and receiver(node) is not None:
        yield renamed(node, f"{called(node)}_")


_IN_PLACE = {ast.Add: "add_", ast.Sub: "sub_", ast.Mult: "mul_", ast.Div: "div_"}


@operator("in-place-arithmetic")
def in_place_arithmetic(site: Site) -> Iterator[Replacement]:
    """A sum or product is written into its left side."""
    node = site.node
    if isinstance(node, ast.BinOp) and type(node.op) in _IN_PLACE and is_value(node.left):
        yield expression(f"(_a).{_IN_PLACE[type(node.op)]}(_b)", _a=node.left, _b=node.right)


@operator("edit-input")
def edit_input(site: Site) -> Iterator[Replacement]:
    """A tensor of the caller is clamped or cleaned in place, behind autograd's back."""
    node = site.node
    if node is site.function and site.entry:
        for name in site.parameters:
            for edit in ("clamp_(-3, 3)", "nan_to_num_()"):
                yield with_changes(node, body=[*statements(f"{name}.data.{edit}"), *site.function.body])


@operator("edit-input-later")
def edit_input_later(site: Site) -> Iterator[Replacement]:
    """A tensor of the caller is changed in place after it was read."""
    if _final(site):
        for name in site.parameters:
            code = f"loss_value = _x\nwith torch.no_grad():\n    {name}.mul_(1 + 1e-3)\nreturn loss_value"
            yield statements(code, _x=site.node.value)


OPERATORS = (
    detach,
    drop_detach,
    no_grad,
    item,
    rebuild_result,
    scale_gradient,
    scale_one_gradient,
    gradient_hook,
    in_place_method,
    in_place_arithmetic,
    edit_input,
    edit_input_later,
)
