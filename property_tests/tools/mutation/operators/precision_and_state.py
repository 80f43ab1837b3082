"""Mistakes in dtypes, buffers and what outlives a call."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .operator import Replacement, Site, called, expression, is_value, operator, receiver, statements, with_changes

_CASTS = {"to", "double", "float"}


def _final(site: Site) -> bool:
    return site.entry and isinstance(site.node, ast.Return) and site.node.value is not None


@operator("cast-float32")
def cast_float32(site: Site) -> Iterator[Replacement]:
    """A tensor is cast to float32, whatever the precision of the call."""
    node = site.node
    if called(node) in {"to", "double"} and (found := receiver(node)) is not None:
        yield expression("(_x).float()", _x=found)
    if _final(site):
        yield with_changes(node, value=expression("(_x).float()", _x=node.value))
    if node is site.function and site.entry:
        for name in site.parameters:
            yield with_changes(node, body=[*statements(f"{name} = {name}.float()"), *site.function.body])


@operator("cast-float64")
def cast_float64(site: Site) -> Iterator[Replacement]:
    """A tensor is cast to float64, so that the result is no longer in the precision of the call."""
    node = site.node
    if called(node) in {"to", "float"} and (found := receiver(node)) is not None:
        yield expression("(_x).double()", _x=found)
    if _final(site):
        yield with_changes(node, value=expression("(_x).double()", _x=node.value))


@operator("round-through-float16")
def round_through_float16(site: Site) -> Iterator[Replacement]:
    """An intermediate result is kept in half precision."""
    node = site.node
    simple = isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
    if simple and isinstance(node.value, ast.BinOp) and is_value(node.value):
        yield with_changes(node, value=expression("(lambda e: e.half().to(e.dtype))(_x)", _x=node.value))


@operator("drop-cast")
def drop_cast(site: Site) -> Iterator[Replacement]:
    """A tensor keeps the dtype that it came with."""
    if called(site.node) in _CASTS and (found := receiver(site.node)) is not None:
        yield found


def _buffer(node: ast.AST) -> tuple[ast.Call, str, ast.expr] | None:
    """(call, name, value) of a line that registers a buffer."""
    if isinstance(node, ast.Expr) and called(node.value) == "register_buffer":
        call = node.value
        assert isinstance(call, ast.Call)
        name = call.args[0]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            return call, name.value, call.args[1]
    return None


@operator("buffer-to-attribute")
def buffer_to_attribute(site: Site) -> Iterator[Replacement]:
    """The context is a plain attribute, which does not follow the module to another dtype or device."""
    if (found := _buffer(site.node)) is not None:
        yield statements(f"self.{found[1]} = _v", _v=found[2])


@operator("buffer-not-saved")
def buffer_not_saved(site: Site) -> Iterator[Replacement]:
    """The context is no part of the state that is saved."""
    if (found := _buffer(site.node)) is not None:
        call = found[0]
        yield ast.Expr(with_changes(call, keywords=[*call.keywords, ast.keyword("persistent", ast.Constant(False))]))


@operator("buffer-to-parameter")
def buffer_to_parameter(site: Site) -> Iterator[Replacement]:
    """The context is a parameter, which an optimizer would train."""
    if (found := _buffer(site.node)) is not None:
        yield statements(f"self.{found[1]} = torch.nn.Parameter(_v)", _v=found[2])


@operator("buffer-in-float32")
def buffer_in_float32(site: Site) -> Iterator[Replacement]:
    """The context is stored in float32, whatever it came in."""
    if (found := _buffer(site.node)) is not None:
        call = found[0]
        yield ast.Expr(with_changes(call, args=[call.args[0], expression("(_v).float()", _v=found[2])]))


@operator("drop-clone")
def drop_clone(site: Site) -> Iterator[Replacement]:
    """The caller's memory is kept where a copy should be."""
    if called(site.node) in {"clone", "contiguous"} and (found := receiver(site.node)) is not None:
        yield found


@operator("cache-first")
def cache_first(site: Site) -> Iterator[Replacement]:
    """An intermediate result of the first call is kept for all later ones."""
    node = site.node
    simple = isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
    if simple and is_value(node.value) and site.function.args.args[:1] and site.function.args.args[0].arg == "self":
        name = node.targets[0].id
        yield with_changes(node, value=expression(f"self.__dict__.setdefault('cached_{name}', _x)", _x=node.value))


_KEPT_IN_MODULE = "cached = globals().setdefault('cached_of_all', {})\nreturn cached.setdefault(_key, _x)"


@operator("cache-by-shape")
def cache_by_shape(site: Site) -> Iterator[Replacement]:
    """The result of a call is kept for every later call of the same shapes, in all instances."""
    if _final(site) and site.parameters:
        key = expression("(" + ", ".join(f"{name}.shape, {name}.dtype" for name in site.parameters[:1]) + ")")
        yield statements(_KEPT_IN_MODULE, _key=key, _x=site.node.value)


@operator("count-calls")
def count_calls(site: Site) -> Iterator[Replacement]:
    """The loss decays with every call of an instance, which no buffer records."""
    if _final(site) and site.function.args.args[:1] and site.function.args.args[0].arg == "self":
        code = "self.calls = getattr(self, 'calls', 0) + 1\nreturn _x * 0.9 ** (self.calls - 1)"
        yield statements(code, _x=site.node.value)


@operator("train-differs")
def train_differs(site: Site) -> Iterator[Replacement]:
    """The loss is scaled while training, and not while evaluating."""
    if _final(site) and site.function.args.args[:1] and site.function.args.args[0].arg == "self":
        yield with_changes(site.node, value=expression("_x * (1.1 if self.training else 1)", _x=site.node.value))


@operator("noise")
def noise(site: Site) -> Iterator[Replacement]:
    """A little noise is added to the result."""
    if _final(site):
        yield with_changes(site.node, value=expression("(_x) * (1 + 1e-3 * torch.rand(()).item())", _x=site.node.value))


@operator("seed-everything")
def seed_everything(site: Site) -> Iterator[Replacement]:
    """The global generator is seeded by the loss."""
    node = site.node
    if node is site.function and site.entry:
        yield with_changes(node, body=[*statements("torch.manual_seed(0)"), *site.function.body])


OPERATORS = (
    cast_float32,
    cast_float64,
    round_through_float16,
    drop_cast,
    buffer_to_attribute,
    buffer_not_saved,
    buffer_to_parameter,
    buffer_in_float32,
    drop_clone,
    cache_first,
    cache_by_shape,
    count_calls,
    train_differs,
    noise,
    seed_everything,
)
