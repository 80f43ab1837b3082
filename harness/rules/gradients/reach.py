"""Whether every position along a long axis still has influence: a part of G06."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from harness.calls.evaluation import LossRaised
from harness.declare import annotations as signatures
from harness.declare import dims
from harness.declare.annotations import call_function
from harness.drawing.case import Recipe
from harness.errors import NotApplicable
from harness.rules.rule import Mismatch
from harness.rules.tools.sizes import DOUBLINGS, UNCOUNTED, Effort, along, growable, grown, is_too_much, one, resized
from harness.rules.trial import Trial

SHORT, LONGER = DOUBLINGS[1:]
# Blocks of powers of two that are just full; and the ends of all of them at once: one row left over, all but one, and none.
LONG = (32, 64, 128, 256, 512, 1023, 1024, 1025)
DRAWS = (1, 2, 3)  # of other values, beside which the same positions are left out


def positions_without_influence(trial: Trial) -> Iterator[Mismatch]:
    """Positions of a long axis, or elements there, whose gradient is 0 because of where they stand, though short axes have none.

    What is 0 because of values, as beside a maximum, behind a length or where no index points, moves with other ones that are
    turned round; what a loop over blocks leaves out stays at the end.  Where it begins at one place whatever the length, it is
    a limit, which may be meant.
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
    made = grown(partial(_at, trial, symbol), trial.cache)
    if len(made) < len(DOUBLINGS):
        return None
    (short, _), (longer, _) = _dead(trial, symbol, SHORT), _dead(trial, symbol, LONGER)
    alive = {
        name: [by for by, dead in parts.items() if not bool(dead.any() or longer[name][by].any())]
        for name, parts in short.items()
        if name in longer
    }
    for size in LONG if any(alive.values()) else ():
        if is_too_much(_at(trial, symbol, size), made, size):
            return None
        found, effort = _dead(trial, symbol, size)
        made += [(size, effort)] if size not in UNCOUNTED else []
        for name, by in [(n, way) for n in found for way in alive.get(n, ())]:
            dead = found[name][by]
            if not bool(dead.any()) or bool(dead.all()):
                continue
            if not torch.equal(dead.flip(0), dead) and all(
                torch.equal(dead, _dead(trial, symbol, size, draw)[0].get(name, {}).get(by, ~dead)) for draw in DRAWS
            ):
                return _left_out(trial, symbol, size, name, dead.reshape(size, -1).any(1))
    return None


def _at(trial: Trial, symbol: str, size: int, draw: int = 0) -> Trial:
    """The case with one symbol at a size; lengths are full, so that they leave nothing out."""
    spec = trial.spec
    case = resized(spec, trial.case, one(spec, symbol, size))
    tensors = {name: replace(recipe, seed=recipe.seed + draw) for name, recipe in case.tensors.items()}
    for name, tensor in spec.tensors.items():
        domain = tensor.domain
        if domain.limit is not None and not domain.structured:
            tensors[name] = Recipe(values=(float(domain.count(case.sizes)),) * math.prod(case.shape(spec, name)))
    return trial.apart(case=replace(case, tensors=tensors), exhaustive=False)


def _dead(trial: Trial, symbol: str, size: int, draw: int = 0) -> tuple[Mapping[str, Mapping[str, Tensor]], Effort]:
    """(for each input, which positions of the symbol have a gradient of 0 throughout, and which elements have one; what the
    forward took); in a further ``draw`` all values are other ones, turned round.
    """
    at = _at(trial, symbol, size, draw)
    axes = {name: _axes(at, name, symbol) for name in trial.spec.tensors}
    if draw:
        seen = Effort()
        run = at.run({n: t.flip(axes[n]) if axes[n] else t for n, t in at.tensors().items()}, mode=seen)
    else:
        run, seen = along(at, trial.cache, counts=size not in UNCOUNTED)
    dead: dict[str, Mapping[str, Tensor]] = {}
    for name, gradient in run.gradients.items():
        if gradient is not None and len(axes[name]) == 1 and run.finite:
            zero = (gradient == 0).movedim(axes[name][0], 0)
            dead[name] = {"position": zero.reshape(size, -1).all(1), "element": zero}
    return dead, seen


def _axes(trial: Trial, name: str, symbol: str) -> list[int]:
    return [i for i, label in enumerate(dims.axes(trial.spec.tensors[name].dims, trial.case.sizes)) if label == symbol]


def _left_out(trial: Trial, symbol: str, size: int, name: str, dead: Tensor) -> Mismatch:
    shown, places = _at(trial, symbol, size), dead.nonzero().flatten().tolist()
    limit = places[0] if _is_limit(trial, symbol, name, dead) else None
    return Mismatch(
        f"d loss / d {name} at {len(places)} positions of {symbol} from {places[0]} to {places[-1]} with {symbol} = {size}",
        "0, whatever stands there",
        f"not 0, as at every position with {symbol} = {SHORT} and {LONGER}",
        aspect=f"{symbol} is limited" if limit is not None else f"{symbol} is long",
        kind="gradient",
        tensor=name,
        severity=None if limit is None else "warning" if _stated(trial, limit) is None else "note",
        tensors=shown.tensors(),
        sizes=shown.case.sizes,
        code=f"""
        (gradient,) = torch.autograd.grad(total(loss(**tensors)), [tensors[{name!r}]])
        print((gradient == 0).nonzero().tolist()[:20])
        """,
        hint=f"run the last, shorter block too, and look for a limit on {symbol}"
        if limit is None
        else f"if a limit of {limit} on {symbol} is meant, make it a parameter and declare it: LossSpec(options={{'limit': {limit}}}); "
        "else take all positions",
        note="" if limit is None else f"from position {limit} on nothing has influence, however long {symbol} is",
    )


def _is_limit(trial: Trial, symbol: str, name: str, dead: Tensor) -> bool:
    """Whether all positions from one on are dead at twice that length too, where every block that ends there is full."""
    first = int(dead.nonzero()[0])
    if first == 0 or not bool(dead[first:].all()):
        return False
    try:
        places = _dead(trial, symbol, 2 * first + 1)[0][name]["position"]
    except (LossRaised, NotApplicable, KeyError):  # too many operations there, or not finite
        return False
    return bool(places[first:].all()) and not bool(places[:first].any())


def _stated(trial: Trial, limit: int) -> str | None:
    """The option, or the parameter's default, that says the limit."""
    call = call_function(trial.candidate.implementation)
    defaults = {n: p.default for n, p in signatures.parameters(call).items()}
    stated = {**defaults, **trial.spec.options}
    return next((name for name, value in stated.items() if type(value) is int and value == limit), None)
