"""Rules about the ways in which a loss is differentiated in reverse mode: G05, G07, G10."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from harness.calls import tolerance
from harness.calls.evaluation import LossRaised
from harness.declare.spec import ONE_BACKWARD, LossSpec
from harness.errors import told_in_a_line
from harness.rules.dtypes.kept import asked, short
from harness.rules.gradients.cut_off import element, needs_differentiable, with_gradient
from harness.rules.rule import Mismatch, Partly, Rule
from harness.rules.tools.made import copied, counted
from harness.rules.tools.slopes import element_index
from harness.rules.trial import Trial, contract, describe, is_finite

UPSTREAM = (-3.0, 65536.0)  # a sign, and the factor that a gradient scaler begins with
EXACT = -4.0  # multiplying by it rounds nothing, in any dtype
_MARGIN = 16.0  # by which products on the way may pass what comes of them

Gradients = Mapping[str, Tensor | None]


def first_difference(trial: Trial, came: Gradients, should: Gradients, eps: float = 0.0) -> Mismatch | None:
    """The element by which two gradients of one point differ most; both went the same way at every tie.

    They are rounded at ``eps``, where that is more than the implementation does in its widest dtype.
    """
    eps = max(eps, trial.eps)
    for name, theirs in should.items():
        if name not in came or (theirs is None and came[name] is None):
            continue
        given = next(g for g in (came[name], theirs) if g is not None)
        ours, wanted = (
            torch.zeros_like(given, dtype=torch.float64) if g is None else g.detach().double()
            for g in (came[name], theirs)
        )
        off = (ours - wanted).abs().nan_to_num(torch.inf)
        largest = float(wanted.abs().max()) if wanted.numel() else 0.0
        allowed = tolerance.same_gradient(eps) * largest
        if not bool((off > allowed).any()):
            continue
        allowed += tolerance.same_intermediate(eps) * max(1.0, trial.scale.intermediate)
        index = element_index(int(off.argmax()), off.shape)
        if float(off[index]) > allowed:
            shown = "None" if came[name] is None else describe(float(ours[index]))
            return Mismatch(
                element(name, index),
                shown,
                describe(float(wanted[index])),
                float(off[index]),
                allowed,
                kind="gradient",
                tensor=name,
                size=largest + trial.scale.intermediate,
                finite=bool(ours[index].isfinite()),
            )
    return None


def _differentiate(trial: Trial, leaves: Mapping[str, Tensor], scalar: Tensor, *, retain: bool = False) -> Gradients:
    names = [name for name in trial.spec.differentiable if leaves[name].requires_grad]
    found = trial.differentiated(scalar, [leaves[n] for n in names], retain=retain)
    return dict(zip(names, found, strict=True))


def _scaled(gradients: Gradients, factor: float) -> Gradients:
    return {name: None if g is None else g * factor for name, g in gradients.items()}


def gradient_is_right_under_any_upstream(trial: Trial) -> Iterator[Mismatch | Partly]:
    """The gradient is right however the loss is used: scaled, of computed inputs, and differentiated twice over.

        d(c L)/dx = c dL/dx,    dL(2 z)/dz = 2 dL/dx,    and a second backward of one graph gives the same (c = -3)
        d(u . L)/dx + d((c - u) . L)/dx = d(c . L)/dx    where L has several elements, and some of u are 0 or negative

    What comes from above may have any strides: those of a sum are 0, those of a transposed or stacked loss are others.  It
    is not written to, for others may have it too.  Gradients of -4 L are -4 times those of L in every dtype.
    Source: the chain rule; PyTorch, 'Extending torch.autograd', on grad_output and saved tensors.
    """
    base = with_gradient(trial.base).gradients
    for factor in (UPSTREAM[0], _scale(base, trial.base.output)):
        leaves = trial.leaves(trial.tensors())
        came = _scaled(_differentiate(trial, leaves, contract(trial.output(leaves)) * factor), 1 / factor)
        if (found := first_difference(trial, came, base)) is not None:
            what = f"of {factor:g} times the loss, over {factor:g}"
            yield _used(trial, found, what, "scaled", f"gradients({factor!r} * total(loss(**tensors)))")
            break
    else:
        yield from _in_narrower_dtypes(trial)
    yield from _of_some_elements(trial, base)
    yield from _of_any_layout(trial)
    yield from _of_computed_inputs(trial, base)
    if trial.spec.once:
        yield Partly(ONE_BACKWARD)
    else:
        yield from _twice(trial)


def _scale(gradients: Gradients, output: Tensor) -> float:
    """What a gradient scaler multiplies by: it halves its factor until all that is multiplied fits the dtype."""
    given = [t for t in (output, *gradients.values()) if t is not None and t.numel()]
    if not given:
        return UPSTREAM[1]
    room = min(torch.finfo(t.dtype).max for t in given) / (_MARGIN * max(1.0, *(float(t.abs().max()) for t in given)))
    return float(min(UPSTREAM[1], 2.0 ** math.floor(math.log2(max(room, 1.0)))))


def _of_some_elements(trial: Trial, base: Gradients) -> Iterator[Mismatch]:
    """A sum of some elements, as a mask outside of the loss takes it, and of the others."""
    found = []
    for is_rest in (False, True):
        leaves = trial.leaves(trial.tensors())
        output = trial.output(leaves)
        if not output.ndim:
            return
        upstream = (counted(output.numel(), output) % 3 - 1).to(output.dtype).reshape(output.shape)
        part = (output * upstream).sum()
        found.append(_differentiate(trial, leaves, contract(output) - part if is_rest else part))
    came, others = found
    total = {n: g if (o := others[n]) is None else o if g is None else g + o for n, g in came.items()}
    if (off := first_difference(trial, total, base)) is not None:
        shown = """value = loss(**tensors)
upstream = (torch.arange(value.numel()) % 3 - 1).to(value).reshape(value.shape)
gradients((value * upstream).sum())
value = loss(**tensors)
gradients(total(value) - (value * upstream).sum())"""
        what = "as the sum of that of some elements of the loss and that of the others"
        yield _used(trial, off, what, "by element", shown)


class _Given(torch.autograd.Function):
    """A number whose backward hands on a tensor as it is: in its memory, with its strides."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, upstream: Tensor) -> Tensor:
        ctx.upstream = upstream
        return (output * upstream).sum()

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        return ctx.upstream, None


def _upstreams(output: Tensor) -> Iterator[tuple[str, Tensor, str]]:
    """(how they lie in memory, what may come from above, code that makes it of ``value`` or ``upstream``)."""
    if not output.ndim:
        yield "kept by others", torch.full_like(output, UPSTREAM[0]), f"torch.full_like(value, {UPSTREAM[0]:g})"
        return
    upstream = (counted(output.numel(), output) % 3 + 1).to(output.dtype).reshape(output.shape)
    yield (
        "expanded, as that of a sum",
        torch.ones_like(output[..., :1]).expand(output.shape),
        "torch.ones_like(value[..., :1]).expand(value.shape)",
    )
    yield (
        "strided, as that of a stack",
        torch.stack([upstream] * 2, -1)[..., 0],
        "torch.stack([upstream] * 2, -1)[..., 0]",
    )
    if output.ndim > 1:
        yield "transposed", upstream.mT.contiguous().mT, "upstream.mT.contiguous().mT"


def _of_any_layout(trial: Trial) -> Iterator[Mismatch]:
    """What comes from above is read by its strides, and not written to."""

    def gradients(upstream: Tensor) -> Gradients:
        leaves = trial.leaves(trial.tensors())
        return _differentiate(trial, leaves, _Given.apply(trial.output(leaves), upstream))

    for layout, upstream, made in _upstreams(trial.base.output):
        dense = upstream.clone(memory_format=torch.contiguous_format)
        what = f"where the gradient from above is {layout}"
        shown = f"""value = loss(**tensors)
upstream = (torch.arange(value.numel()) % 3 + 1).to(value).reshape(value.shape)
upstream = {made}
gradients(value, grad_outputs=upstream.contiguous())
gradients(loss(**tensors), grad_outputs=upstream)
print(upstream)"""
        should = gradients(dense.clone())
        try:
            found = first_difference(trial, gradients(upstream), should)
        except LossRaised as raised:
            found = Mismatch("gradient", told_in_a_line(raised.error), "a gradient", error=raised.error)
        if found is None and not torch.equal(upstream, dense):
            found, what = Mismatch("the gradient from above", "written to", "left as it was"), f"({layout})"
        if found is not None:
            yield _used(trial, found, what, "upstream", shown)
            return


def _in_narrower_dtypes(trial: Trial) -> Iterator[Mismatch]:
    """A branch on the dtype has a backward of its own."""
    widest = tolerance.eps_of(trial.precision.takes)
    for dtype in (d for d in asked(trial) if tolerance.eps_of(d) > widest):
        tensors = trial.tensors(dtype)
        found = []
        try:
            for factor in (1.0, EXACT):
                leaves = trial.leaves(copied(tensors))
                scalar = contract(trial.output(leaves)) * factor
                found.append(_scaled(_differentiate(trial, leaves, scalar), 1 / factor))
        except LossRaised:
            continue  # D01 says so
        if any(g is not None and not is_finite(g) for gradients in found for g in gradients.values()):
            continue  # D02 says so
        off = first_difference(trial, found[1], found[0], tolerance.eps_of(dtype))
        if off is not None:
            what = f"of {EXACT:g} times the loss in {short(dtype)}, over {EXACT:g}"
            shown = f"gradients({EXACT!r} * total(loss(**tensors)))"
            yield replace(_used(trial, off, what, f"scaled {short(dtype)}", shown), tensors=tensors)


def _of_computed_inputs(trial: Trial, base: Gradients) -> Iterator[Mismatch]:
    halves = {name: tensor / 2 for name, tensor in trial.tensors().items() if name in trial.spec.differentiable}
    leaves = trial.leaves({**trial.tensors(), **halves})
    inputs = {name: leaf * 2 if name in halves else leaf for name, leaf in leaves.items()}
    try:
        came = _scaled(_differentiate(trial, leaves, contract(trial.output(inputs))), 0.5)
        found = first_difference(trial, came, base)
    except LossRaised as raised:
        found = Mismatch("loss", told_in_a_line(raised.error), "a number", error=raised.error)
    if found is not None:
        shown = "gradients(total(loss(**{n: t * 1 if t.requires_grad else t for n, t in tensors.items()})))"
        yield _used(trial, found, "of inputs that a network has computed", "computed inputs", shown)


def _twice(trial: Trial) -> Iterator[Mismatch]:
    leaves = trial.leaves(trial.tensors())
    scalar = contract(trial.output(leaves)) * UPSTREAM[0]  # what is multiplied by 1 in place is right twice
    first = _differentiate(trial, leaves, scalar, retain=True)
    kept = {name: None if g is None else g.clone() for name, g in first.items()}
    shown = f"value = {UPSTREAM[0]:g} * value\ngradients(value, retain_graph=True)\ngradients(value)"
    try:
        second = _differentiate(trial, leaves, scalar)
    except LossRaised as raised:
        found = Mismatch("loss", told_in_a_line(raised.error), "a gradient", error=raised.error, severity="warning")
        yield _used(trial, found, "in a second backward with retain_graph=True", "second backward raises", shown)
        return
    if (off := first_difference(trial, second, kept)) is not None:
        yield _used(trial, off, "in a second backward with retain_graph=True", "second backward", shown)
    elif (off := first_difference(trial, first, kept)) is not None:
        yield _used(trial, off, "after a second backward, which wrote over it", "overwritten", shown)


_HINTS = {
    "computed inputs": "do not ask whether an input is a leaf, write into it, or set its requires_grad: predictions are never leaves",
    "upstream": "in a custom backward: read grad_output by its strides, or take grad_output.contiguous(), and never write into it",
}
_IN_BACKWARD = "in a custom backward: multiply by grad_output, never write into saved tensors or a buffer that is kept"
_TWICE = ("second backward raises", "second backward", "overwritten")


def _used(trial: Trial, found: Mismatch, what: str, aspect: str, shown: str) -> Mismatch:
    hint = _HINTS.get(aspect, _IN_BACKWARD)
    if aspect in _TWICE:  # fused kernels free or overwrite what they keep
        hint += f"; where one backward is all that training asks of it, declare {trial.spec.line_that_says('once')}"
    code = """
        value = total(loss(**tensors))

        def gradients(scalar, **options):
            print(torch.autograd.grad(scalar, [t for t in tensors.values() if t.requires_grad], allow_unused=True, **options))

        gradients(total(loss(**tensors)))
    """
    return replace(
        found,
        where=f"{found.where} {what}",
        aspect=aspect,
        tensors=trial.tensors(),
        code=f"{code.rstrip()}\n        " + shown.replace("\n", "\n        "),
        hint=hint,
    )


def gradients_of_a_part_are_the_same(trial: Trial) -> Iterator[Mismatch]:
    """The gradient of an input does not depend on which other inputs require one.

        dL/dx_i  with only some of x_1 ... x_n requiring grad  =  dL/dx_i  with all of them

    A frozen encoder, a fixed prototype or a second optimizer makes some inputs constants.
    Source: PyTorch, 'Extending torch.autograd', on needs_input_grad.
    """
    base = with_gradient(trial.base).gradients
    for part in _parts(trial.spec.differentiable):
        try:
            run = trial.run(trial.tensors(), wrt=part)
            found = first_difference(trial, {name: run.gradients.get(name) for name in part}, base)
        except LossRaised as raised:
            found = Mismatch("loss", told_in_a_line(raised.error), "a number", error=raised.error)
        if found is not None:
            yield _partly(trial, found, part)
            return


def _parts(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Every input alone and, where there are more than two, all but one."""
    yield from combinations(names, 1)
    if len(names) > 2:
        yield from combinations(names, len(names) - 1)


def _partly(trial: Trial, found: Mismatch, part: Sequence[str]) -> Mismatch:
    return replace(
        found,
        where=f"{found.where} with only {', '.join(part)} requiring grad",
        aspect="part",
        tensors=trial.tensors(),
        code=f"""
        def gradients(names):
            given = {{n: t.detach().requires_grad_(n in names) for n, t in tensors.items()}}
            print(torch.autograd.grad(total(loss(**given)), [given[n] for n in names], allow_unused=True))

        gradients({list(trial.spec.differentiable)!r})
        gradients({list(part)!r})
        """,
        hint="in a custom backward: return one gradient for each input in order, None where ctx.needs_input_grad is False",
    )


def _has_several(spec: LossSpec, name: str) -> str | None:
    return None if len(spec.differentiable) > 1 else "fewer than two differentiable inputs are declared"


def gradient_is_like_its_input(trial: Trial) -> Iterator[Mismatch]:
    """A gradient has its input's shape, dtype, device and strided layout, in float64 and float32.

    shape(dL/dx) = shape(x),  dtype(dL/dx) = dtype(x),  device(dL/dx) = device(x),  layout(dL/dx) = layout(x)

    Optimizers, gradient clipping and hooks combine the two elementwise.  Source: torch.Tensor.grad.
    """
    trial.base  # noqa: B018 - a loss that raises is B01's
    for dtype in (d for d in asked(trial) if d in (torch.float64, torch.float32)):
        tensors = trial.tensors(dtype)
        try:
            gradients = trial.run(tensors).gradients
        except LossRaised:
            continue  # a loss that raises in float32 is D01's
        for name, gradient in gradients.items():
            if gradient is None:
                continue
            for what in ("layout", "dtype", "device", "shape"):
                came, should = getattr(gradient, what), getattr(tensors[name], what)
                if came != should:
                    yield Mismatch(
                        f"(d loss / d {name}).{what}",
                        str(list(came) if what == "shape" else came),
                        str(list(should) if what == "shape" else should),
                        aspect=f"{name} {what}",
                        tensor=name,
                        tensors=tensors,
                        code=f"print(torch.autograd.grad(total(loss(**tensors)), tensors[{name!r}]))",
                        hint="no sparse=True lookup and no sparse gradient of a custom backward: return a dense one like the input",
                    )


RULES = (
    Rule(
        code="G10",
        title="gradient has its input's dtype, shape, device and layout",
        group="derivatives",
        severity="error",
        check=gradient_is_like_its_input,
        applies=needs_differentiable,
        regimes={"distinct": 1},
        smooth=True,
        why="A sparse gradient of a dense input makes the optimizer or the clipping raise, far from the loss that made it.",
        example="rows = F.embedding(index, embeddings, sparse=True)      # its gradient is a sparse tensor",
        mend="Return dense gradients of the input's shape and dtype.",
        source="PyTorch, torch.Tensor.grad; pytorch/pytorch#22731 and others on sparse gradients in optimizers.",
    ),
    Rule(
        code="G05",
        title="gradient is right under any upstream gradient",
        group="derivatives",
        severity="error",
        check=gradient_is_right_under_any_upstream,
        applies=needs_differentiable,
        regimes={"distinct": 2},
        smooth=True,
        why="`0.1 * loss`, loss scaling, a sum of two losses and gradient accumulation train with another gradient than the one that was checked.",
        example="""
            def backward(ctx, grad_output):
                x, y = ctx.saved_tensors
                return 2 * (x - y) / len(x), None      # right only while grad_output is 1
        """,
        mend="Multiply by grad_output; never write into saved tensors; allocate the gradient anew in each backward.",
        source="PyTorch, 'Extending torch.autograd'.",
    ),
    Rule(
        code="G07",
        title="gradient is right when only some inputs require grad",
        group="derivatives",
        severity="error",
        check=gradients_of_a_part_are_the_same,
        applies=_has_several,
        regimes={"distinct": 2},
        smooth=True,
        why="With a frozen encoder the remaining input gets no gradient, or that of the other one.",
        example="""
            def backward(ctx, grad_output):
                if not all(ctx.needs_input_grad):
                    return None, None
        """,
        mend="Decide for each input by its own ctx.needs_input_grad.",
        source="PyTorch, 'Extending torch.autograd', on needs_input_grad.",
    ),
)
