"""Domains: which values a tensor may take, which of them are special, and how they shrink.

A domain turns uniform numbers into values (`quantile`), simple numbers into values (`lattice`), and repairs structure
that single elements cannot carry (`project`: rows that sum to one, symmetry).  Special points are the places where
losses break: zeros, ties, one-hot, saturation, an empty mask, an isolated node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Generator, Tensor

from harness.dims import Sizes
from harness.errors import DeclarationError

Shape = tuple[int, ...]
Make = Callable[[Shape, Generator, torch.dtype], Tensor]
Point = Callable[[Tensor], Tensor]  # from a smooth draw to the special point of the same shape
Kind = Literal["float", "integer", "boolean"]

SATURATED = 100.0  # sigmoid(100) = 1 and softmax is one-hot in every dtype
LARGE = 10.0  # exp(10) fits every dtype but float16, so that a plain exp is no false alarm
TINY = 1e-6


@dataclass(frozen=True)
class Domain:
    """The values that a tensor may take.

    Args:
        text: the call that makes the domain, shown in messages.
        kind: float domains follow the case's dtype; integer ones are int64; boolean ones are bool unless declared.
        low: least value, closed; ``-inf`` where there is none.
        high: greatest value, closed.
        structured: `project` ties elements together, so single elements cannot be changed freely.
        scalable: values may be multiplied by any positive number.
        nan: NaN is a legal value and means "missing".
        symbol: for `index`, the size that the values are below.
        ignore: for `index`, the value that marks an element as ignored.
        default_dtype: the dtype, where it does not follow the case.
        special: named special points, each made from a smooth draw of the same shape.
        make: for `custom`, the user's sampler.
    """

    text: str
    kind: Kind = "float"
    low: float = -math.inf
    high: float = math.inf
    structured: bool = False
    scalable: bool = False
    nan: bool = False
    symbol: str | None = None
    ignore: int | None = None
    default_dtype: torch.dtype | None = None
    special: Mapping[str, Point] = field(default_factory=dict, hash=False, compare=False)
    simple: tuple[float, ...] = (0.0,)
    transform: Callable[[Tensor], Tensor] | None = field(default=None, hash=False, compare=False)
    repair: Callable[[Tensor], Tensor] | None = field(default=None, hash=False, compare=False)
    make: Make | None = field(default=None, hash=False, compare=False)

    def __repr__(self) -> str:
        return self.text

    @property
    def differentiable(self) -> bool:
        """Whether a gradient with respect to such values has a meaning."""
        return self.kind == "float"

    @property
    def weighs(self) -> bool:
        """Whether zero is the least value, so that the values can be read as weights or as a mask."""
        return self.kind != "integer" and self.low == 0.0 and not self.structured

    def dtype(self, case_dtype: torch.dtype, declared: torch.dtype | None = None) -> torch.dtype:
        """The dtype of a tensor of this domain in a case of ``case_dtype``."""
        return declared or self.default_dtype or case_dtype

    def lattice(self, sizes: Sizes) -> tuple[float, ...]:
        """Exact values, the simplest first; shrinking moves towards the front."""
        if self.symbol is None:
            return self.simple
        values = tuple(float(value) for value in range(self.count(sizes)))
        return values if self.ignore is None else (*values, float(self.ignore))

    def count(self, sizes: Sizes) -> int:
        """Number of classes or positions that an index may name."""
        size = sizes[str(self.symbol)]
        return size if isinstance(size, int) else math.prod(size)

    def quantile(self, uniform: Tensor, sizes: Sizes) -> Tensor:
        """Map uniform numbers in (0, 1) to values, elementwise (float64)."""
        if self.symbol is not None:
            lattice = torch.tensor(self.lattice(sizes) or (0.0,), dtype=torch.float64)
            return lattice[(uniform * len(lattice)).long().clamp(max=len(lattice) - 1)]
        if self.transform is None:
            raise DeclarationError(f"{self.text} has no elementwise form")
        return self.transform(uniform)

    def project(self, values: Tensor) -> Tensor:
        """The nearest legal tensor: structure that single elements cannot carry is repaired."""
        return values if self.repair is None else self.repair(values)

    def sample(self, shape: Shape, generator: Generator, sizes: Sizes, dtype: torch.dtype = torch.float64) -> Tensor:
        """Smooth random values: no ties, nothing at a boundary."""
        if self.make is not None:
            made = self.make(shape, generator, dtype)
            if tuple(made.shape) != shape:
                raise DeclarationError(
                    f"{self.text}: make(shape={shape}, ...) returned shape {tuple(made.shape)}, but should return {shape}"
                )
            return made
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
        return self.project(self.quantile(uniform, sizes))

    def interior(self, values: Tensor, margin: float = 1e-3) -> Tensor:
        """Pull values off the boundary by ``margin``, so that a finite difference stays inside the domain."""
        if not self.differentiable or self.structured or (self.low == -math.inf and self.high == math.inf):
            return values
        width = self.high - self.low
        step = margin * width if math.isfinite(width) else margin
        return values.clamp(self.low + step, self.high - step if math.isfinite(self.high) else math.inf)

    def legal(self, values: Tensor, sizes: Sizes) -> bool:
        """Whether every element is inside the bounds (structure is not checked)."""
        if self.symbol is not None:
            inside = (values >= 0) & (values < self.count(sizes))
            return bool((inside | (values == self.ignore) if self.ignore is not None else inside).all())
        if values.dtype == torch.bool:
            return True
        inside = (values >= self.low) & (values <= self.high)
        return bool((inside | values.isnan() if self.nan else inside).all())


# ---- special points: each maps a smooth draw to the point of the same shape --------------------------------------------


def _fill(value: float) -> Point:
    return lambda smooth: torch.full_like(smooth, value)


def _row(value: float) -> Point:
    def point(smooth: Tensor) -> Tensor:
        result = smooth.clone()
        if result.ndim and result.shape[0]:
            result[0] = value
        return result

    return point


def _one_hot(value: float, rest: float = 0.0) -> Point:
    def point(smooth: Tensor) -> Tensor:
        result = torch.full_like(smooth, rest)
        if result.ndim and result.numel():
            result[..., 0] = value
        return result

    return point


def _single(value: float, rest: float = 0.0) -> Point:
    def point(smooth: Tensor) -> Tensor:
        result = torch.full_like(smooth, rest)
        if result.numel():
            result.view(-1)[0] = value
        return result

    return point


def _equal_rows(smooth: Tensor) -> Tensor:
    return smooth[:1].expand_as(smooth).clone() if smooth.ndim and smooth.shape[0] else smooth


def _alternating(high: float, low: float) -> Point:
    def point(smooth: Tensor) -> Tensor:
        values = torch.full_like(smooth, low).view(-1)
        values[::2] = high
        return values.view(smooth.shape)

    return point


def _normal(uniform: Tensor) -> Tensor:
    return math.sqrt(2) * torch.special.erfinv(2 * uniform - 1)


def _rounded(values: Tensor) -> Tensor:
    """Three decimals: values that a person can type, none of them exact in binary."""
    return (values * 1000).round() / 1000


# ---- public constructors -----------------------------------------------------------------------------------------------


def real(nan: bool = False) -> Domain:
    """All real numbers; with ``nan=True`` NaN is legal too and means "missing"."""

    def transform(uniform: Tensor) -> Tensor:
        values = _rounded(_normal(uniform))
        return torch.where(uniform > 0.85, torch.nan, values) if nan else values

    special = {
        "zeros": _fill(0.0),
        "ones": _fill(1.0),
        "zero row": _row(0.0),
        "equal rows": _equal_rows,
        "one-hot": _one_hot(1.0),
        "large": _alternating(LARGE, -LARGE),
    }
    if nan:
        special |= {"all missing": _fill(math.nan), "one missing": _single_missing}
    simple = (0.0, 1.0, -1.0, 0.5, 2.0, -0.5, -2.0, 3.0)
    return Domain(
        f"real(nan={nan})" if nan else "real()",
        scalable=True,
        nan=nan,
        special=special,
        simple=(*simple, math.nan) if nan else simple,
        transform=transform,
    )


def _single_missing(smooth: Tensor) -> Tensor:
    result = torch.nan_to_num(smooth)
    if result.numel():
        result.view(-1)[0] = math.nan
    return result


def logits() -> Domain:
    """Unnormalised log-probabilities: real numbers that may saturate."""
    return Domain(
        "logits()",
        special={
            "zeros": _fill(0.0),
            "saturated": _alternating(SATURATED, -SATURATED),
            "saturated one-hot": _one_hot(SATURATED, -SATURATED),
            "all large": _fill(SATURATED),
            "equal rows": _equal_rows,
        },
        simple=(0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 4.0),
        transform=lambda uniform: _rounded(2 * _normal(uniform)),
    )


def interval(low: float, high: float) -> Domain:
    """The closed interval [low, high]."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise DeclarationError(f"interval(low={low}, high={high}): needs finite low < high; for no bound use real()")
    middle = (low + high) / 2
    return Domain(
        f"interval({low:g}, {high:g})",
        low=low,
        high=high,
        special={
            "lowest": _fill(low),
            "highest": _fill(high),
            "middle": _fill(middle),
            "extremes": _alternating(high, low),
            "equal rows": _equal_rows,
        },
        simple=(middle, low, high, (low + middle) / 2, (middle + high) / 2),
        transform=lambda uniform: _rounded(low + (high - low) * uniform).clamp(low, high),
    )


def probability() -> Domain:
    """Probabilities: the closed interval [0, 1]."""
    unit = interval(0.0, 1.0)
    return Domain(
        "probability()",
        low=0.0,
        high=1.0,
        special={
            "zeros": _fill(0.0),
            "ones": _fill(1.0),
            "halves": _fill(0.5),
            "extremes": _alternating(1.0, 0.0),
            "equal rows": _equal_rows,
        },
        simple=(0.5, 0.0, 1.0, 0.25, 0.75),
        transform=unit.transform,
    )


def positive() -> Domain:
    """Numbers above zero."""
    return Domain(
        "positive()",
        low=TINY,
        scalable=True,
        special={
            "ones": _fill(1.0),
            "tiny": _fill(TINY),
            "large": _fill(1e3),
            "mixed scales": _alternating(1e3, 1e-3),
            "equal rows": _equal_rows,
        },
        simple=(1.0, 2.0, 0.5, 3.0, 0.25, 4.0),
        transform=lambda uniform: _rounded(torch.exp(_normal(uniform))).clamp(min=1e-3),
    )


def nonnegative() -> Domain:
    """Numbers from zero up: weights."""
    return Domain(
        "nonnegative()",
        low=0.0,
        scalable=True,
        special={
            "zeros": _fill(0.0),
            "ones": _fill(1.0),
            "one-hot": _one_hot(1.0),
            "single": _single(1.0),
            "zero row": _row(0.0),
            "mixed scales": _alternating(1e3, 1e-3),
        },
        simple=(1.0, 0.0, 2.0, 0.5, 3.0),
        transform=lambda uniform: _rounded(torch.exp(_normal(uniform))),
    )


def simplex(axis: int) -> Domain:
    """Non-negative numbers that sum to one along ``axis``."""

    def repair(values: Tensor) -> Tensor:
        values = values.abs()
        total = values.sum(axis, keepdim=True)
        return torch.where(total > 0, values / total, torch.full_like(values, 1 / max(values.shape[axis], 1)))

    def one_hot(smooth: Tensor) -> Tensor:
        moved = torch.zeros_like(smooth).movedim(axis, -1)
        if moved.numel():
            moved[..., 0] = 1
        return moved.movedim(-1, axis)

    return Domain(
        f"simplex(axis={axis})",
        low=0.0,
        high=1.0,
        structured=True,
        special={
            "uniform": lambda smooth: repair(torch.ones_like(smooth)),
            "one-hot": one_hot,
            "equal rows": _equal_rows,
        },
        simple=(1.0, 0.0, 2.0, 3.0),
        transform=lambda uniform: torch.exp(_normal(uniform)),
        repair=repair,
    )


def unit_norm(axis: int) -> Domain:
    """Vectors of Euclidean length one along ``axis``."""

    def repair(values: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(values, dim=axis, keepdim=True)
        fallback = torch.full_like(values, 1 / math.sqrt(max(values.shape[axis], 1)))
        return torch.where(length > 0, values / length.clamp(min=1e-300), fallback)

    return Domain(
        f"unit_norm(axis={axis})",
        low=-1.0,
        high=1.0,
        structured=True,
        special={
            "equal rows": _equal_rows,
            "axis-aligned": lambda smooth: repair(_one_hot(1.0)(smooth).movedim(-1, axis) if smooth.ndim else smooth),
        },
        simple=(1.0, 0.0, -1.0, 2.0),
        transform=_normal,
        repair=repair,
    )


def binary() -> Domain:
    """Zeros and ones in a floating dtype: a mask or a label that is multiplied."""
    return Domain(
        "binary()",
        low=0.0,
        high=1.0,
        structured=False,
        special=_mask_points(),
        simple=(1.0, 0.0),
        transform=lambda uniform: (uniform > 0.4).double(),
    )


def boolean(dtype: torch.dtype = torch.bool) -> Domain:
    """Truth values in a boolean or integer dtype: a mask that selects."""
    name = "" if dtype == torch.bool else f"dtype={dtype}"
    return Domain(
        f"boolean({name})",
        kind="boolean",
        low=0.0,
        high=1.0,
        default_dtype=dtype,
        special=_mask_points(),
        simple=(1.0, 0.0),
        transform=lambda uniform: (uniform > 0.4).double(),
    )


def _mask_points() -> dict[str, Point]:
    return {
        "zeros": _fill(0.0),
        "ones": _fill(1.0),
        "one-hot": _one_hot(1.0),
        "single": _single(1.0),
        "zero row": _row(0.0),
    }


def sign() -> Domain:
    """Minus one or one, in a floating dtype."""
    return Domain(
        "sign()",
        low=-1.0,
        high=1.0,
        special={"all positive": _fill(1.0), "all negative": _fill(-1.0)},
        simple=(1.0, -1.0),
        transform=lambda uniform: torch.where(uniform > 0.5, 1.0, -1.0).double(),
    )


def index(symbol: str, ignore: int | None = None) -> Domain:
    """int64 positions in [0, symbol), such as class labels; ``ignore`` marks elements that do not count."""
    if not isinstance(symbol, str) or not symbol.isidentifier():
        raise DeclarationError(f"index({symbol!r}): needs the name of a size, such as index('C')")
    special = {
        "first": _fill(0.0),
        "all equal": lambda smooth: smooth.max().expand_as(smooth).clone() if smooth.numel() else smooth,
    }
    if ignore is not None:
        special |= {
            "all ignored": _fill(float(ignore)),
            "one ignored": _ignored_once(ignore),
            "one kept": _single(0.0, float(ignore)),
        }
    return Domain(
        f"index({symbol!r})" if ignore is None else f"index({symbol!r}, ignore={ignore})",
        kind="integer",
        symbol=symbol,
        ignore=ignore,
        default_dtype=torch.int64,
        special=special,
    )


def _ignored_once(ignore: int) -> Point:
    def point(smooth: Tensor) -> Tensor:
        result = torch.where(smooth == ignore, torch.zeros_like(smooth), smooth)
        if result.numel():
            result.view(-1)[0] = ignore
        return result

    return point


def adjacency(symmetric: bool = False, self_loops: bool = True) -> Domain:
    """Square 0/1 matrices: entry (i, j) is one where an edge goes from i to j."""

    def repair(values: Tensor) -> Tensor:
        values = (values != 0).double()
        if symmetric and values.ndim >= 2:
            values = torch.maximum(values.triu(), values.triu(1).mT)
        if not self_loops and values.ndim >= 2:
            values = values * (1 - torch.eye(values.shape[-1], dtype=values.dtype))
        return values

    def isolated(smooth: Tensor) -> Tensor:
        result = repair(torch.ones_like(smooth))
        result[..., 0, :] = 0
        result[..., :, 0] = 0
        return result

    def one_edge(smooth: Tensor) -> Tensor:
        result = torch.zeros_like(smooth)
        if result.shape[-1] > 1:
            result[..., 0, 1] = 1
        return repair(result)

    special: dict[str, Point] = {
        "empty": _fill(0.0),
        "complete": lambda smooth: repair(torch.ones_like(smooth)),
        "isolated node": isolated,
        "one edge": one_edge,
    }
    if self_loops:
        special["self-loops only"] = lambda smooth: (
            torch.eye(smooth.shape[-1], dtype=smooth.dtype).expand_as(smooth).clone()
        )
    return Domain(
        f"adjacency(symmetric={symmetric}, self_loops={self_loops})",
        low=0.0,
        high=1.0,
        structured=True,
        special=special,
        simple=(0.0, 1.0),
        transform=lambda uniform: (uniform > 0.5).double(),
        repair=repair,
    )


def custom(make: Make, special: Sequence[Make] = ()) -> Domain:
    """Whatever ``make(shape, generator, dtype)`` returns; ``special`` are further samplers for special points."""
    if not callable(make):
        raise DeclarationError(f"custom({make!r}): needs a function make(shape, generator, dtype) -> Tensor")

    def point(sampler: Make) -> Point:
        return lambda smooth: sampler(tuple(smooth.shape), Generator().manual_seed(0), smooth.dtype)

    return Domain(
        f"custom({getattr(make, '__name__', 'make')})",
        structured=True,
        special={getattr(s, "__name__", f"special {i}"): point(s) for i, s in enumerate(special)},
        make=make,
    )
