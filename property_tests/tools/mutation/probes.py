"""The questions by which mutants are told from originals: inputs of every kind, then everything else that callers do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from harness import LossSpec
from harness.drawing.case import Case, Recipe, lay_out

from .answers import Answer, Question
from .evaluate import evaluate
from .lives import states, transforms
from .tensors import DTYPES, Tensors, cast, drawn, ordinary, size_choices

SCALES = (1e-30, 1e-12, 1e-8, 1e-6, 1e-3, 1e3, 1e8, 1e30)


def questions(spec: LossSpec) -> Iterator[Question]:
    """Every question, those that tell most mutants apart first."""
    yield from _inputs(spec)
    yield from _shapes(spec)
    yield from _dtypes(spec)
    yield from _poisoned(spec)
    yield from transforms(spec)
    yield from states(spec)
    yield from _options(spec)


def _inputs(spec: LossSpec) -> Iterator[Question]:
    """Legal values: smooth, with ties, at special points, scaled, in other layouts and precisions."""
    for seed in range(2):
        for label, sizes in size_choices(spec):
            for mode in ("smooth", "lattice"):
                name = f"{mode} {seed}, {label}"
                yield _evaluated(
                    name, lambda spec, s=sizes, m=mode, k=seed: drawn(spec, s, k, m), legal="=0" not in label
                )
    sizes = dict(size_choices(spec))["distinct"]
    for tensor, declared in spec.tensors.items():
        for point in declared.domain.special:
            for seed in range(2):

                def at_point(spec: LossSpec, tensor: str = tensor, point: str = point, seed: int = seed) -> Tensors:
                    recipes = {n: Recipe(seed=50 * seed + i) for i, n in enumerate(spec.tensors)}
                    return Case(spec.name, sizes, recipes).with_points({tensor: point}).materialize(spec)

                yield _evaluated(f"{tensor} at {point} {seed}", at_point)
        if declared.domain.kind == "float" and declared.domain.scalable:
            for scale in SCALES:
                yield _evaluated(f"{tensor} times {scale}", lambda spec, t=tensor, s=scale: _scaled(spec, t, s))
    for dtype in DTYPES[1:]:
        for label in ("distinct", "wide"):
            chosen = dict(size_choices(spec))[label]
            yield _evaluated(f"{dtype}, {label}", lambda spec, s=chosen, d=dtype: cast(drawn(spec, s, 5, "smooth"), d))
    for layout in ("transposed", "strided", "offset", "expanded"):
        yield _evaluated(layout, lambda spec, a=layout: {n: lay_out(t, a) for n, t in ordinary(spec).items()})


def _scaled(spec: LossSpec, name: str, scale: float) -> Tensors:
    tensors = ordinary(spec)
    return {**tensors, name: tensors[name] * scale}


def _shapes(spec: LossSpec) -> Iterator[Question]:
    """Shapes that are not declared."""
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "unit axis last": lambda t: t.unsqueeze(-1),
        "unit axis first": lambda t: t.unsqueeze(0),
        "transposed": lambda t: t.transpose(0, -1),
        "first alone": lambda t: t[:1],
        "one less": lambda t: t[1:],
        "twice": lambda t: torch.cat([t, t]),
        "last axis twice": lambda t: torch.cat([t, t], -1),
        "last axis one": lambda t: t[..., :1],
        "no axes": lambda t: t.reshape(-1)[0],
        "one axis less": lambda t: t[0],
        "flat": lambda t: t.reshape(-1),
    }
    for label in ("distinct", "coincident", "no further axes"):
        for tensor in spec.tensors:
            for what, change in changes.items():

                def changed(spec: LossSpec, tensor: str = tensor, change: Any = change, label: str = label) -> Tensors:
                    tensors = drawn(spec, dict(size_choices(spec))[label], 3, "smooth")
                    return {**tensors, tensor: change(tensors[tensor])}

                yield _evaluated(f"{tensor} with {what}, {label}", changed, legal=False)


def _dtypes(spec: LossSpec) -> Iterator[Question]:
    """Dtypes and layouts that a tensor may come in although the others have another."""
    for tensor, declared in spec.tensors.items():
        whole = (torch.int64, torch.int32, torch.uint8, torch.bool) if declared.domain.whole else ()
        for dtype in (*DTYPES, *whole):
            for mode in ("smooth", "lattice"):

                def recast(spec: LossSpec, tensor: str = tensor, dtype: Any = dtype, mode: str = mode) -> Tensors:
                    tensors = cast(drawn(spec, dict(size_choices(spec))["distinct"], 4, mode), torch.float32)
                    return {**tensors, tensor: tensors[tensor].to(dtype)}

                yield _evaluated(f"{tensor} in {dtype}, {mode}", recast, legal=False)
    for tensor in (name for name, declared in spec.context.items() if declared.domain.square):
        for layout in (torch.sparse_coo, torch.sparse_csr):
            yield _evaluated(
                f"{tensor} {layout}",
                lambda spec, t=tensor, a=layout: {**ordinary(spec), t: ordinary(spec)[t].double().to_sparse(layout=a)},
                legal=False,
            )


def _poisoned(spec: LossSpec) -> Iterator[Question]:
    """NaN, infinity and huge numbers, alone and under a zero or another small index of the context."""
    values = (float("nan"), float("inf"), 1e300)
    for tensor, declared in spec.tensors.items():
        if declared.domain.kind != "float":
            for index in (-1, 10**6):
                yield _evaluated(
                    f"{tensor} {index}", lambda spec, t=tensor, i=index: _planted(spec, t, i, 0), legal=False
                )
            continue
        for value in values:
            for place in (0, 1, -1):
                name = f"{tensor} {value} at {place}"
                yield _evaluated(name, lambda spec, t=tensor, v=value, p=place: _planted(spec, t, v, p), legal=False)
                for context in spec.context:

                    def under_zero(
                        spec: LossSpec, t: str = tensor, v: float = value, p: int = place, c: str = context
                    ) -> Tensors:
                        tensors = _planted(spec, t, v, p)
                        return {**tensors, c: torch.zeros_like(tensors[c])}

                    yield _evaluated(f"{name} under {context}=0", under_zero, legal=False)


def _planted(spec: LossSpec, name: str, value: float, place: int) -> Tensors:
    tensors = ordinary(spec)
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[place] = value
    return tensors


def _evaluated(name: str, make: Callable[[LossSpec], Tensors], legal: bool = True) -> Question:
    return Question(name, lambda spec: evaluate(spec, make(spec)), legal)


def _options(spec: LossSpec) -> Iterator[Question]:
    """The reductions that every loss with such an option knows; others are other declarations."""
    for reduction in ("none", "mean", "sum", "unknown"):
        for label in ("distinct", "coincident", "no further axes", *(f"{symbol}=0" for symbol in spec.symbols)):

            def reduced(spec: LossSpec, reduction: str = reduction, label: str = label) -> Answer:
                tensors = drawn(spec, dict(size_choices(spec))[label], 6, "smooth")
                return evaluate(spec, tensors, reduction=reduction)

            yield Question(f"reduction={reduction}, {label}", reduced, legal=False)
        for dtype in DTYPES[1:]:

            def in_dtype(spec: LossSpec, reduction: str = reduction, dtype: torch.dtype = dtype) -> Answer:
                return evaluate(spec, cast(ordinary(spec), dtype), reduction=reduction)

            yield Question(f"reduction={reduction}, {dtype}", in_dtype, legal=False)
        for symbol in spec.context:

            def all_zero(spec: LossSpec, reduction: str = reduction, symbol: str = symbol) -> Answer:
                tensors = ordinary(spec)
                return evaluate(spec, {**tensors, symbol: torch.zeros_like(tensors[symbol])}, reduction=reduction)

            yield Question(f"reduction={reduction}, {symbol}=0", all_zero, legal=False)
