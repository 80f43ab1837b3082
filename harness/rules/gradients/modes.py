"""Rules about the other modes of autograd: G04, forward mode, and G11, batched gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd import forward_ad

from harness.calls import tolerance
from harness.calls.evaluation import LossRaised
from harness.errors import NotApplicable, told_in_a_line
from harness.rules.gradients.cut_off import needs_a_second_backward, needs_differentiable, with_gradient
from harness.rules.gradients.derivatives import first_difference
from harness.rules.gradients.second_order import custom_functions, told_of_functions, unless_required
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools.made import copied, normal
from harness.rules.trial import Trial, contract, describe

COTANGENTS = (1.0, -2.0, 0.5)


def forward_mode_is_reverse_mode(trial: Trial) -> Mismatch | None:
    """Forward-mode differentiation gives the slope that reverse mode gives.

        jvp(L, x, u) = <dL/dx, u>

    A missing forward formula raises and is a note.  Source: Griewank & Walther, Evaluating Derivatives, chapter 3.
    """
    if trial.spec.detaches:
        raise NotApplicable("a declared stop-gradient by no_grad() does not stop forward mode")
    with_gradient(trial.base)
    tensors = trial.tensors()
    try:
        mismatch = _forward_differs(trial, tensors)
        if mismatch is None or _forward_differs(trial, trial.nudged(tensors)) is None:
            return None
    except LossRaised as raised:
        return _unsupported(trial, "G04", "forward-mode gradient", raised.error, "give the custom Function a jvp()")
    return mismatch


def _forward_differs(trial: Trial, tensors: Mapping[str, Tensor]) -> Mismatch | None:
    generator = trial.generator(41)
    found = trial.run(copied(tensors)).gradients
    gradients = {name: gradient for name, gradient in found.items() if gradient is not None}
    along = {name: normal(g, generator) for name, g in gradients.items()}
    should = sum(float((gradients[name] * u).sum()) for name, u in along.items())
    size = sum(float((gradients[name] * u).abs().sum()) for name, u in along.items())
    with forward_ad.dual_level():
        leaves = trial.leaves(copied(tensors))
        duals = {n: forward_ad.make_dual(leaves[n], u) for n, u in along.items()}
        tangent = forward_ad.unpack_dual(contract(trial.output({**tensors, **duals}))).tangent
    came = 0.0 if tangent is None else float(tangent)
    allowed = tolerance.same_gradient(trial.eps) * size
    if abs(came - should) <= allowed:
        return None
    allowed += tolerance.same_intermediate(trial.eps) * max(1.0, trial.scale.intermediate)
    if abs(came - should) <= allowed:
        return None
    return Mismatch(
        "forward-mode slope along a random direction",
        "None" if tangent is None else describe(came),
        f"{describe(should)}, as reverse mode gives",
        abs(came - should),
        allowed,
        aspect="forward mode",
        kind="gradient",
        size=size + trial.scale.intermediate,
        finite=math.isfinite(came),
        tensors=tensors,
        code=_forward_code(trial),
        hint=_forward_mend(trial, came),
    )


def _forward_mend(trial: Trial, came: float) -> str:
    """Where to look: a custom Function in the graph, or a number that reverse mode stops at and forward mode goes through."""
    names = [f.__name__ for f in custom_functions(trial.output(trial.leaves(trial.tensors())))]
    if names:
        return f"mend the jvp() of {' and '.join(dict.fromkeys(names))}; detach() and .data cut forward mode too, no_grad() does not"
    if not math.isfinite(came):
        return (
            "a number on the way is NaN or infinite and is replaced afterwards, as by nan_to_num or torch.where: replace what it "
            "is made of before, such as a divisor that is 0"
        )
    return "detach() and .data cut forward mode too, no_grad() does not; no custom Function is in the graph"


def _forward_code(trial: Trial) -> str:
    return f"""
        from torch.autograd import forward_ad

        names = {list(trial.spec.differentiable)!r}
        gradients = torch.autograd.grad(total(loss(**tensors)), [tensors[n] for n in names], materialize_grads=True)
        along = [torch.randn(g.shape, dtype=g.dtype) for g in gradients]
        print("reverse:", sum((g * u).sum() for g, u in zip(gradients, along)).item())
        with forward_ad.dual_level():
            duals = {{n: forward_ad.make_dual(tensors[n], u) for n, u in zip(names, along)}}
            print("forward:", forward_ad.unpack_dual(total(loss(**{{**tensors, **duals}}))).tangent)
    """


def batched_gradients_are_the_loop(trial: Trial) -> Mismatch | None:
    """Gradients for several upstream numbers at once are those of a loop over them.

        grad(L, x, [c_1, ..., c_k], is_grads_batched=True)[i] = c_i dL/dx

    Jacobians and per-sample gradients are computed so.  A backward that cannot be batched raises, which is a note.
    Source: torch.autograd.grad; torch.func.vmap over backward.
    """
    base = with_gradient(trial.base).gradients
    leaves = trial.leaves(trial.tensors())
    scalar = contract(trial.output(leaves))
    cotangents = torch.tensor(COTANGENTS, dtype=scalar.dtype, device=scalar.device)
    names = [name for name in base if base[name] is not None]
    if not names:
        raise NotApplicable("no input gets a gradient; see G06")
    try:
        batched = torch.autograd.grad(scalar, [leaves[n] for n in names], cotangents, is_grads_batched=True)
    except Exception as error:
        return _unsupported(trial, "G11", "batched gradient", error, "no .item(), .data or `if` in backward")
    for position, factor in enumerate(COTANGENTS):
        came = {name: g[position] / factor for name, g in zip(names, batched, strict=True)}
        found = first_difference(trial, came, base)
        if found is not None:
            return replace(
                found,
                where=f"{found.where} in a batch of {len(COTANGENTS)} upstream numbers",
                aspect="batched",
                tensors=trial.tensors(),
                code=_BATCHED,
                hint="use out-of-place tensor operations in the custom backward, or give the Function a vmap() rule",
            )
    return None


_BATCHED = f"""
    value = total(loss(**tensors))
    wrt = [t for t in tensors.values() if t.requires_grad]
    upstream = torch.tensor({list(COTANGENTS)!r}, dtype=value.dtype)
    print("loop:", [torch.autograd.grad(value, wrt, c, retain_graph=True) for c in upstream])
    print("batched:", torch.autograd.grad(value, wrt, upstream, is_grads_batched=True))
"""


def _unsupported(trial: Trial, code: str, what: str, error: BaseException, hint: str) -> Mismatch:
    refusal = Mismatch(
        f"a {what}",
        told_in_a_line(error),
        "a number",
        error=error,
        aspect="unsupported",
        severity=unless_required(trial.spec, code),
        tensors=trial.tensors(),
        code=_forward_code(trial) if code == "G04" else _BATCHED,
        hint=hint,
    )
    return told_of_functions(trial, code, refusal)


RULES = (
    Rule(
        code="G04",
        title="forward mode gives what reverse mode gives",
        group="modes",
        severity="warning",
        check=forward_mode_is_reverse_mode,
        applies=needs_differentiable,
        regimes={"distinct": 1},
        smooth=True,
        why="Jacobian-vector products, Hessians by forward over reverse and `torch.func.jvp` give another derivative, without a word.",
        example="""
            @staticmethod
            def jvp(ctx, tangent):
                return tangent.sum()      # the Jacobian is forgotten
        """,
        mend="Derive jvp() again, or remove it so that it is refused.",
        source="Griewank & Walther, Evaluating Derivatives, chapter 3; PyTorch, forward-mode AD tutorial.",
    ),
    Rule(
        code="G11",
        title="batched gradients equal the loop",
        group="modes",
        severity="warning",
        check=batched_gradients_are_the_loop,
        applies=needs_a_second_backward,
        regimes={"distinct": 1},
        smooth=True,
        why="`torch.autograd.functional.jacobian(vectorize=True)` and per-sample gradients return numbers of another loop, or fail.",
        example="""
            def backward(ctx, grad_output):
                return ctx.saved_tensors[0] * grad_output.flatten()[0]      # the first of the batch, for all
        """,
        mend="Elementwise tensor operations in backward, or a vmap() rule for the Function.",
        source="PyTorch, torch.autograd.grad(is_grads_batched=True).",
    ),
)
