"""How long a formula takes beside what people write by hand, in turn: `python -m property_tests.tools.formula_speed`.

At the sizes of a verification beside hand-written loops, at those of a benchmark beside the usual vectorized form; forward and
backward.  Ratios above 1 are slower.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.declare.formulas import Formula


def looped_squares(p: Tensor, y: Tensor, w: Tensor) -> Tensor:
    total = p.new_zeros(())
    for b in range(p.shape[0]):
        for c in range(p.shape[1]):
            total = total + w[b] * (p[b, c] - y[b, c]) ** 2
    return total / p.numel()


def squares(p: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return (w[:, None] * (p - y) ** 2).mean()


def looped_entropy(z: Tensor, t: Tensor) -> Tensor:
    total = z.new_zeros(())
    for b in range(len(z)):
        total = total + z[b].logsumexp(0) - z[b, int(t[b])]
    return total / len(z)


def looped_graph(e: Tensor, a: Tensor) -> Tensor:
    total = e.new_zeros(())
    for i in range(len(e)):
        for j in range(len(e)):
            total = total + a[i, j] * (e[i] - e[j]).norm() ** 2
    return total / 2


def graph(e: Tensor, a: Tensor) -> Tensor:
    return (a * (e[:, None] - e).square().sum(-1)).sum() / 2


CASES: Mapping[str, tuple[str, Mapping[str, str], Callable[..., Tensor], Callable[..., Tensor]]] = {
    "weighted squares": (
        "sum(w[b] * (p[b, c] - y[b, c])**2 for b in B for c in C) / (B * C)",
        {"p": "B C", "y": "B C", "w": "B"},
        looped_squares,
        squares,
    ),
    "cross-entropy": (
        "mean(logsumexp(z[b]) - z[b, t[b]] for b in B)",
        {"z": "B C", "t": "B"},
        looped_entropy,
        lambda z, t: F.cross_entropy(z, t),
    ),
    "graph": (
        "sum(a[i, j] * norm(e[i] - e[j])**2 for i in N for j in N) / 2",
        {"e": "N D", "a": "N N"},
        looped_graph,
        graph,
    ),
}


def _made(dims: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    made: dict[str, Tensor] = {}
    for name, text in dims.items():
        shape = [sizes[symbol] for symbol in text.split()]
        if name == "t":
            made[name] = torch.randint(sizes["C"], shape, generator=generator)
        else:
            made[name] = torch.randn(shape, generator=generator, dtype=torch.float64)
    next(iter(made.values())).requires_grad_()
    return made


def _seconds(loss: Callable[..., Tensor], tensors: Mapping[str, Tensor], wanted: float = 0.02) -> float:
    calls, start = 0, time.process_time()
    while time.process_time() - start < wanted:
        torch.autograd.grad(loss(**tensors), next(iter(tensors.values())))
        calls += 1
    return (time.process_time() - start) / calls


def ratio(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], tensors: Mapping[str, Tensor]) -> float:
    """The median over pairs that are timed in turn."""
    return statistics.median(_seconds(ours, tensors) / _seconds(theirs, tensors) for _ in range(9))


def main() -> None:
    torch.set_num_threads(1)
    small, large = {"B": 5, "C": 4, "N": 6, "D": 3}, {"B": 4096, "C": 256, "N": 256, "D": 16}
    for name, (text, dims, looped, usual) in CASES.items():
        formula = Formula(text, dims)
        print(
            f"{name}: {ratio(formula, looped, _made(dims, small)):.2f} of hand-written loops, "
            f"{ratio(formula, usual, _made(dims, large)):.2f} of the usual vectorized form"
        )


if __name__ == "__main__":
    main()
