"""`Domain`: the values that a tensor may take, which of them are special, and how they shrink.

A domain turns uniform numbers into values (`quantile`), simple numbers into values (`lattice`), and repairs structure
that single elements cannot carry (`project`: rows that sum to one, symmetry).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import torch
from torch import Generator, Tensor

from harness.declare import dims
from harness.declare.dims import Sizes
from harness.declare.points import Point
from harness.errors import DeclarationError

Shape = tuple[int, ...]
Make = Callable[..., Tensor]  # of shape, generator and dtype, and of sizes and tensors where it names them
Kind = Literal["float", "integer", "boolean"]


@dataclass(frozen=True)
class Domain:
    """The values that a tensor may take.

    Args:
        text: the call that makes the domain, shown in messages.
        kind: float domains follow the case's dtype; integer ones are int64; boolean ones are bool unless declared.
        low: least value, closed; ``-inf`` where there is none.
        high: greatest value, closed.
        structured: `project` ties elements together, so single elements cannot be changed freely.
        whole: every value is a whole number, so that an integer dtype can hold it.
        axis: for `simplex` and `unit_norm`, the axis that is tied together.
        square: the last two axes have one size.
        scalable: values may be multiplied by any positive number.
        removes: whether zeros may remove what they stand for; those of a label do not.
        nan: NaN is a legal value and means "missing".
        symbol: for `index`, the size that the values are below, such as ``C`` or ``T+1``.
        limit: for `lengths` and `offsets`, the size that the values reach at most.
        extent: for `boxes`, the extent of the last axis.
        form: what the loss is given instead of a dense real tensor: ``complex``, or the layout of a sparse one.
        is_distinct: no value comes twice along the last axis, which is therefore no longer than there are values.
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
    whole: bool = False
    axis: int | None = None
    square: bool = False
    scalable: bool = False
    removes: bool = True
    nan: bool = False
    symbol: str | None = None
    limit: str | None = None
    extent: int | None = None
    form: str = ""
    is_distinct: bool = False
    ignore: int | None = None
    default_dtype: torch.dtype | None = None
    special: Mapping[str, Point] = field(default_factory=dict, hash=False, compare=False)
    simple: tuple[float, ...] = (0.0,)
    transform: Callable[[Tensor], Tensor] | None = field(default=None, hash=False, compare=False)
    repair: Callable[[Tensor], Tensor] | None = field(default=None, hash=False, compare=False)
    fit: Callable[[Tensor, int], Tensor] | None = field(default=None, hash=False, compare=False)
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
        return self.removes and self.kind != "integer" and self.low == 0.0 and not self.structured

    def dtype(self, case_dtype: torch.dtype, declared: torch.dtype | None = None) -> torch.dtype:
        """The dtype of a tensor of this domain in a case of ``case_dtype``."""
        return declared or self.default_dtype or case_dtype

    def lattice(self, sizes: Sizes) -> tuple[float, ...]:
        """Exact values, the simplest first; shrinking moves towards the front."""
        if self.limit is not None:
            return tuple(float(value) for value in range(self.count(sizes), int(self.low) - 1, -1))
        if self.symbol is None:
            return self.simple
        values = tuple(float(value) for value in range(self.count(sizes)))
        return values if self.ignore is None else (*values, float(self.ignore))

    @property
    def number_of_values(self) -> str:
        """How many values an index, a length or an offset may have, as a size."""
        return f"({self.symbol})" if self.symbol is not None else f"({self.limit})+{1 - int(self.low)}"

    def count(self, sizes: Sizes) -> int:
        """Number of classes or positions that an index may name; the greatest length or offset."""
        text = str(self.symbol or self.limit)
        size = sizes[text] if text in sizes else dims.shape(text, sizes)
        return size if isinstance(size, int) else math.prod(size)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the sizes that the values depend on."""
        text = self.symbol or self.limit
        return () if text is None else dims.scalar_symbols([text])

    def quantile(self, uniform: Tensor, sizes: Sizes) -> Tensor:
        """Map uniform numbers in (0, 1) to values, elementwise (float64)."""
        if self.symbol is not None or self.limit is not None:
            lattice = torch.tensor(self.lattice(sizes) or (0.0,), dtype=torch.float64)
            return lattice[(uniform * len(lattice)).long().clamp(max=len(lattice) - 1)]
        if self.transform is None:
            raise DeclarationError(f"{self.text} has no elementwise form")
        return self.transform(uniform)

    @property
    def reads(self) -> frozenset[str]:
        """What else the sampler of `custom` looks at: ``sizes``, and ``tensors``, those declared before its own."""
        named = () if self.make is None else inspect.signature(self.make).parameters
        return frozenset(named) & {"sizes", "tensors"}

    def project(self, values: Tensor, sizes: Sizes | None = None) -> Tensor:
        """The nearest legal tensor: structure that single elements cannot carry is repaired."""
        if self.fit is not None:
            return values if sizes is None else self.fit(values, self.count(sizes))
        return values if self.repair is None else self.repair(values)

    def sample(
        self,
        shape: Shape,
        generator: Generator,
        sizes: Sizes,
        tensors: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Tensor:
        """Smooth random values: no ties, nothing at a boundary; ``tensors`` are those drawn before, for `custom`."""
        if self.make is not None:
            return made_by(self.text, self.make, shape, generator, torch.float64, sizes, tensors)
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
        return self.project(self.quantile(uniform, sizes), sizes)

    @property
    def unbounded(self) -> bool:
        """Whether single values have no boundary to be pulled off."""
        return not self.differentiable or self.structured or (self.low == -math.inf and self.high == math.inf)

    def interior(self, values: Tensor, margin: float = 1e-3) -> Tensor:
        """Pull values off the boundary by ``margin``, so that a finite difference stays inside the domain."""
        if self.unbounded:
            return values
        width = self.high - self.low
        step = margin * width if math.isfinite(width) else margin
        return values.clamp(self.low + step, self.high - step if math.isfinite(self.high) else math.inf)

    def legal(self, values: Tensor, sizes: Sizes) -> bool:
        """Whether every element is inside the bounds (structure is not checked)."""
        if self.limit is not None:
            return bool(((values >= self.low) & (values <= self.count(sizes))).all())
        if self.symbol is not None:
            inside = (values >= 0) & (values < self.count(sizes))
            return bool((inside | (values == self.ignore) if self.ignore is not None else inside).all())
        if values.dtype == torch.bool:
            return True
        inside = (values >= self.low) & (values <= self.high)
        return bool((inside | values.isnan() if self.nan else inside).all())

    def holds(self, values: Tensor, sizes: Sizes) -> bool:
        """Whether values, rounded to their dtype, are known to be of the domain: elements, and the structure that ties them.

        What a sampler of `custom` would not draw nobody knows but who wrote it, so that no other values are known to be legal.
        """
        if self.make is not None:
            return False
        wide = values.detach().cpu().double()
        rounding = math.sqrt(torch.finfo(values.dtype).eps) if values.is_floating_point() else 0.0
        bounded = self.kind == "float" and self.symbol is None
        inside = wide.clamp(self.low, self.high) if bounded else wide
        if not self.legal(inside, sizes) or (self.whole and not torch.equal(wide, wide.round())):
            return False
        nearest = self.project(inside, sizes).double()
        return torch.allclose(nearest, wide, rtol=rounding, atol=rounding, equal_nan=True)


def made_by(
    text: str,
    make: Make,
    shape: Shape,
    generator: Generator,
    dtype: torch.dtype,
    sizes: Sizes = MappingProxyType({}),
    tensors: Mapping[str, Tensor] = MappingProxyType({}),
) -> Tensor:
    """What a user's sampler returns, held to its contract: the shape, and no number from the global generator."""
    before = torch.get_rng_state()
    more = {"sizes": sizes, "tensors": tensors}
    wanted = inspect.signature(make).parameters
    made = make(shape, generator, dtype, **{name: value for name, value in more.items() if name in wanted})
    if not torch.equal(before, torch.get_rng_state()):
        torch.set_rng_state(before)
        raise DeclarationError(
            f"{text}: make() drew from torch's global generator, so a case could not be made again; write\n"
            f"    torch.rand(shape, generator=generator, dtype=dtype)"
        )
    if not isinstance(made, Tensor):
        raise DeclarationError(f"{text}: make() returned {type(made).__name__}, expected a torch.Tensor")
    if tuple(made.shape) != shape:
        raise DeclarationError(f"{text}: make(shape={shape}, ...) returned shape {tuple(made.shape)}, expected {shape}")
    return made
