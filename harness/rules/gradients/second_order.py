"""Rule about the second derivative: G03, and what it shares with the comparison to the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, Function

from harness.calls import tolerance
from harness.declare.spec import LossSpec
from harness.errors import NotApplicable, told_in_a_line
from harness.private_names import function_of
from harness.results.findings import Severity
from harness.rules.gradients.cut_off import NOT_FINITE, UNREACHED, element, interior, needs_a_second_backward
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools.compare import same_gradients
from harness.rules.tools.detach import DetachTape
from harness.rules.tools.made import signs
from harness.rules.tools.slopes import element_index
from harness.rules.trial import Trial, contract, describe, is_finite


class Refused(Exception):
    """The loss raises where it is differentiated twice; ``error`` is what it raised."""

    def __init__(self, error: Exception) -> None:
        super().__init__(told_in_a_line(error))
        self.error = error


def unless_required(spec: LossSpec, code: str) -> Severity | None:
    """The severity of a missing capability: a note, or the rule's own where the spec requires the rule."""
    return None if any(code.startswith(required.upper()) for required in spec.requires) else "note"


# What of `torch.func` and forward mode a custom Function lacks; the other rules run its backward, which says itself what it refuses.
_LACKS: Mapping[str, Callable[[type[Function]], bool]] = {
    "T02": lambda f: (
        f.setup_context is Function.setup_context or (f.vmap is Function.vmap and not f.generate_vmap_rule)
    ),
    "G04": lambda f: f.jvp is Function.jvp,
}


def told_of_functions(trial: Trial, code: str, refusal: Mismatch) -> Mismatch:
    """What a loss refuses, as a note where it is a custom Function in its graph that lacks a method for it.

    A `torch.autograd.Function` with forward and backward does all that training asks.  Forward mode, second derivatives and
    transforms each need a method more of it, and the first that is missing says all that the next would say.
    """
    lacks, output = _LACKS.get(code, lambda f: True), trial.output(trial.leaves(trial.tensors()))
    names = [f.__name__ for f in custom_functions(output) if lacks(f)]
    if not names:
        return refusal
    return replace(
        refusal,
        aspect="custom Function",
        severity=unless_required(trial.spec, code),
        hint=f"where transforms or further derivatives are wanted: setup_context(), jvp() and generate_vmap_rule = True in "
        f"{' and '.join(dict.fromkeys(names))}, and a backward of differentiable operations",
    )


def custom_functions(output: Tensor) -> list[type[Function]]:
    """The custom Functions in the graph of an output."""
    waiting: list[Any] = [output.grad_fn]
    nodes: dict[Any, None] = {}
    while waiting:
        node = waiting.pop()
        if node is not None and node not in nodes:
            nodes[node] = None
            waiting += [following for following, _ in node.next_functions]
    return [function_of(node) for node in nodes if isinstance(node, BackwardCFunction)]


@dataclass(frozen=True)
class Curvature:
    """H u at one point along a fixed direction u of +-1, and the gradient there.

    ``on_graph`` says whether the gradient depends on any input; where it does not, autograd says H u = 0.
    """

    tensors: Mapping[str, Tensor]
    products: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    slope: float
    on_graph: bool
    tape: DetachTape


def curvature(trial: Trial, tensors: Mapping[str, Tensor]) -> Curvature:
    """H u by differentiating <dL/dx, u> once more.

    Raises:
        Refused: the loss cannot be differentiated twice and says so.
        NotApplicable: nothing depends on the inputs, or not finitely.
    """
    tape = DetachTape()
    leaves = trial.leaves(tensors)
    output = trial.output(leaves, mode=tape)
    names = [name for name in trial.spec.differentiable if leaves[name].numel()]
    if not output.requires_grad or not names:
        raise NotApplicable(UNREACHED)
    wrt = [leaves[name] for name in names]
    scalar = contract(output)
    upstream = torch.ones_like(scalar).requires_grad_()  # `once_differentiable` refuses by looking at this one only
    try:
        first = torch.autograd.grad(scalar, wrt, upstream, create_graph=True, allow_unused=True)
    except Exception as error:
        raise Refused(error) from error
    along = [(g * signs(g)).sum() for g in first if g is not None and g.requires_grad]
    try:
        torch.autograd.backward(along)  # grad() would leave out a node that refuses, as no path from it leads to wrt
    except Exception as error:
        raise Refused(error) from error
    found = {name: (g, leaves[name].grad) for name, g in zip(names, first, strict=True)}
    gradients = {n: torch.zeros_like(tensors[n]) if g is None else g.detach() for n, (g, _) in found.items()}
    if not all(map(is_finite, (output, *gradients.values()))):
        raise NotApplicable(NOT_FINITE)
    return Curvature(
        tensors=tensors,
        products={n: torch.zeros_like(tensors[n]) if h is None else h.detach() for n, (_, h) in found.items()},
        gradients=gradients,
        slope=sum(float((g * signs(g)).sum()) for g in gradients.values()),
        on_graph=any(h is not None for _, h in found.values()),
        tape=tape,
    )


def second_derivative_matches_differences(trial: Trial) -> Mismatch | None:
    """The second derivative that autograd gives is the difference quotient of the gradient, or is refused (float64).

        H u = (g(x + h u) - g(x - h u)) / 2h + O(h^2),   g = dL/dx,  u_i = +-1

    An exception, such as that of `once_differentiable`, is an honest answer; a gradient that is a constant to
    autograd, or any other product, is a silent one, and another gradient where its graph is kept an error.  Elements whose quotients differ between the sides or
    between two steps are at a kink and say nothing; a piecewise linear loss has H = 0.
    Source: `torch.autograd.gradgradcheck`; Pearlmutter, Fast exact multiplication by the Hessian, 1994.
    """
    tensors = interior(trial)
    try:
        found = curvature(trial, tensors)
    except Refused as refused:
        return _refusal(trial, refused)
    if (changed := _changed_by_its_graph(trial, found)) is not None:
        return changed
    mismatch = off_its_differences(trial, found)
    if mismatch is None or off_its_differences(trial, curvature(trial, trial.nudged(tensors))) is None:
        return None
    return mismatch


def _changed_by_its_graph(trial: Trial, found: Curvature) -> Mismatch | None:
    """Another gradient where autograd keeps a graph of it, as for a gradient penalty, than where it does not."""
    plain = trial.run(found.tensors, mode=DetachTape()).gradients  # of the same function, which a mode may change
    changed = same_gradients(found.gradients, plain, found.tensors, trial, trial.scale)
    return changed and replace(
        changed,
        where=f"{changed.where} with create_graph=True",
        aspect="with a graph",
        severity="error",
        tensors=found.tensors,
        code=f"""
        wrt = [tensors[name] for name in {list(trial.spec.differentiable)!r}]
        for keep in (True, False):
            print(keep, torch.autograd.grad(total(loss(**tensors)), wrt, create_graph=keep, allow_unused=True))
        """,
        hint="give one gradient, whether or not the backward is recorded: look for torch.is_grad_enabled() in it",
    )


def _refusal(trial: Trial, refused: Refused) -> Mismatch:
    refusal = Mismatch(
        "a second derivative",
        str(refused),
        "a number",
        aspect="refused",
        error=refused.error,
        severity=unless_required(trial.spec, "G03"),
        tensors=trial.tensors(),
        code=f"""
        value = total(loss(**tensors))
        upstream = torch.ones_like(value, requires_grad=True)
        wrt = [tensors[name] for name in {list(trial.spec.differentiable)!r}]
        first = torch.autograd.grad(value, wrt, upstream, create_graph=True, allow_unused=True)
        sum(g.sum() for g in first if g is not None).backward()
        """,
        hint="write the backward with differentiable operations, if gradient penalties or Hessians are wanted",
    )
    return told_of_functions(trial, "G03", refusal)


def off_its_differences(trial: Trial, found: Curvature) -> Mismatch | None:
    """The element of H u that is furthest off the difference quotients of the gradient, where those agree.

    Raises:
        NotApplicable: the gradient itself is not the slope; see G01.
    """
    step, finer = tolerance.CURVATURE_STEPS
    sides, slope = _quotients(trial, found, step)
    suspects = {n: (h - torch.stack([side[n] for side in sides]).mean(0)).abs() for n, h in found.products.items()}
    if not any(bool((o.nan_to_num(torch.inf) > _allowed(trial, found, n, step)).any()) for n, o in suspects.items()):
        return None
    size = sum(float(g.abs().sum()) for g in found.gradients.values())
    noise = tolerance.slope_noise(step, trial.scale.intermediate, trial.eps)
    if abs(slope - found.slope) > tolerance.SLOPE_RELATIVE * size + noise:
        raise NotApplicable("the gradient itself is not the slope here, or there is a kink; see G01")
    sides += _quotients(trial, found, finer)[0]
    worst: Mismatch | None = None
    for name, product in found.products.items():
        quotients = torch.stack([side[name] for side in sides])
        spread = quotients.amax(0) - quotients.amin(0)
        off = (product - quotients.mean(0)).abs() - 5 * spread
        allowed = _allowed(trial, found, name, finer)
        index = element_index(int(off.nan_to_num(-1).argmax()), off.shape)
        if float(off[index]) > allowed and (worst is None or float(off[index]) > (worst.difference or 0)):
            worst = _wrong(trial, found, name, index, float(quotients.mean(0)[index]), float(off[index]), allowed)
    return worst


def _allowed(trial: Trial, found: Curvature, name: str, step: float) -> float:
    """How far H u may be off: a part of the largest of its elements, and the rounding of two gradients over the step."""
    largest = float(found.products[name].abs().nan_to_num(0).max())
    gradient = float(found.gradients[name].abs().max())
    noise = tolerance.slope_noise(step, gradient * max(1.0, trial.scale.intermediate), trial.eps)
    return tolerance.SLOPE_RELATIVE * largest + noise


def _quotients(trial: Trial, found: Curvature, step: float) -> tuple[list[dict[str, Tensor]], float]:
    """(right and left difference quotients of the gradient along u, central one of the value)."""
    sides, values = [], []
    for sign in (1, -1):
        moved = {n: found.tensors[n] + sign * step * signs(found.tensors[n]) for n in found.products}
        replay = DetachTape(replay=found.tape) if trial.spec.detaches else None
        run = trial.run({**found.tensors, **moved}, mode=replay)
        there = {n: torch.zeros_like(found.gradients[n]) if g is None else g for n, g in run.gradients.items()}
        sides.append({n: (there[n] - found.gradients[n]) / (sign * step) for n in found.products})
        values.append(run.scalar)
    return sides, (values[0] - values[1]) / (2 * step)


def _wrong(
    trial: Trial, found: Curvature, name: str, index: tuple[int, ...], should: float, off: float, allowed: float
) -> Mismatch:
    silent = "the gradient is a constant to autograd" if not found.on_graph else ""
    return Mismatch(
        f"derivative of {element(name, index)} along a direction of +-1",
        describe(float(found.products[name][index])),
        describe(should),
        off,
        allowed,
        aspect="silently wrong",
        kind="gradient",
        tensor=name,
        tensors=found.tensors,
        code=_code(trial),
        hint="save only inputs for backward and compute with differentiable operations there, or mark it @once_differentiable",
        note=f"{silent}; gradient penalties and Hessians ignore it without a word" if silent else "",
    )


def _code(trial: Trial) -> str:
    return f"""
        wrt = [tensors[name] for name in {list(trial.spec.differentiable)!r}]
        signs = [torch.arange(1, t.numel() + 1).double().square().sin().sign().reshape(t.shape) for t in wrt]

        def gradients(step):
            moved = {{n: t for n, t in tensors.items()}}
            for tensor, sign, name in zip(wrt, signs, {list(trial.spec.differentiable)!r}):
                moved[name] = (tensor.detach() + step * sign).requires_grad_()
            leaves = [moved[name] for name in {list(trial.spec.differentiable)!r}]
            return leaves, torch.autograd.grad(total(loss(**moved)), leaves, create_graph=True, materialize_grads=True)

        for right, left in zip(gradients(1e-5)[1], gradients(-1e-5)[1]):
            print("measured:", ((right - left) / 2e-5).detach())
        leaves, found = gradients(0.0)
        slope = sum((g * sign).sum() for g, sign in zip(found, signs))
        print("autograd:", torch.autograd.grad(slope, leaves, materialize_grads=True) if slope.requires_grad else "constant")
    """


RULES = (
    Rule(
        code="G03",
        title="second derivative is right or refused",
        group="second_order",
        severity="warning",
        check=second_derivative_matches_differences,
        applies=needs_a_second_backward,
        regimes={"distinct": 2},
        smooth=True,
        why="Gradient penalties, Hessians and meta-learning differentiate the gradient; a silent zero there trains without the term.",
        example="""
            def forward(ctx, error):
                ctx.save_for_backward(torch.tanh(error))      # computed without a graph
                return log_cosh(error)

            def backward(ctx, upstream):
                return upstream * ctx.saved_tensors[0]        # its derivative is 0
        """,
        mend="Save inputs and outputs only and compute the rest in backward; or decorate backward with `@once_differentiable`.",
        source="PyTorch, 'Double Backward with Custom Functions'; torch.autograd.gradgradcheck.",
    ),
)
