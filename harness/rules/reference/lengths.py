"""Rule that holds a candidate to the reference where an axis is long: E05."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from harness.calls.evaluation import LossRaised, is_out_of_memory
from harness.calls.watch import TooManyOperations
from harness.errors import NotApplicable, told_in_a_line
from harness.rules.reference.equivalence import gradients_off, is_candidate, scale_beside
from harness.rules.rule import Mismatch, Partly, Rule
from harness.rules.tools.compare import same_output
from harness.rules.tools.remarks import lost_values
from harness.rules.tools.sizes import (
    DOUBLINGS,
    ELEMENTS,
    OPERATIONS,
    UNCOUNTED,
    Effort,
    along,
    elements,
    expected_elements,
    growable,
    one,
    passes_operations,
    resized,
)
from harness.rules.trial import Run, Trial

# For blocks of any power of two: one row left over, all but one, and none; and each of them just full.  The last leaves many
# rows to a second block of 1024, where what both have in common shows, as the largest of all; its matrix of pairs is made.
SIZES = (*DOUBLINGS, 17, 31, 32, 64, 128, 256, 257, 512, 1023, 1024, 1025, 1400)
_Efforts = tuple[Effort, Effort]  # of the reference and of the candidate
GRADUAL = 16.0  # a difference that is not this many times smaller where it passes has grown, and did not set in
OTHER_DRAWS = 6  # of values, at a size; one that half of them hold escapes one time in 64


def equals_the_reference_along_long_axes(trials: Sequence[Trial]) -> Iterator[Mismatch | Partly]:
    """Where one axis is long, value and gradient are still those of the reference (float64).

        L(x) = L_ref(x),   dL/dx = dL_ref/dx      one symbol at 17, 31, 257, 1023, 1025, 1400 and powers of two from 4 to 1024, the others small

    An axis is made longer until a forward would have more than 6000 operations, or make a tensor of more than 2^21
    elements, as those at half the length tell; the outcome says where that was.  What is shown is the smallest size that
    bisection finds between one that agrees and one that does not.
    """
    for trial in trials[:1]:
        if not growable(trial.spec):
            raise NotApplicable("every size is fixed")
        compared, reasons = False, []
        for symbol in growable(trial.spec):
            reached = 0
            try:
                for size, mismatch in _along(trial, symbol):
                    reached = size
                    if mismatch is not None:
                        yield mismatch
            except NotApplicable as reason:
                reasons.append(f"{symbol} {f'up to {reached}' if reached else 'not at all'}: {reason}")
            compared |= reached > DOUBLINGS[-1]
        if not compared:
            raise NotApplicable("; ".join(reasons))
        if reasons:
            yield Partly(f"compared along {'; '.join(reasons)}")


def _along(trial: Trial, symbol: str) -> Iterator[tuple[int, Mismatch | None]]:
    """(size, what differs) for each size in turn, up to the first where anything does."""
    drawn = trial.case.sizes[symbol]
    shortest = (drawn[0] if drawn else 1) if isinstance(drawn, tuple) else drawn
    mismatch, efforts = _compared(_at(trial, symbol, shortest), trial.cache)
    if mismatch is not None:
        raise NotApplicable("they differ at small sizes already; see E01 and E02")
    made, equal = [(shortest, efforts)], shortest
    for size in SIZES:
        if size <= shortest:
            continue
        longer = _at(trial, symbol, size)
        largest = [(length, max(effort.largest for effort in efforts)) for length, efforts in made]
        if max(elements(trial.spec, longer.case), expected_elements(largest, size)) > ELEMENTS:
            raise NotApplicable(f"with {size}, a tensor of more than {ELEMENTS} elements is needed")
        for place, whose in enumerate((" of the reference", "")):
            if passes_operations([(length, efforts[place]) for length, efforts in made], size):
                raise NotApplicable(f"a forward{whose} has more than {OPERATIONS} operations")
        mismatch, efforts = _compared(longer, trial.cache, counts=size not in UNCOUNTED)
        if mismatch is not None:
            yield size, _smallest(trial, symbol, (equal, size), mismatch)
            return
        yield size, None
        equal = size
        made += [(size, efforts)] if size not in UNCOUNTED else []


def _at(trial: Trial, symbol: str, size: int, salt: int = 0) -> Trial:
    """The case with one symbol at a size, and a cache of its own: large tensors are not kept; ``salt`` draws other values."""
    case = resized(trial.spec, trial.case, one(trial.spec, symbol, size))
    if salt:
        drawn = {name: replace(recipe, seed=recipe.seed + salt) for name, recipe in case.tensors.items()}
        case = replace(case, tensors=drawn)
    return trial.apart(case=case, exhaustive=False)


def _reference_run(trial: Trial, known: dict[Any, Any], *, counts: bool = True) -> tuple[Run, Effort]:
    """(the evaluation of the reference, what its forward took where that is counted); ``known`` keeps it for other candidates.

    Raises:
        NotApplicable: it raises, or has too many operations.
    """
    key = ("refused along", trial.case.key)
    if key in known:
        raise known[key]
    try:
        return along(trial.of(trial.spec.reference), known, trial.precision.takes, counts=counts)
    except LossRaised as raised:
        is_long = isinstance(raised.error, TooManyOperations)
        known[key] = NotApplicable(
            f"a forward of the reference has more than {OPERATIONS} operations"
            if is_long
            else f"the reference raises: {told_in_a_line(raised.error)}"
        )
        raise known[key] from raised


def _compared(trial: Trial, known: dict[Any, Any], *, counts: bool = True) -> tuple[Mismatch | None, _Efforts]:
    """(what differs from the reference, what the forwards of both took where that is counted).

    Raises:
        NotApplicable: one of them has too many operations or takes too much memory, or the reference raises.
    """
    should, of_reference = _reference_run(trial, known, counts=counts)
    try:
        came, effort = along(trial, known, counts=counts)
    except LossRaised as raised:
        if isinstance(raised.error, TooManyOperations):
            raise NotApplicable(f"a forward has more than {OPERATIONS} operations") from raised
        if is_out_of_memory(raised.error):
            raise NotApplicable("memory ran out; see P03") from raised
        refused = Mismatch("loss", told_in_a_line(raised.error), "a value, as the reference has", error=raised.error)
        return refused, (of_reference, Effort())
    mismatch = _difference(trial, came, should) if bool(should.output.isfinite().all()) else None
    return mismatch, (of_reference, effort)


def _difference(trial: Trial, came: Run, should: Run) -> Mismatch | None:
    mismatch = same_output(came.output, should.output, scale_beside(trial))
    return mismatch if mismatch is not None or not should.finite else gradients_off(trial, came, should)


def _smallest(trial: Trial, symbol: str, sizes: tuple[int, int], mismatch: Mismatch) -> Mismatch:
    """The difference at the smallest size that bisection finds, between one that agrees and one that differs."""
    equal, differs = sizes
    while differs - equal > 1:
        middle = (equal + differs) // 2
        try:
            found, _ = _compared(_at(trial, symbol, middle), trial.cache)
        except NotApplicable:  # not this size: an even one, say
            found = None
        if found is None:
            equal = middle
        else:
            differs, mismatch = middle, found
    shown = _at(trial, symbol, differs)
    hint, note = (mismatch.error is None and _no_length(trial, symbol, equal, differs)) or (
        f"look for what is reached at {symbol} = {differs}: {_REACHED}",
        f"at {symbol} = {equal} the two agree",
    )
    return replace(
        mismatch,
        where=f"{mismatch.where} with {symbol} = {differs}",
        aspect=f"{symbol} is long",
        tensors=shown.tensors(),
        sizes=shown.case.sizes,
        code=_CODE,
        hint=hint,
        note=note,
    )


def _no_length(trial: Trial, symbol: str, equal: int, differs: int) -> tuple[str, str] | None:
    """(where to look, what was seen) where rounding or values decide, and not, or not alone, the length that was found.

    Values decide where others differ at half the length too.  Where others differ just below it alone, these leave out the
    rows at which it goes wrong, as rows of an ignored label; that others agree at the length says as little.
    """
    below, above = (_apart(_at(trial, symbol, size), trial.cache) for size in (equal, differs))
    if below > above / GRADUAL:
        return (
            "they differ at every size, and here by more than rounding may: look for an accumulator of fewer digits, an "
            "epsilon, or an order of operations that cancels",
            f"at {symbol} = {equal} the two are {below:.1g} of their size apart, which passes",
        )
    half = max(equal // 2, 1)
    if _differs_elsewhere(trial, symbol, half):
        return (
            "the values decide, not the length: look for a clamp, a threshold or a branch that the reference has not",
            f"with other values at {symbol} = {half} the two differ too",
        )
    if _differs_elsewhere(trial, symbol, equal):
        return (
            f"look for what is reached shortly before {symbol} = {differs}: {_REACHED}",
            f"at {symbol} = {equal} the two agree, though not with other values; at {symbol} = {half} with all that were tried",
        )
    return None


def _differs_elsewhere(trial: Trial, symbol: str, size: int) -> bool:
    """Whether the two differ at a size with other values; what is refused there is no matter of values."""
    for salt in range(1, OTHER_DRAWS + 1):
        try:
            found = _compared(_at(trial, symbol, size, salt), trial.cache)[0]
        except NotApplicable:
            continue
        if found is not None and found.error is None:
            return True
    return False


_REACHED = "the end of a block, a limit, the range of an index's dtype"


def _apart(trial: Trial, known: dict[Any, Any]) -> float:
    """The largest difference of value and gradients, as a part of the largest element of each."""
    should, came = _reference_run(trial, known)[0], trial.run(trial.tensors())
    pairs = [(came.output, should.output), *((came.gradients[name], g) for name, g in should.gradients.items())]
    return max(
        (
            float((a.double() - b.double()).abs().max() / b.abs().max().clamp(min=1e-300))
            for a, b in pairs
            if a is not None and b is not None and a.shape == b.shape and b.numel()
        ),
        default=0.0,
    )


_CODE = """
    for function in (loss, reference):
        value = total(function(**tensors))
        wrt = [t for t in tensors.values() if t.requires_grad]
        print(value, torch.autograd.grad(value, wrt, allow_unused=True) if value.requires_grad else None)
"""


RULES = (
    Rule(
        code="E05",
        title="equals the reference along long axes",
        group="lengths",
        severity="error",
        check_all=equals_the_reference_along_long_axes,
        applies=is_candidate,
        regimes={"distinct": 1},
        smooth=True,
        remarks=(lost_values,),
        why=(
            "A version that works by blocks, or takes another path for large data, is the reference itself on small ones: "
            "tests with ten rows never reach the second block."
        ),
        example="""
            for start in range(0, len(x) - 255, 256):              # the rows after the last whole block are left out
                total = total + block(x[start : start + 256])
        """,
        mend="Run the last, shorter block too; choose the dtype of indices by the size; test with more than one block.",
        source="FlashAttention and other tiled kernels test sequence lengths such as 113 and 1023 beside the powers of two.",
    ),
)
