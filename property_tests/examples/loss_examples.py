"""The reference losses on small tensors, called alike whether they are functions or modules."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness import LossSpec
from harness.calls.evaluation import Candidate
from harness.declare.dims import shape
from losses import SPECS, dynamic_weighted, graph_distance, weighted_mse

EVERY_IMPLEMENTATION = [(spec, name) for spec in SPECS for name in spec.implementations]
IDS = [f"{spec.name}-{name}" for spec, name in EVERY_IMPLEMENTATION]
IMPLEMENTATIONS = ("naive", "vectorized")


@dataclass(frozen=True)
class Example:
    """A loss on tensors for which its value is known."""

    spec: LossSpec
    tensors: dict[str, Tensor]
    value: float


def _numbers(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


WORKED = (
    Example(
        weighted_mse.SPEC,
        {
            "predictions": _numbers([[0.2, 0.7, 0.9], [0.4, 0.3, 0.1], [0.8, 0.6, 0.5]]),
            "labels": _numbers([[0.1, 0.8, 0.8], [0.2, 0.2, 0.2], [0.9, 0.5, 0.4]]),
            "mask": _numbers([[1, 2, 1], [2, 4, 2], [1, 2, 1]]),
        },
        0.024444444444444446,
    ),
    Example(
        graph_distance.SPEC,
        {
            "embeddings": _numbers([[0.5, 0.2], [0.7, 0.6], [0.1, 0.9], [0.8, 0.3]]),
            "adjacency": _numbers([[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 0]]),
        },
        -5.2026702397147595,
    ),
    Example(
        dynamic_weighted.SPEC,
        {
            "predictions": _numbers([[0.2, 0.7], [0.4, 0.3], [0.8, 0.6], [0.1, 0.5]]),
            "labels": _numbers([[0.1, 0.8], [0.2, 0.2], [0.9, 0.5], [0.3, 0.7]]),
            "weights": _numbers([0.5, 2, 0.8, 1.2]),
        },
        0.02775,
    ),
)


@functools.cache  # a declaration is held together once, and not at each of a derivative's many evaluations
def _candidate(spec: LossSpec, implementation: str, options: tuple[tuple[str, Any], ...]) -> Candidate:
    return Candidate(spec.replace(options={**spec.options, **dict(options)}), implementation)


def evaluate(spec: LossSpec, implementation: str, tensors: dict[str, Tensor], **options: Any) -> Tensor:
    """The loss of one implementation; its error is raised as the user would see it."""
    candidate = _candidate(spec, implementation, tuple(options.items()))
    built: Any = candidate.implementation
    if candidate.is_class:
        built = built(**{name: tensors[name] for name in candidate.constructed}, **candidate.constructor_options)
    loss: Tensor = built(**{name: tensors[name] for name in candidate.called}, **candidate.call_options)
    return loss


def generator(seed: int = 0) -> torch.Generator:
    """A source of random numbers of its own."""
    return torch.Generator().manual_seed(seed)


def draw(spec: LossSpec, seed: int = 0, dtype: torch.dtype = torch.float64, **sizes: Any) -> dict[str, Tensor]:
    """Random tensors that the declaration allows; no size is 1 and no two are equal, unless they are given."""
    distinct: dict[str, Any] = {"H": 3, "W": 5, "R": 4, "batch": (2,), "B": 4, "rest": (3, 2), "N": 6, "D": 3, **sizes}
    others = [symbol for symbol in spec.symbols if symbol not in distinct]
    distinct |= {symbol: size for size, symbol in enumerate(others, start=7)}
    source = generator(seed)
    made = {}
    for name, tensor in spec.tensors.items():
        values = tensor.domain.sample(shape(tensor.dims, distinct), source, distinct)
        made[name] = values.to(tensor.domain.dtype(dtype, tensor.dtype))
    return made


def gradient(spec: LossSpec, implementation: str, tensors: dict[str, Tensor], **options: Any) -> Tensor:
    """The gradient of the summed loss with respect to the first differentiable input."""
    name = spec.differentiable[0]
    given = {**tensors, name: tensors[name].detach().clone().requires_grad_()}
    (found,) = torch.autograd.grad(evaluate(spec, implementation, given, **options).sum(), given[name])
    return found
