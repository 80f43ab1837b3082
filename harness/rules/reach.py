"""Whether every position along a long axis still has influence: a part of G06."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from harness import dims
from harness.errors import NotApplicable
from harness.evaluation import LossRaised
from harness.rules.rule import Mismatch
from harness.rules.sizes import ELEMENTS, Effort, elements, growable, one, resized
from harness.rules.trial import Trial

SHORT, LONGER, LONG = 8, 24, 1025  # the last is one more than a multiple of every block that is a power of two


def positions_without_influence(trial: Trial) -> Iterator[Mismatch]:
    """Positions of a long axis whose gradient is 0 because of where they stand, though short axes have none.

    What is 0 because of its value, as beside a maximum, moves with the values when they are turned round; what a loop over
    blocks leaves out stays at the end.
    """
    for symbol in growable(trial.spec):
        if symbol in trial.spec.variadic:
            continue
        try:
            found = _along(trial, symbol)
        except (LossRaised, NotApplicable):
            continue  # raises, has too many operations, or no such size; B01 and E05 say more
        if found is not None:
            yield found
            return


def _along(trial: Trial, symbol: str) -> Mismatch | None:
    short, few = _dead(trial, symbol, SHORT)
    longer, more = _dead(trial, symbol, LONGER)
    grown = more * (LONG / LONGER) ** max(math.log(more / few) / math.log(LONGER / SHORT), 0.0)
    if grown > ELEMENTS or elements(trial.spec, _at(trial, symbol, LONG).case) > ELEMENTS:
        return None
    found, _ = _dead(trial, symbol, LONG)
    for name, dead in found.items():
        alive = all(name in shorter and not bool(shorter[name].any()) for shorter in (short, longer))
        if not alive or not bool(dead.any()) or bool(dead.all()):
            continue
        turned = _dead(trial, symbol, LONG, turned=True)[0].get(name)
        if turned is not None and torch.equal(turned, dead) and not torch.equal(dead.flip(0), dead):
            return _left_out(trial, symbol, name, dead)
    return None


def _at(trial: Trial, symbol: str, size: int) -> Trial:
    case = resized(trial.spec, trial.case, one(trial.spec, symbol, size))
    return trial.apart(case=case, exhaustive=False)


def _dead(trial: Trial, symbol: str, size: int, *, turned: bool = False) -> tuple[Mapping[str, Tensor], int]:
    """(for each input, which positions of the symbol have a gradient of 0 throughout; elements of the largest tensor)."""
    at, seen = _at(trial, symbol, size), Effort()
    axes = {name: _axes(at, name, symbol) for name in trial.spec.tensors}
    tensors = {n: t.flip(axes[n]) if turned and axes[n] else t for n, t in at.tensors().items()}
    run = at.run(tensors, mode=seen)
    dead: dict[str, Tensor] = {}
    for name, gradient in run.gradients.items():
        if gradient is not None and len(axes[name]) == 1 and run.finite:
            dead[name] = (gradient == 0).movedim(axes[name][0], 0).reshape(size, -1).all(1)
    return dead, seen.largest


def _axes(trial: Trial, name: str, symbol: str) -> list[int]:
    return [i for i, label in enumerate(dims.axes(trial.spec.tensors[name].dims, trial.case.sizes)) if label == symbol]


def _left_out(trial: Trial, symbol: str, name: str, dead: Tensor) -> Mismatch:
    shown, places = _at(trial, symbol, LONG), dead.nonzero().flatten().tolist()
    return Mismatch(
        f"d loss / d {name} at {len(places)} positions of {symbol} from {places[0]} to {places[-1]} with {symbol} = {LONG}",
        "0, whatever stands there",
        f"not 0, as at every position with {symbol} = {SHORT} and {LONGER}",
        aspect=f"{symbol} is long",
        tensors=shown.tensors(),
        sizes=shown.case.sizes,
        code=f"""
        (gradient,) = torch.autograd.grad(total(loss(**tensors)), [tensors[{name!r}]])
        print((gradient == 0).nonzero().tolist()[:20])
        """,
        hint=f"run the last, shorter block too, and look for a limit on {symbol}",
    )
