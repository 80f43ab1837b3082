"""Mistakes in axes and shapes: reductions, broadcasting, indices, checks."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .operator import (
    Replacement,
    Site,
    called,
    expression,
    number,
    operator,
    receiver,
    renamed,
    subject,
    whole,
    with_changes,
)

_WITH_AXIS = {
    "sum", "mean", "amax", "amin", "max", "min", "softmax", "log_softmax", "logsumexp", "norm", "vector_norm",
    "normalize", "cosine_similarity", "cumsum", "prod", "any", "all", "argmax", "gather", "index_select", "stack", "cat",
}  # fmt: skip


def _with_dim(node: ast.Call, change: int) -> ast.Call | None:
    """The call with its axis changed; ``None`` where it names none."""
    for keyword in node.keywords:
        if keyword.arg in ("dim", "axis") and whole(keyword.value) is not None:
            new = ast.keyword(keyword.arg, number(change))
            return with_changes(node, keywords=[new if k is keyword else k for k in node.keywords])
    first = 0 if receiver(node) is not None else 1
    if len(node.args) > first and whole(node.args[first]) is not None:
        args = [*node.args]
        args[first] = number(change)
        return with_changes(node, args=args)
    return None


def _dim(node: ast.Call) -> int | None:
    for keyword in node.keywords:
        if keyword.arg in ("dim", "axis"):
            return whole(keyword.value)
    first = 0 if receiver(node) is not None else 1
    return whole(node.args[first]) if len(node.args) > first else None


@operator("swap-axis")
def swap_axis(site: Site) -> Iterator[Replacement]:
    """A reduction, softmax or selection runs along another axis."""
    node = site.node
    if isinstance(node, ast.Call) and called(node) in _WITH_AXIS:
        dim = _dim(node)
        if dim is not None:
            yield _with_dim(node, -1 if dim == 0 else 0)


@operator("drop-axis")
def drop_axis(site: Site) -> Iterator[Replacement]:
    """A reduction along one axis runs over all of them."""
    node = site.node
    if isinstance(node, ast.Call) and called(node) in {"sum", "mean", "amax", "amin"} and _dim(node) is not None:
        yield with_changes(node, args=[] if receiver(node) is not None else node.args[:1], keywords=[])


_OTHER_REDUCTION = {"sum": ("mean",), "mean": ("sum",), "amax": ("mean",), "max": ("mean",)}


@operator("swap-reduction")
def swap_reduction(site: Site) -> Iterator[Replacement]:
    """The mean for the sum, the sum for the mean."""
    node = site.node
    if isinstance(node, ast.Call) and receiver(node) is not None:
        for other in _OTHER_REDUCTION.get(called(node) or "", ()):
            yield renamed(node, other)


@operator("mean-over-batch")
def mean_over_batch(site: Site) -> Iterator[Replacement]:
    """The mean over all elements divides by the size of the first axis alone."""
    node = site.node
    found = receiver(node)
    if called(node) == "mean" and found is not None and not node.args and not node.keywords:
        yield expression("_x.sum() / len(_x)", _x=found)


@operator("drop-keyword")
def drop_keyword(site: Site) -> Iterator[Replacement]:
    """A named argument such as keepdim=, dtype= or min= is left at its default."""
    node = site.node
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg not in (None, "eps"):
                yield with_changes(node, keywords=[k for k in node.keywords if k is not keyword])


@operator("broadcast-axis")
def broadcast_axis(site: Site) -> Iterator[Replacement]:
    """A unit axis is put at the other end, so that a vector meets the wrong axis."""
    node = site.node
    if called(node) == "unsqueeze" and isinstance(node, ast.Call) and (dim := _dim(node)) is not None:
        yield _with_dim(node, 0 if dim != 0 else -1)
    if called(node) in {"reshape", "view"} and isinstance(node, ast.Call) and len(node.args) > 1:
        yield with_changes(node, args=[*node.args[1:], node.args[0]])
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple) and _has_none(node.slice):
        yield with_changes(node, slice=with_changes(node.slice, elts=node.slice.elts[::-1]))


def _has_none(node: ast.Tuple) -> bool:
    return any(isinstance(item, ast.Constant) and item.value is None for item in node.elts)


@operator("drop-unsqueeze")
def drop_unsqueeze(site: Site) -> Iterator[Replacement]:
    """A unit axis is missing, so that broadcasting aligns from the right."""
    node = site.node
    if called(node) in {"unsqueeze", "reshape", "view"} and (found := receiver(node)) is not None:
        yield found
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple) and _has_none(node.slice):
        yield node.value


@operator("swap-view")
def swap_view(site: Site) -> Iterator[Replacement]:
    """view for reshape, which refuses other layouts, or the other way round."""
    node = site.node
    if isinstance(node, ast.Call) and called(node) in {"reshape", "view"} and receiver(node) is not None:
        yield renamed(node, "view" if called(node) == "reshape" else "reshape")


@operator("drop-transpose")
def drop_transpose(site: Site) -> Iterator[Replacement]:
    """A matrix is not transposed, or one is that should not be."""
    node = site.node
    if isinstance(node, ast.Attribute) and node.attr in {"T", "mT"}:
        yield node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        yield with_changes(node, left=ast.Attribute(node.left, "T", ast.Load()))
    if called(node) == "transpose" and (found := receiver(node)) is not None:
        yield found


@operator("off-by-one")
def off_by_one(site: Site) -> Iterator[Replacement]:
    """An index, a bound of a slice or a size is one too large or one too small."""
    node = site.node
    if isinstance(node, ast.Subscript) and (index := whole(node.slice)) is not None:
        yield with_changes(node, slice=number(index + 1))
    if isinstance(node, ast.Slice):
        for bound in ("lower", "upper"):
            value = getattr(node, bound)
            if value is not None and (index := whole(value)) is not None:
                yield with_changes(node, **{bound: number(index + 1)})
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice) and node.slice.lower is None:
        yield with_changes(node, slice=with_changes(node.slice, lower=number(1)))
    if called(node) in {"len", "numel"}:
        yield ast.BinOp(node, ast.Sub(), number(1))
        yield ast.BinOp(node, ast.Add(), number(1))
    if called(node) in {"arange", "range", "eye"} and node.args:
        yield with_changes(node, args=[ast.BinOp(node.args[0], ast.Sub(), number(1)), *node.args[1:]])


@operator("drop-first")
def drop_first(site: Site) -> Iterator[Replacement]:
    """What is returned leaves out the first sample."""
    node = site.node
    found = receiver(node)
    if called(node) in {"mean", "sum"} and isinstance(found, ast.Name) and not node.args:
        rest = ast.Subscript(found, ast.Slice(number(1)), ast.Load())
        yield with_changes(node, func=with_changes(node.func, value=rest))


@operator("drop-check")
def drop_check(site: Site) -> Iterator[Replacement]:
    """A check of a shape, a dtype or an option is missing."""
    node = site.node
    raises = isinstance(node, ast.If) and any(isinstance(s, ast.Raise) for s in node.body)
    checks = isinstance(node, ast.Expr) and (called(node.value) or "").lstrip("_").startswith("check")
    if raises:
        yield list(node.orelse) or [ast.Pass()]
    elif checks:
        yield [ast.Pass()]


@operator("wrong-tensor")
def wrong_tensor(site: Site) -> Iterator[Replacement]:
    """One tensor stands where another should."""
    node = site.node
    if isinstance(node, ast.BinOp | ast.Call):
        names = site.parameters
        for field, child in ast.iter_fields(node):
            if isinstance(child, ast.Name) and child.id in names and len(names) > 1:
                other = names[(names.index(child.id) + 1) % len(names)]
                yield with_changes(node, **{field: ast.Name(other, ast.Load())})
        found = subject(node)
        if isinstance(node, ast.Call) and isinstance(found, ast.Name) and found is receiver(node) and found.id in names:
            other = names[(names.index(found.id) + 1) % len(names)]
            if other != found.id:
                yield with_changes(node, func=with_changes(node.func, value=ast.Name(other, ast.Load())))


OPERATORS = (
    swap_axis,
    drop_axis,
    swap_reduction,
    mean_over_batch,
    drop_keyword,
    broadcast_axis,
    drop_unsqueeze,
    swap_view,
    drop_transpose,
    off_by_one,
    drop_first,
    drop_check,
    wrong_tensor,
)
