"""Rules about mixed precision: D04, D06."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from harness.calls import tolerance
from harness.calls.evaluation import LossRaised
from harness.errors import NotApplicable, told_in_a_line
from harness.rules.dtypes.kept import asked, has_float, short
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools.compare import same_output
from harness.rules.trial import Trial, describe, is_finite


def mixed_dtypes_keep_their_meaning(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """Context, targets and labels keep their meaning in the dtypes that they come in.

        dtype(L(x_32, c_64)) = dtype(x)        L(x, t) != L(x, trunc(t))        L(x, labels_int32) = L(x, labels_int64)

    A refusal is clear enough; what is silent is not.  A tensor whose fraction never changes a bit of the result, though
    whole steps do, was cast to an integer dtype on the way.
    """
    if not trials:
        return
    yield from _context_dtype(trials[0])
    for name, tensor in trials[0].spec.tensors.items():
        if tensor.is_floating and not tensor.domain.whole and name not in trials[0].spec.differentiable:
            yield from _fraction_lost(trials, name)
        if tensor.domain.kind == "integer" and tensor.dtype in (None, torch.int64):
            yield from _narrow_labels(trials[0], name)


def _context_dtype(trial: Trial) -> Iterator[Mismatch]:
    spec = trial.spec
    context = [n for n, t in spec.context.items() if t.domain.kind == "float" and t.dtype is None]
    others = [n for n, t in spec.inputs.items() if t.domain.kind == "float" and t.dtype is None]
    if not context or not others:
        return
    if not {torch.float32, torch.float64} <= set(asked(trial)):
        return
    for ours, theirs in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        tensors = {**trial.tensors(ours), **{n: t for n, t in trial.tensors(theirs).items() if n in context}}
        where = f"with {short(ours)} inputs and {' and '.join(context)} in {short(theirs)}"
        try:
            output = trial.run(tensors).output
        except LossRaised as raised:
            yield Mismatch(
                f"loss {where}",
                told_in_a_line(raised.error),
                f"a {short(ours)} number",
                error=raised.error,
                aspect=f"refuses {short(theirs)} context",
                severity="note",
                tensors=tensors,
                code="print(loss(**tensors))",
                hint="cast the context where it is used: `weights.to(predictions.dtype)`",
            )
            continue
        if output.dtype != ours:
            promoted = output.dtype == torch.float64
            yield Mismatch(
                f"loss.dtype {where}",
                short(output.dtype),
                short(ours),
                aspect=f"{short(theirs)} context",
                severity="note" if promoted and not trial.candidate.constructed else None,
                tensors=tensors,
                code="print(loss(**tensors).dtype)",
                hint="cast the context where it is used: `weights.to(predictions.dtype)`",
            )


def _fraction_lost(trials: Sequence[Trial], name: str) -> Iterator[Mismatch]:
    asked: Trial | None = None
    for trial in trials:
        tensors = trial.tensors()
        whole = tensors[name].trunc()
        if torch.equal(whole, tensors[name]) or not is_finite(trial.base.output):
            continue
        try:
            if not torch.equal(trial.run({**tensors, name: whole}, wrt=()).output, trial.base.output):
                return
            stepped = {**tensors, name: _a_step_away(trial, tensors[name], name)}
            matters = not torch.equal(trial.run(stepped, wrt=()).output, trial.base.output)
        except LossRaised:
            return
        asked = trial if matters and asked is None else asked
    if asked is None:
        return
    yield Mismatch(
        f"loss with the fractions of {name} cut off",
        "the same number, bit for bit, in all cases",
        "another number",
        aspect=f"fraction of {name}",
        tensors=asked.tensors(),
        code=f"print(loss(**tensors), loss(**{{**tensors, {name!r}: tensors[{name!r}].trunc()}}))",
        hint=f"{name} is cast to an integer dtype (.long(), .int(), .bool()); keep it floating, or declare whole numbers",
    )


def _a_step_away(trial: Trial, values: Tensor, name: str) -> Tensor:
    """Values whose whole part is another one: one more, or the upper bound where there is one."""
    high = trial.spec.tensors[name].domain.high
    return values + 1 if math.isinf(high) else torch.full_like(values, high)


def _narrow_labels(trial: Trial, name: str) -> Iterator[Mismatch]:
    tensors = trial.tensors()
    narrow = {**tensors, name: tensors[name].int()}
    try:
        output = trial.run(narrow, wrt=()).output
    except LossRaised:
        return  # PyTorch's own losses refuse them too, and say so
    found = same_output(output, trial.base.output, trial.scale)
    if found is not None:
        yield replace(
            found,
            where=f"loss with {name} in int32",
            should=f"{found.should}, as in int64",
            aspect=f"int32 {name}",
            tensors=narrow,
            code=f"print(loss(**tensors), loss(**{{**tensors, {name!r}: tensors[{name!r}].long()}}))",
            hint=f"cast first: `{name}.long()`, or refuse other dtypes",
        )


def autocast_changes_only_the_precision(trial: Trial) -> Iterator[Mismatch]:
    """Under autocast the value is that of the float64 run, as near as bfloat16 and the condition number allow.

        |L_autocast(x_32) - L_64(x_32)| <= c eps_bf16 (|L| + sum_i |x_i dL/dx_i| + max |intermediate|)

    Gradients are finite and stay float32.  Autocast makes a product bfloat16 while elementwise results stay float32, so
    a buffer made with the inputs' dtype may not take it.
    Source: Higham, Accuracy and Stability of Numerical Algorithms, section 1.6.
    """
    trial.base  # noqa: B018 - a loss that raises is B01's
    if torch.float32 not in asked(trial):
        raise NotApplicable("the loss does not take float32")
    tensors = trial.tensors(torch.float32)
    widened = trial.widened(tensors)
    exact, plain = trial.run(widened), trial.run(trial.tensors(torch.float32))  # a loss may edit what it is given
    if not exact.finite or not plain.finite:
        raise NotApplicable("not finite in float32 or float64; see G08 and D02")
    condition, intermediate = trial.scale.condition, trial.scale.intermediate
    kind = torch.device(trial.device).type
    where = f"under torch.autocast({kind!r}, dtype=torch.bfloat16)"
    try:
        run = trial.run(tensors, mode=torch.autocast(kind, dtype=torch.bfloat16))
    except LossRaised as raised:
        yield Mismatch(
            f"loss {where}",
            told_in_a_line(raised.error),
            describe(exact.scalar),
            error=raised.error,
            aspect="raises",
            tensors=tensors,
            code=_AUTOCAST_CODE,
            hint="give buffers the dtype of what is written into them (`torch.zeros_like(product)`), or switch autocast off inside and cast the inputs",
        )
        return
    dtypes = [n for n, g in run.gradients.items() if g is not None and g.dtype != torch.float32]
    if not exact.output.numel():
        return
    off = math.inf
    if run.output.shape == exact.output.shape:
        off = float((run.output.double() - exact.output).abs().max())
    eps = torch.finfo(torch.bfloat16).eps
    allowed = tolerance.forward_error(eps, float(exact.output.abs().max()) + intermediate, condition)
    if run.finite and not dtypes and off <= allowed:
        return
    what = f"d loss / d {dtypes[0]}.dtype" if dtypes and run.finite else ("loss" if not off <= allowed else "gradient")
    yield Mismatch(
        f"{what} {where}",
        f"{run.scalar:.6g}" if run.finite else "NaN or infinite",
        f"{exact.scalar:.6g}" if what == "loss" else "finite and float32",
        off if math.isfinite(off) else None,
        allowed,
        aspect="accuracy" if run.finite else "finite",
        kind="value" if what == "loss" else "gradient",
        finite=run.finite,
        tensors=tensors,
        code=_AUTOCAST_CODE,
        hint="compute what cancels, exponentiates or divides in float32: `with torch.autocast('cpu', enabled=False)` around `x.float()`",
    )


_AUTOCAST_CODE = """
    print("float32: ", total(loss(**tensors)).item())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        print("autocast:", total(loss(**tensors)).item())
"""


RULES = (
    Rule(
        code="D04",
        title="context and targets keep their meaning in other dtypes",
        draws_anew="another dtype draws other numbers",
        group="precision",
        severity="warning",
        check_all=mixed_dtypes_keep_their_meaning,
        applies=has_float,
        regimes={"distinct": 3},
        smooth=True,
        why="Labels that lose their fraction train towards other targets; a float64 context turns the whole loss into float64.",
        example="return ((predictions - labels.long()) ** 2).mean()      # 0.7 becomes 0",
        mend="Cast to the predictions' dtype where a tensor is used, and to integers only what indexes.",
        source="PyTorch, 'Tensor Attributes', type promotion.",
    ),
    Rule(
        code="D06",
        title="autocast changes only the precision",
        draws_anew="another dtype draws other numbers",
        group="precision",
        severity="warning",
        check=autocast_changes_only_the_precision,
        applies=has_float,
        regimes={"distinct": 2},
        smooth=True,
        not_interpreted="autocast makes bfloat16, with which Triton's interpreter computes bit by bit; ask on a GPU",
        why="Training runs under autocast, tests do not: the first mixed-precision run raises, or its loss is noise.",
        example="out = torch.zeros_like(z); out[mask] = (z @ z.T)[mask]      # float32 takes no bfloat16",
        mend="Make buffers from the product, and compute sensitive parts in float32 with autocast off.",
        source="PyTorch, 'Automatic Mixed Precision'; KevinMusgrave/pytorch-metric-learning#420.",
    ),
)
