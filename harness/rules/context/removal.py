"""The rule about what zero weights, masks and ignored labels remove: C03."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.calls import tolerance
from harness.calls.evaluation import LossRaised
from harness.declare import dims
from harness.declare.spec import LossSpec
from harness.drawing.case import Recipe
from harness.errors import NotApplicable
from harness.results.findings import Severity
from harness.rules.gradients.cut_off import element
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools import sides
from harness.rules.tools.compare import same_output
from harness.rules.tools.masking import (
    aligned,
    as_label,
    keeps,
    removable,
    removable_free,
    replaced_first,
    with_removed,
    with_some_removed,
)
from harness.rules.trial import Run, Trial, describe

REDRAWS = 5  # a leak that each draw shows with the chance 0.6 is there in all six, or in none, with the chance 0.05


@dataclass(frozen=True)
class Removal:
    """What changing the removed elements did to one trial: for each input that they are of, what came of it.

    ``values`` and ``gradients`` hold the inputs whose removed elements have an influence on the value, and a gradient.
    ``unclear`` is a value that changed by more than a rounding and by less than the precision is sure of: what is removed by
    zeros changes nothing, and what is not may change little.
    """

    trial: Trial
    tensors: Mapping[str, Tensor]
    base: Run
    removed: Mapping[str, Tensor]
    values: Mapping[str, Mismatch]
    gradients: Mapping[str, Mismatch]
    unclear: bool


def removed_elements_have_no_influence(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """What a zero weight, a mask or an ignored label removes influences neither the value nor any gradient.

        w_i = 0  implies  dL/dx_i = 0 and L(x) = L(x') wherever x' differs from x in element i only

    That a tensor removes is read off the values, for each input by itself: where changing the removed elements leaves the
    value alone in every case, the gradient must agree, and NaN, inf or 1e30 there must not leak.  Where it depends on the
    values whether zeros remove, as with a label or an indicator of events, nothing is claimed.  Labels with an ignored value
    must remove what they label.
    """
    spec = trials[0].spec
    for name in spec.tensors:
        if removable(spec, name) is None or any(law.code == "L11" and name in law.names for law in spec.laws):
            continue  # a declared law is checked as such
        yield from removal(trials, name, promised=False)


def removal(trials: Sequence[Trial], name: str, *, promised: bool) -> Iterator[Mismatch]:
    """Whether zeros in ``name`` remove; ``promised`` by a law, else read off the values."""
    seen = removals(trials, name, promised=promised)
    if not seen:
        return
    spec, ignored = trials[0].spec, list[Mismatch]()
    if spec.tensors[name].domain.ignore is not None or (promised and removable(spec, name) != 0):
        ignored += _everything_ignored(trials, name)  # of weights that are all zero C08 speaks
    yield from ignored
    others = [other for other in spec.inputs if all(other in found.removed for found in seen)]
    leaking = {other: [found for found in seen if other in found.values] for other in others}
    removes = [other for other in others if not leaking[other]]
    for other, leaks in leaking.items():
        if leaks and promised:
            mismatch = _in_order(leaks[0], name, other, "value")
            apart = _stands_apart(leaks, name, other) if removes else ""
            yield replace(mismatch, severity="note", hint=apart) if apart else mismatch
        elif leaks and len(leaks) < len(seen) and not looked_up(spec, name) and not ignored:
            decided = _decided_by_values(seen, name, other)
            if not decided or not removes:
                yield _in_order(leaks[0], name, other, "value", "note" if decided else "warning")
    graded = {other: found for other in removes for found in reversed(seen) if other in found.gradients}
    for other, found in graded.items():
        yield _in_order(found, name, other, "gradient")
    if not graded and (promised or set(removes) & set(spec.differentiable)):
        yield from _leaking_nan(seen[0], name, removes)


def removals(trials: Sequence[Trial], name: str, *, promised: bool = False) -> list[Removal]:
    """What zeros in ``name`` do in each trial; of what is not promised, only what is clear, and nothing where little is.

    Nor is anything read off the values where what they may remove is of no differentiable input.
    """
    tried = [found for trial in trials if (found := try_removal(trial, name)) is not None]
    if promised:
        return tried
    clear = [found for found in tried if not found.unclear and {*found.removed} & {*found.trial.spec.differentiable}]
    return clear if 2 * len(clear) > len(tried) else []


def _stands_apart(seen: Sequence[Removal], name: str, other: str) -> str:
    """What to declare where an input may stand in any order beside ``name``, as one of two sets beside a mask of the other."""
    spec = seen[0].trial.spec
    for label in dims.axes(spec.tensors[name].dims, seen[0].trial.case.sizes):
        turned = []
        for found in seen:
            axes = dims.axes(spec.tensors[other].dims, found.trial.case.sizes)
            if label in axes and found.tensors[other].shape[axes.index(label)] > 1:
                given = {**found.tensors, other: found.tensors[other].roll(1, axes.index(label))}
                try:
                    output = found.trial.run(given, wrt=()).output
                except LossRaised:
                    return ""
                scale = found.trial.measure_scale(found.tensors)
                turned.append(same_output(output, found.base.output, scale) is not None)
        if turned and not any(turned):
            return (
                f"{other} may stand in any order beside {name} along {label}: if {name} is not of {other}, "
                f"give that axis of {other} a symbol of its own"
            )
    return ""


def looked_up(spec: LossSpec, name: str) -> bool:
    """Whether another tensor holds positions in ``name``, such as labels in class weights.

    A zero then removes the samples with that label, and the logits of that class only where it removes all of them.
    """
    symbols = {symbol for dim in dims.parse(spec.tensors[name].dims) for symbol in dim.symbols}
    return any(tensor.domain.symbol in symbols for tensor in spec.tensors.values())


def _decided_by_values(seen: Sequence[Removal], name: str, other: str) -> bool:
    """Whether at the same sizes, and with the same elements removed, some values leak and others do not.

    A mask that is not used at some sizes or places leaks there whatever the values are; with a label, or where another mask
    removes the same elements, it depends on them.
    """
    for found in seen:
        for draw in range(REDRAWS):
            seeds = {n: Recipe(seed=zlib.crc32(f"{n} {draw}".encode())) for n in found.trial.spec.tensors}
            again = try_removal(found.trial.at(replace(found.trial.case, tensors=seeds)), name)
            if again is not None and not again.unclear and (other in again.values) != (other in found.values):
                return True
    return False


def _in_order(found: Removal, name: str, other: str, what: str, severity: Severity | None = None) -> Mismatch:
    spec, case = found.trial.spec, found.trial.case
    mismatch = (found.values if what == "value" else found.gradients)[other]
    hint = (
        f"let only what {name} keeps count: {replaced_first(spec, case, name, other)} before anything is computed, and weigh "
        f"or select each term by {keeps(spec, case, name, other)} before it is reduced"
    )
    zeros_and_ones = removable(spec, name) == 0 and spec.tensors[name].domain.whole
    if severity is not None and zeros_and_ones:
        hint = f"if {name} is a label, so that its zeros remove nothing, declare {as_label(spec, name)}; else {hint}"
    return replace(mismatch, aspect=f"{name} {what}", severity=severity, hint=hint)


def try_removal(trial: Trial, name: str) -> Removal | None:
    """What changing the elements does that zeros in ``name`` remove; ``None`` where nothing can be said."""
    key = ("removal", trial.implementation, trial.case.key, trial.values_in, trial.device, name)
    if key not in trial.cache:
        try:
            trial.cache[key] = removal_of(trial, name, *with_some_removed(trial.spec, trial.tensors(), name))
        except NotApplicable:
            trial.cache[key] = None
    return trial.cache[key]  # type: ignore[no-any-return]


def removal_of(trial: Trial, name: str, tensors: Mapping[str, Tensor], removed: Tensor) -> Removal | None:
    """What changing the ``removed`` elements does, which ``name`` removes in ``tensors``; ``None`` where nothing can be said."""
    try:
        where = aligned(trial.spec, trial.case, removed, name)
        base = trial.run(tensors)
        if not base.finite:
            return None
        scale = trial.measure_scale(tensors)
        changed = {other: _other_values(trial, other, tensors[other], mask) for other, mask in where.items()}
        values: dict[str, Mismatch] = {}
        output = trial.run({**tensors, **changed}, wrt=()).output
        differs = same_output(output, base.output, scale) is not None
        for other in changed if differs else ():
            one = {**tensors, other: changed[other]}
            mismatch = same_output(trial.run(one, wrt=()).output, base.output, scale)
            if mismatch is not None:
                what = f"loss after changing only what {name} removes of {other}"
                values[other] = replace(mismatch, where=what, tensors=tensors, code=_removal_code(name, other, one))
    except (NotApplicable, LossRaised):
        return None
    gradients: dict[str, Mismatch] = {}
    for other, mask in where.items():
        found = base.gradients.get(other)
        if found is not None and bool((found[mask] != 0).any()):
            gradient = gradient_left(other, found, _first((found != 0) & mask), f", which {name} removes")
            gradients[other] = replace(gradient, tensors=tensors)
    unclear = not differs and not _only_rounded(output, base.output, trial.eps)
    return Removal(trial, tensors, base, where, values, gradients, unclear)


def _only_rounded(output: Tensor, base: Tensor, eps: float) -> bool:
    """Whether two outputs of one shape differ by no more than the rounding of either."""
    largest = float(base.abs().nan_to_num().max()) if base.numel() else 0.0
    return not bool(((output - base).abs() > 2 * eps * largest).any())


def _removal_code(name: str, other: str, changed: Mapping[str, Tensor]) -> str:
    return (
        f"{sides.replaced({other: sides.literal(changed[other])})}      # only what {name} removes has changed\n\n\n"
        "print('came:', other(tensors).tolist())\nprint('should be:', loss(**tensors).tolist())"
    )


def _other_values(trial: Trial, name: str, tensor: Tensor, mask: Tensor) -> Tensor:
    """Other legal values where ``mask`` is set."""
    sampled = trial.another(name, tensor, salt=1 + list(trial.spec.tensors).index(name))
    return torch.where(mask, sampled, tensor)


def _everything_ignored(trials: Sequence[Trial], name: str) -> Iterator[Mismatch]:
    """With everything removed nothing that ``name`` labels has a gradient; where that is 0/0, nor has what is removed of it."""
    for trial in trials:
        tensors = trial.tensors()
        tensors = with_removed(trial.spec, tensors, name, torch.ones_like(tensors[name], dtype=torch.bool))
        try:
            run, what = trial.run(tensors), f"with everything removed by {name}"
            gradients = run.gradients
            if not run.finite:
                tensors, run, gradients = _of_its_own(trial, name)
                what = f"with some of it removed by {name}"
            left = {n: g for n, g in gradients.items() if g is not None and bool((g.nan_to_num() != 0).any())}
            labelled = _labelled(trial, name) if left else {}
        except (LossRaised, NotApplicable):
            continue
        for other, gradient in left.items():
            wrong = (gradient.nan_to_num() != 0) & labelled[other]
            if bool(wrong.any()):
                found = _change_of_ignored(trial, name, other, tensors, run, wrong, what) or gradient_left(
                    other, gradient, _first(wrong), f" {what}"
                )
                hint = f"select each term by {keeps(trial.spec, trial.case, name, name)} before it is reduced"
                yield replace(
                    found,
                    aspect=f"{name} nothing left",
                    tensors=tensors,
                    hint=f"{name} is looked at but not applied: {hint}{_or_a_label(trial.spec, name)}",
                )
                return


def _of_its_own(trial: Trial, name: str) -> tuple[dict[str, Tensor], Run, dict[str, Tensor | None]]:
    """(tensors of which some are removed, the loss there, and the gradient that what is removed has whatever stands beside it).

    What is left out as an anchor may be a negative of others; its gradient then depends on them.
    """
    tensors, removed = with_some_removed(trial.spec, trial.tensors(), name)
    where = aligned(trial.spec, trial.case, removed, name)
    run = trial.run(tensors)
    beside = {other: _other_values(trial, other, tensors[other], ~mask) for other, mask in where.items()}
    moved, gradients = trial.run({**tensors, **beside}).gradients, dict[str, Tensor | None]()
    for other, mask in where.items():
        gradient, again = run.gradients.get(other), moved.get(other)
        if gradient is not None and again is not None:
            least = tolerance.same_gradient(trial.eps) * float(gradient.abs().max())
            gradients[other] = gradient * (mask & ((gradient - again).abs() <= least) & (gradient.abs() > least))
    return tensors, run, gradients


def _or_a_label(spec: LossSpec, name: str) -> str:
    """How a label that counts in another way than the rest, and removes nothing, is declared."""
    ignored, how = spec.tensors[name].domain.ignore, with_role(spec, name, "label")
    return f"; if {ignored} counts in another way and removes nothing, declare {how}" if ignored is not None else ""


def with_role(spec: LossSpec, name: str, role: str) -> str:
    """How a tensor's role is declared, in a file or on the command line."""
    return f"--role {name}={role}" if spec.is_inline else f"TensorSpec(..., role={role!r}) of {name}"


def _change_of_ignored(
    trial: Trial, name: str, other: str, tensors: Mapping[str, Tensor], run: Run, wrong: Tensor, what: str
) -> Mismatch | None:
    """How the value follows what is ignored: its gradient is right then, and no defect of its own."""
    if not run.finite:
        return None
    one = {**tensors, other: _other_values(trial, other, tensors[other], wrong)}
    try:
        found = same_output(trial.run(one, wrt=()).output, run.output, trial.measure_scale(dict(tensors)))
    except (LossRaised, NotApplicable):
        return None
    where = f"loss after changing {other}, {what}"
    return found and replace(found, where=where, code=_removal_code(name, other, one))


def _first(chosen: Tensor) -> tuple[int, ...]:
    return tuple(chosen.nonzero()[0].tolist())


def gradient_left(name: str, gradient: Tensor, index: tuple[int, ...], what: str) -> Mismatch:
    """The gradient of an element that should have none."""
    return Mismatch(
        f"{element(name, index)}{what}",
        describe(float(gradient[index])),
        "0",
        kind="gradient",
        tensor=name,
        code=f"value = total(loss(**tensors))\nprint(torch.autograd.grad(value, [tensors[{name!r}]]))",
    )


def _labelled(trial: Trial, name: str) -> dict[str, Tensor]:
    """Which elements of each input ``name`` labels: their gradient depends on which of its values they have, in its direction.

    An input that has labels of its own, or a part of one, is none of its business, nor is one without all of its axes.  Beside
    what depends on the labels, as in a product or under a root, an input has another gradient too: a positive multiple.
    """
    spec, sizes, tensors = trial.spec, trial.case.sizes, trial.tensors()
    domain, own = spec.tensors[name].domain, set(dims.axes(spec.tensors[name].dims, sizes)) - {"1"}
    kept = removable_free(spec, tensors[name], name)
    drawn = trial.another(name, kept, salt=4) if domain.symbol is None else (kept + 1) % domain.count(sizes)
    moved = trial.run({**tensors, name: removable_free(spec, drawn, name)}).gradients
    labelled = {}
    for other, gradient in trial.run({**tensors, name: kept}).gradients.items():
        before, after = (
            torch.zeros_like(tensors[other]) if g is None else g.nan_to_num() for g in (gradient, moved[other])
        )
        axes = dims.axes(spec.tensors[other].dims, sizes)
        beyond = [i for i in range(before.ndim) if i >= len(axes) or axes[i] not in own]
        first, second = (
            torch.linalg.vector_norm(g, dim=beyond, keepdim=True) if beyond else g.abs() for g in (before, after)
        )
        least = tolerance.same_intermediate(trial.eps) * (float(before.abs().max()) if before.numel() else 0.0)
        turned = (after * first - before * second).abs() > least * torch.maximum(first, second)
        turns = turned.any(dim=beyond, keepdim=True) if beyond else turned
        labelled[other] = turns & ((before - after).abs() > least) & (own <= set(axes))
    return labelled


def _leaking_nan(found: Removal, name: str, removes: Sequence[str]) -> Iterator[Mismatch]:
    """NaN, inf and 1e30, or the largest number of the dtype, in what is removed stay out of value and gradient."""
    trial, base = found.trial, found.base
    for poison in (math.nan, math.inf, 1e30):
        for other in removes:
            mask, values = found.removed[other], found.tensors[other]
            if not values.is_floating_point():
                continue
            put = min(poison, torch.finfo(values.dtype).max) if math.isfinite(poison) else poison
            poisoned = {**found.tensors, other: torch.where(mask, torch.full_like(values, put), values)}
            try:
                run = trial.run(poisoned)
            except LossRaised:
                continue
            kept = [
                g[~found.removed[n]] if n in found.removed else g for n, g in run.gradients.items() if g is not None
            ]
            same = same_output(run.output, base.output, trial.measure_scale(found.tensors)) is None
            if same and run.finite and all(bool(g.isfinite().all()) for g in kept):
                continue
            legal = trial.spec.tensors[other].domain.nan and math.isnan(poison)
            yield Mismatch(
                f"loss with {describe(put)} in what {name} removes of {other}",
                describe(run.scalar) if not same else "a NaN gradient",
                describe(base.scalar) if not same else "a finite one",
                aspect=f"{name} leak",
                kind="leak",
                tensor=other,
                severity="error" if legal else "note",
                tensors=poisoned,
                code="value = total(loss(**tensors))\nprint(value)\nvalue.backward()\nprint([t.grad for t in tensors.values() if t.requires_grad])",
                hint=f"0 * NaN is NaN: {replaced_first(trial.spec, trial.case, name, other)} before anything is computed",
                note=""
                if legal
                else f"such values are outside the declared domain of {other}; padding often holds them",
            )
            return


def _has_removable(spec: LossSpec, name: str) -> str | None:
    promised = {n for law in spec.laws if law.code == "L11" for n in law.names}
    fits = [n for n in spec.tensors if removable(spec, n) is not None]
    if fits and not set(fits) - promised:
        return "declared as laws.zero_weight_removes(...); see L11"
    return None if fits else "no tensor has zero weights, a mask or an ignored value"


RULES = (
    Rule(
        code="C03",
        title="what is removed has no influence on value and gradient",
        group="context",
        severity="error",
        check_all=removed_elements_have_no_influence,
        applies=_has_removable,
        regimes={"distinct": 4},
        smooth=True,
        is_of_the_loss=True,
        why="Padding and missing values reach the gradient through a mask that only looks applied.",
        example="keep = target != -100; logits = logits      # keep is computed and never used",
        mend="Select before computing, and divide by what is left.",
        source="pytorch/pytorch#4132; d2l-ai/d2l-en#2076.",
    ),
)
