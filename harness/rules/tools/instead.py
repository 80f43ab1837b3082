"""What a candidate computes instead of the reference: the reference's value of other inputs, or a multiple of it.

A factor of sizes, as of a sum for a mean, is told by `harness.rules.tools.remarks`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.calls.evaluation import LossRaised
from harness.calls.watch import Calls
from harness.declare import dims
from harness.declare.dims import Size
from harness.errors import NotApplicable
from harness.rules.tools.allowed import is_allowed
from harness.rules.tools.compare import same_output
from harness.rules.tools.sizes import growable, resized, uniform, with_room
from harness.rules.tools.symbols import axes_of, sliced
from harness.rules.trial import Trial, contract

EQUAL = 1e-6  # of values whose first six digits agree
EXACT = 1e-12  # of values that agree in float64
SMALLEST = 3  # of a size: of two classes, one more is one less
OPERATIONS = 300_000  # of all that is tried together: a second or a few, so that no guess costs the finding it is for
DRAWS = 2  # at sizes that differ, and as many at equal ones: what agrees in all of them by chance is no loss

Tensors = Mapping[str, Tensor]
Change = Callable[[Tensors], Tensors]


@dataclass(frozen=True)
class _Guess:
    """A way in which the candidate's value would be that of the reference.

    Args:
        text: what the candidate then does.
        reference: changes what the reference is given.
        candidate: changes what the candidate is given.
        square: whether it can be asked at equal sizes alone.
    """

    text: str
    reference: Change = dict
    candidate: Change = dict
    square: bool = False


def computed_instead(trial: Trial) -> str:
    """What the candidate computes, where a usual slip explains its value at several other draws; else empty.

    Raises:
        NotApplicable: a size is computed from another, and would be less than nothing.
        LossRaised: one of the two raises at the draws.
    """
    spec, symbols = trial.spec, growable(trial.spec)
    apart: dict[str, Size] = {s: (SMALLEST + i,) if s in spec.variadic else SMALLEST + i for i, s in enumerate(symbols)}
    more = {s: tuple(n + 2 for n in size) if isinstance(size, tuple) else size + 2 for s, size in apart.items()}
    different = [_drawn(trial, sizes, salt) for salt, sizes in enumerate((apart, more)[:DRAWS])]
    equal = [_drawn(trial, uniform(spec, SMALLEST), salt) for salt in range(2, 2 + DRAWS)]
    tried = Calls(OPERATIONS)
    for guess in _guesses(different[0]):  # whose variadic axes are as many as in all draws
        if all(_holds(guess, at, tried) for at in (equal if guess.square else different)):
            return guess.text
    return _multiple(different) or _mixed(different, tried)


def _drawn(trial: Trial, sizes: Mapping[str, Size], salt: int) -> Trial:
    case = resized(trial.spec, trial.case, with_room(trial.spec, trial.case, sizes))
    recipes = {name: replace(recipe, seed=recipe.seed + 101 * salt) for name, recipe in case.tensors.items()}
    return trial.apart(case=replace(case, tensors=recipes), exhaustive=False)


def _holds(guess: _Guess, at: Trial, tried: Calls) -> bool:
    """Whether it explains the value, where the two differ on what they are given; of values that are not allowed nothing is asked."""
    reference, drawn = at.of(at.spec.reference), (at.tensors(), at.tensors())
    scale = reference.scale.with_eps(at.eps)
    try:
        if same_output(at.value, reference.value, scale) is None:
            return False
        given = guess.candidate(drawn[0]), guess.reference(drawn[1])
        if not all(is_allowed(at, before, made) for before, made in zip(drawn, given, strict=True)):
            return False
        came = at.run(given[0], wrt=(), mode=tried).output
        should = reference.run(given[1], wrt=(), mode=tried).output
    except (LossRaised, IndexError, RuntimeError):
        return False
    return bool(came.isfinite().all() and should.isfinite().all()) and same_output(came, should, scale) is None


def _guesses(trial: Trial) -> Iterator[_Guess]:
    yield from _moved_labels(trial)
    yield from _exchanged(trial)
    yield from _shifted(trial)
    yield from _rolled(trial)
    yield from _transposed(trial)
    yield from _averaged(trial)


def _averaged(trial: Trial) -> Iterator[_Guess]:
    """A weight of [B, 1] beside [B] makes [B, B], whose mean has the mean of the weights alone."""
    for name, tensor in trial.spec.tensors.items():
        if name in trial.spec.differentiable or not tensor.is_floating:
            continue

        def averaged(tensors: Tensors, name: str = name) -> Tensors:
            return {**tensors, name: tensors[name].mean().expand_as(tensors[name])}

        yield _Guess(
            f"it is the reference's value with {name} replaced by its mean: {name} meets every element instead of its own, as "
            "[B, 1] beside [B] does, or is averaged first",
            reference=averaged,
        )


def _moved_labels(trial: Trial) -> Iterator[_Guess]:
    for name, tensor in trial.spec.tensors.items():
        symbol = tensor.domain.symbol
        for by, wraps in itertools.product((1, -1), (True, False)) if symbol is not None else ():

            def moved(tensors: Tensors, name: str = name, by: int = by, wraps: bool = wraps) -> Tensors:
                values, domain = tensors[name], trial.spec.tensors[name].domain
                count = int(domain.count(_sizes(trial, tensors)))
                other = (values + by) % count if wraps else (values + by).clamp(0, count - 1)
                return {
                    **tensors,
                    name: torch.where(values == domain.ignore, values, other) if domain.ignore is not None else other,
                }

            kept = f"modulo {symbol}" if wraps else f"held within 0 to {symbol} - 1"
            yield _Guess(
                f"it is the reference's value for {name} {by:+d}, {kept}: {name} is off by one, or counted from 1",
                reference=moved,
            )


def _sizes(trial: Trial, tensors: Tensors) -> dict[str, Size]:
    """The sizes of the symbols that stand alone on an axis of one of the tensors."""
    found: dict[str, Size] = dict(trial.case.sizes)
    for name, tensor in tensors.items():
        labels = dims.axes(trial.spec.tensors[name].dims, trial.case.sizes)
        found |= {label: n for label, n in zip(labels, tensor.shape, strict=True) if label in found}
    return found


def _exchanged(trial: Trial) -> Iterator[_Guess]:
    declared = trial.spec.tensors
    for first, second in itertools.combinations(declared, 2):
        if (declared[first].dims, declared[first].domain.text) != (declared[second].dims, declared[second].domain.text):
            continue

        def swapped(tensors: Tensors, first: str = first, second: str = second) -> Tensors:
            return {**tensors, first: tensors[second], second: tensors[first]}

        text = f"it is the reference's value with {first} and {second} exchanged"
        yield _Guess(text + _beside_pairs(trial, first, second), reference=swapped)


def _beside_pairs(trial: Trial, first: str, second: str) -> str:
    """To exchange two tensors turns the matrix of their pairs: what has one axis of it may be applied along the other."""
    spec = trial.spec
    for symbol in spec.symbols:
        axes = {name: axes_of(spec, trial.case, name, symbol) for name in spec.tensors}
        beside = [name for name in axes if name not in (first, second) and len(axes[name]) == 1]
        if beside and axes[first] == [0]:
            return (
                f"; where their pairs are a matrix [{symbol}, {symbol}], {', '.join(beside)} is applied along its other axis: "
                "write the axis out, as in w[:, None] or w[None, :]"
            )
    return ""


def _shifted(trial: Trial) -> Iterator[_Guess]:
    """Position t beside position t + 1, as of tokens and the logits that predict the next one."""
    spec = trial.spec
    for symbol in spec.symbols:
        held = {name: axes[0] for name in spec.tensors if len(axes := axes_of(spec, trial.case, name, symbol)) == 1}
        first = [name for name in held if name in spec.differentiable]
        if not first or len(first) == len(held):
            continue
        for early in (True, False):

            def shifted(
                tensors: Tensors, held: Mapping[str, int] = held, first: list[str] = first, early: bool = early
            ) -> Tensors:
                cut = {}
                for name, axis in held.items():
                    begin = int((name in first) is not early)
                    cut[name] = tensors[name].narrow(axis, begin, tensors[name].shape[axis] - 1)
                return {**tensors, **cut}

            later = ", ".join(name for name in held if (name in first) is not early)
            earlier = ", ".join(name for name in held if (name in first) is early)
            pairs = f"position {symbol.lower()} of {earlier} with position {symbol.lower()} + 1 of {later}"
            yield _Guess(
                f"it pairs {pairs}, and the reference does not: one of them shifts along {symbol}", reference=shifted
            )
            yield _Guess(
                f"the reference pairs {pairs}, and it does not: the shift along {symbol} is missing", candidate=shifted
            )


def _rolled(trial: Trial) -> Iterator[_Guess]:
    for name in sorted(trial.spec.tensors, key=lambda name: name in trial.spec.differentiable):
        for symbol, by in itertools.product(trial.spec.symbols, (1, -1)):
            axes = axes_of(trial.spec, trial.case, name, symbol)
            if len(axes) != 1:
                continue

            def rolled(tensors: Tensors, name: str = name, axis: int = axes[0], by: int = by) -> Tensors:
                return {**tensors, name: tensors[name].roll(by, axis)}

            yield _Guess(
                f"it is the reference's value with {name} moved by {by:+d} along {symbol}: look for an index that is off by one",
                reference=rolled,
            )


def _transposed(trial: Trial) -> Iterator[_Guess]:
    """What has two axes of one size is turned, and what has one of them is not: it acts along the other one."""
    spec = trial.spec
    for one, other in itertools.combinations_with_replacement([*spec.symbols], 2):
        axes = {name: [axes_of(spec, trial.case, name, symbol) for symbol in (one, other)] for name in spec.tensors}
        if one == other:
            turned = {name: tuple(a) for name, (a, _) in axes.items() if len(a) == 2}
            beside = [name for name, (a, _) in axes.items() if len(a) == 1]
        else:
            turned = {name: (a[0], b[0]) for name, (a, b) in axes.items() if len(a) == len(b) == 1}
            beside = [name for name, (a, b) in axes.items() if len(a) + len(b) == 1]
        if not turned or not beside:
            continue

        def transposed(tensors: Tensors, turned: Mapping[str, tuple[int, ...]] = turned) -> Tensors:
            return {**tensors, **{name: tensors[name].transpose(*pair) for name, pair in turned.items()}}

        yield _Guess(
            f"it is the reference's value with {', '.join(turned)} transposed: {', '.join(beside)} is applied along the other "
            "axis of equal size; write the axis out, as in w[:, None] or w[None, :]",
            reference=transposed,
            square=True,
        )


def _multiple(drawn: list[Trial]) -> str:
    """What the candidate's value is of the reference's: a factor that weights give, or a constant one, or one beside it."""
    pairs = [(float(contract(at.value)), float(contract(at.of(at.spec.reference).value))) for at in drawn]
    if not all(came and should and math.isfinite(came) and math.isfinite(should) for came, should in pairs):
        return ""
    ratios = [came / should for came, should in pairs]
    if _are_one([1.0, *ratios]):
        is_rounded = all(abs(ratio - 1.0) > EXACT for ratio in ratios)
        return "it agrees to six digits or more: is a constant or a step in float32?" if is_rounded else ""
    for text, factors in _factors(drawn):
        for written, power in ((f"times {text}", 1), (f"divided by {text}", -1)):
            if all(math.isclose(ratio, f**power, rel_tol=EQUAL) for ratio, f in zip(ratios, factors, strict=True)):
                return f"it is the reference's value {written}: look at what is divided by, and at sum and mean"
    return _constant(pairs)


def _constant(pairs: list[tuple[float, float]]) -> str:
    """Which constant stands between the two in all draws, where the reference's own values can be told apart beside it.

    Beside a number that stands for infinity all else is rounding, so that any two differences from it look alike.
    """
    if _are_one([should for _, should in pairs]):
        return ""
    if _are_one([came for came, _ in pairs]):
        is_beside = abs(pairs[0][0]) * EQUAL > max(abs(should) for _, should in pairs)
        stands = (
            "a number that stands for infinity, as in a mask, is counted with"
            if is_beside
            else "no input has a part in it"
        )
        return f"it is {pairs[0][0]:.6g} whatever is drawn, to six digits, and the reference's value is not: {stands}"
    ratio, difference = pairs[0][0] / pairs[0][1], pairs[0][0] - pairs[0][1]
    if all(math.isclose(came / should, ratio, rel_tol=EQUAL) for came, should in pairs):
        return f"it is {ratio:.6g} times the reference's value, for any values and sizes"
    if all(abs(came - should - difference) <= EQUAL * min(abs(difference), abs(should)) for came, should in pairs):
        return (
            f"it is the reference's value {difference:+.6g}, for any values and sizes: a constant is added or left out"
        )
    return ""


def _are_one(values: list[float]) -> bool:
    return all(math.isclose(value, values[0], rel_tol=EQUAL) for value in values)


def _mixed(drawn: list[Trial], tried: Calls) -> str:
    """Which of the two is the mean or the sum of its values for one position at a time, where the other is not."""
    spec = drawn[0].spec
    for symbol, word in itertools.product(growable(spec), ("mean", "sum")):
        candidate = _are_over(drawn, symbol, word, tried)
        reference = _are_over([at.of(spec.reference) for at in drawn], symbol, word, tried)
        if candidate is None or reference is None or candidate is reference:
            continue
        over = f"the {word} over {symbol} of its values for one position of {symbol} at a time"
        mixes = "mixes them, as one division for all of them does"
        if reference:
            return f"the reference is {over}, and this one is not: it {mixes}"
        return f"it is {over}, and the reference is not: that {mixes}"
    return ""


def _are_over(drawn: list[Trial], symbol: str, word: str, tried: Calls) -> bool | None:
    """Whether the value is that mean or sum in every draw; ``None`` where one of them cannot tell."""
    answers = [_is_over(at, symbol, word, tried) for at in drawn]
    return None if None in answers else all(answers)


def _is_over(at: Trial, symbol: str, word: str, tried: Calls) -> bool | None:
    """Whether the value is that mean or sum; ``None`` where it has no finite number for all positions, or for each alone."""
    tensors = at.tensors()
    try:
        slices = sliced(at, tensors, symbol)
        if len(slices) < 2 or not all(is_allowed(at, tensors, part) for part in slices):
            return None
        outputs = [at.run(part, wrt=(), mode=tried).output for part in (tensors, *slices)]
    except (NotApplicable, LossRaised):
        return None
    if any(output.ndim or not output.isfinite() for output in outputs):
        return None
    together, *parts = map(float, outputs)
    return math.isclose(math.fsum(parts) / (len(parts) if word == "mean" else 1), together, rel_tol=EQUAL)


def _factors(drawn: list[Trial]) -> Iterator[tuple[str, list[float]]]:
    spec = drawn[0].spec
    for name in spec.tensors:
        if name in spec.differentiable or spec.tensors[name].domain.symbol is not None:
            continue
        values = [at.tensors()[name].double() for at in drawn]
        yield f"the mean of {name}", [float(v.mean()) or math.inf for v in values]
        yield f"the sum of {name}", [float(v.sum()) or math.inf for v in values]
