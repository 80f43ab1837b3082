"""The rule that no gradient is cut off, G06, and what the rules about slopes share."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from torch import Tensor

from harness.calls import tolerance
from harness.calls.evaluation import LossRaised
from harness.declare.spec import ONE_BACKWARD, LossSpec
from harness.errors import NotApplicable
from harness.rules.gradients.reach import positions_without_influence
from harness.rules.rule import Mismatch, Partly, Rule
from harness.rules.tools import slopes
from harness.rules.tools.compare import same_output
from harness.rules.tools.detach import listed
from harness.rules.tools.sizes import DOUBLINGS, along, equally_sized, grown
from harness.rules.tools.special import special_cases
from harness.rules.trial import Run, Trial, describe

LARGER = 24  # of all sizes, where those that double show nothing: a window may be wider than 16
UNREACHED = "the output does not depend on the inputs through autograd; see G06"
NOT_FINITE = "the value or gradient is not finite; see G08"


def element(name: str, index: tuple[int, ...]) -> str:
    """A gradient's element as it stands in messages."""
    return f"d loss / d {name}{list(index) if index else ''}"


def with_gradient(run: Run) -> Run:
    """The evaluation, where it has a finite gradient.

    Raises:
        NotApplicable: it has none; G06 and G08 say so.
    """
    if not run.connected:
        raise NotApplicable(UNREACHED)
    if not run.finite:
        raise NotApplicable(NOT_FINITE)
    return run


def interior(trial: Trial) -> dict[str, Tensor]:
    """The case's tensors, the differentiable ones pulled off the boundary of their domain by more than the longest step that
    its rules take, in numbers that the loss itself computes with.
    """
    tensors = trial.tensors()
    margin = min(max(1e-3, 2.5 * tolerance.slope_step(trial.precision.eps)), 0.25)
    for name in trial.spec.differentiable:
        tensors[name] = on_grid(trial, trial.spec.inputs[name].domain.interior(tensors[name], margin))
    return tensors


def on_grid(trial: Trial, tensor: Tensor) -> Tensor:
    """The nearest numbers of the precision in which the loss computes."""
    return tensor.to(trial.precision.grid).to(tensor.dtype)


def generic_point(trial: Trial, tensors: Mapping[str, Tensor], salt: int = 7) -> dict[str, Tensor]:
    """`Trial.nudged`, in the precision in which the loss computes."""
    nudged = trial.nudged(tensors, salt)
    return {**tensors, **{name: on_grid(trial, nudged[name]) for name in trial.spec.differentiable}}


def slope_code(place: Sequence[slopes.Element], step: float) -> str:
    """Lines that print one element of the gradient, or the sum of those that move together, beside the measured slope."""
    names = list(dict.fromkeys(name for name, _ in place))
    return f"""
        place = {[(name, list(index)) for name, index in place]!r}  # what moves by h

        def moved(h):
            given = {{n: t.detach().clone() for n, t in tensors.items()}}
            for name, index in place:
                given[name][tuple(index)] += h
            return total(loss(**given)).item()

        gradients = torch.autograd.grad(total(loss(**tensors)), [tensors[n] for n in {names!r}], materialize_grads=True)
        found = dict(zip({names!r}, gradients))
        h = {step:.1g}
        print("autograd:", sum(found[name][tuple(index)].item() for name, index in place))
        print("measured:", (moved(h) - moved(-h)) / (2 * h), " right:", (moved(h) - moved(0)) / h, " left:", (moved(0) - moved(-h)) / h)
    """


def every_input_is_reached(trials: Sequence[Trial]) -> Iterator[Mismatch | Partly]:
    """Every differentiable input gets a gradient: some element is not zero in at least one of many generic cases.

        there is an x with |dL/dx_i| > rounding

    A gradient that may be rounding counts only where the value changes with the input: that of a constant is 1e-17, not 0.
    Where none has a gradient, two more draws of the input are asked of each, and where these change no value either, all sizes
    at 4, 8, 16 and 24: a hinge may be inactive, and few labels make no triplet.  Nor does an axis of 1023, 1025 or a power of two
    from 32 to 1024 leave positions or elements out, where axes of 8 and 16 have a gradient at each; a limit, beyond which
    nothing counts at any length, is a warning, or a note where an option or a default says it.
    """
    for name in trials[0].spec.differentiable if trials else ():
        seen: list[tuple[Trial, Tensor | None]] = []
        for trial in trials:
            if math.prod(trial.case.shape(trial.spec, name)) == 0:
                continue
            gradient = trial.base.gradients.get(name)
            seen.append((trial, gradient))
            if gradient is not None and bool((gradient != 0).any()) and not _is_rounding(trial, name, gradient):
                break
        else:
            if seen:
                yield from _cut_off_or_not_counted(name, seen)
    for trial in trials[:1]:
        yield from positions_without_influence(trial)


def _is_rounding(trial: Trial, name: str, gradient: Tensor) -> bool:
    """Whether a gradient is that of a constant: no larger than rounding, of a value that no other draw of the input changes."""
    largest, run = float(gradient.abs().max()), trial.base
    return (
        run.finite
        and largest <= tolerance.same_gradient(trial.eps) * abs(run.scalar)
        and largest <= tolerance.same_intermediate(trial.eps) * trial.scale.intermediate
        and not _moves(trial, _redrawn(trial, name))
    )


def _redrawn(trial: Trial, name: str) -> list[Run]:
    """The loss at two other draws of an input, where it does not raise."""
    tensors, runs = trial.tensors(), []
    for salt in (61, 62):
        with contextlib.suppress(LossRaised):
            runs.append(trial.run({**tensors, name: trial.another(name, tensors[name], salt=salt)}))
    return runs


def _moves(trial: Trial, runs: Sequence[Run]) -> bool:
    return len(runs) < 2 or any(same_output(run.output, trial.base.output, trial.scale) is not None for run in runs)


def _cut_off_or_not_counted(name: str, seen: Sequence[tuple[Trial, Tensor | None]]) -> Iterator[Mismatch | Partly]:
    """A mismatch, unless an input has a gradient elsewhere: at other values, or in a larger case where no value depends on it."""
    redrawn = [(trial, _redrawn(trial, name)) for trial, _ in seen]
    if any(_reaches(trial, name, run) for trial, runs in redrawn for run in runs):
        return
    if not any(_moves(trial, runs) for trial, runs in redrawn):
        first = seen[0][0]
        with contextlib.suppress(LossRaised, NotApplicable):
            for size, _ in grown(partial(equally_sized, first), first.cache, (*DOUBLINGS, LARGER)):
                larger = equally_sized(first, size)
                if _reaches(larger, name, along(larger, larger.cache)[0]):
                    yield Partly(f"only with all sizes at {size} does the loss count anything that depends on {name}")
                    return
    yield _cut_off(name, seen)


def _reaches(trial: Trial, name: str, run: Run) -> bool:
    """Whether an input has a gradient that is more than rounding."""
    gradient = run.gradients.get(name)
    least = tolerance.same_gradient(trial.eps) * abs(run.scalar)
    return gradient is not None and run.finite and bool((gradient.abs() > least).any())


def _cut_off(name: str, seen: Sequence[tuple[Trial, Tensor | None]]) -> Mismatch:
    trial, gradient = min(seen, key=lambda pair: (pair[0].case.numel(pair[0].spec), pair[0].case.key))
    largest = 0.0 if gradient is None else float(gradient.abs().max())
    places = listed(trial.cuts(trial.tensors()).places)
    return Mismatch(
        f"d loss / d {name}",
        "None" if gradient is None else f"rounding, at most {largest:.1g}" if largest else "0 everywhere",
        f"not zero in at least one of {len(seen)} generic cases",
        aspect=f"{name} cut off",
        kind="cut off",
        tensor=name,
        tensors=trial.tensors(),
        code=gradient_code(name),
        hint="look for what normalises the input away, such as a sum of shares that is 1"
        if largest
        else f"{'keep tensors on the graph until the end; ' if places else ''}if no gradient should reach it, leave {name!r} out "
        f"of {'--differentiable' if trial.spec.is_inline else 'LossSpec(differentiable=...)'}",
        note=f"the loss is {describe(trial.base.scalar)} for any {name}, but for rounding"
        if largest
        else f"the gradient is cut by {places}"
        if places
        else "",
    )


def gradient_code(name: str) -> str:
    """Code that prints the value and the gradient of an input."""
    return f"""
        value = total(loss(**tensors))
        print("value:", value.item(), " on a graph:", value.requires_grad)
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value, [tensors[{name!r}]], allow_unused=True)
            print("gradient of {name}:", gradient)
    """


def no_gradient_is_missing(trial: Trial) -> Iterator[Mismatch]:
    """At special points the gradient is zero, not missing.

        dL/dx exists at an empty graph, an empty mask, all-ignored labels

    A `None` gradient or an output without a graph makes `backward()` or the optimizer's step fail on that batch only.
    """
    if not trial.base.connected:
        raise NotApplicable("the output never hangs on a graph")
    alive = [n for n, g in trial.base.gradients.items() if g is not None]
    for point, case in special_cases(trial.spec, trial.case) if trial.exhaustive else ():
        moved = trial.at(case)
        try:
            run = moved.base
        except LossRaised:
            continue
        for name in alive:
            if run.gradients.get(name) is None:
                yield Mismatch(
                    f"d loss / d {name} with {point}",
                    "None",
                    "a tensor of zeros",
                    aspect=f"{name} missing",
                    kind="gradient",
                    tensor=name,
                    tensors=moved.tensors(),
                    code=gradient_code(name),
                    hint=f"let the result depend on {name} for every context, e.g. start the sum from ({name} * 0).sum()",
                )


def needs_differentiable(spec: LossSpec, name: str) -> str | None:
    """Why a rule about gradients says nothing about a loss, or ``None``."""
    return None if spec.differentiable else "no differentiable input is declared"


def needs_a_second_backward(spec: LossSpec, name: str) -> str | None:
    """Why a rule that goes back through one graph more than once says nothing about a loss, or ``None``."""
    return needs_differentiable(spec, name) or (ONE_BACKWARD if spec.once else None)


RULES = (
    Rule(
        code="G06",
        title="no differentiable input is cut off",
        group="gradients",
        severity="error",
        check=no_gradient_is_missing,
        check_all=every_input_is_reached,
        applies=needs_differentiable,
        regimes={"distinct": 4, "large": 1},
        smooth=True,
        why="`backward()` runs and nothing is learned; or it fails on the one batch in a thousand whose graph has no edges.",
        example="""
            total = 0.0
            for p, y in zip(predictions, labels):
                total += ((p - y) ** 2).item()          # a Python number: the graph ends here
            return torch.tensor(total, requires_grad=True)
        """,
        mend="Keep tensors until the end; start sums from `(predictions * 0).sum()`; never wrap a number in a new leaf.",
        source="pytorch/pytorch#2710; PyTorch autograd mechanics, 'Locally disabling gradient computation'.",
    ),
)
