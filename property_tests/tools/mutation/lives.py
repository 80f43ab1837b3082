"""Questions about an instance and its surroundings: transforms, grad modes, casts, copies, calls in a row."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from harness import LossSpec

from .answers import Answer, Question
from .evaluate import build
from .tensors import DTYPES, Tensors, cast, ordinary


def transforms(spec: LossSpec) -> Iterator[Question]:
    """Function transforms, grad modes and other ways to call a loss."""
    first = spec.differentiable[0]

    def function(spec: LossSpec, tensors: Tensors) -> Callable[[Tensor], Tensor]:
        built, called = build(spec, tensors)
        return lambda x: built(**{n: x if n == first else tensors[n] for n in called}).sum()

    def wrap(transform: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]) -> Callable[[LossSpec], Answer]:
        def put(spec: LossSpec) -> Answer:
            tensors = ordinary(spec)
            return {"result": transform(function(spec, tensors), tensors[first]).detach()}

        return put

    yield Question("func.grad", wrap(lambda f, x: torch.func.grad(f)(x)))
    yield Question("vmap", wrap(lambda f, x: torch.func.vmap(f)(torch.stack([x, 2 * x, -x]))))
    yield Question("vmap of grad", wrap(lambda f, x: torch.func.vmap(torch.func.grad(f))(torch.stack([x, 2 * x]))))
    yield Question("jvp", wrap(lambda f, x: torch.func.jvp(f, (x,), (torch.cos(x),))[1]))
    yield Question("no_grad", wrap(lambda f, x: torch.no_grad()(f)(x)))
    yield Question("inference", wrap(lambda f, x: torch.inference_mode()(f)(x).clone()))
    yield Question("autocast", lambda spec: _autocast(spec, function))
    yield Question("meta", lambda spec: _meta(spec))
    yield Question("other leaves", lambda spec: _other_leaves(spec))


def _autocast(spec: LossSpec, function: Callable[..., Any]) -> Answer:
    tensors = cast(ordinary(spec), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        return {"result": function(spec, tensors)(tensors[spec.differentiable[0]])}


def _meta(spec: LossSpec) -> Answer:
    tensors = {n: t.to("meta") for n, t in ordinary(spec).items()}
    built, called = build(spec, tensors)
    output = built(**{n: tensors[n] for n in called})
    return {"shape": str(list(output.shape)), "dtype": str(output.dtype), "device": str(output.device)}


def _other_leaves(spec: LossSpec) -> Answer:
    """Where gradients flow when every floating tensor requires one."""
    tensors = {n: t.clone().requires_grad_() if t.is_floating_point() else t for n, t in ordinary(spec).items()}
    built, called = build(spec, tensors)
    output = built(**{n: tensors[n] for n in called})
    found = torch.autograd.grad(output.sum(), [t for t in tensors.values() if t.requires_grad], allow_unused=True)
    gradients = dict(zip([n for n, t in tensors.items() if t.requires_grad], found, strict=True))
    reached = frozenset(n for n, g in gradients.items() if g is not None and n not in spec.differentiable)
    return {**{n: gradients[n] for n in spec.differentiable}, "reached": reached}


def states(spec: LossSpec) -> Iterator[Question]:
    """What an instance keeps: buffers, casts, copies, calls in a row, train and eval, the caller's memory."""
    for dtype in (None, *DTYPES):
        yield Question(f"state from {dtype}", lambda spec, dtype=dtype: _state(spec, dtype))
    for reduction in (None, "none", "mean", "sum"):
        for name in _LIVES:
            yield Question(f"{name}, reduction={reduction}", lambda spec, n=name, r=reduction: _live(spec, n, r))


_LIVES = (
    "calls in a row",
    "train",
    "moved",
    "moved later",
    "copied",
    "pickled",
    "to meta",
    "caller's memory",
    "loaded",
    "loaded later",
)


def _state(spec: LossSpec, dtype: torch.dtype | None) -> Answer:
    tensors = ordinary(spec)
    built, _ = build(spec, {n: t.to(dtype) if dtype and n in spec.context else t for n, t in tensors.items()})
    if not isinstance(built, nn.Module):
        return {}
    saved = {f"saved {n}": t for n, t in built.state_dict().items()}
    parameters = str([(n, p.requires_grad) for n, p in built.named_parameters()])
    return {**saved, "parameters": parameters, "buffers": str([n for n, _ in built.named_buffers()])}


def _live(spec: LossSpec, what: str, reduction: str | None) -> Answer:
    first, second = ordinary(spec), ordinary(spec, 8)
    options = {} if reduction is None else {"reduction": reduction}
    built, called = build(spec, {n: t.clone() for n, t in first.items()}, **options)
    is_module = isinstance(built, nn.Module)
    dtype = torch.float64
    if what.endswith("later"):
        built(**{n: t for n, t in second.items() if n in called})
    if what == "train" and is_module:
        built.train()
    elif what in ("moved", "moved later") and is_module:
        built, dtype = built.to(torch.float32), torch.float32
    elif what == "copied" and is_module:
        built = copy.deepcopy(built)
    elif what == "pickled" and is_module:
        built = pickle.loads(pickle.dumps(built))
    elif what == "to meta" and is_module:
        built = built.to("meta")
        return {
            "device": str(
                {str(v.device) for v in vars(built).values() if isinstance(v, Tensor)}
                | {str(t.device) for t in built.buffers()}
            )
        }
    elif what == "caller's memory" and is_module:
        mine = {n: t.clone() for n, t in first.items()}
        built, called = build(spec, mine, **options)
        for tensor in mine.values():
            tensor.zero_()
    elif what in ("loaded", "loaded later") and is_module:
        other, _ = build(spec, second)
        built.load_state_dict(other.state_dict())
    outputs = [
        built(**{n: t.to(dtype) if t.is_floating_point() else t for n, t in batch.items() if n in called})
        for batch in (first, second, first)
    ]
    return {f"call {position}": output.detach() for position, output in enumerate(outputs)}
