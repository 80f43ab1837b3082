"""One evaluation of a loss and everything that a caller could notice about it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness import LossSpec
from harness.declare.annotations import construct_parameters

from .answers import Answer, Reached

Tensors = dict[str, Tensor]


def build(spec: LossSpec, tensors: Mapping[str, Tensor], **options: Any) -> tuple[Any, tuple[str, ...]]:
    """A callable of the loss's batch, and the names of the tensors that it takes."""
    loss = spec.implementations["loss"]
    given = {**spec.options, **options}
    if not inspect.isclass(loss):
        taken = {k: v for k, v in given.items() if k in inspect.signature(loss).parameters}
        return (lambda **batch: loss(**batch, **taken)), tuple(spec.tensors)
    accepted = construct_parameters(loss)
    built = loss(
        **{n: tensors[n] for n in spec.tensors if n in accepted}, **{k: v for k, v in given.items() if k in accepted}
    )
    return built, tuple(n for n in spec.tensors if n not in accepted)


class _HostReads(TorchDispatchMode):
    """Counts numbers that are read back to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "_local_scalar_dense" in str(func) or "nonzero" in str(func)
        return func(*args, **(kwargs or {}))


def evaluate(spec: LossSpec, tensors: Tensors, **options: Any) -> Answer:
    """Value, gradients of first and second order, what was modified, how often the host waited."""
    wrt = [n for n in spec.differentiable if tensors[n].is_floating_point()]
    leaves = {n: t.detach().clone().requires_grad_() if n in wrt else t for n, t in tensors.items()}
    given = {
        n: t.detach().to_dense().clone() if t.layout != torch.strided else t.detach().clone() for n, t in leaves.items()
    }
    versions = {n: t._version for n, t in leaves.items()}
    built, called = build(spec, leaves, **options)
    reads = _HostReads()
    with reads:
        output = built(**{n: leaves[n] for n in called})
    answer: dict[str, Tensor | str | Reached | None] = {
        "output": output.detach(),
        "graph": str(output.requires_grad),
        "reads": str(reads.count),
    }
    answer["aliases"] = str([n for n, t in leaves.items() if _shares(output, t)])
    answer["modified"] = str(
        [n for n, t in leaves.items() if t._version != versions[n] or not _equal(t.detach(), given[n])]
    )
    if output.requires_grad and wrt:
        answer |= _gradients({n: leaves[n] for n in wrt}, output)
    return answer


def _gradients(leaves: Tensors, output: Tensor) -> Answer:
    weights = 1 + torch.arange(output.numel(), dtype=torch.float64).mul(0.618).frac().reshape(output.shape)
    wrt = list(leaves.values())
    answer: dict[str, Tensor | str | Reached | None] = {}
    for factor in (1.0, -7.5):  # a hook may be right for one upstream gradient alone
        total = (factor * output * weights.to(output.dtype)).sum()
        found = torch.autograd.grad(total, wrt, allow_unused=True, create_graph=factor == 1.0, retain_graph=True)
        answer |= {f"d {n} {factor}": None if g is None else g.detach() for n, g in zip(leaves, found, strict=True)}
        curved = [g for g in found if g is not None and g.requires_grad]
        if curved:
            second = torch.autograd.grad(
                sum((g * (0.3 + g.detach().cos())).sum() for g in curved), wrt, allow_unused=True, retain_graph=True
            )
            answer |= {f"dd {n}": None if g is None else g.detach() for n, g in zip(leaves, second, strict=True)}
    return answer


def _shares(output: Tensor, tensor: Tensor) -> bool:
    strided = output.layout == tensor.layout == torch.strided
    return strided and output.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr() != 0


def _equal(tensor: Tensor, before: Tensor) -> bool:
    dense = tensor.to_dense() if tensor.layout != torch.strided else tensor
    return torch.equal(torch.nan_to_num(dense.double()), torch.nan_to_num(before.double()))
