"""Rules about gradients: G06, G08, and what the rules about slopes share."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from harness.calls import tolerance
from harness.calls.evaluation import LossRaised
from harness.declare import domains, inline
from harness.declare.spec import ONE_BACKWARD, LossSpec
from harness.drawing.case import Case
from harness.errors import NotApplicable, told_in_a_line
from harness.rules.gradients.reach import LONGER, SHORT, positions_without_influence
from harness.rules.rule import Mismatch, Partly, Rule
from harness.rules.shapes.broadcasting import unit_symbols
from harness.rules.tools import slopes
from harness.rules.tools.compare import same_output
from harness.rules.tools.detach import DetachTape
from harness.rules.tools.remarks import first_not_finite
from harness.rules.tools.sizes import ELEMENTS, along, elements, resized, uniform
from harness.rules.tools.special import nothing_counts, special_cases, with_everything_counted, with_one_left_out
from harness.rules.trial import Run, Trial, describe

# What is left of a domain without the points at which logarithms, roots and quotients of it are singular.
_WITHOUT_ENDS = {
    "real()": domains.positive(),
    "nonnegative()": domains.positive(),
    "probability()": domains.interval(0.01, 0.99),
}


def element(name: str, index: tuple[int, ...]) -> str:
    """A gradient's element as it stands in messages."""
    return f"d loss / d {name}{list(index) if index else ''}"


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
    at 8 and at 24: a hinge may be inactive, and few labels make no triplet.  Nor does an axis of 1023, 1025 or a power of two
    from 32 to 1024 leave positions or elements out, where axes of 8 and 24 have a gradient at each; a limit, beyond which
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
    if largest > tolerance.same_gradient(trial.eps) * abs(run.scalar) or not run.finite:
        return False
    if largest > tolerance.same_intermediate(trial.eps) * trial.scale.intermediate:
        return False
    return not _moves(trial, _redrawn(trial, name))


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
        for size in (SHORT, LONGER):
            with contextlib.suppress(LossRaised, NotApplicable):
                larger = first.at(resized(first.spec, first.case, uniform(first.spec, size)))
                is_small = elements(larger.spec, larger.case) <= ELEMENTS
                if is_small and _reaches(larger, name, along(larger, larger.cache)[0]):
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
    tape = DetachTape()
    trial.run(trial.tensors(), mode=tape)
    places = list(dict.fromkeys(tape.places))
    return Mismatch(
        f"d loss / d {name}",
        "None" if gradient is None else f"rounding, at most {largest:.1g}" if largest else "0 everywhere",
        f"not zero in at least one of {len(seen)} generic cases",
        aspect=f"{name} cut off",
        kind="cut off",
        tensor=name,
        tensors=trial.tensors(),
        code=_gradient_code(name),
        hint="look for what normalises the input away, such as a sum of shares that is 1"
        if largest
        else f"{'keep tensors on the graph until the end; ' if places else ''}if no gradient should reach it, leave {name!r} out "
        f"of {'--differentiable' if trial.spec.is_inline else 'LossSpec(differentiable=...)'}",
        note=f"the loss is {describe(trial.base.scalar)} for any {name}, but for rounding"
        if largest
        else f"the gradient is cut by {', '.join(places[:3])}"
        if places
        else "",
    )


def _gradient_code(name: str) -> str:
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
                    code=_gradient_code(name),
                    hint=f"let the result depend on {name} for every context, e.g. start the sum from ({name} * 0).sum()",
                )


def special_points_are_finite(trial: Trial) -> Iterator[Mismatch]:
    """Value and gradient are finite wherever the domains allow the inputs to be.

        |L(x)| < inf and |dL/dx_i| < inf   at zeros, ties, one-hot, constant, saturated, empty, ...

    Where a mask, weight or ignored label leaves nothing to count, 0/0 is a convention and a warning only; where it leaves one
    element out and others count, it is none.
    """
    if unit_symbols(trial.spec, trial.case) and not trial.base.finite:
        raise NotApplicable("not finite on a size of one; see B05")
    yield from _finite_at(trial, "a generic case", trial.case)
    if trial.case.regime == "distinct" and not trial.exhaustive:
        return
    for point, case in special_cases(trial.spec, trial.case):
        yield from _finite_at(trial, point, case)


def _finite_at(trial: Trial, point: str, case: Case) -> Iterator[Mismatch]:
    moved = trial.at(case)
    try:
        run = moved.base
    except LossRaised as raised:
        if point != "a generic case" and not _nothing_counted(moved):
            yield _raises_at(moved, point, raised)
        return
    if run.finite:
        return
    convention = _nothing_counted(moved)
    name = next((n for n, g in run.gradients.items() if g is not None and not bool(g.isfinite().all())), None)
    where = "loss" if not bool(run.output.isfinite().all()) else f"d loss / d {name}"
    came = run.output if where == "loss" else run.gradients[str(name)]
    assert came is not None
    worst = came.reshape(-1)[~came.reshape(-1).isfinite()][0]
    yield Mismatch(
        f"{where} with {point}",
        describe(float(worst)),
        "finite",
        aspect="nothing counted" if convention else f"{'value' if where == 'loss' else 'gradient'}",
        kind="value" if where == "loss" else "gradient",
        tensor=name or "",
        finite=False,
        severity="warning" if convention else None,
        tensors=moved.tensors(),
        code=_gradient_code(name or next(iter(trial.spec.differentiable), "")),
        hint=_finite_hint(moved, convention),
    )


def _finite_hint(moved: Trial, convention: bool) -> str:
    if convention:
        return "nothing is counted here: return 0 with a zero gradient, or require it with LossSpec(requires={'G08'}) once mended"
    # Of two that are equal, neither domain is too wide.
    at_point = [name for name, recipe in moved.case.tensors.items() if recipe.point]
    line = next(filter(None, (_narrower(moved, name) for name in at_point)), "")
    narrow = f"; if this input is not legal, narrow the domain: {line}" if line else ""
    return f"keep the argument of sqrt, log, pow or / off its singular point before the operation, not after it{narrow}"


def _narrower(moved: Trial, name: str) -> str:
    """The tensor's declaration without the ends of its domain, where the loss is finite inside; empty where that is no help."""
    spec, tensors = moved.spec, moved.tensors()
    domain = _WITHOUT_ENDS.get(spec.tensors[name].domain.text)
    if domain is None:
        return ""
    try:
        if not moved.run({**tensors, name: domain.interior(tensors[name])}).finite:
            return ""
    except LossRaised:
        return ""
    tensor = replace(spec.tensors[name], domain=domain)
    return f'"{name}: {inline.tensor_text(tensor)}"' if spec.is_inline else f"{name!r}: {tensor!r}"


def _raises_at(trial: Trial, point: str, raised: LossRaised) -> Mismatch:
    return Mismatch(
        f"loss with {point}",
        told_in_a_line(raised.error),
        "a number",
        error=raised.error,
        aspect="raises",
        tensors=trial.tensors(),
        code="print(loss(**tensors))",
        hint="if this input is not legal, narrow its domain in the declaration",
    )


def _nothing_counted(trial: Trial) -> bool:
    """Whether the trouble goes away when the tensors that leave all of some slice out count everything.

    Nor may it be there where others count beside one that is left out: at the zero of a target whose logarithm is taken nothing
    is missing.
    """
    spec, tensors = trial.spec, trial.tensors()
    if not nothing_counts(spec, trial.case, tensors):
        return False
    try:
        if not trial.run(with_everything_counted(spec, tensors)).finite:
            return False
        with contextlib.suppress(NotApplicable):
            larger = trial.at(resized(spec, trial.case, uniform(spec, 3)))
            return all(
                larger.run(one).finite
                for one in with_one_left_out(spec, tensors, larger.tensors())
                if not nothing_counts(spec, larger.case, one)
            )
    except LossRaised:
        return False
    return True


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
    Rule(
        code="G08",
        title="value and gradient are finite at every special point",
        group="gradients",
        severity="error",
        check=special_points_are_finite,
        regimes={"distinct": 4, "coincident": 1, "unit": 2},
        remarks=(first_not_finite,),
        why="One zero row or tie gives NaN gradients, the optimizer writes NaN into every weight, and training is lost.",
        example="distance = ((a - b) ** 2).sum(-1).sqrt()    # derivative 1/(2 sqrt(0)) * 0 = NaN where a = b",
        mend="Guard the argument (the 'double where'): `safe = torch.where(d2 > 0, d2, 1)`, then sqrt, then where again.",
        source="pytorch/pytorch#4132; 'Nan gradients and the double-where trick', TensorFlow issue 2540.",
    ),
)
