"""The grammar of dims: ``"B C"``, ``"*batch H W"``, ``"#C"``, ``"N-1"``, ``"..."``; parsed by us, never evaluated as code.

Source of the grammar: jaxtyping's array annotations.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

from harness.errors import DeclarationError

Size = int | tuple[int, ...]
Sizes = Mapping[str, Size]

MAX_TOKEN = 64  # characters: deeper nesting than this could exhaust the parser's stack
MAX_SIZE = 2**31 - 1

_STEPS = 4096  # of the search for small sizes

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

    @property
    def offset(self) -> tuple[str, int] | None:
        """The symbol that the extent of this axis binds, and by how much it is less or more: ``N-1`` is N and -1."""
        match self.expression:
            case ast.BinOp(ast.Name(id=symbol), ast.Add() | ast.Sub() as sign, ast.Constant(value=int() as number)):
                return symbol, number if isinstance(sign, ast.Add) else -number
        return None if self.symbol is None else (self.symbol, 0)


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
    if len(token) > MAX_TOKEN:
        raise DeclarationError(
            f"dims token {token[:20]!r}... has {len(token)} characters, but at most {MAX_TOKEN} are read"
        )
    marks = token[: len(token) - len(token.lstrip("*#?"))]
    body = token[len(marks) :]
    variadic, broadcastable = "*" in marks, "#" in marks
    if len(set(marks)) < len(marks):
        raise DeclarationError(f"dims {dims!r}: {token!r} has a mark twice; write each of '*' and '#' once")
    if body == "..." and not marks:
        return Dim(token, symbol="...", variadic=True)
    label, _, value = body.rpartition("=")  # jaxtyping's `name=4` is documentation for the size 4
    if label.isidentifier():
        body = value
    if body.isidentifier():
        return Dim(token, symbol=body, variadic=variadic, broadcastable=broadcastable)
    if variadic:
        raise DeclarationError(f"dims {dims!r}: {token!r} should be '*' and a name, such as '*batch'")
    if body.isdecimal() and body.isascii():
        if int(body) > MAX_SIZE:
            raise DeclarationError(f"dims {dims!r}: the size {body} came, but at most {MAX_SIZE} is allowed")
        return Dim(token, size=int(body), broadcastable=broadcastable)
    try:
        expression = ast.parse(body, mode="eval").body
    except (SyntaxError, ValueError):  # a lone surrogate is no source code
        expression = ast.Tuple([], ast.Load())  # refused below, with the one message that says what is allowed
    _check_expression(expression, token, dims)
    return Dim(token, expression=expression, broadcastable=broadcastable)


@lru_cache(maxsize=1024)
def parse(dims: str) -> tuple[Dim, ...]:
    """Parse a dims string.

    A name that starts with ``_`` is anonymous and links no other axis of the tensor (`anonymous` keeps those of different
    tensors apart).  Unlike in jaxtyping, ``...`` stands for the same axes in every tensor of a loss: a loss that takes
    predictions and labels of any shape nearly always means the same one.

    Raises:
        DeclarationError: a token is not in the grammar, or more than one token is variadic.
    """
    parsed = []
    for position, token in enumerate(dims.split()):
        dim = _parse_token(token, dims)
        if dim.symbol is not None and set(dim.symbol) == {"_"}:
            dim = replace(dim, symbol=f"{dim.symbol}{position}")
        parsed.append(dim)
    if sum(dim.variadic for dim in parsed) > 1:
        raise DeclarationError(f"dims {dims!r}: at most one of '*name' and '...' may stand in one tensor's dims")
    return tuple(parsed)


def shape(dims: str, sizes: Sizes) -> tuple[int, ...]:
    """The shape that ``dims`` has under ``sizes``; a broadcastable dim has its full size.

    Raises:
        DeclarationError: a name stands both for one axis and for several, or a computed axis is negative.
    """
    result: list[int] = []
    for dim in parse(dims):
        if dim.variadic:
            axes = sizes[str(dim.symbol)]
            result.extend(axes if isinstance(axes, tuple) else (axes,))
        elif dim.size is not None:
            result.append(dim.size)
        elif dim.expression is not None:
            extent = _value(dim.expression, sizes)
            if extent < 0:
                raise DeclarationError(f"dims {dims!r}: {dim.token} = {extent} with {dict(sizes)}, expected at least 0")
            result.append(extent)
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


def anonymous(dims: str, tensor: str) -> str:
    """The dims with every name that starts with ``_`` made the tensor's own, so that it links no other tensor."""
    renamed = []
    for position, token in enumerate(dims.split()):
        name = token.lstrip("*#?")
        own = name.startswith("_") and name.isidentifier() and not name.startswith(f"_{tensor}_")
        renamed.append(f"{token[: len(token) - len(name)]}_{tensor}_{position}" if own else token)
    return " ".join(renamed)


def least_sizes(
    all_dims: Sequence[str], least: int = 1, start: Mapping[str, int] | None = None, fixed: Sizes | None = None
) -> dict[str, int]:
    """Small sizes for which every computed axis is at least ``least``.

    Args:
        all_dims: the dims of every tensor of a loss.
        least: the least extent of an axis.
        start: sizes to begin from, which are raised where an axis would be too short; ``least`` for every symbol by default.
        fixed: sizes that may not change.

    Raises:
        DeclarationError: no sizes nearby make every computed axis that large.
    """
    names = scalar_symbols(all_dims)
    given = {name: size for name, size in (fixed or {}).items() if isinstance(size, int)}
    sizes = {**{name: (start or {}).get(name, least) for name in names}, **given}
    computed = [dim for dims in all_dims for dim in parse(dims) if dim.expression is not None]
    short: list[Dim] = []
    for _ in range(_STEPS):
        short = [dim for dim in computed if _extent(dim, sizes) < least]
        if not short:
            return {name: sizes[name] for name in names}
        free = sorted(short[0].symbols - set(given))
        raised = [{**sizes, symbol: sizes[symbol] + 1} for symbol in free]
        raised.append({**sizes, **{symbol: sizes[symbol] + 1 for symbol in free}})
        better = max(raised, key=lambda tried: _extent(short[0], tried))
        grows = _extent(short[0], better) > _extent(short[0], sizes)
        sizes = better if grows else raised[-1]
    known = f" with {given}" if given else ""
    raise DeclarationError(
        f"no small sizes{known} make {short[0].token!r} at least {least}; write dims whose axes can all have that extent, "
        f"such as 'N-1'"
    )


def _extent(dim: Dim, sizes: Sizes) -> int:
    assert dim.expression is not None
    return _value(dim.expression, sizes)


def unify(
    all_dims: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], fixed: Sizes | None = None
) -> dict[str, Size]:
    """Solve for the sizes that give each named tensor its shape.

    Raises:
        ValueError: the shapes do not fit the dims; the message names the tensor and what was expected.
    """
    sizes: dict[str, Size] = dict(fixed or {})
    aligned = [
        (name, dims, dim, extent) for name, dims in all_dims.items() for dim, extent in _align(name, dims, shapes[name])
    ]
    for name, dims, dim, extent in sorted(aligned, key=lambda entry: entry[2].broadcastable):
        if dim.symbol is not None:
            _bind(sizes, dim.symbol, extent, name, dims, dim.broadcastable)
    for _, _, dim, extent in aligned:
        if dim.offset is not None and isinstance(extent, int) and not dim.broadcastable:
            sizes.setdefault(dim.offset[0], extent - dim.offset[1])
    unsolved: dict[str, Size] = {}
    for name, _, dim, extent in aligned:
        if dim.symbol is not None or (dim.broadcastable and extent == 1):
            continue
        if dim.expression is not None and not dim.symbols <= set(sizes):
            expected = unsolved.setdefault(dim.token, extent)  # nothing else binds the symbol: any one extent is legal
        else:
            expected = dim.size if dim.size is not None else _extent(dim, sizes)
        if extent != expected:
            raise ValueError(f"{name} has {extent} where its dims say {dim.token} = {expected}")
    return sizes


def _align(name: str, dims: str, extents: tuple[int, ...]) -> list[tuple[Dim, Size]]:
    parsed = parse(dims)
    spread = len(extents) - sum(not dim.variadic for dim in parsed)
    if spread < 0 or (spread > 0 and not any(dim.variadic for dim in parsed)):
        raise ValueError(f"{name} has shape {list(extents)}, but its dims are {dims!r}")
    left = iter(extents)
    return [(dim, tuple(islice(left, spread)) if dim.variadic else next(left)) for dim in parsed]


def _bind(sizes: dict[str, Size], symbol: str, extent: Size, name: str, dims: str, broadcastable: bool) -> None:
    known = sizes.setdefault(symbol, extent)
    if broadcastable:
        wide, narrow = (e if isinstance(e, tuple) else (e,) for e in (known, extent))
        if len(narrow) <= len(wide) and all(n in {1, w} for n, w in zip(narrow[::-1], wide[::-1], strict=False)):
            return
    if known != extent:
        raise ValueError(f"{name} has {symbol}={extent}, but {symbol}={known} elsewhere (dims {dims!r})")
