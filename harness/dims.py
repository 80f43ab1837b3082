"""The grammar of dims: ``"B C"``, ``"*batch H W"``, ``"#C"``, ``"N-1"``, ``"..."``; parsed by us, never evaluated as code.

Source of the grammar: jaxtyping's array annotations.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from harness.errors import DeclarationError

Size = int | tuple[int, ...]
Sizes = Mapping[str, Size]

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


@dataclass(frozen=True)
class Dim:
    """One token of a dims string.

    ``symbol`` is a bare name, ``size`` a fixed integer, ``expression`` a sum or product of names; ``variadic`` stands for
    any number of axes and ``broadcastable`` (``#``) for the size or 1.
    """

    token: str
    symbol: str | None = None
    size: int | None = None
    expression: ast.expr | None = None
    variadic: bool = False
    broadcastable: bool = False

    @property
    def symbols(self) -> frozenset[str]:
        """Names whose sizes this dim needs."""
        if self.symbol is not None:
            return frozenset({self.symbol})
        if self.expression is None:
            return frozenset()
        return frozenset(node.id for node in ast.walk(self.expression) if isinstance(node, ast.Name))


def _value(node: ast.expr, sizes: Sizes) -> int:
    match node:
        case ast.Constant(value=int() as value):
            return value
        case ast.Name(id=name):
            size = sizes[name]
            if not isinstance(size, int):
                raise DeclarationError(f"{name!r} stands for several axes and cannot be used in arithmetic")
            return size
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, sizes)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, sizes), _value(right, sizes))
    raise DeclarationError(f"unsupported expression {ast.unparse(node)!r} in dims")


def _check_expression(node: ast.expr, token: str, dims: str) -> None:
    for part in ast.walk(node):
        fine = isinstance(part, ast.Name | ast.BinOp | ast.UnaryOp | ast.Add | ast.Sub | ast.Mult | ast.USub | ast.Load)
        if not fine and not (isinstance(part, ast.Constant) and type(part.value) is int):
            raise DeclarationError(
                f"dims {dims!r}: cannot read {token!r}; allowed are names, integers, '#C', '*batch', '...', '_' and "
                f"arithmetic with + - * and no spaces, such as 'N-1'"
            )


def _parse_token(token: str, dims: str) -> Dim:
    body, variadic, broadcastable = token, False, False
    while body[:1] in {"*", "#", "?"}:
        variadic |= body[0] == "*"
        broadcastable |= body[0] == "#"
        body = body[1:]
    if body == "...":
        return Dim(token, symbol="...", variadic=True, broadcastable=broadcastable)
    _, _, body = body.rpartition("=")  # jaxtyping's `name=4` is documentation for the size 4
    if body.isdecimal():
        return Dim(token, size=int(body), broadcastable=broadcastable)
    if body.isidentifier():
        return Dim(token, symbol=body, variadic=variadic, broadcastable=broadcastable)
    try:
        expression = ast.parse(body, mode="eval").body
    except SyntaxError:
        expression = ast.Tuple([], ast.Load())  # refused below, with the one message that says what is allowed
    _check_expression(expression, token, dims)
    return Dim(token, expression=expression, broadcastable=broadcastable)


@lru_cache(maxsize=1024)
def parse(dims: str) -> tuple[Dim, ...]:
    """Parse a dims string; a name that starts with ``_`` is anonymous and links nothing.

    Raises:
        DeclarationError: a token is not in the grammar, or more than one token is variadic.
    """
    parsed = []
    for position, token in enumerate(dims.split()):
        dim = _parse_token(token, dims)
        if dim.symbol is not None and dim.symbol.startswith("_"):
            dim = Dim(token, f"{dim.symbol}{position}", None, None, dim.variadic, dim.broadcastable)
        parsed.append(dim)
    if sum(dim.variadic for dim in parsed) > 1:
        raise DeclarationError(f"dims {dims!r}: at most one of '*name' and '...' may stand in one tensor's dims")
    return tuple(parsed)


def shape(dims: str, sizes: Sizes) -> tuple[int, ...]:
    """The shape that ``dims`` has under ``sizes``; a broadcastable dim has its full size."""
    result: list[int] = []
    for dim in parse(dims):
        if dim.variadic:
            axes = sizes[str(dim.symbol)]
            result.extend(axes if isinstance(axes, tuple) else (axes,))
        elif dim.size is not None:
            result.append(dim.size)
        elif dim.expression is not None:
            result.append(_value(dim.expression, sizes))
        else:
            size = sizes[str(dim.symbol)]
            if not isinstance(size, int):
                raise DeclarationError(f"{dim.symbol!r} is used both for one axis and for several (as '*{dim.symbol}')")
            result.append(size)
    return tuple(result)


def axes(dims: str, sizes: Sizes) -> tuple[str, ...]:
    """The symbol of every axis of ``shape(dims, sizes)``; a fixed or computed axis has its token, a variadic ``name.0``."""
    result: list[str] = []
    for dim in parse(dims):
        if dim.variadic:
            count = len(sizes[str(dim.symbol)])  # type: ignore[arg-type]
            result.extend(f"{dim.symbol}.{axis}" for axis in range(count))
        else:
            result.append(dim.symbol or dim.token)
    return tuple(result)


def scalar_symbols(all_dims: Iterable[str]) -> tuple[str, ...]:
    """Names of single sizes, in order of appearance."""
    found: dict[str, None] = {}
    for dims in all_dims:
        for dim in parse(dims):
            if not dim.variadic:
                found.update(dict.fromkeys(sorted(dim.symbols)))
    return tuple(found)


def variadic_symbols(all_dims: Iterable[str]) -> tuple[str, ...]:
    """Names that stand for several axes, in order of appearance."""
    return tuple(dict.fromkeys(str(d.symbol) for dims in all_dims for d in parse(dims) if d.variadic))


def least_sizes(all_dims: Sequence[str], least: int = 1) -> dict[str, int]:
    """The smallest size of each symbol for which every computed axis is at least ``least``.

    Raises:
        DeclarationError: no sizes up to 64 make every computed axis that large.
    """
    lower = dict.fromkeys(scalar_symbols(all_dims), least)
    computed = [dim for dims in all_dims for dim in parse(dims) if dim.expression is not None]
    for _ in range(64):
        short = [dim for dim in computed if dim.expression is not None and _value(dim.expression, lower) < least]
        if not short:
            return lower
        for symbol in short[0].symbols:
            lower[symbol] += 1
    raise DeclarationError(f"no small sizes make {short[0].token!r} at least {least}")


def unify(
    all_dims: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], fixed: Sizes | None = None
) -> dict[str, Size]:
    """Solve for the sizes that give each named tensor its shape.

    Raises:
        ValueError: the shapes do not fit the dims; the message names the tensor and what was expected.
    """
    sizes: dict[str, Size] = dict(fixed or {})
    computed: list[tuple[str, Dim, int]] = []
    for name, dims in all_dims.items():
        for dim, extent in _align(name, dims, shapes[name]):
            if dim.variadic:
                _bind(sizes, str(dim.symbol), extent, name, dims, dim.broadcastable)
            elif isinstance(extent, int):
                if dim.symbol is not None:
                    _bind(sizes, dim.symbol, extent, name, dims, dim.broadcastable)
                else:
                    computed.append((name, dim, extent))
    for name, dim, extent in computed:
        if dim.broadcastable and extent == 1:
            continue
        if dim.expression is not None and not dim.symbols <= set(sizes):
            continue  # nothing else binds the symbol, so any extent is legal
        expected = dim.size if dim.expression is None else _value(dim.expression, sizes)
        if extent != expected:
            raise ValueError(f"{name} has {extent} where its dims say {dim.token} = {expected}")
    return sizes


def _align(name: str, dims: str, extents: tuple[int, ...]) -> list[tuple[Dim, Size]]:
    parsed = parse(dims)
    spread = len(extents) - sum(not dim.variadic for dim in parsed)
    if spread < 0 or (spread > 0 and not any(dim.variadic for dim in parsed)):
        raise ValueError(f"{name} has shape {list(extents)}, but its dims are {dims!r}")
    pairs: list[tuple[Dim, Size]] = []
    position = 0
    for dim in parsed:
        if dim.variadic:
            pairs.append((dim, tuple(extents[position : position + spread])))
            position += spread
        else:
            pairs.append((dim, extents[position]))
            position += 1
    return pairs


def _bind(sizes: dict[str, Size], symbol: str, extent: Size, name: str, dims: str, broadcastable: bool) -> None:
    known = sizes.get(symbol)
    if broadcastable and extent == 1:
        return
    if known is not None and known != extent:
        raise ValueError(f"{name} has {symbol}={extent}, but {symbol}={known} elsewhere (dims {dims!r})")
    sizes[symbol] = extent
