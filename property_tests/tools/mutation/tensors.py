"""Tensors that a declaration allows, of sizes and modes of our own choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from harness import LossSpec
from harness.declare.dims import Size, least_sizes
from harness.drawing.case import Case, Recipe

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
Tensors = dict[str, Tensor]


def size_choices(spec: LossSpec) -> Iterator[tuple[str, dict[str, Size]]]:
    least = {**dict.fromkeys(spec.symbols, 1), **least_sizes([t.dims for t in spec.tensors.values()])}

    def made(pick: Callable[[int], int], axes: tuple[int, ...]) -> dict[str, Size]:
        free = {s: max(pick(i), least[s]) for i, s in enumerate(spec.symbols)}
        return {**free, **dict.fromkeys(spec.variadic, axes), **spec.fixed_sizes}

    yield "distinct", made(lambda i: 3 + i, (2,))
    yield "reversed", made(lambda i: 7 - i, (3, 2))
    yield "coincident", made(lambda i: 4, (4,))
    yield "no further axes", made(lambda i: 2 + i, ())
    yield "wide", made(lambda i: 9 + 2 * i, (5,))
    for symbol in spec.symbols:
        yield f"{symbol}=1", {**made(lambda i: 3 + i, (2,)), symbol: least[symbol]}
        yield f"{symbol}=0", {**made(lambda i: 3 + i, (2,)), symbol: 0}
    for symbol in spec.variadic:
        yield f"{symbol} empty", {**made(lambda i: 3 + i, (2,)), symbol: (0,)}


def drawn(spec: LossSpec, sizes: Mapping[str, Size], seed: int, mode: str) -> Tensors:
    recipes = {name: Recipe(seed=1000 * seed + position, mode=mode) for position, name in enumerate(spec.tensors)}
    return Case(spec.name, sizes, recipes).materialize(spec)


def ordinary(spec: LossSpec, seed: int = 3) -> Tensors:
    return drawn(spec, next(size_choices(spec))[1], seed, "smooth")


def cast(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    return {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}
