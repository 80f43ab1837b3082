"""The declared laws, checked in value and gradient: L01 to L13.

L14 is in `harness.rules.laws.ranks`, L15 in `harness.rules.laws.unbiased`; L16, which nobody declares, in
`harness.rules.laws.sign`.

Each check makes another way to the same number out of the loss itself and compares the two (`harness.rules.tools.compare`).
What a law says of a context tensor as a weight is checked by the rule of that weight (`checked_as`), and only there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add

import torch
from torch import Tensor

from harness.declare import dims
from harness.declare.laws import Law
from harness.declare.spec import LossSpec
from harness.errors import NotApplicable
from harness.rules.context.removal import removal
from harness.rules.rule import Found, Mismatch, Rule
from harness.rules.tools import inside, sides
from harness.rules.tools.compare import relation
from harness.rules.tools.made import counted, positions
from harness.rules.tools.masking import removable
from harness.rules.tools.symbols import permuted, selected, sliced
from harness.rules.trial import Trial, describe

LawCheck = Callable[[Trial, Law], Iterator[Mismatch]]

EVERYWHERE = {"distinct": 5, "coincident": 3, "unit": 2, "large": 1}
_OF_CONTEXT = {"L04": "C05", "L05": "C05", "L10": "C06", "L12": "C04"}


def checked_as(spec: LossSpec, law: Law) -> str:
    """The code of the rule that checks a declared law; for weights in the context it is C04, C05 or C06."""
    in_context = bool(law.names) and set(law.names) <= set(spec.context)
    return _OF_CONTEXT.get(law.code, law.code) if in_context else law.code


def declared(spec: LossSpec, code: str) -> list[Law]:
    """The declared laws that the rule ``code`` checks."""
    return [law for law in spec.laws if checked_as(spec, law) == code]


def scalar(trial: Trial) -> None:
    """Raise `NotApplicable` unless the loss is one number."""
    if trial.base.output.ndim:
        raise NotApplicable("the law speaks of a loss that is one number")


def hold(trial: Trial, laws: Sequence[Law]) -> Iterator[Mismatch]:
    """What breaks each of the laws; the law's text is part of the finding.

    Raises:
        NotApplicable: the case says nothing about any of them.
    """
    asked, reasons = 0, []
    for law in laws:
        try:
            for mismatch in CHECKS[law.code](trial, law):
                yield replace(mismatch, aspect=f"{law!r} {mismatch.aspect}", hint=mismatch.hint or hint(law))
            asked += 1
        except NotApplicable as reason:
            reasons.append(f"{law!r}: {reason}")
    if not asked:
        raise NotApplicable("; ".join(reasons) or "not declared")


def _each(code: str, check: LawCheck) -> Callable[[Trial], Iterator[Mismatch]]:
    def checked(trial: Trial) -> Iterator[Mismatch]:
        yield from hold(trial, declared(trial.spec, code))

    checked.__doc__ = check.__doc__
    return checked


def hint(law: Law) -> str:
    """What to do about a law that is broken, where nothing more is known."""
    return f"mend the loss, or take {law!r} out of its laws"


def _mean_over(trial: Trial, law: Law) -> Iterator[Mismatch]:
    """The loss of the whole is the mean of the losses of its slices.

    L(X) = 1/n sum_i L(X_i)
    """
    yield from _over(trial, law, mean=True)


def _sum_over(trial: Trial, law: Law) -> Iterator[Mismatch]:
    """The loss of the whole is the sum of the losses of its slices.

    L(X) = sum_i L(X_i)
    """
    yield from _over(trial, law, mean=False)


def _over(trial: Trial, law: Law, *, mean: bool) -> Iterator[Mismatch]:
    scalar(trial)
    tensors, symbol = trial.tensors(), law.symbols[0]
    count = len(sliced(trial, tensors, symbol))
    if count < 2:
        raise NotApplicable(f"{symbol} has fewer than two positions")

    def other(leaves: Mapping[str, Tensor]) -> Tensor:
        parts = [trial.output(part) for part in sliced(trial, leaves, symbol)]
        total: Tensor = reduce(add, parts)
        return total / len(parts) if mean else total

    yield from relation(
        trial,
        other,
        tensors,
        f"as the {'mean' if mean else 'sum'} over {symbol}",
        lambda: sides.slices(trial, symbol, count, mean=mean),
    )


def _permutation(trial: Trial, law: Law) -> Iterator[Mismatch]:
    """The order along a symbol does not matter when inputs and context are permuted together.

    L(P X, P C P^T) = L(X, C)
    """
    symbol = law.symbols[0]
    scalar(trial)
    if trial.case.sizes.get(symbol) in (0, 1):
        raise NotApplicable(f"{symbol} has fewer than two positions")
    yield from relation(
        trial,
        lambda leaves: trial.output(permuted(trial, leaves, symbol)),
        trial.tensors(),
        f"after permuting {symbol}",
        lambda: sides.permutation(trial, trial.tensors(), symbol),
    )


def _linear_in(trial: Trial, law: Law) -> Iterator[Mismatch]:
    """The loss is linear in a tensor.

    L(a u + b v) = a L(u) + b L(v),   for zeros and ones L(u + v) = L(u) + L(v)
    """
    name = law.names[0]
    tensors = trial.tensors()
    tensors[name], parts, code = inside.parts(trial, name, tensors[name])

    def combined(leaves: Mapping[str, Tensor]) -> Tensor:
        return reduce(add, [a * trial.output({**leaves, name: of(leaves[name])}) for a, of in parts])

    yield from relation(trial, combined, tensors, f"by linearity in {name}", lambda: code)


def _scale_invariant(trial: Trial, law: Law) -> Iterator[Mismatch]:
    """A positive factor on a tensor does not matter.

    L(c x) = L(x),  dL/dx (c x) = dL/dx (x) / c
    """
    name = law.names[0]
    tensors = trial.tensors()
    tensors[name], factor = inside.multiple(trial, name, tensors[name])
    yield from relation(
        trial,
        lambda leaves: trial.output({**leaves, name: leaves[name] * factor}),
        tensors,
        f"after multiplying {name} by {factor:.4g}",
        lambda: sides.replaced({name: f"tensors[{name!r}] * {factor}"}),
    )


def _translation_invariant(trial: Trial, law: Law) -> Iterator[Mismatch]:
    """One constant added to all elements of some tensors does not matter.

    L(x + c) = L(x)
    """
    tensors = trial.tensors()
    shift = inside.shifted(trial, law.names, tensors)
    yield from relation(
        trial,
        lambda leaves: trial.output({**leaves, **{name: leaves[name] + shift for name in law.names}}),
        tensors,
        f"after adding {shift:.4g} to {', '.join(law.names)}",
        lambda: sides.replaced({name: f"tensors[{name!r}] + {shift}" for name in law.names}),
    )


def _symmetric(trial: Trial, law: Law) -> Iterator[Mismatch]:
    """Two tensors may change places.

    L(a, b) = L(b, a)
    """
    first, second = law.names
    tensors = trial.tensors()
    if tensors[first].shape != tensors[second].shape:
        raise NotApplicable(f"{first} and {second} have different shapes")
    if torch.equal(tensors[first], tensors[second]):
        raise NotApplicable(f"{first} and {second} are equal")
    swapped = {first: second, second: first}

    def other(leaves: Mapping[str, Tensor]) -> Tensor:
        return trial.output({name: leaves[swapped.get(name, name)] for name in leaves})

    code = sides.replaced({name: f"tensors[{swapped[name]!r}]" for name in law.names})
    yield from relation(trial, other, tensors, f"with {first} and {second} exchanged", lambda: code)


def below_zero(trial: Trial) -> Mismatch | None:
    """The lowest element of the loss, where that is less than zero."""
    output = trial.base.output
    lowest = float(output.min()) if output.numel() else 0.0
    if not lowest < -trial.scale.same(lowest):
        return None
    return Mismatch(
        "loss",
        describe(lowest),
        ">= 0",
        -lowest,
        0.0,
        tensors=trial.tensors(),
        code="print('came:', loss(**tensors).min().item())\nprint('should be: >= 0')",
        aspect="value",
        kind="value",
    )


def _nonnegative(trial: Trial, law: Law) -> Iterator[Mismatch]:
    """The loss is not negative.

    L >= 0
    """
    found = below_zero(trial)
    if found is not None:
        yield found


def _zero_when_equal(trial: Trial, law: Law) -> Iterator[Mismatch]:
    """The loss is zero where two tensors are equal.

    L(a, a) = 0
    """
    first, second = law.names
    tensors = trial.tensors()
    if tensors[first].shape != tensors[second].shape:
        raise NotApplicable(f"{first} and {second} have different shapes")
    tensors[first] = tensors[second].to(tensors[first].dtype)
    run = trial.run(tensors)
    largest = float(run.output.abs().max()) if run.output.numel() else 0.0
    if not largest <= trial.measure_scale(tensors).same(0.0):
        where = f"loss with {first} = {second}"
        yield Mismatch(
            where,
            describe(largest),
            "0",
            largest,
            0.0,
            tensors=tensors,
            code="print('came:', loss(**tensors).abs().max().item())\nprint('should be: 0')",
            aspect="value",
            kind="value",
        )


def _reduces_to(trial: Trial, law: Law) -> Iterator[Mismatch]:
    """With a constant context the loss is a known one.

    L(x; c = const) = known(x)
    """
    tensors = trial.tensors()
    function = law.function
    assert function is not None
    for name, value in law.values:
        tensors[name] = torch.full_like(tensors[name], value)
    constant = {name for name, _ in law.values}

    def other(leaves: Mapping[str, Tensor]) -> Tensor:
        given = {name: tensor for name, tensor in leaves.items() if name not in constant}
        result: Tensor = function(**given)
        return result

    name = getattr(function, "__name__", "the known loss")
    yield from relation(trial, other, tensors, f"of {name}", lambda: sides.known(function, constant))


def _repeats(trial: Trial, law: Law) -> Iterator[Mismatch]:
    """An integer weight k counts as k copies of weight one; of more axes than one, each in turn has slices of equal weight.

    L(x; w = k) = L(x repeated k times; w = 1)
    """
    name = law.names[0]
    numbers = inside.copies(trial, name)
    axes = dims.axes(trial.spec.tensors[name].dims, trial.case.sizes)
    looked_up = {tensor.domain.symbol for tensor in trial.spec.tensors.values()}
    along = [label for label in axes if label in trial.spec.symbols and label not in looked_up]
    if not along or len(set(along)) + axes.count("1") != len(axes):
        raise NotApplicable(f"{name} has dims {trial.spec.tensors[name].dims!r}; copies need slices along a symbol")
    for symbol in along:
        yield from _copied(trial, name, symbol, axes.index(symbol), numbers)


def _copied(trial: Trial, name: str, symbol: str, axis: int, numbers: Sequence[int]) -> Iterator[Mismatch]:
    tensors = trial.tensors()
    shape = [-1 if position == axis else 1 for position in range(tensors[name].ndim)]
    places = counted(tensors[name].shape[axis], tensors[name], start=1) % len(numbers)
    counts = positions(numbers, tensors[name])[places]
    if not bool(counts.any()):
        raise NotApplicable(f"{symbol} has fewer than two positions")
    tensors[name] = counts.to(tensors[name].dtype).reshape(shape).expand_as(tensors[name]).clone()
    index = [position for position, copies in enumerate(counts.tolist()) for _ in range(copies)]

    def other(leaves: Mapping[str, Tensor]) -> Tensor:
        copies = selected(trial, leaves, symbol, index)
        return trial.output({**copies, name: torch.ones_like(copies[name])})

    yield from relation(
        trial,
        other,
        tensors,
        f"with each slice along {symbol} repeated {name} times",
        lambda: sides.repeated(trial, name, symbol, index),
    )


def _inert(trial: Trial, law: Law) -> Iterator[Mismatch]:
    """A tensor that is declared inert does not influence the value.

    L(x; c) = L(x; c')
    """
    name = law.names[0]
    tensors = trial.tensors()
    changed = trial.another(name, tensors[name], salt=3)
    yield from relation(
        trial,
        lambda leaves: trial.output({**leaves, name: changed}),
        tensors,
        f"after changing {name}, which is declared inert",
        lambda: sides.replaced({name: sides.literal(changed)}),
    )


def zero_weight_removes(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """Where a weight is zero, what it weighs influences neither the value nor any gradient.

    w_i = 0  implies  dL/dx_i = 0 and L(x) = L(x') wherever x' differs from x in element i only

    Where it removes from one input, another that may stand in any order along an axis of the weight, as the second of two sets,
    is only a note that says how to declare it.
    """
    laws = declared(trials[0].spec, "L11")
    asked = [law for law in laws if removable(trials[0].spec, law.names[0]) is not None]
    if not asked:
        raise NotApplicable(
            f"the domain of {laws[0].names[0]} has no single zeros; C08 asks about a whole slice of them"
        )
    for law in asked:
        for mismatch in removal(trials, law.names[0], promised=True):
            yield replace(mismatch, aspect=f"{law!r} {mismatch.aspect}")


_CHECKS: tuple[tuple[str, str, str, LawCheck], ...] = (
    ("L01", "mean over slices", "mean_over", _mean_over),
    ("L02", "sum over slices", "sum_over", _sum_over),
    ("L03", "order along a symbol does not matter", "permutation", _permutation),
    ("L04", "linear in a tensor", "linear_in", _linear_in),
    ("L05", "scale invariant", "scale_invariant", _scale_invariant),
    ("L06", "translation invariant", "translation_invariant", _translation_invariant),
    ("L07", "symmetric", "symmetric", _symmetric),
    ("L08", "not negative", "nonnegative", _nonnegative),
    ("L09", "zero when equal", "zero_when_equal", _zero_when_equal),
    ("L10", "reduces to a known loss", "reduces_to", _reduces_to),
    ("L12", "integer weight k = k copies", "repeats", _repeats),
    ("L13", "inert as declared", "inert", _inert),
)
CHECKS: dict[str, LawCheck] = {code: check for code, _, _, check in _CHECKS}


def applies(code: str, name: str) -> Callable[[LossSpec, str], str | None]:
    """For a rule about a law: why it says nothing about a spec, or ``None``."""

    def reason(spec: LossSpec, implementation: str) -> str | None:
        if declared(spec, code):
            return None
        elsewhere = {checked_as(spec, law) for law in spec.laws if law.code == code}
        return f"checked as {', '.join(sorted(elsewhere))}" if elsewhere else f"no laws.{name}(...) is declared"

    return reason


def _rule(code: str, title: str, name: str, check: Callable[[Trial], Found] | None = None) -> Rule:
    return Rule(
        code=code,
        title=title,
        group="laws",
        severity="error",
        check=check,
        applies=applies(code, name),
        regimes=EVERYWHERE,
        why="A declared law is a promise that code which uses the loss relies on; it also sees what no gradient check can.",
        example=f"laws=(laws.{name}(...),)      # in the spec of a loss for which it does not hold",
        mend="Mend the loss at the input shown, or take the law out of the declaration.",
        source="Metamorphic testing: Chen et al., ACM Computing Surveys 51(1), 2018.",
    )


_REMOVES = _rule("L11", "zero weight removes", "zero_weight_removes")
RULES = tuple(
    sorted(
        (
            *(_rule(code, title, name, _each(code, check)) for code, title, name, check in _CHECKS),
            replace(_REMOVES, check_all=zero_weight_removes, smooth=True),
        ),
        key=lambda rule: rule.code,
    )
)
