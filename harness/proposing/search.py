"""The readings of a loss's parameters under which it runs, the most usual first.

Each parameter may be several things.  Combinations are tried in the order of their cost, the sum of what is unusual about
them, until one runs and nothing that is nearly as usual runs better: returns one number, and none below zero, as losses do
on inputs that they are meant for.
"""

from __future__ import annotations

import heapq
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from harness.declare import dims, structures
from harness.declare.spec import LossSpec
from harness.errors import DeclarationError
from harness.proposing import knowledge
from harness.proposing.calls import FIRST_S, FURTHER, SIZES, Seen, SlowCallError, falls_below_zero, look, selector
from harness.proposing.knowledge import Guess
from harness.proposing.parameters import Parameter, tensor_spec

SLOW = SlowCallError.__name__
MOST_TRIALS = 1500
MOST_S = 20.0  # of the processor, which only losses that are slow to call need for so many trials
WINDOW = 1.0  # of the cost above the first that runs, in which a better one is looked for
REFUSES = 1.5  # the cost of values of which some are refused
NEGATIVE = 0.9  # the cost of an output below zero
ONE_PER_SAMPLE = 0.2  # the cost of an output that is no number but one for each sample, or for each element
NOT_ONE_NUMBER = 2.0  # of any other output
ALIKE = 0.25  # what predictions of one shape are tried earlier by
UNLINKED = 0.9  # of classes or positions that no axis has
STRANGE = 0.9  # of labels that belong to predictions of another kind
UNLINKED_EMBEDDINGS = 0.15  # labels of embeddings name groups, and groups are no axis

Reading = Mapping[str, Guess]


@dataclass(frozen=True)
class Running:
    """A reading under which the loss runs, and what was seen of it."""

    reading: Reading
    seen: Seen
    cost: float


@dataclass(frozen=True)
class Outcome:
    """What a search has found, the best first, what the loss said of the rest, and whether its time was over first."""

    running: tuple[Running, ...]
    trials: int
    errors: Counter[str]
    is_late: bool = False


def search(name: str, loss: Callable[..., Any], parameters: Sequence[Parameter], most_s: float = MOST_S) -> Outcome:
    """Try readings of these parameters; all others are left out of the call."""
    found: list[Running] = []
    errors: Counter[str] = Counter()
    started, trials, best, is_late = time.process_time(), 0, math.inf, False
    for cost, reading in _by_cost(parameters):
        if trials >= MOST_TRIALS or cost > best:
            break
        is_late = time.process_time() - started > most_s
        if is_late:
            break
        trials += 1
        seen = look_at(name, loss, parameters, reading)
        if SLOW in seen.error and not any(SLOW in error for error in errors):
            errors[seen.error] += 1
            seen = look_at(name, loss, parameters, reading, FIRST_S)
        if seen.error:
            errors[seen.error] += 1
            continue
        below = not seen.nonnegative or _is_negative_for_signs(name, loss, parameters, reading)
        negative = NEGATIVE if below else 0.0
        negative += REFUSES if seen.refused else 0.0
        found.append(Running(reading, seen, cost + negative + _of_shape(seen.shape) + _of_values(reading)))
        best = min(best, found[-1].cost, cost + WINDOW)  # what follows costs no less
    return Outcome(tuple(sorted(found, key=lambda one: one.cost)), trials, errors, is_late)


def _is_negative_for_signs(
    name: str, loss: Callable[..., Any], parameters: Sequence[Parameter], reading: Reading
) -> bool:
    """Whether a label of -1 and 1 makes a loss negative at a special point, as one does that is meant to be 0 or 1."""
    if not any(guess.domain == "sign" and guess.confidence == "guessed" for guess in reading.values()):
        return False
    return falls_below_zero(spec_of(name, loss, parameters, reading))


def _of_shape(shape: tuple[int, ...]) -> float:
    if not shape:
        return 0.0
    return ONE_PER_SAMPLE if shape[0] in (SIZES[0]["B"], SIZES[0]["N"], FURTHER) else NOT_ONE_NUMBER


def look_at(
    name: str,
    loss: Callable[..., Any],
    parameters: Sequence[Parameter],
    reading: Reading,
    call_s: float | None = None,
) -> Seen:
    """What trial calls show of one reading."""
    try:
        return look(spec_of(name, loss, parameters, reading), call_s)
    except DeclarationError as error:
        return Seen(error=str(error).splitlines()[0])


def spec_of(
    name: str, loss: Callable[..., Any], parameters: Sequence[Parameter], reading: Reading, **more: Any
) -> LossSpec:
    """The spec of a reading: what a constructor takes, and weights, are context.

    Raises:
        DeclarationError: the reading contradicts itself or the loss.
    """
    inputs: dict[str, Any] = {}
    context: dict[str, Any] = {}
    options: dict[str, Any] = {}
    fixed: dict[str, int] = {}
    for parameter in parameters:
        guess = reading[parameter.name]
        if guess.dims is None:
            options[parameter.name] = guess.value
            if guess.fixes is not None:
                fixed[guess.fixes] = guess.value
        else:
            place = context if is_context(parameter) else inputs
            place[parameter.name] = tensor_spec(guess.dims, guess.domain, guess.several)
    if not inputs:
        raise DeclarationError(f"{name}: none of {list(reading)} is a tensor of the batch")
    given = [tensor_spec(guess.dims, guess.domain) for guess in reading.values() if guess.dims is not None]
    used = {symbol for tensor in given for symbol in (*dims.scalar_symbols([tensor.dims]), *tensor.domain.symbols)}
    sizes = {symbol: size for symbol, size in fixed.items() if symbol in used}
    if "differentiable" not in more:
        more["differentiable"] = _predictions(inputs, {p.name for p in parameters if p.predicted})
    more["select"] = selector(more.get("select", ""))
    return LossSpec(name, {name: loss}, inputs=inputs, context=context, options=options, fixed_sizes=sizes, **more)


def _predictions(inputs: Mapping[str, Any], predicted: Set[str]) -> list[str]:
    """Floating inputs that are called like predictions; a loss may refuse labels that ask for a gradient."""
    flat = [structures.flatten(name, value, lambda _, tensor: tensor)[1] for name, value in inputs.items()]
    floating = [
        n for tensors in flat for n, tensor in tensors.items() if tensor.differentiable and not tensor.domain.whole
    ]
    flat_of = {name: name.partition(".")[0] for name in floating}
    found = [n for n, p in flat_of.items() if p in predicted or knowledge.kind_of(p)[1].role == "prediction"]
    return found or floating[:1]


def is_context(parameter: Parameter) -> bool:
    """Whether the tensor exists before training: a constructor takes it, or it weighs."""
    weighs = knowledge.kind_of(parameter.name)[1].role == "weight" and not parameter.predicted
    return parameter.place == "constructor" or weighs


def _by_cost(parameters: Sequence[Parameter]) -> Iterator[tuple[float, Reading]]:
    """Every combination of guesses, in the order of the sum of their costs; predictions of one shape a little before."""
    guesses = [parameter.guesses for parameter in parameters]
    if not all(guesses):
        return
    names = [parameter.name for parameter in parameters]
    of_predictions = all(knowledge.kind_of(p.name)[1].role == "prediction" for p in parameters if p.guesses[0].dims)
    shapes = dict.fromkeys(g.dims for options in guesses for g in options if of_predictions and g.dims is not None)
    alike = [[[g for g in options if g.dims in (None, dims)] for options in guesses] for dims in shapes]
    found = [_rising(guesses), *(_rising(one, -ALIKE) for one in alike if all(one))]
    known = set()
    for cost, chosen in heapq.merge(*found, key=lambda one: one[0]):
        if chosen not in known:
            known.add(chosen)
            yield cost, dict(zip(names, chosen, strict=True))


def _rising(guesses: Sequence[Sequence[Guess]], more: float = 0.0) -> Iterator[tuple[float, tuple[Guess, ...]]]:
    """One guess of each, the cheapest together first."""
    start = (0,) * len(guesses)

    def cost(chosen: tuple[int, ...]) -> float:
        return more + sum(options[place].cost for options, place in zip(guesses, chosen, strict=True))

    waiting, known = [(cost(start), start)], {start}
    while waiting:
        total, chosen = heapq.heappop(waiting)
        yield total, tuple(options[place] for options, place in zip(guesses, chosen, strict=True))
        for axis, options in enumerate(guesses):
            following = (*chosen[:axis], chosen[axis] + 1, *chosen[axis + 1 :])
            if following[axis] < len(options) and following not in known:
                known.add(following)
                heapq.heappush(waiting, (cost(following), following))


def _of_values(reading: Reading) -> float:
    """The cost of values that do not go together."""
    values = {guess.domain for guess in reading.values() if guess.dims is not None}
    strange = int(any(values >= {prediction, label} for prediction, label in knowledge.STRANGERS))
    shaped = [(str(guess.dims), guess.domain) for guess in reading.values() if guess.dims]
    # Two images of colours, or with a window over both, have one range; rows in time or of an image do not sum to one.
    strange += len({domain for dims, domain in shaped if re.search(r"\b3 H|H\+", dims)}) > 1
    strange += sum(domain.endswith("simplex(-1)") and dims.split()[-1][0] in "TW" for dims, domain in shaped)
    return _unlinked(reading) + STRANGE * strange


def _unlinked(reading: Reading) -> float:
    """The cost of index domains whose size no axis has."""
    tensors = {name: guess for name, guess in reading.items() if guess.dims is not None}
    axes = set(dims.scalar_symbols([str(guess.dims) for guess in tensors.values()]))
    stated = {guess.fixes for guess in reading.values()}
    embeds = any(knowledge.kind_of(name)[1] is knowledge.KINDS["embeddings"] for name in tensors)
    cost = 0.0
    for guess in tensors.values():
        if not {*tensor_spec(str(guess.dims), guess.domain).domain.symbols} <= axes | stated:
            cost += UNLINKED_EMBEDDINGS if embeds else UNLINKED
    return cost
