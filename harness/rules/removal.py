"""The rule about what zero weights, masks and ignored labels remove: C03."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness import dims
from harness.errors import NotApplicable
from harness.evaluation import LossRaised
from harness.rules import sides
from harness.rules.compare import same_output
from harness.rules.masking import aligned, removable, with_some_removed
from harness.rules.rule import Mismatch, Rule
from harness.rules.trial import Trial, describe
from harness.spec import LossSpec


@dataclass(frozen=True)
class Removal:
    """What changing the removed elements did to one trial."""

    trial: Trial
    tensors: Mapping[str, Tensor]
    removed: Mapping[str, Tensor]
    value: Mismatch | None
    gradient: Mismatch | None


def removed_elements_have_no_influence(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """What a zero weight, a mask or an ignored label removes influences neither the value nor any gradient.

        w_i = 0  implies  dL/dx_i = 0 and L(x) = L(x') wherever x' differs from x in element i only

    That a tensor removes is read off the values: where changing the removed elements leaves the value alone in every
    case, the gradient must agree, and NaN, inf or 1e30 there must not leak.  Labels with an ignored value must remove.
    """
    spec = trials[0].spec if trials else None
    for name in spec.tensors if spec is not None else ():
        assert spec is not None
        if removable(spec, name) is None or any(law.code == "L11" and name in law.names for law in spec.laws):
            continue  # a declared law is checked as such
        yield from removal(trials, name, promised=False)


def removal(trials: Sequence[Trial], name: str, *, promised: bool) -> Iterator[Mismatch]:
    """Whether zeros in ``name`` remove; ``promised`` by a law, else read off the values."""
    seen = [found for trial in trials if (found := try_removal(trial, name)) is not None]
    if not seen:
        return
    spec = trials[0].spec
    if spec.tensors[name].domain.ignore is not None or (promised and removable(spec, name) != 0):
        yield from _everything_ignored(trials, name)  # of weights that are all zero C08 speaks
    leaks = [found for found in seen if found.value is not None]
    if leaks and (promised or (len(leaks) < len(seen) and not _looked_up(spec, name))):
        yield _in_order(leaks[0], leaks[0].value, name, "value", promised)
    if leaks:
        return
    graded = [found for found in seen if found.gradient is not None]
    if graded:
        yield _in_order(graded[0], graded[0].gradient, name, "gradient", True)
        return
    yield from _leaking_nan(seen[0], name)


def _looked_up(spec: LossSpec, name: str) -> bool:
    """Whether another tensor holds positions in ``name``, such as labels in class weights.

    A zero then removes the samples with that label, and the logits of that class only where it removes all of them.
    """
    symbols = {symbol for dim in dims.parse(spec.tensors[name].dims) for symbol in dim.symbols}
    return any(tensor.domain.symbol in symbols for tensor in spec.tensors.values())


def _in_order(found: Removal, mismatch: Mismatch | None, name: str, aspect: str, certain: bool) -> Mismatch:
    assert mismatch is not None
    return replace(
        mismatch,
        aspect=f"{name} {aspect}",
        severity=None if certain else "warning",
        hint=f"multiply by {name} (or select with torch.where) before anything is reduced, in the gradient too",
    )


def try_removal(trial: Trial, name: str) -> Removal | None:
    """What changing the elements does that zeros in ``name`` remove; ``None`` where nothing can be said."""
    try:
        tensors, removed = with_some_removed(trial.spec, trial.tensors(), name)
        where = aligned(trial.spec, trial.case, removed, name)
        base = trial.run(tensors)
    except (NotApplicable, LossRaised):
        return None
    if not base.finite:
        return None
    changed = {**tensors, **{n: _other_values(trial, n, tensors[n], mask) for n, mask in where.items()}}
    try:
        output = trial.run(changed, wrt=()).output
    except LossRaised:
        return None
    mismatch = same_output(output, base.output, trial.measure_scale(tensors))
    if mismatch is not None:
        mismatch = replace(
            mismatch,
            where=f"loss after changing only what {name} removes",
            tensors=tensors,
            code=_removal_code(name, where, changed),
        )
    gradient: Mismatch | None = None
    for other, mask in where.items():
        found = base.gradients.get(other)
        if found is not None and bool((found[mask] != 0).any()):
            index = tuple(int(i) for i in ((found != 0) & mask).nonzero()[0])
            gradient = Mismatch(
                f"d loss / d {other}{list(index)}, which {name} removes",
                describe(float(found[index])),
                "0",
                kind="gradient",
                tensor=other,
                tensors=tensors,
                code=f"value = total(loss(**tensors))\nprint(torch.autograd.grad(value, [tensors[{other!r}]]))",
            )
    return Removal(trial, tensors, where, mismatch, gradient)


def _removal_code(name: str, where: Mapping[str, Tensor], changed: Mapping[str, Tensor]) -> str:
    other = sides.replaced({other: sides.literal(changed[other]) for other in where})
    return (
        f"{other}      # only what {name} removes has changed\n\n\n"
        "print('came:', other(tensors).tolist())\nprint('should be:', loss(**tensors).tolist())"
    )


def _other_values(trial: Trial, name: str, tensor: Tensor, mask: Tensor) -> Tensor:
    """Other legal values where ``mask`` is set."""
    sampled = trial.another(name, tensor, salt=1 + list(trial.spec.tensors).index(name))
    return torch.where(mask, sampled, tensor)


def _everything_ignored(trials: Sequence[Trial], name: str) -> Iterator[Mismatch]:
    """With everything removed nothing has a gradient (it is zero, or 0/0)."""
    for trial in trials:
        value = removable(trial.spec, name)
        tensors = trial.tensors()
        tensors[name] = torch.full_like(tensors[name], math.nan if value is None else value)
        try:
            run = trial.run(tensors)
        except LossRaised:
            continue
        for other, gradient in run.gradients.items():
            if gradient is not None and bool((torch.nan_to_num(gradient) != 0).any()):
                index = tuple(int(i) for i in (torch.nan_to_num(gradient) != 0).nonzero()[0])
                yield Mismatch(
                    f"d loss / d {other}{list(index)} with everything removed by {name}",
                    describe(float(gradient[index])),
                    "0",
                    aspect=f"{name} nothing left",
                    kind="gradient",
                    tensor=other,
                    tensors=tensors,
                    code=f"value = total(loss(**tensors))\nprint(torch.autograd.grad(value, [tensors[{other!r}]]))",
                    hint=f"{name} is looked at but not applied: weigh or select with it before reducing",
                )
                return


def _leaking_nan(found: Removal, name: str) -> Iterator[Mismatch]:
    """NaN, inf and 1e30 in what is removed stay out of value and gradient."""
    trial = found.trial
    base = trial.run(found.tensors)
    selects = trial.spec.tensors[name].domain.kind == "boolean" or trial.spec.tensors[name].domain.text == "binary()"
    for poison in (math.nan, math.inf, 1e30):
        for other, mask in found.removed.items():
            if not found.tensors[other].is_floating_point():
                continue
            poisoned = {
                **found.tensors,
                other: torch.where(mask, torch.full_like(found.tensors[other], poison), found.tensors[other]),
            }
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
                f"loss with {describe(poison)} in what {name} removes of {other}",
                describe(run.scalar) if not same else "a NaN gradient",
                describe(base.scalar) if not same else "a finite one",
                aspect=f"{name} leak",
                kind="leak",
                tensor=other,
                severity="error" if legal else ("warning" if selects else "note"),
                tensors=poisoned,
                code="value = total(loss(**tensors))\nprint(value)\nvalue.backward()\nprint([t.grad for t in tensors.values() if t.requires_grad])",
                hint=f"0 * NaN is NaN: replace removed elements first, torch.where({name} > 0, {other}, 0), then compute",
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
        why="Padding and missing values reach the gradient through a mask that only looks applied.",
        example="keep = target != -100; logits = logits      # keep is computed and never used",
        mend="Select before computing, and divide by what is left.",
        source="pytorch/pytorch#4132; d2l-ai/d2l-en#2076.",
    ),
)
