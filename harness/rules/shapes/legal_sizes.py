"""Rules about sizes that are legal and easily forgotten: B02, B05, B07."""

from __future__ import annotations

import dis
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from types import FrameType

import torch
from torch import Tensor

from harness.calls.evaluation import LossRaised
from harness.declare import annotations as signatures
from harness.declare import dims
from harness.declare.annotations import call_function, construct_parameters
from harness.declare.spec import LossSpec
from harness.drawing.case import Case, Recipe
from harness.errors import NotApplicable, told, told_in_a_line
from harness.rules.gradients.directional import gradient_matches_slopes_along_directions
from harness.rules.rule import Mismatch, Rule
from harness.rules.shapes.broadcasting import unit_symbols
from harness.rules.tools.compare import relation, same_gradients, same_output
from harness.rules.tools.sizes import batch_symbol, resized
from harness.rules.tools.special import with_everything_counted
from harness.rules.trial import Run, Trial, WrongReturn, describe

REDUCTIONS = ("none", "mean", "sum")
UNKNOWN_LIMIT = 32  # weights of a mean that are solved for: each needs one evaluation more


def broadcastable_axes(dims_text: str, case: Case) -> tuple[int, ...]:
    """Axes that are declared broadcastable (``#C``) and are longer than one."""
    flags = [
        dim.broadcastable
        for dim in dims.parse(dims_text)
        for _ in range(len(dims.axes(dim.token, case.sizes)) if dim.variadic else 1)
    ]
    shape = dims.shape(dims_text, case.sizes)
    return tuple(axis for axis, flag in enumerate(flags) if flag and shape[axis] > 1)


def declared_broadcast_is_an_explicit_expand(trial: Trial) -> Iterator[Mismatch]:
    """A tensor with size 1 on an axis that is declared broadcastable means the same as the tensor expanded.

        L(c) = L(expand(c))   and   dL/dc = sum over the expanded axes of dL/d expand(c)

    Source: the array API standard, "Broadcasting"; the adjoint of expand is the sum.
    """
    tensors, asked = trial.tensors(), 0
    for name, tensor in trial.spec.tensors.items():
        axes = broadcastable_axes(tensor.dims, trial.case)
        if not axes or tensor.domain.structured:
            continue
        for chosen in dict.fromkeys((axes[:1], axes[-1:], axes)):
            narrow = tensors[name]
            for axis in chosen:
                narrow = narrow.narrow(axis, 0, 1)
            given = {**tensors, name: narrow.contiguous()}
            asked += 1
            found = _expansion_differs(trial, name, tensors[name].shape, given)
            if found is not None:
                yield found
                break
    if not asked:
        raise NotApplicable("no broadcastable axis is longer than one here")


def _expansion_differs(trial: Trial, name: str, shape: torch.Size, given: dict[str, Tensor]) -> Mismatch | None:
    found = _expanded(trial, name, shape, given)
    if found is None or (found.kind == "gradient" and _expanded(trial, name, shape, trial.nudged(given)) is None):
        return None
    narrow, full = list(given[name].shape), list(shape)
    return replace(
        found,
        where=f"{found.where} with {name} {narrow} for {full}",
        tensors=given,
        code=f"""
            wide = tensors[{name!r}].detach().expand({full}).contiguous().requires_grad_(tensors[{name!r}].requires_grad)
            for given in (tensors, {{**tensors, {name!r}: wide}}):
                value = total(loss(**given))
                wrt = [t for t in given.values() if t.requires_grad]
                print(value.item(), torch.autograd.grad(value, wrt, allow_unused=True) if value.requires_grad else None)
        """,
        hint=f"expand {name} before it is reduced or counted, or take the '#' out of its dims if it may not broadcast",
    )


def _expanded(trial: Trial, name: str, shape: torch.Size, given: dict[str, Tensor]) -> Mismatch | None:
    wide = {**given, name: given[name].expand(shape).contiguous()}
    should = trial.run(wide)
    try:
        came = trial.run(given)
    except LossRaised as raised:
        expanded = f"{describe(should.scalar)}, as expanded"
        return Mismatch("loss", told_in_a_line(raised.error), expanded, error=raised.error, aspect=name)
    if not should.finite:
        return None
    scale = trial.measure_scale(wide)
    found = same_output(came.output, should.output, scale)
    if found is not None:
        return replace(found, aspect=name)
    summed = {n: g if g is None else g.sum_to_size(given[n].shape) for n, g in should.gradients.items()}
    found = same_gradients(came.gradients, summed, given, trial, scale)
    return None if found is None else replace(found, aspect=f"{name} gradient")


def batches_of_one_and_none(trial: Trial) -> Iterator[Mismatch]:
    """A size of one is accepted and gives finite numbers; so does an empty batch, where that is promised.

        |L(x)| < inf, |dL/dx| < inf   for |B| = 1; with requires={'B05'} for |B| = 0 too

    Where nothing is counted, 0/0 is a convention: every weight, label and mask counts here.  A loss of pairs or of a spread
    that refuses one row in words, by ``raise ValueError``, has said so, which is a note.
    """
    if unit_symbols(trial.spec, trial.case):
        yield from _single(trial)
        return
    trial.base  # noqa: B018 - a loss that raises on plain sizes is B01's
    if trial.exhaustive:
        yield from _empty(trial)


def _single(trial: Trial) -> Iterator[Mismatch]:
    tensors = with_everything_counted(trial.spec, trial.tensors())
    sizes = ", ".join(f"{symbol} = 1" for symbol in unit_symbols(trial.spec, trial.case))
    hint = "if a size of one is not legal, say so: dims such as 'B+1', or fixed_sizes; else divide by max(n - 1, 1) and the like"
    found = _troubled(trial, tensors, f"with {sizes}", "on a size of one")
    if found is None:
        return
    larger = with_everything_counted(trial.spec, trial.at(_of_two(trial)).tensors())
    if _troubled(trial, larger, "", "") is not None:
        raise NotApplicable("no better at sizes of two; see B01 and G08")
    promised = any("B05".startswith(code.upper()) for code in trial.spec.requires)
    refused = found.aspect.startswith("refuses") and not promised
    yield replace(found, hint=hint, severity="note" if refused else None)


def _of_two(trial: Trial) -> Case:
    """The case with 2 in place of every size of one."""
    sizes = {symbol: trial.case.sizes[symbol] for symbol in unit_symbols(trial.spec, trial.case)}
    doubled = {s: tuple(max(2, n) for n in size) if isinstance(size, tuple) else 2 for s, size in sizes.items()}
    return resized(trial.spec, trial.case, doubled)


def _empty(trial: Trial) -> Iterator[Mismatch]:
    spec, symbol = trial.spec, batch_symbol(trial.spec)
    case = resized(spec, trial.case, {symbol: (0,) if symbol in spec.variadic else 0})
    if any(t.domain.symbol == symbol and math.prod(case.shape(spec, n)) for n, t in spec.tensors.items()):
        return  # positions along an empty axis: there are none to name
    try:
        tensors = case.materialize(spec, dtype=trial.precision.takes, device=trial.device)
    except (RuntimeError, ValueError, IndexError) as error:
        raise NotApplicable(f"no empty tensors can be made: {told_in_a_line(error)}") from error
    found = _troubled(trial, tensors, f"with {symbol} = 0", "on an empty batch")
    promised = any("B05".startswith(code.upper()) for code in spec.requires)
    if found is not None:
        hint = "divide by max(count, 1), and keep max() and indexing away from empty tensors; the sum over nothing is 0"
        yield replace(found, severity="warning" if promised else "note", hint=hint)


def _troubled(trial: Trial, tensors: dict[str, Tensor], where: str, aspect: str) -> Mismatch | None:
    try:
        run = trial.run(tensors)
    except LossRaised as raised:
        came, what = told_in_a_line(raised.error), "refuses" if _asks_for_more(raised.error) else "raises"
    else:
        if run.finite:
            return None
        came, what = "NaN or infinite", "not finite"
        where = f"{where}, in value" if not bool(run.output.isfinite().all()) else f"{where}, in gradient"
    return Mismatch(
        f"loss {where}",
        came,
        "a finite number",
        aspect=f"{what} {aspect}",
        tensors=tensors,
        code="""
            value = total(loss(**tensors))
            wrt = [t for t in tensors.values() if t.requires_grad]
            print(value, torch.autograd.grad(value, wrt, allow_unused=True) if value.requires_grad else None)
        """,
    )


def _asks_for_more(error: BaseException) -> bool:
    """Whether a `raise` or `assert`, no failed operation, says in words that there is too little."""
    is_refusal = _statement(error) is not None and isinstance(error, (ValueError, AssertionError))
    return is_refusal and bool(_TOO_FEW.search(told(error)))


def _statement(error: BaseException) -> FrameType | None:
    """The frame whose `raise` or `assert` an error comes from; ``None`` where an operation failed."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or last.tb_frame.f_code.co_code[last.tb_lasti] != dis.opmap["RAISE_VARARGS"]:
        return None
    return last.tb_frame


_TOO_FEW = re.compile(
    r"at least|more than|greater than|fewer than|less than|too (few|small)|not enough|minimum|single|only one|two|pair|> ?1|[>≥]=? ?2",
    re.IGNORECASE,
)


def reductions_agree(trial: Trial) -> Iterator[Mismatch]:
    """``none``, ``mean`` and ``sum`` are three views of one loss.

        L_sum = sum_i L_none,i   and   L_mean = sum_i a_i L_none,i   with weights a_i that do not depend on the predictions

    An equal-weight mean has a_i = 1 / n; a mean over weights or lengths has others.  Whether such a_i exist is seen on
    more draws of the predictions than there are weights.  The gradient of ``none`` is right with an upstream gradient that
    differs by element.  A string is not taken where it is refused as any unknown one is, or by a `raise` or `assert` that
    names it, the argument or the strings that are taken, or that a constructor has; one that raises otherwise, beside
    another that works, is a defect.
    """
    each, mean, total = (_with_reduction(trial, reduction) for reduction in REDUCTIONS)
    tensors = trial.tensors()
    values: dict[str, Run] = {}
    errors: dict[str, LossRaised] = {}
    for reduction, reduced in zip(REDUCTIONS, (each, mean, total), strict=True):
        try:
            values[reduction] = reduced.run(tensors)
        except LossRaised as raised:
            errors[reduction] = raised
    if errors:
        yield from _raising(trial, values, errors)
        return
    if not all(bool(run.output.isfinite().all()) for run in values.values()):
        raise NotApplicable("the loss is not finite; see G08")
    code = _reductions_code(trial)
    for found in relation(total, lambda leaves: each.output(leaves).sum(), tensors, "by reduction='sum'"):
        swapped = replace(found, came=found.should, should=f"{found.came}, from the sum of reduction='none'")
        yield replace(
            swapped, aspect=f"sum {found.aspect}", code=code, hint="reduce what 'none' returns, with `.sum()`"
        )
    yield from _gradient_of_each(trial, each)
    if not _is_weighted_mean(trial, each, mean):
        yield Mismatch(
            "loss by reduction='mean'",
            f"{values['mean'].scalar:.6g}, no fixed mean of reduction='none'",
            "sum / n with an n that the predictions do not change",
            aspect="mean",
            severity="warning",
            tensors=tensors,
            code=code,
            hint="divide by the number of elements or the sum of the weights; a count of positive or hard elements changes as the predictions do",
        )


def _gradient_of_each(trial: Trial, each: Trial) -> Iterator[Mismatch]:
    """By ``reduction='none'`` each element has an upstream gradient of its own, which no sum or mean shows.

    Another value under a mode that changes nothing is no gradient, and G02's; so is a gradient that is wrong by the usual
    reduction too.
    """
    try:
        found = gradient_matches_slopes_along_directions(each)
        if not isinstance(found, Mismatch) or gradient_matches_slopes_along_directions(trial) is not None:
            return
    except (NotApplicable, LossRaised):
        return
    if found.kind == "gradient":
        yield replace(
            found,
            where=f"{found.where} by reduction='none', of sum_i w_i L_i with w_i in [1, 2)",
            aspect="none gradient",
            code="",
            hint="in a custom backward: multiply each element by its own grad_output, before anything is summed",
        )


def _raising(trial: Trial, values: Mapping[str, Run], errors: Mapping[str, LossRaised]) -> Iterator[Mismatch]:
    """The strings that raise where others work, unless the loss says that it takes no such string."""
    tensors, unknown = trial.tensors(), "no_such_reduction"
    refusal = ""
    try:
        _with_reduction(trial, unknown).run(tensors)
    except LossRaised as raised:
        refusal = told_in_a_line(raised.error)
    raising = {r: told_in_a_line(e.error) for r, e in errors.items()}
    other = [r for r, error in errors.items() if not isinstance(error.error, WrongReturn)]  # a tuple of parts, say
    as_unknown = (r for r in other if raising[r].replace(r, unknown) == refusal.replace(r, unknown))
    not_taken = {*as_unknown, *(r for r in other if _is_refused(trial, r, errors[r].error, values))}
    broken = [r for r in other if r not in not_taken]
    if not values or not broken:
        raise NotApplicable(f"reduction does not take the three strings: {next(iter(raising.values()))}")
    for reduction in broken:
        yield Mismatch(
            f"loss by reduction={reduction!r}",
            raising[reduction],
            f"a number, as by {' and '.join(map(repr, values))}",
            aspect=f"{reduction} raises",
            severity="warning",
            tensors=tensors,
            code=_reductions_code(trial),
            hint="reduce what 'none' returns; or refuse the string by a ValueError that names it",
        )


def _is_refused(trial: Trial, reduction: str, error: BaseException, taken: Collection[str]) -> bool:
    """Whether a `raise` or `assert` is about the string.

    It names the string, the argument, or all that are taken.  In a constructor, which has seen no data and is given another
    string elsewhere, it need not: there the string is among what the frame that raises knows.
    """
    frame = _statement(error)
    if frame is None:
        return False
    text, word = told(error), re.escape(reduction)
    names = rf"\b[Rr]eduction\b|['\"`]{word}['\"`]|\b{word}\b.*{_NOT_TAKEN}|{_NOT_TAKEN}.*\b{word}\b"
    if re.search(names, text) or (len(taken) > 1 and all(re.search(rf"\b{other}\b", text) for other in taken)):
        return True
    knows = any(isinstance(value, str) and value == reduction for value in frame.f_locals.values())
    return knows and _constructor_raises(_with_reduction(trial, reduction))


def _constructor_raises(trial: Trial) -> bool:
    try:
        trial.candidate.build(trial.tensors())
    except LossRaised:
        return True
    return False


_NOT_TAKEN = r"(?:support|implement|allow|valid|accept|only|unknown)"


def _with_reduction(trial: Trial, reduction: str) -> Trial:
    spec = trial.spec.replace(options={**trial.spec.options, "reduction": reduction})
    return trial.apart(spec=spec)


def _is_weighted_mean(trial: Trial, each: Trial, mean: Trial) -> bool:
    """Whether one set of weights makes the mean out of the elements, at every draw of the predictions."""
    rows: list[Tensor] = []
    values: list[Tensor] = []
    allowed, draws = 0.0, 1
    while len(rows) < draws:
        recipes = {n: Recipe(seed=1 + 7919 * len(rows) + k) for k, n in enumerate(trial.spec.differentiable)}
        drawn = trial.at(replace(trial.case, tensors={**trial.case.tensors, **recipes})).tensors()
        with torch.no_grad():
            rows.append(each.output(drawn).reshape(-1).cpu())  # CUDA has no solver for a matrix without full rank
            values.append(mean.output(drawn).sum().cpu())
        if len(rows) == 1:
            if rows[0].numel() > UNKNOWN_LIMIT:
                return True  # too many weights to solve for, so nothing can be said
            draws, allowed = rows[0].numel() + 3, mean.measure_scale(drawn).same(float(values[0]))
        if len(rows) == 3 and _is_mean(rows, values, allowed):
            return True
    matrix, should = torch.stack(rows), torch.stack(values)
    if not bool(matrix.isfinite().all() and should.isfinite().all()):
        return True
    weights = torch.linalg.lstsq(matrix, should.unsqueeze(1), driver="gelsd").solution
    return bool(((matrix @ weights).squeeze(1) - should).abs().max() <= allowed)


def _is_mean(rows: Sequence[Tensor], values: Sequence[Tensor], allowed: float) -> bool:
    """Whether sum / mean is one number at all draws, by cross-multiplication."""
    sums = [row.sum() for row in rows]
    return all(
        bool((value * sums[0] - values[0] * total).abs() <= allowed * (sums[0].abs() + total.abs()))
        for value, total in zip(values, sums, strict=True)
    )


def _reductions_code(trial: Trial) -> str:
    """Lines that call the implementation with each of the three strings."""
    from harness.rules.tools.reproduce import call, construction  # which knows the rules

    candidate = trial.candidate
    in_constructor = signatures.in_constructor(candidate.implementation, "reduction")
    of_both = ({"reduction": "reduction"}, {}) if in_constructor else ({}, {"reduction": "reduction"})
    made = f"implementation({construction(candidate, **of_both[0])})" if candidate.is_class else "implementation"
    return f"""
        for reduction in {REDUCTIONS}:
            value = {made}({call(candidate, **of_both[1])})
            print(reduction, value.tolist(), "sum:", value.sum().item())
    """


def _has_broadcast(spec: LossSpec, name: str) -> str | None:
    some = any(dim.broadcastable for tensor in spec.tensors.values() for dim in dims.parse(tensor.dims))
    return None if some else "no tensor has broadcastable ('#') dims"


def _has_reduction(spec: LossSpec, name: str) -> str | None:
    implementation = spec.implementations[name]
    taken = (construct_parameters(implementation), signatures.parameters(call_function(implementation)))
    return None if any("reduction" in names for names in taken) else "it has no parameter `reduction`"


RULES = (
    Rule(
        code="B02",
        title="a declared broadcast is an explicit expand",
        draws_anew="a tensor of another shape draws other numbers",
        group="shapes",
        severity="error",
        check=declared_broadcast_is_an_explicit_expand,
        applies=_has_broadcast,
        regimes={"distinct": 3, "coincident": 1},
        smooth=True,
        why="A mask [B, 1] covers all C channels of what it weighs, and is counted once in the denominator: the loss is C times too large.",
        example="return (mask * error).sum() / mask.sum()      # mask [B, 1], error [B, C]",
        mend="Expand first: `mask = mask.expand_as(error)`; then products, sums and counts see the same elements.",
        source="Array API standard, 'Broadcasting'.",
    ),
    Rule(
        code="B05",
        title="a batch of one is finite; an empty one where that is promised",
        group="shapes",
        severity="warning",
        check=batches_of_one_and_none,
        regimes={"unit": 4, "distinct": 1},
        smooth=True,
        why="The last batch of an epoch has one sample, and one NaN there ends the training; one worker of a distributed job gets none.",
        example="spread = errors.var(dim=0)      # of one sample: 0 / 0",
        mend="`squeeze(-1)` instead of `squeeze()`, `var(correction=0)`, counts clamped to at least 1.",
        source="PyTorch, torch.var: fewer elements than the correction give NaN.",
    ),
    Rule(
        code="B07",
        title="none, mean and sum agree",
        group="shapes",
        severity="error",
        check=reductions_agree,
        applies=_has_reduction,
        regimes={"distinct": 2},
        smooth=True,
        why="Gradient accumulation sums what a mean was tuned for: with reductions that do not agree, the learning rate changes silently.",
        example="if reduction == 'sum': return error.sum(-1).mean()      # a mean over the batch all the same",
        mend="Compute the elements once, and reduce them at the end: `{'none': e, 'mean': e.mean(), 'sum': e.sum()}`.",
        source="PyTorch, torch.nn losses, 'reduction'.",
    ),
)
