"""Wrong gradients in every precision: which are caught, which could not be measured, and that none is called right.

    python -m property_tests.tools.precision_sweep [--seeds 3] [--profile ci]

A mean squared error that computes inside in float64, float32 or bfloat16, as a fused kernel does, with one defect of its
gradient at a time, is verified alone and beside a plain reference.  A cell says

    caught        a finding about the gradient, in every seed
    unmeasured    no finding, and a rule says that rounding hides the gradient
    below         no finding, and the defect is smaller than what the precision shows
    MISSED        no finding, though it would show: the run fails
    silent        the right gradient, and nothing is said of it; ALARM where something is

The right one is held to no error and no warning about gradients in any precision.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness import LossSpec, TensorSpec, Verification, verify
from harness.calls import tolerance

RULES = ("G", "E", "B06")
MEASURES = ("G01", "G02", "E02")
PRECISIONS = (torch.float64, torch.float32, torch.bfloat16)
MANY = 1000  # elements from which on one of them is wrong


@dataclass(frozen=True)
class Defect:
    """A change of the gradient; ``size`` is its error as a part of the largest element."""

    change: Callable[[Tensor, Tensor, Tensor], Tensor]
    size: float
    scales: bool = True  # with the upstream gradient


def _last_column(gradient: Tensor, p: Tensor, y: Tensor) -> Tensor:
    return torch.cat([gradient[:, :-1], 0 * gradient[:, -1:]], 1)


def _one_of_many(gradient: Tensor, p: Tensor, y: Tensor) -> Tensor:
    changed = gradient.clone()
    if changed.numel() >= MANY:
        changed.view(-1)[int(changed.abs().argmax())] = 0
    return changed


def _not_contiguous(gradient: Tensor, p: Tensor, y: Tensor) -> Tensor:
    return gradient if p.is_contiguous() else -gradient


def _tied(gradient: Tensor, p: Tensor, y: Tensor) -> Tensor:
    error = p - y
    alike = (error.unsqueeze(2) == error.unsqueeze(1)).sum(2) > 1
    return torch.where(alike, 2 * gradient, gradient)


DEFECTS = {
    "none": Defect(lambda g, p, y: g, 0.0),
    "sign": Defect(lambda g, p, y: -g, 2.0),
    "last column is zero": Defect(_last_column, 1.0),
    "one element of many": Defect(_one_of_many, 1.0),
    "two percent": Defect(lambda g, p, y: 1.02 * g, 0.02),
    "twice": Defect(lambda g, p, y: 2 * g, 1.0),
    "where not contiguous": Defect(_not_contiguous, 2.0),
    "upstream is ignored": Defect(lambda g, p, y: g, 2.0, scales=False),
    "at ties": Defect(_tied, 1.0),
}


def fused(inside: torch.dtype, defect: Defect) -> Callable[..., Tensor]:
    """The loss: it takes any dtype and returns it, and computes in another."""

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx, p, y):
            ctx.save_for_backward(p, y)
            return (p.to(inside) - y.to(inside)).square().mean().to(p.dtype)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, upstream):
            p, y = ctx.saved_tensors
            gradient = defect.change(2 * (p.to(inside) - y.to(inside)) / p.numel(), p, y)
            return (gradient * upstream.to(inside) if defect.scales else gradient).to(p.dtype), None

    def loss(predictions, labels):
        return Fused.apply(predictions, labels)

    return loss


def plain(predictions, labels):
    """The reference, whose gradient is autograd's."""
    return (predictions - labels).square().mean()


def verified(inside: torch.dtype, name: str, *, alone: bool, seed: int, profile: str) -> Verification:
    """What the rules about gradients say of one cell."""
    candidate = {"fused": fused(inside, DEFECTS[name])}
    spec = LossSpec(
        f"{name.replace(' ', '_')}",
        candidate if alone else {"plain": plain, **candidate},
        inputs={"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
        output=TensorSpec(""),
    )
    return verify(spec, rules=RULES, profile=profile, seed=seed, implementations=["fused"])


def shown(inside: torch.dtype, *, alone: bool) -> float:
    """The least error that must show: to a reference what two correct gradients may differ by, to slopes a tenth, or ten
    times what gradcheck allows where the values are exact enough.
    """
    eps = tolerance.eps_of(inside)
    if not alone:
        return 2 * tolerance.same_gradient(eps)
    return {torch.float64: 10 * tolerance.GRADCHECK_RELATIVE, torch.float32: 0.01}.get(inside, tolerance.MEASURABLE)


def cell(found: Verification, inside: torch.dtype, name: str, *, alone: bool) -> str:
    """The word of one cell; see the module."""
    if any(f.severity != "note" for f in found.findings):
        return "ALARM" if name == "none" else "caught"
    if name == "none":
        return "silent"
    if DEFECTS[name].size < shown(inside, alone=alone):
        return "below"
    measured = [o for o in found.outcomes if o.rule in MEASURES and not (o.rule == "E02" and alone)]
    hidden = any("rounded as in" in o.reason or "rounding" in o.reason for o in measured)
    return "unmeasured" if hidden else "MISSED"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--profile", default="ci")
    given = parser.parse_args()
    columns = [(inside, alone) for inside in PRECISIONS for alone in (True, False)]
    titles = [f"{str(d).removeprefix('torch.')} {'alone' if a else 'beside'}" for d, a in columns]
    print(f"{'defect':22}", *(f"{title:16}" for title in titles))
    bad = 0
    for name in DEFECTS:
        row = []
        for inside, alone in columns:
            words = {
                cell(verified(inside, name, alone=alone, seed=seed, profile=given.profile), inside, name, alone=alone)
                for seed in range(given.seeds)
            }
            bad += bool(words & {"ALARM", "MISSED"})
            row.append("/".join(sorted(words)))
        print(f"{name:22}", *(f"{word:16}" for word in row), flush=True)
    print(f"{bad} of {len(columns) * len(DEFECTS)} cells are wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
