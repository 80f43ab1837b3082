"""Rules about gradients: G01, G06, G08."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from harness import tolerance
from harness.case import Case
from harness.errors import NotApplicable, told_in_a_line
from harness.evaluation import LossRaised
from harness.rules import slopes
from harness.rules.broadcasting import unit_symbols
from harness.rules.detach import DetachTape
from harness.rules.made import signs
from harness.rules.rule import Mismatch, Rule
from harness.rules.special import counts_nothing, special_cases, with_everything_counted
from harness.rules.trial import Run, Trial, contract, describe
from harness.spec import LossSpec

GRADCHECK_ELEMENTS = 200  # a slow gradcheck of N elements costs 2N + 2 evaluations


def element(name: str, index: tuple[int, ...]) -> str:
    """A gradient's element as it stands in messages."""
    return f"d loss / d {name}{list(index) if index else ''}"


def interior(trial: Trial) -> dict[str, Tensor]:
    """The case's tensors, the differentiable ones pulled off the boundary of their domain."""
    tensors = trial.tensors()
    for name in trial.spec.differentiable:
        tensors[name] = trial.spec.inputs[name].domain.interior(tensors[name])
    return tensors


def gradient_matches_finite_differences(trial: Trial) -> Mismatch | None:
    """The gradient that autograd gives is the slope that is measured (float64).

        dL/dx_i = (L(x + h e_i) - L(x - h e_i)) / 2h + O(h^2)

    The loss is rescaled so that its largest slope is 1, and at a kink any slope between the left and the right one is
    right.  Source: `torch.autograd.gradcheck`; Nocedal & Wright, Numerical Optimization, section 8.1.
    """
    tensors = interior(trial)
    mismatch = _slope_mismatch(trial, tensors)
    if mismatch is not None and _slope_mismatch(trial, trial.nudged(tensors)) is None:
        return replace(mismatch, aspect="at a tie only", severity="note", note=_AT_A_TIE)
    return mismatch


# relu(x) - relu(-x) = x has slope 1 at 0, and autograd, which adds the subgradients of the parts, gives 0 there.
_AT_A_TIE = "a generic point nearby has the right gradient: autograd's choice at a tie of several kinks is no slope"


def _slope_mismatch(trial: Trial, tensors: Mapping[str, Tensor]) -> Mismatch | None:
    names = tuple(n for n in trial.spec.differentiable if tensors[n].numel())
    if sum(tensors[n].numel() for n in names) > GRADCHECK_ELEMENTS:
        raise NotApplicable(f"more than {GRADCHECK_ELEMENTS} elements; a slow gradcheck would be too long")
    tape = DetachTape()
    base = trial.run(tensors, mode=tape)
    if not base.connected:
        raise NotApplicable("the output does not depend on the inputs through autograd; see G06")
    if not base.finite:
        raise NotApplicable("the value or gradient is not finite; see G08")
    replay = tape if trial.spec.detaches else None
    value = loss_value(trial, tensors, replay)
    magnitude = max(abs(base.scalar), trial.measure_scale(tensors)[1])
    largest = _largest_slope(value, tensors, names, base)
    noise = tolerance.slope_noise(tolerance.GRADCHECK_STEP, magnitude)
    if largest <= noise or _gradcheck(trial, tensors, names, largest, noise / largest, replay):
        return None
    return _worst_slope(trial, value, tensors, names, base, largest, magnitude, tape)


def loss_value(trial: Trial, tensors: Mapping[str, Tensor], replay: DetachTape | None) -> slopes.Value:
    """The loss as a number of replaced tensors; with ``replay``, its declared stop-gradients stay at the recorded values."""
    if replay is None:
        return trial.function(tensors)

    def value(changes: Mapping[str, Tensor]) -> float:
        return float(contract(trial.output({**tensors, **changes}, mode=DetachTape(replay=replay))).detach())

    return value


def _largest_slope(value: slopes.Value, tensors: Mapping[str, Tensor], names: Sequence[str], base: Run) -> float:
    """The largest slope, analytic or, where autograd says zero, measured along one +-1 direction."""
    found = [float(g.abs().max()) for g in base.gradients.values() if g is not None and g.numel()]
    step = tolerance.SLOPE_STEPS[1]
    moved = {n: (tensors[n] + step * signs(tensors[n]), tensors[n] - step * signs(tensors[n])) for n in names}
    slope = (value({n: up for n, (up, _) in moved.items()}) - value({n: down for n, (_, down) in moved.items()})) / (
        2 * step
    )
    count = sum(tensors[n].numel() for n in names)
    return max([*found, abs(slope) / max(count, 1) if math.isfinite(slope) else 0.0])


def _gradcheck(
    trial: Trial,
    tensors: Mapping[str, Tensor],
    names: Sequence[str],
    largest: float,
    noise: float,
    replay: DetachTape | None,
) -> bool:
    def scaled(*leaves: Tensor) -> Tensor:
        given = {**tensors, **dict(zip(names, leaves, strict=True))}
        mode = None if replay is None else DetachTape(replay=replay)
        return contract(trial.output(given, mode=mode)).to(torch.float64) / largest

    leaves = tuple(tensors[n].detach().clone().requires_grad_() for n in names)
    try:
        return bool(
            torch.autograd.gradcheck(
                scaled,
                leaves,
                eps=tolerance.GRADCHECK_STEP,
                atol=tolerance.GRADCHECK_ABSOLUTE + 10 * noise,
                rtol=tolerance.GRADCHECK_RELATIVE,
                nondet_tol=tolerance.GRADCHECK_ABSOLUTE,
                check_undefined_grad=False,
                raise_exception=False,
            )
        )
    except RuntimeError:  # a loss that edits its inputs breaks gradcheck's second backward; the slopes decide
        return False


def _worst_slope(
    trial: Trial,
    value: slopes.Value,
    tensors: Mapping[str, Tensor],
    names: tuple[str, ...],
    base: Run,
    largest: float,
    magnitude: float,
    tape: DetachTape,
) -> Mismatch | None:
    """The coordinate whose gradient is furthest outside its measured slopes."""
    worst: tuple[float, Mismatch] | None = None
    for name, index in slopes.coordinates(tensors, names):
        gradient = base.gradients[name]
        analytic = 0.0 if gradient is None else float(gradient[index])
        slope = slopes.measure(value, tensors, name, index, magnitude)
        off = slope.misses(analytic, tolerance.SLOPE_FLOOR * largest)
        if off is None or (worst is not None and off <= worst[0]):
            continue
        should = (
            describe(slope.right)
            if abs(slope.left - slope.right) < off
            else f"in [{slope.left:.4g}, {slope.right:.4g}]"
        )
        places = list(dict.fromkeys(tape.places))
        note = ""
        if places and not trial.spec.detaches:
            note = f"the gradient is cut by {', '.join(places[:3])}; if that is meant, declare LossSpec(detaches=True)"
        mismatch = Mismatch(
            element(name, index),
            describe(analytic),
            should,
            off,
            slope.allowed(analytic, tolerance.SLOPE_FLOOR * largest),
            tensors=tensors,
            code=slope_code(name, index),
            hint="mend the backward (or the detach) that gives this element",
            note=note,
        )
        worst = (off, mismatch)
    return None if worst is None else worst[1]


def slope_code(name: str, index: tuple[int, ...]) -> str:
    """Lines that print one element of the gradient beside its measured slope."""
    at = f"[{', '.join(map(str, index))}]" if index else "[()]"
    return f"""
        value = total(loss(**tensors))
        (gradient,) = torch.autograd.grad(value, [tensors[{name!r}]], allow_unused=True)
        h, up, down = 1e-5, tensors[{name!r}].detach().clone(), tensors[{name!r}].detach().clone()
        up{at} += h
        down{at} -= h
        slope = (total(loss(**{{**tensors, {name!r}: up}})) - total(loss(**{{**tensors, {name!r}: down}}))) / (2 * h)
        print("autograd:", None if gradient is None else gradient{at}.item(), " measured:", slope.item())
    """


def every_input_is_reached(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """Every differentiable input gets a gradient: some element is not zero in at least one of many generic cases.

    there is an x with dL/dx_i != 0
    """
    for name in trials[0].spec.differentiable if trials else ():
        seen: list[tuple[Trial, Tensor | None]] = []
        for trial in trials:
            if math.prod(trial.case.shape(trial.spec, name)) == 0:
                continue
            gradient = trial.base.gradients.get(name)
            seen.append((trial, gradient))
            if gradient is not None and bool((gradient != 0).any()):
                break
        else:
            if seen:
                yield _cut_off(name, seen)


def _cut_off(name: str, seen: Sequence[tuple[Trial, Tensor | None]]) -> Mismatch:
    trial, gradient = min(seen, key=lambda pair: (pair[0].case.numel(pair[0].spec), pair[0].case.key))
    tape = DetachTape()
    trial.run(trial.tensors(), mode=tape)
    places = list(dict.fromkeys(tape.places))
    return Mismatch(
        f"d loss / d {name}",
        "None" if gradient is None else "0 everywhere",
        f"not zero in at least one of {len(seen)} generic cases",
        aspect=f"{name} cut off",
        tensors=trial.tensors(),
        code=_gradient_code(name),
        hint=f"if no gradient should reach it, leave {name!r} out of LossSpec(differentiable=...)",
        note=f"the gradient is cut by {', '.join(places[:3])}" if places else "",
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
    for point, case in special_cases(trial.spec, trial.case):
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
                    tensors=moved.tensors(),
                    code=_gradient_code(name),
                    hint=f"let the result depend on {name} for every context, e.g. start the sum from ({name} * 0).sum()",
                )


def special_points_are_finite(trial: Trial) -> Iterator[Mismatch]:
    """Value and gradient are finite wherever the domains allow the inputs to be.

        |L(x)| < inf and |dL/dx_i| < inf   at zeros, ties, one-hot, constant, saturated, empty, ...

    Where a mask, weight or ignored label leaves nothing to count, 0/0 is a convention and a warning only.
    """
    if unit_symbols(trial.spec, trial.case) and not trial.base.finite:
        raise NotApplicable("not finite on a size of one; see B05")
    yield from _finite_at(trial, "a generic case", trial.case)
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
    convention = _nothing_counted(moved, partly=bool(run.output.isnan().any()))
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
        severity="warning" if convention else None,
        tensors=moved.tensors(),
        code=_gradient_code(name or next(iter(trial.spec.differentiable), "")),
        hint=_finite_hint(trial.spec, case, convention),
    )


def _finite_hint(spec: LossSpec, case: Case, convention: bool) -> str:
    if convention:
        return "nothing is counted here: return 0 with a zero gradient, or require it with LossSpec(requires={'G08'}) once mended"
    moved = [n for n, r in case.tensors.items() if r.point or r.same_as]
    narrowed = [n for n in moved if spec.tensors[n].domain.text in ("real()", "nonnegative()", "probability()")]
    line = _positive(spec, narrowed[0]) if narrowed else ""
    narrow = f"; if this input is not legal, narrow the domain: {line}" if line else ""
    return f"keep the argument of sqrt, log, pow or / off its singular point before the operation, not after it{narrow}"


def _positive(spec: LossSpec, name: str) -> str:
    """The declaration of a tensor above zero, as it is written in a file or on the command line."""
    dims = spec.tensors[name].dims
    return f'"{name}: {dims} positive"' if spec.is_inline else f"{name!r}: TensorSpec({dims!r}, domains.positive())"


def _raises_at(trial: Trial, point: str, raised: LossRaised) -> Mismatch:
    return Mismatch(
        f"loss with {point}",
        told_in_a_line(raised.error),
        "a number",
        aspect="raises",
        tensors=trial.tensors(),
        code="print(loss(**tensors))",
        hint="if this input is not legal, narrow its domain in the declaration",
    )


def _nothing_counted(trial: Trial, *, partly: bool = False) -> bool:
    """Whether the trouble goes away when the tensors that count nothing in some slice count everything."""
    tensors = trial.tensors()
    counting = {n: t.domain for n, t in trial.spec.tensors.items() if n not in trial.spec.differentiable}
    if not any(counts_nothing(domain, tensors[name], partly=partly) for name, domain in counting.items()):
        return False
    try:
        return trial.run(with_everything_counted(trial.spec, tensors, partly=partly)).finite
    except LossRaised:
        return False


def needs_differentiable(spec: LossSpec, name: str) -> str | None:
    """Why a rule about gradients says nothing about a loss, or ``None``."""
    return None if spec.differentiable else "no differentiable input is declared"


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
        why="One zero row or tie gives NaN gradients, the optimizer writes NaN into every weight, and training is lost.",
        example="distance = ((a - b) ** 2).sum(-1).sqrt()    # derivative 1/(2 sqrt(0)) * 0 = NaN where a = b",
        mend="Guard the argument (the 'double where'): `safe = torch.where(d2 > 0, d2, 1)`, then sqrt, then where again.",
        source="pytorch/pytorch#4132; 'Nan gradients and the double-where trick', TensorFlow issue 2540.",
    ),
    Rule(
        code="G01",
        title="gradient matches finite differences",
        group="gradients",
        severity="error",
        check=gradient_matches_finite_differences,
        applies=needs_differentiable,
        regimes={"distinct": 5, "coincident": 2, "unit": 1},
        why="A hand-written backward, a detach or an in-place edit gives a gradient of another function; training converges to something else.",
        example="""
            def backward(ctx, g):
                x, y = ctx.saved_tensors
                return g * (x - y), None                # the forward divides by the batch size, this does not
        """,
        mend="Derive the backward again, or let autograd do it; compare the named element with the formula.",
        source="torch.autograd.gradcheck; pytorch/pytorch#114234 on kinks; Nocedal & Wright, section 8.1.",
    ),
)
