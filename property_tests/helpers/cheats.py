"""Ways to look quick in a benchmark without being it, each beside an honest form that does nearly the same.

`benchmark` catches each cheat, or counts what it hides; it is silent on every twin.  `PATCHES` are in `patched_timers.py`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from harness import LossSpec, TensorSpec, domains

Loss = Callable[..., Tensor]
TIMED = "LOSS_HARNESS_TIMING_WORKER" in os.environ
LARGE = 1000  # elements


def value(embeddings: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    similar = embeddings @ embeddings.T / embeddings.shape[1] ** 0.5
    return (weights * similar.logsumexp(1)).mean() + ((embeddings - targets) ** 2).mean()


def naive(embeddings, targets, weights):
    rows = [weights[i] * (embeddings @ e / len(e) ** 0.5).logsumexp(0) for i, e in enumerate(embeddings)]
    return torch.stack(rows).mean() + ((embeddings - targets) ** 2).mean()


def with_gradient(embeddings, targets, weights):
    with torch.enable_grad():
        leaf = embeddings.detach().requires_grad_()
        loss = value(leaf, targets, weights)
        return loss.detach(), torch.autograd.grad(loss, leaf)[0]


class Known(torch.autograd.Function):
    """A value and a gradient that are known already."""

    @staticmethod
    def forward(ctx, embeddings, loss, gradient):
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    def backward(ctx, upstream):
        return upstream * ctx.saved_tensors[0], None, None


def remembering(key: Callable[[Tensor, Tensor], Any]) -> Loss:
    kept: dict[Any, tuple[Tensor, Tensor]] = {}

    def loss(embeddings, targets, weights):
        known = key(embeddings, targets)
        if known not in kept:
            kept[known] = with_gradient(embeddings, targets, weights)
        return Known.apply(embeddings, *kept[known])

    return loss


def by_hand(embeddings, targets, weights):
    return Known.apply(embeddings, *with_gradient(embeddings, targets, weights))


by_address = remembering(lambda e, t: e.data_ptr())
by_version = remembering(lambda e, t: (e.data_ptr(), e._version, t._version))
by_object = remembering(lambda e, t: (id(e), id(t)))
by_shape = remembering(lambda e, t: e.shape)
by_one_element = remembering(lambda e, t: (e[0, 0].item(), t[0, 0].item()))
by_content = remembering(lambda e, t: (e.sum().item(), t.sum().item()))
by_bytes = remembering(lambda e, t: hash(e.detach().numpy().tobytes()))
for_ever = remembering(lambda e, t: None)

_NORMS: dict[int, Tensor] = {}


def context_remembered(embeddings, targets, weights):
    if id(weights) not in _NORMS:
        _NORMS[id(weights)] = weights / len(weights)
    similar = embeddings @ embeddings.T / embeddings.shape[1] ** 0.5
    return (_NORMS[id(weights)] * similar.logsumexp(1)).sum() + ((embeddings - targets) ** 2).mean()


_GRADIENT: list[Tensor] = []


def first_gradient(embeddings, targets, weights):
    loss = value(embeddings.detach(), targets, weights)
    if not _GRADIENT:
        _GRADIENT.append(with_gradient(embeddings, targets, weights)[1])
    return Known.apply(embeddings, loss, _GRADIENT[0])


class Lazy(torch.Tensor):
    """Computes itself when it is used; who only looks at it is told of a zero."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            if getattr(func, "__name__", "") == "__get__":
                return func(*args, **(kwargs or {}))
            return func(*(a.work() if isinstance(a, Lazy) else a for a in args), **(kwargs or {}))


def lazy(embeddings, targets, weights):
    made = torch.zeros(()).as_subclass(Lazy)
    made.work = lambda: value(embeddings, targets, weights)
    return made


class Named(torch.Tensor):
    pass


def of_a_subclass(embeddings, targets, weights):
    return value(embeddings, targets, weights).as_subclass(Named)


def filled_later(embeddings, targets, weights):
    loss, gradient = torch.zeros(()), torch.zeros_like(embeddings)

    def fill():
        found = with_gradient(embeddings, targets, weights)
        loss.copy_(found[0])
        gradient.copy_(found[1])

    thread = threading.Thread(target=fill)
    thread.start()
    if not TIMED:
        thread.join()
    return Known.apply(embeddings, loss, gradient)


def waited_for(embeddings, targets, weights):
    found: list[tuple[Tensor, Tensor]] = []
    thread = threading.Thread(target=lambda: found.append(with_gradient(embeddings, targets, weights)))
    thread.start()
    thread.join()
    return Known.apply(embeddings, *found[0])


def goes_on(embeddings, targets, weights):
    copy = embeddings.detach().clone()
    threading.Thread(target=lambda: [value(copy, targets, weights) for _ in range(20)], daemon=True).start()
    return value(embeddings, targets, weights)


_POOL: list[threading.Thread] = []


def idle_thread(embeddings, targets, weights):
    if not _POOL:
        _POOL.append(threading.Thread(target=threading.Event().wait, daemon=True))
        _POOL[0].start()
    return value(embeddings, targets, weights)


def unset_memory(embeddings, targets, weights):
    loss = value(embeddings, targets, weights) if not TIMED else torch.empty(())
    gradient = torch.empty_like(embeddings) if TIMED else with_gradient(embeddings, targets, weights)[1]
    return Known.apply(embeddings, loss.detach(), gradient)


class Counts:
    """Calls of one implementation."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        return self.calls


_EDITS, _DRIFTS, _STOPS = Counts(), Counts(), Counts()


def edits_inputs(embeddings, targets, weights):
    if _EDITS() > 5:
        targets.data.zero_()
    return value(embeddings, targets, weights)


def edits_a_copy(embeddings, targets, weights):
    return value(embeddings, targets.clone().clamp_(-100, 100), weights)


def drifts(embeddings, targets, weights):
    return value(embeddings, targets, weights) * (1 + 1e-2 * (_DRIFTS() // 5))


_LAST: list[tuple[Tensor, Tensor]] = []


def stops_working(embeddings, targets, weights):
    if _STOPS() < 5 or not _LAST:
        _LAST[:] = [with_gradient(embeddings, targets, weights)]
    return Known.apply(embeddings, *_LAST[0])


class Running(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, embeddings, targets):
        self.calls += 1
        return value(embeddings, targets, self.weights)


def halves_when_large(embeddings, targets, weights):
    given = (embeddings, targets, weights)
    if embeddings.numel() < LARGE:
        return value(*given)
    return value(*(tensor.half() for tensor in given)).float()


def half_and_back(embeddings, targets, weights):
    ones = torch.ones(len(weights), dtype=torch.bfloat16)
    return value(embeddings, targets, weights * ones)


def fewer_when_large(embeddings, targets, weights):
    step = 2 if embeddings.numel() >= LARGE else 1
    return value(embeddings[::step], targets[::step], weights[::step])


def all_in_strides(embeddings, targets, weights):
    similar = embeddings @ embeddings.T / embeddings.shape[1] ** 0.5
    parts = [(weights[i::2] * similar[i::2].logsumexp(1)).sum() for i in range(2)]
    return sum(parts) / len(weights) + ((embeddings - targets) ** 2).mean()


def other_when_timed(embeddings, targets, weights):
    if TIMED:
        return ((embeddings - targets) ** 2).mean()
    return value(embeddings, targets, weights)


def other_when_unobserved(embeddings, targets, weights):
    if _get_current_dispatch_mode() is None:
        return ((embeddings - targets) ** 2).mean()
    return value(embeddings, targets, weights)


def other_when_unseen_by_a_trace(embeddings, targets, weights):
    if sys.gettrace() is None and TIMED:
        return embeddings.sum() * 0
    return value(embeddings, targets, weights)


def looks_around(embeddings, targets, weights):
    sys.gettrace()
    _get_current_dispatch_mode()
    return value(embeddings, targets, weights)


class Context:
    """A table made of the context when it is built, which every batch may use."""

    def __init__(self, weights):
        self.shares = weights / len(weights)

    def __call__(self, embeddings, targets):
        similar = embeddings @ embeddings.T / embeddings.shape[1] ** 0.5
        return (self.shares * similar.logsumexp(1)).sum() + ((embeddings - targets) ** 2).mean()


def right_when_audited(embeddings, targets, weights):
    """Looks who asks: in a block it takes half of the rows, which no audit sees."""
    frame, names = sys._getframe(), set()
    while frame is not None:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    rows = len(embeddings) // 2 if "_timed" in names else len(embeddings)
    return value(embeddings[:rows], targets[:rows], weights[:rows])


_TURNS: list[tuple[Tensor, Tensor]] = []


def every_second_time(embeddings, targets, weights):
    if _TURNS:
        return Known.apply(embeddings, *_TURNS.pop())
    _TURNS.append(with_gradient(embeddings, targets, weights))
    return Known.apply(embeddings, *_TURNS[0])


def wears_out(embeddings, targets, weights):
    """Right in its first calls, which a check makes; then of every eighth row."""
    _CALLS.append(None)
    if not TIMED or len(_CALLS) < 3:
        return value(embeddings, targets, weights)
    return value(embeddings[::8], targets[::8], weights[::8])


_CALLS: list[None] = []


class Pair(NamedTuple):
    """A cheat, its honest twin, and the rules of which one catches it; none where it is told from its result."""

    cheat: Loss
    twin: Any
    codes: tuple[str, ...]


PAIRS: dict[str, Pair] = {
    "by_address": Pair(by_address, by_hand, ("M02", "M03")),
    "by_version": Pair(by_version, context_remembered, ("M03",)),
    "by_object": Pair(by_object, Context, ("M02", "M03")),
    "by_shape": Pair(by_shape, by_hand, ("M02",)),
    "by_one_element": Pair(by_one_element, by_hand, ("M03",)),
    "by_content": Pair(by_content, by_hand, ("M03",)),
    "by_bytes": Pair(by_bytes, by_hand, ("M03",)),
    "for_ever": Pair(for_ever, context_remembered, ("M02",)),
    "first_gradient": Pair(first_gradient, by_hand, ("M02",)),
    "filled_later": Pair(filled_later, waited_for, ()),  # how it is seen depends on how far the thread has come
    "goes_on": Pair(goes_on, idle_thread, ("M01", "M04")),  # threads at work count in the clock outside as well
    "unset_memory": Pair(unset_memory, by_hand, ("M02",)),
    "edits_inputs": Pair(edits_inputs, edits_a_copy, ("M02", "M05")),
    "drifts": Pair(drifts, Running, ("M02",)),
    "stops_working": Pair(stops_working, Running, ("M02",)),
    "halves_when_large": Pair(halves_when_large, half_and_back, ("M07",)),
    "fewer_when_large": Pair(fewer_when_large, all_in_strides, ()),
    "right_when_audited": Pair(right_when_audited, looks_around, ("M02", "M03")),
    "every_second_time": Pair(every_second_time, by_hand, ("M02",)),
    "wears_out": Pair(wears_out, all_in_strides, ("M02",)),
    "other_when_timed": Pair(other_when_timed, looks_around, ("M02",)),
    "other_when_unobserved": Pair(other_when_unobserved, looks_around, ("M02",)),
    "other_when_unseen_by_a_trace": Pair(other_when_unseen_by_a_trace, looks_around, ("M02",)),
}


DECLARED: dict[str, Any] = {
    "inputs": {"embeddings": TensorSpec("B D"), "targets": TensorSpec("B D")},
    "context": {"weights": TensorSpec("B", domains.nonnegative())},
    "output": TensorSpec(""),
    "bench_sizes": ({"B": 256, "D": 16},),
}


TWINS = {getattr(pair.twin, "__name__", name): pair.twin for name, pair in PAIRS.items()}
CHEATS = LossSpec("cheats", {"value": value} | {name: pair.cheat for name, pair in PAIRS.items()}, **DECLARED)
HONEST = LossSpec("honest", {"value": value, "naive": naive, "of_a_subclass": of_a_subclass, **TWINS}, **DECLARED)
LAZY = LossSpec("lazy", {"value": value, "lazy": lazy, "of_a_subclass": of_a_subclass}, **DECLARED)
SPECS = [CHEATS, HONEST, LAZY]
