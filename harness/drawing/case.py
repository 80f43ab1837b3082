"""A case: one drawn example of a loss's tensors, as a JSON recipe that makes the same tensors anywhere."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from harness.declare import dims
from harness.declare.dims import Size
from harness.declare.domains import Domain
from harness.declare.spec import LossSpec
from harness.declare.tensor_spec import TensorSpec
from harness.errors import DeclarationError

SCHEMA_VERSION = 1
DRAWN_LAYOUTS = ("contiguous", "transposed", "strided", "offset", "expanded")
LAYOUTS = (*DRAWN_LAYOUTS, "channels_last")
DTYPES = ("float64", "float32", "bfloat16", "float16")
MODES = ("smooth", "lattice", "tiny", "huge", "near")
NEAR = 1e-4
MAX_ELEMENTS = 2**31 - 1
_SCALES = {"tiny": 1e-4, "huge": 1e4}


@dataclass(frozen=True)
class Recipe:
    """How one tensor is made.

    From exact ``values`` (flat), or from a ``seed`` and a mode, or at a special ``point``, or as a copy of the tensor
    ``same_as`` (in mode ``near``: off by about 1e-4, where distances cancel), of its rows where there are more or fewer.
    """

    values: tuple[float, ...] | None = None
    seed: int = 0
    mode: str = "smooth"
    point: str | None = None
    same_as: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON types; non-finite numbers become strings."""
        if self.values is not None:
            return {"values": [_number_to_json(value) for value in self.values], "mode": self.mode}
        made: dict[str, Any] = {"seed": self.seed, "mode": self.mode, "point": self.point, "same_as": self.same_as}
        return {key: value for key, value in made.items() if value is not None}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_json` wrote."""
        values = data.get("values")
        return Recipe(
            values=None if values is None else tuple(float(value) for value in values),
            seed=_seed_from_json(data.get("seed", 0)),
            mode=_one_of("mode", data.get("mode", "smooth"), MODES),
            point=data.get("point"),
            same_as=data.get("same_as"),
        )


def _seed_from_json(seed: Any) -> int:
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise DeclarationError(f"got seed {seed!r}, expected a whole number from 0 to 2**63 - 1")
    return seed


def _number_to_json(value: float) -> float | int | str:
    if not math.isfinite(value):
        return str(value)
    whole = value == int(value) and abs(value) < 2**53 and not (value == 0 and math.copysign(1, value) < 0)
    return int(value) if whole else value


@dataclass(frozen=True)
class Case:
    """One example: the size of every symbol, a recipe and a layout for every tensor, and the floating dtype.

    ``regime`` says what the example is for: distinct, coincident, unit or large sizes.
    """

    loss: str
    sizes: Mapping[str, Size]
    tensors: Mapping[str, Recipe]
    dtype: str = "float64"
    layouts: Mapping[str, str] = field(default_factory=dict)
    regime: str = "distinct"

    @cached_property
    def key(self) -> str:
        """Text that is equal for equal cases and different for different ones."""
        return json.dumps(self.to_json(), sort_keys=True)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that name the case."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:8]

    @property
    def smooth(self) -> bool:
        """Whether every tensor has generic values: no special point and no exact lattice values."""
        return all(recipe.point is None and recipe.mode == "smooth" for recipe in self.tensors.values())

    def shape(self, spec: LossSpec, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return dims.shape(spec.tensors[name].dims, self.sizes)

    def numel(self, spec: LossSpec) -> int:
        """Number of elements of all tensors together."""
        return sum(math.prod(self.shape(spec, name)) for name in spec.tensors if name in self.tensors)

    def with_points(self, points: Mapping[str, str]) -> Case:
        """The same case with some tensors moved to special points."""
        moved = {name: Recipe(seed=zlib.crc32(name.encode()), point=point) for name, point in points.items()}
        return replace(self, tensors={**self.tensors, **moved})

    def redrawn(self, salt: int) -> Case:
        """The same sizes, special points and copies with other values."""
        seeds = {name: zlib.crc32(f"{name} {salt}".encode()) for name in self.tensors}
        made = {name: replace(recipe, values=None, seed=seeds[name]) for name, recipe in self.tensors.items()}
        return replace(self, tensors=made)

    def with_copy(self, name: str, of: str, *, near: int = 0) -> Case:
        """The same case with the tensor ``name`` equal to ``of``, or, in one of several ways (1, 2, ...), ``near`` to it."""
        copy = Recipe(seed=zlib.crc32(name.encode()) + near, mode="near" if near else "smooth", same_as=of)
        return replace(self, tensors={**self.tensors, name: copy})

    def materialize(
        self,
        spec: LossSpec,
        *,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
        layouts: bool = False,
        known: dict[Any, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Make the tensors; equal on every machine with the same torch.

        Args:
            spec: the declaration that the case was drawn from.
            dtype: floating dtype; the case's own by default.
            device: where the tensors are put.
            layouts: give every tensor its drawn memory layout; contiguous otherwise.
            known: values that other cases have made, and more of them; who gives it does not edit what comes.

        Raises:
            DeclarationError: the case does not fit the declaration.
        """
        chosen: torch.dtype = dtype or getattr(torch, self.dtype)
        missing = sorted((set(spec.tensors) ^ set(self.tensors)) - set(spec.optional))
        if missing:
            raise DeclarationError(
                f"the case of loss {self.loss!r} and the declaration of {spec.name!r} differ in tensors {missing}"
            )
        unsized = sorted({*spec.symbols, *spec.variadic} - set(self.sizes))
        if unsized:
            raise DeclarationError(f"the case of loss {self.loss!r} has no size for {unsized}")
        if self.numel(spec) > MAX_ELEMENTS:
            raise DeclarationError(
                f"the case has {self.numel(spec)} elements, but at most {MAX_ELEMENTS} are made; its sizes are {dict(self.sizes)}"
            )
        made: dict[str, Tensor] = {}
        drawn: dict[str, Tensor] = {}
        for name, tensor in spec.tensors.items():
            if name not in self.tensors:
                continue  # an optional tensor, which is None here
            recipe = self.tensors[name]
            before = () if tensor.domain.make is None else tuple(self.tensors[n] for n in drawn)
            key = ("values", name, recipe, self.tensors.get(recipe.same_as or ""), before, *self.sizes.items())
            if known is None or (values := known.get(key)) is None:
                values = self._values(spec, name, drawn)
                if known is not None:
                    known[key] = values
            drawn[name] = values
            placed = values.to(tensor.domain.dtype(chosen, tensor.dtype)).to(device)
            made[name] = lay_out(placed, self.layouts.get(name, "contiguous")) if layouts else placed
        return made

    def _values(self, spec: LossSpec, name: str, before: Mapping[str, Tensor]) -> Tensor:
        recipe, shape = self.tensors[name], self.shape(spec, name)
        if recipe.same_as is None:
            return values_of(spec.tensors[name], recipe, shape, self.sizes, before)
        origin = self.tensors.get(recipe.same_as)
        theirs = () if origin is None else self.shape(spec, recipe.same_as)
        if origin is None or origin.same_as is not None or theirs[1:] != shape[1:] or len(theirs) != len(shape):
            raise DeclarationError(f"the case makes {name!r} a copy of {recipe.same_as!r}, which has no such values")
        values = values_of(spec.tensors[recipe.same_as], origin, theirs, self.sizes, before)
        if theirs != shape:
            own = values_of(spec.tensors[name], replace(recipe, same_as=None), shape, self.sizes, before)
            values = torch.cat([values[: shape[0]], own[theirs[0] :]])
        if recipe.mode != "near":
            return values
        generator = torch.Generator().manual_seed(recipe.seed)
        return values + NEAR * torch.randn(shape, generator=generator, dtype=torch.float64)

    def to_json(self) -> dict[str, Any]:
        """The case as JSON types."""
        return {
            "schema": SCHEMA_VERSION,
            "loss": self.loss,
            "regime": self.regime,
            "dtype": self.dtype,
            "sizes": {name: list(size) if isinstance(size, tuple) else size for name, size in self.sizes.items()},
            "tensors": {name: recipe.to_json() for name, recipe in self.tensors.items()},
            "layouts": dict(self.layouts),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Case:
        """The case that `to_json` wrote.

        Raises:
            DeclarationError: not a case, or one of another schema version.
        """
        try:
            version = data["schema"]
            if version != SCHEMA_VERSION:
                raise DeclarationError(
                    f"a case of schema {version!r} came, but this version reads schema {SCHEMA_VERSION}"
                )
            return Case(
                loss=str(data["loss"]),
                regime=str(data.get("regime", "distinct")),
                dtype=_one_of("dtype", data["dtype"], DTYPES),
                sizes={str(name): _size_from_json(str(name), size) for name, size in data["sizes"].items()},
                tensors={str(k): Recipe.from_json(v) for k, v in data["tensors"].items()},
                layouts={str(k): _one_of("layout", v, LAYOUTS) for k, v in data.get("layouts", {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, DeclarationError):
                raise
            raise DeclarationError(
                f"not a case: {type(error).__name__}: {error}; a case is what Case.to_json() wrote"
            ) from error


def _one_of(what: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise DeclarationError(f"{what} {value!r} came, but a case's {what} is one of {list(allowed)}")
    return str(value)


def _size_from_json(name: str, size: Any) -> Size:
    extents = size if isinstance(size, list) else [size]
    if not all(type(extent) is int and 0 <= extent <= dims.MAX_SIZE for extent in extents):
        raise DeclarationError(
            f"got size {name}={size!r}, expected a whole number from 0 to {dims.MAX_SIZE}, or a list of them"
        )
    return tuple(extents) if isinstance(size, list) else extents[0]


def values_of(
    tensor: TensorSpec,
    recipe: Recipe,
    shape: tuple[int, ...],
    sizes: Mapping[str, Size],
    before: Mapping[str, Tensor],
) -> Tensor:
    """The values of a recipe, in float64; ``before`` are those of the tensors that are declared before."""
    domain = tensor.domain
    if recipe.values is not None:
        if len(recipe.values) != math.prod(shape):
            raise DeclarationError(f"the case has {len(recipe.values)} values for shape {list(shape)}")
        return torch.tensor(recipe.values, dtype=torch.float64).reshape(shape)
    generator = torch.Generator().manual_seed(recipe.seed)
    if recipe.mode == "lattice" and domain.make is None:
        lattice = torch.tensor(domain.lattice(sizes) or (0.0,), dtype=torch.float64)
        chosen = lattice[torch.randint(len(lattice), shape, generator=generator)]
        values = domain.project(chosen, sizes)
    else:
        values = domain.sample(shape, generator, sizes, tensors=before).to(torch.float64)
        if recipe.mode in _SCALES and domain.scalable:
            values = (values * _SCALES[recipe.mode]).clamp(domain.low, domain.high)
    if recipe.point is None:
        return values
    point = domain.special.get(recipe.point)
    if point is None:
        raise DeclarationError(f"{domain!r} has no special point {recipe.point!r}; it has {sorted(domain.special)}")
    return point(values).to(torch.float64)


def from_bytes(
    domain: Domain, shape: tuple[int, ...], drawn: bytes, mode: str, sizes: Mapping[str, Size], salt: int = 0
) -> tuple[float, ...]:
    """Exact values from one byte an element; equal bytes are equal values.

    In mode ``lattice`` a byte picks a lattice value, the byte 0 the simplest, so that ties and zeros are common.  In mode
    ``smooth`` it picks a quantile, moved by the element's position and ``salt``, so that no two elements tie and even
    zero bytes are generic values.
    """
    codes = torch.frombuffer(bytearray(drawn), dtype=torch.uint8) if drawn else torch.empty(0, dtype=torch.uint8)
    if mode == "lattice":
        lattice = torch.tensor(domain.lattice(sizes) or (0.0,), dtype=torch.float64)
        values = lattice[codes.long() % len(lattice)]
    else:
        place = torch.arange(1, len(codes) + 1, dtype=torch.float64) + salt % 1009
        scattered = (place * 0.7548776662466927).frac() + codes.to(torch.float64) / 256
        values = _typeable(domain, domain.quantile(scattered.frac().clamp(1e-3, 1 - 1e-3), sizes), sizes)
    return tuple(domain.project(values.reshape(shape), sizes).reshape(-1).tolist())


def _typeable(domain: Domain, values: Tensor, sizes: Mapping[str, Size]) -> Tensor:
    """Three decimals, which a person can type and which are not exact in binary; unrounded where that would tie or leave."""
    rounded = values.round(decimals=3)
    loses = len(rounded.unique()) < len(values.unique()) or bool(((rounded == 0) & (values != 0)).any())
    return values if domain.kind != "float" or loses or not domain.legal(rounded, sizes) else rounded


def lay_out(tensor: Tensor, layout: str) -> Tensor:
    """The same values in another memory layout; ``expanded`` repeats the first slice of the last axis with stride 0.

    Raises:
        DeclarationError: an unknown layout.
    """
    if layout == "contiguous":
        return tensor.contiguous()
    if layout == "transposed":
        return tensor.transpose(0, -1).contiguous().transpose(0, -1) if tensor.ndim > 1 else tensor
    if layout == "strided":
        if tensor.ndim == 0:
            return tensor
        return torch.stack([tensor, tensor], dim=-1).flatten(-2)[..., ::2]
    if layout == "offset":
        flat = torch.cat([tensor.new_zeros(3), tensor.reshape(-1)])
        return flat[3:].view(tensor.shape)
    if layout == "channels_last":
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        return tensor.to(memory_format=formats[tensor.ndim]) if tensor.ndim in formats else tensor
    if layout == "expanded":
        return tensor[..., :1].expand(tensor.shape) if tensor.ndim else tensor
    raise DeclarationError(f"got layout {layout!r}, expected one of {list(LAYOUTS)}")
