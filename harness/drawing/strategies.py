"""spec -> Hypothesis strategy of cases.

A case is drawn as: the sizes of all symbols, linked; then one byte per element of every small tensor, or a seed for a
large one.  The byte 0 is the simplest value and sizes shrink towards the smallest, so that a failure shrinks to the
smallest shapes and simplest values.  Nothing is filtered: every draw is a case.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from harness.declare import dims
from harness.declare.dims import Size
from harness.declare.spec import LossSpec
from harness.drawing.case import DRAWN_LAYOUTS, Case, Recipe, from_bytes
from harness.errors import DeclarationError, nearest

EXACT_ELEMENTS = 64  # larger tensors are made from a seed: a byte for each element would slow the draw
MANY_DIFFERENTIABLE = 4096  # elements of the differentiable inputs together
MANY_IN_ALL = 4 * MANY_DIFFERENTIABLE
MANY_ALONG_AN_AXIS = 1024  # a pairwise loss makes a square of it
REGIMES = ("distinct", "coincident", "unit", "large", "many", "free")

_MODES = st.sampled_from(("lattice", "smooth"))
_LAYOUT = st.sampled_from(DRAWN_LAYOUTS)
_SEED = st.integers(0, 2**31 - 1)
Draw = Callable[[SearchStrategy[Any]], Any]


def cases(
    spec: LossSpec,
    *,
    regime: str = "free",
    mode: str | None = None,
    dtypes: Sequence[str] = ("float64",),
) -> SearchStrategy[Case]:
    """Strategy of cases of a loss.

    Args:
        spec: the declaration.
        regime: ``distinct`` sizes of at least 2 (a swapped axis shows), ``coincident`` ones (all symbols equal, so that a
            wrong axis is accepted), ``unit`` (one symbol is 1), ``large``, ``many`` (a thousand to four thousand elements
            in the differentiable inputs), or ``free`` (anything small).
        mode: ``smooth`` for generic values without ties, ``lattice`` for exact ones with many ties; drawn where ``None``.
        dtypes: floating dtypes to draw from.

    Raises:
        DeclarationError: an unknown regime.
    """
    if regime not in REGIMES:
        raise DeclarationError(f"got regime {regime!r}, expected one of {list(REGIMES)}{nearest(regime, REGIMES)}")
    return _case(spec, _Sizes(spec, regime), regime, mode, tuple(dtypes))


@st.composite  # made once: Hypothesis reads the source of what it decorates
def _case(
    draw: Draw,
    spec: LossSpec,
    draw_sizes: Callable[[Draw], dict[str, Size]],
    regime: str,
    mode: str | None,
    dtypes: tuple[str, ...],
) -> Case:
    sizes = draw_sizes(draw)
    chosen = draw(_MODES if mode is None else st.just(mode))
    recipes: dict[str, Recipe] = {}
    left_out = draw(_missing(spec)) if spec.optional else ()
    for name, tensor in spec.tensors.items():
        if name in left_out:
            continue
        shape = dims.shape(tensor.dims, sizes)
        count = math.prod(shape)
        salt = zlib.crc32(name.encode())
        if tensor.domain.make is not None or count > EXACT_ELEMENTS:
            own = (draw(_SEED) + salt) % 2**31  # equal draws, as Hypothesis likes them, give no equal tensors
            recipes[name] = Recipe(seed=own, mode=mode or draw(_MODES))
        else:
            drawn = draw(st.binary(min_size=count, max_size=count))
            recipes[name] = Recipe(from_bytes(tensor.domain, shape, drawn, chosen, sizes, salt), mode=chosen)
    layout: str = draw(_LAYOUT)
    layouts = {} if layout == "contiguous" else dict.fromkeys(recipes, layout)
    dtype = draw(st.sampled_from(dtypes)) if len(dtypes) > 1 else dtypes[0]
    return Case(spec.name, sizes, recipes, dtype, layouts, regime)


def _missing(spec: LossSpec) -> SearchStrategy[tuple[str, ...]]:
    """Which optional tensors are ``None``: mostly none of them, else one, else all."""
    each = [(name,) for name in spec.optional]
    return st.sampled_from(tuple(dict.fromkeys([(), *each, spec.optional])))


class _Sizes:
    """Draws the size of every symbol of a spec, in one regime."""

    def __init__(self, spec: LossSpec, regime: str) -> None:
        self.spec = spec
        self.free = [symbol for symbol in spec.symbols if symbol not in spec.fixed_sizes]
        self.variadic = [symbol for symbol in spec.variadic if symbol not in spec.fixed_sizes]
        self.dims = spec.all_dims
        self.lower = {**dict.fromkeys(self.free, 1), **dims.least_sizes(self.dims)}
        spread = 2 if len(self.free) + 2 * len(self.variadic) >= 4 else 3
        base = 6 if regime == "large" else 2
        self.small = st.integers(base, base + spread)
        self.axis_count = st.integers(0, 1 if regime == "large" else 2)
        drawn_by = {
            "distinct": self.distinct,
            "large": self.distinct,
            "coincident": self.coincident,
            "unit": self.unit,
            "many": self.many,
        }
        self.chosen = drawn_by.get(regime, self.loose)
        self.has_computed = any(dim.expression is not None for text in self.dims for dim in dims.parse(text))

    def __call__(self, draw: Draw) -> dict[str, Size]:
        """The drawn sizes, raised where a computed axis such as ``M-N`` would have no element."""
        sizes = self.chosen(draw)
        if not self.has_computed:
            return sizes
        start = {symbol: size for symbol, size in sizes.items() if isinstance(size, int)}
        return {**sizes, **dims.least_sizes(self.dims, start=start, fixed=self.spec.fixed_sizes)}

    def distinct(self, draw: Draw) -> dict[str, Size]:
        """No two alike."""
        sizes: dict[str, Size] = dict(self.spec.fixed_sizes)
        used = {size for size in sizes.values() if isinstance(size, int)}

        def unused() -> int:
            size = draw(self.small)
            while size in used:
                size += 1
            used.add(size)
            return int(size)

        for symbol in self.free:
            size = unused()
            sizes[symbol] = max(size, self.lower[symbol])
        for symbol in self.variadic:
            sizes[symbol] = tuple(unused() for _ in range(draw(self.axis_count)))
        return sizes

    def coincident(self, draw: Draw) -> dict[str, Size]:
        """All alike; a variadic symbol has an axis, since axes coincide with none otherwise."""
        fixed = [size for size in self.spec.fixed_sizes.values() if isinstance(size, int) and size > 1]
        size = max([fixed[0] if fixed else draw(st.integers(2, 4)), *self.lower.values()])
        axes = {symbol: (size,) * draw(st.integers(1, 2)) for symbol in self.variadic}
        return {**dict.fromkeys(self.free, size), **axes, **self.spec.fixed_sizes}

    def unit(self, draw: Draw) -> dict[str, Size]:
        """One symbol as small as it can be."""
        sizes = self.distinct(draw)
        if self.free:
            chosen = draw(st.sampled_from(self.free))
            sizes[chosen] = self.lower[chosen]
        return sizes

    def loose(self, draw: Draw) -> dict[str, Size]:
        """Anything small."""
        anything = st.integers(1, 4)
        sizes: dict[str, Size] = {symbol: max(draw(anything), self.lower[symbol]) for symbol in self.free}
        for symbol in self.variadic:
            sizes[symbol] = tuple(draw(st.lists(anything, max_size=2)))
        return {**sizes, **self.spec.fixed_sizes}

    def many(self, draw: Draw) -> dict[str, Size]:
        """As many elements as the regime may have, or nearly."""
        widest = _widest(self.spec, self.lower, self.variadic)
        nearly = st.integers(0, widest // 8).map(lambda less: widest - less)
        sizes: dict[str, Size] = {symbol: max(draw(nearly), self.lower[symbol]) for symbol in self.free}
        return {**sizes, **{symbol: (draw(nearly),) for symbol in self.variadic}, **self.spec.fixed_sizes}


def _widest(spec: LossSpec, lower: Mapping[str, int], variadic: Sequence[str]) -> int:
    """The largest size that all free symbols may have together within the limits of the regime ``many``."""

    def too_many(size: int) -> bool:
        sizes: dict[str, Size] = {symbol: max(size, least) for symbol, least in lower.items()}
        sizes |= {**dict.fromkeys(variadic, (size,)), **spec.fixed_sizes}
        counts = {name: math.prod(dims.shape(tensor.dims, sizes)) for name, tensor in spec.tensors.items()}
        return (
            sum(counts[name] for name in spec.differentiable) > MANY_DIFFERENTIABLE
            or sum(counts.values()) > MANY_IN_ALL
        )

    return max(1, bisect_left(range(1, MANY_ALONG_AN_AXIS + 1), True, key=too_many))
