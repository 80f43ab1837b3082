"""Rules about what weights, masks and graphs mean: C04 to C08.

C04 to C06 hold a declared law of a context tensor (`harness.rules.laws.declared`); C07 and C08 need no declaration.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness.calls import tolerance
from harness.calls.evaluation import LossRaised
from harness.declare import dims, laws
from harness.declare.spec import LossSpec
from harness.errors import NotApplicable
from harness.rules.context.removal import Removal, gradient_left, removal_of, removals, with_role
from harness.rules.laws.declared import EVERYWHERE, declared, hold
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools.made import on_the_cpu, scattered
from harness.rules.tools.masking import aligned, removable, with_removed
from harness.rules.tools.slopes import element_index
from harness.rules.trial import Run, Trial


def integer_weight_is_copies(trial: Trial) -> Iterator[Mismatch]:
    """An integer weight k in the context counts as k copies of weight one.

    L(x; w = k) = L(x repeated k times; w = 1)
    """
    yield from hold(trial, declared(trial.spec, "C04"))


def weights_are_homogeneous(trial: Trial) -> Iterator[Mismatch]:
    """The loss follows a factor on the weights as declared: it is linear in them, or does not change.

    L(a u + b v) = a L(u) + b L(v)   where `laws.linear_in` is declared
    L(c w) = L(w)                    where `laws.scale_invariant` is
    """
    yield from hold(trial, declared(trial.spec, "C05"))


def uniform_context_is_the_unweighted_loss(trial: Trial) -> Iterator[Mismatch]:
    """With a constant context the loss is the known, unweighted one.

    L(x; w = const) = known(x)
    """
    yield from hold(trial, declared(trial.spec, "C06"))


def every_tensor_matters(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """Every context tensor and every target has an effect on the value or on a gradient in at least one generic case.

        there are x, c, c' with L(x; c) != L(x; c') or dL/dx (x; c) != dL/dx (x; c')

    Tried are other draws, positions moved by one, and the special points of the domain.  Sizes of one say nothing, nor do
    weights or a mask of which all, or a whole row, is zero: what acts there alone selects nothing, unless the loss itself asks
    whether any of a row is left.  Where what weights or a mask should remove counts, their order must matter: of what is
    divided by their sum alone nothing is weighed.
    """
    measured = [trial for trial in trials if trial.base.finite]
    if not measured:
        raise NotApplicable("not finite; see G08")
    for name in _silent_tensors(trials[0].spec):
        seen = [trial for trial in measured if _can_matter(trial, name)]
        if seen and not any(matters(trial, name) for trial in seen):
            if not _selects_rows(seen[0], name):
                yield _without_effect(seen, name)
        elif seen and (found := _by_its_sum_alone(seen, name)) is not None:
            yield found


def _silent_tensors(spec: LossSpec) -> list[str]:
    inert = {name for law in spec.laws if law.code == "L13" for name in law.names}
    return [name for name in spec.tensors if name not in {*spec.differentiable, *inert, *spec.row_offsets}]


def _can_matter(trial: Trial, name: str) -> bool:
    """A normalised weight of a single sample has no effect, nor has the label of a single class."""
    domain, shape = trial.spec.tensors[name].domain, trial.case.shape(trial.spec, name)
    if 0 in shape or (1 in shape and torch.Size(shape).numel() == 1):
        return False
    return domain.symbol is None or domain.count(trial.case.sizes) > 1


def matters(trial: Trial, name: str) -> bool:
    """Whether other values of a tensor change the value or a gradient, of weights other than by leaving nothing."""
    tensors = _with_something_left(trial, name)
    modes = (False, True) if trial.candidate.is_module else (False,)  # a momentum may act in training only
    for train in modes:
        same = not train and torch.equal(tensors[name], trial.tensors()[name])
        base = trial.base if same else trial.run(tensors, train=train)
        for changed in _counting_values(trial, name, tensors[name]):
            try:
                run = trial.run({**tensors, name: changed}, train=train)
            except LossRaised:
                return True  # it is looked at
            if _differs(run, base, trial.eps):
                return True
    return False


class _Asked(TorchFunctionMode):
    """Whether any, or all, of a row of a tensor's elements are left is asked: by any(), a maximum, or a sum that is compared."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.asked = False
        self._followed = [values]  # held, so that no other tensor gets an address of theirs
        self._count = values.numel()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        given = [argument for argument in args if isinstance(argument, Tensor) and argument.ndim]
        if given and all(any(argument is one for one in self._followed) for argument in given):
            name = getattr(func, "__name__", "").strip("_")
            fewer = any(argument.numel() < self._count for argument in given)
            self.asked |= name in _OF_A_ROW or (fewer and name in _COMPARES)
            self._followed += [one for one in (returned, getattr(returned, "values", None)) if isinstance(one, Tensor)]
        return returned


_OF_A_ROW = ("any", "all", "amax", "amin", "max", "min")
_COMPARES = ("gt", "ge", "lt", "le", "eq", "ne", "bool")


def _selects_rows(trial: Trial, name: str) -> bool:
    """Whether a mask acts by its empty rows alone, and the loss asks for them."""
    tensors = trial.tensors()
    asked = _Asked(tensors[name])
    try:
        base = trial.run(tensors, wrt=(), mode=asked)
        if not asked.asked:
            return False
        return any(
            _differs(trial.run({**trial.tensors(), name: changed}, wrt=()), base, trial.eps)
            for changed in other_values(trial, name, trial.tensors()[name])
        )
    except LossRaised:
        return False


def _with_something_left(trial: Trial, name: str) -> dict[str, Tensor]:
    tensors, domain = trial.tensors(), trial.spec.tensors[name].domain
    if domain.weighs and _leaves_nothing(tensors[name]):
        tensors[name] = torch.full_like(tensors[name], min(1.0, domain.high))
    return tensors


def _counting_values(trial: Trial, name: str, values: Tensor) -> Iterator[Tensor]:
    weighs = trial.spec.tensors[name].domain.weighs
    return (changed for changed in other_values(trial, name, values) if not (weighs and _leaves_nothing(changed)))


def _leaves_nothing(weights: Tensor) -> bool:
    """Whether all weights are zero, or all of a row: there a loss that they cancel from is 0, or 0/0."""
    if weights.ndim == 0:
        return False
    kept = weights != 0
    return not bool(kept.any()) or (weights.ndim > 1 and weights.shape[-1] > 1 and not bool(kept.any(-1).all()))


def other_values(trial: Trial, name: str, values: Tensor) -> Iterator[Tensor]:
    """Other legal values of a tensor: two draws, every position moved by one, and the special points."""
    domain, sizes = trial.spec.tensors[name].domain, trial.case.sizes
    for salt in (5, 6):
        yield trial.another(name, values, salt=salt)
    if domain.symbol is not None:
        inside = values != domain.ignore if domain.ignore is not None else torch.ones_like(values, dtype=torch.bool)
        yield torch.where(inside, (values + 1) % domain.count(sizes), values)
    for point in domain.special.values():
        yield on_the_cpu(point, values.to(torch.float64)).to(values.dtype)


def _differs(run: Run, base: Run, eps: float) -> bool:
    """Whether value or gradient differ by more than rounding; NaN differs from a number."""
    pairs = [(run.output, base.output)]
    for name, gradient in base.gradients.items():
        other = run.gradients[name]
        if (gradient is None) != (other is None):
            return True
        if gradient is not None and other is not None:
            pairs.append((other, gradient))
    for came, before in pairs:
        if came.shape != before.shape or not torch.equal(came.isfinite(), before.isfinite()):
            return True
        a, b = torch.nan_to_num(came).double(), torch.nan_to_num(before).double()
        largest = float(torch.maximum(a.abs().max(), b.abs().max())) if a.numel() else 0.0
        if bool(((a - b).abs() > tolerance.same_intermediate(eps) * largest).any()):
            return True
    return False


def _without_effect(seen: Sequence[Trial], name: str) -> Mismatch:
    trial = min(seen, key=lambda t: (t.case.numel(t.spec), t.case.key))
    tensors = _with_something_left(trial, name)
    changed = next(_counting_values(trial, name, tensors[name]))
    what = "context" if name in trial.spec.context else "input"
    unless = ", unless it leaves nothing of a row" if trial.spec.tensors[name].domain.weighs else ""
    return Mismatch(
        f"change of value and gradient with {what} {name}",
        f"none in {len(seen)} generic cases, whatever its values{unless}",
        "some in at least one",
        aspect=name,
        tensors=tensors,
        code=f"""
            from math import inf, nan
            print(loss(**tensors))
            print(loss(**{{**tensors, {name!r}: torch.tensor({changed.tolist()}, dtype={changed.dtype})}}))
        """,
        hint=f"use it, or declare {trial.spec.line_of(laws.inert(name))}",
    )


def _by_its_sum_alone(trials: Sequence[Trial], name: str) -> Mismatch | None:
    """That what a weight or mask should remove counts in every case, and along an axis its elements may stand in any order."""
    spec = trials[0].spec
    if removable(spec, name) != 0 or _promised(spec, name):
        return None
    seen = removals(trials, name)
    if len(seen) < 2 or not all(found.values for found in seen):
        return None
    for axis in range(seen[0].tensors[name].ndim):
        moved = [(found, found.tensors[name].roll(1, axis)) for found in seen]
        moved = [(found, values) for found, values in moved if not torch.equal(values, found.tensors[name])]
        if len(moved) < 2 or any(_turns(found, name, values) for found, values in moved):
            continue
        if all(_counts_at_both_ends(found, name, axis) for found, _ in moved):
            return _sum_alone(moved[0][0], name, moved[0][1], len(moved))
    return None


def _turns(found: Removal, name: str, values: Tensor) -> bool:
    """Whether value or gradient are others with these values of ``name``."""
    try:
        return _differs(found.trial.run({**found.tensors, name: values}), found.base, found.trial.eps)
    except LossRaised:
        return True


def _counts_at_both_ends(found: Removal, name: str, axis: int) -> bool:
    """Whether what zeros should remove counts at either end of an axis: else their sum is a length."""
    for last in (False, True):
        ordered = found.tensors[name].sort(dim=axis, descending=last).values
        at_an_end = removal_of(found.trial, name, {**found.tensors, name: ordered}, ordered == 0)
        if at_an_end is None or not at_an_end.values:
            return False
    return True


def _sum_alone(found: Removal, name: str, values: Tensor, cases: int) -> Mismatch:
    how = with_role(found.trial.spec, name, "data")
    return Mismatch(
        f"change of value and gradient with the elements of {name} in another order",
        f"none in {cases} generic cases, and what they should remove counts",
        "some in at least one",
        aspect=f"{name} by its sum alone",
        tensors=found.tensors,
        code=f"""
            from math import inf, nan
            print(loss(**tensors))
            print(loss(**{{**tensors, {name!r}: torch.tensor({values.tolist()}, dtype={values.dtype})}}))
        """,
        hint=f"weigh or select each term by {name} before it is reduced; if nothing but its sum should count, declare {how}",
    )


def _has_silent_tensors(spec: LossSpec, implementation: str) -> str | None:
    return None if _silent_tensors(spec) else "every tensor is differentiable (see G06) or declared inert"


def nothing_left_has_no_gradient(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """With weights or a mask of zeros only nothing has a gradient, and a node without edges has none.

        w = 0  implies  dL/dx = 0          A_i. = A_.i = 0  implies  dL/dx_i = 0

    That a tensor weighs is declared (`laws.zero_weight_removes`, `laws.linear_in`), or read off the values: in every case
    zeroing single elements was seen to remove what they stand for, and of those inputs alone it is asked then: another one,
    as what is chosen beside what is rejected, may train without them.  A gradient of 0/0 is G08's.
    """
    spec, asked = trials[0].spec, False
    for name in spec.tensors:
        if name in spec.differentiable:
            continue
        if _is_graph(spec, name):
            asked = True
            yield from _isolated_nodes(trials, name)
        elif removable(spec, name) == 0 and (_promised(spec, name) or seen_to_weigh(trials, name)):
            asked = True
            yield from _all_zero(trials, name)
    if not asked:
        raise NotApplicable(
            "no tensor is declared or was seen to weigh; declare laws.zero_weight_removes(...) if one does"
        )


def _promised(spec: LossSpec, name: str) -> bool:
    return any(law.code in {"L04", "L11"} and name in law.names for law in spec.laws)


def _is_graph(spec: LossSpec, name: str) -> bool:
    return "isolated node" in spec.tensors[name].domain.special


def seen_to_weigh(trials: Sequence[Trial], name: str) -> bool | None:
    """C03's inference: whether zeros remove; ``None`` where too few cases show it.  Where the gradient leaks, C03 has said so."""
    seen = removals(trials, name)
    return None if len(seen) < 2 else not any(found.values or found.gradients for found in seen)


def _all_zero(trials: Sequence[Trial], name: str) -> Iterator[Mismatch]:
    spec = trials[0].spec
    promised = _promised(spec, name)
    among = spec.differentiable if promised else {n for found in removals(trials, name) for n in found.removed}
    for trial in trials:
        tensors = _with_zeros(trial, name)
        left = _largest_left(trial, tensors, among, f" with {name} all zero")
        if left is None:
            continue
        if promised or not _left_by_parts(trial, name):
            yield replace(
                left,
                aspect=f"{name} all zero",
                tensors=tensors,
                hint=f"nothing is left by {name}, and still something trains: look for a term that lacks {name}, or a fallback where it is empty",
            )
        return


def _with_zeros(trial: Trial, name: str) -> dict[str, Tensor]:
    tensors = trial.tensors()
    return {**tensors, name: torch.zeros_like(tensors[name])}


def _left_by_parts(trial: Trial, name: str) -> bool:
    """Whether zeros leave a gradient beside elements that count too: then it is no weight, such as a label behind a margin."""
    tensors = trial.tensors()
    first = torch.zeros_like(tensors[name], dtype=torch.bool).reshape(-1)
    first[scattered(tensors[name])[: tensors[name].numel() // 2]] = True
    for removed in (first.reshape(tensors[name].shape), ~first.reshape(tensors[name].shape)):
        try:
            gradients = trial.run(with_removed(trial.spec, tensors, name, removed)).gradients
            for other, elements in aligned(trial.spec, trial.case, removed, name).items():
                gradient = gradients.get(other)
                if gradient is not None and bool((gradient[elements].nan_to_num() != 0).any()):
                    return True
        except (NotApplicable, LossRaised):
            continue
    return False


def _isolated_nodes(trials: Sequence[Trial], name: str) -> Iterator[Mismatch]:
    """The rows of a node without edges; without a law only a note: as a negative it may well be pushed away."""
    promised = _promised(trials[0].spec, name)
    symbol = dims.parse(trials[0].spec.tensors[name].dims)[-1].symbol
    without_edges = (_largest_left(trial, _with_zeros(trial, name), trial.spec.differentiable) for trial in trials)
    if not promised and any(left is not None for left in without_edges):
        return
    for trial in trials:
        tensors = trial.at(trial.case.with_points({name: "isolated node"})).tensors()
        if tensors[name].shape[-1] < 2:
            continue
        what = f" of node 0, which has no edge in {name}"
        left = _largest_left(trial, tensors, trial.spec.differentiable, what, symbol)
        if left is not None:
            declare = trial.spec.line_of(laws.zero_weight_removes(name))
            yield replace(
                left,
                aspect=f"{name} isolated node",
                severity=None if promised else "note",
                tensors=tensors,
                hint="sum over edges only, and divide by degrees that are not zero",
                note="" if promised else f"if only edges should count, declare {declare}",
            )
            return


def _largest_left(
    trial: Trial, tensors: dict[str, Tensor], among: Collection[str], what: str = "", symbol: str | None = None
) -> Mismatch | None:
    """The largest gradient ``among`` inputs that is more than rounding of the case's own; along ``symbol`` at position 0 only."""
    try:
        run, usual = trial.run(tensors), trial.base
    except LossRaised:
        return None
    for name in (n for n in run.gradients if n in among):
        gradient, own = run.gradients[name], usual.gradients.get(name)
        left = None if gradient is None else _first_along(trial, name, gradient.nan_to_num(0, 0, 0), symbol)
        if left is None or own is None or not left.numel():
            continue
        largest = float(own.nan_to_num(0, 0, 0).abs().max())
        if float(left.abs().max()) > tolerance.same_relative(trial.eps) * largest:
            return gradient_left(name, left, element_index(int(left.abs().argmax()), left.shape), what)
    return None


def _first_along(trial: Trial, name: str, gradient: Tensor, symbol: str | None) -> Tensor | None:
    if symbol is None:
        return gradient
    axes = dims.axes(trial.spec.tensors[name].dims, trial.case.sizes)
    return gradient.narrow(axes.index(symbol), 0, 1) if axes.count(symbol) == 1 else None


def _has_law(code: str, laws: str) -> Callable[[LossSpec, str], str | None]:
    return lambda spec, _: None if declared(spec, code) else f"no {laws} of a context tensor is declared"


def _could_weigh(spec: LossSpec, implementation: str) -> str | None:
    fits = [n for n in spec.tensors if n not in spec.differentiable and (removable(spec, n) == 0 or _is_graph(spec, n))]
    return None if fits else "no tensor has a domain of weights, a mask or a graph"


RULES = (
    Rule(
        code="C04",
        title="integer weight k = k copies",
        draws_anew="a tensor of another shape draws other numbers",
        group="weights",
        severity="error",
        check=integer_weight_is_copies,
        applies=_has_law("C04", "laws.repeats(...)"),
        regimes=EVERYWHERE,
        why="A weight that is not a count of samples trains another mixture than the one that was asked for.",
        example="loss = (weights * error).sum() / (weights > 0).sum()      # declared laws.repeats('weights')",
        mend="Divide by the sum of the weights, or by nothing.",
        source="Frequency weights: Lumley, Complex Surveys, chapter 1.",
    ),
    Rule(
        code="C05",
        title="the loss follows the scale of the weights as declared",
        group="weights",
        severity="error",
        check=weights_are_homogeneous,
        applies=_has_law("C05", "laws.linear_in(...) or laws.scale_invariant(...)"),
        regimes=EVERYWHERE,
        why="Twice the weights should be twice the loss, or the same loss; in between, the learning rate depends on the data.",
        example="loss = (weights * error).sum() / (weights.sum() + 1)      # declared laws.scale_invariant('weights')",
        mend="Normalise by the sum of the weights itself (guarded where it is zero), or not at all.",
        source="Metamorphic testing: Chen et al., ACM Computing Surveys 51(1), 2018.",
    ),
    Rule(
        code="C06",
        title="uniform context = the unweighted loss",
        group="weights",
        severity="error",
        check=uniform_context_is_the_unweighted_loss,
        applies=_has_law("C06", "laws.reduces_to(...)"),
        regimes=EVERYWHERE,
        why="Results with and without weights can be compared only if weights of one are no weights.",
        example="loss = (weights * error).sum()      # declared laws.reduces_to(F.mse_loss, weights=1.0)",
        mend="Divide by what the unweighted loss divides by.",
        source="Metamorphic testing: Chen et al., ACM Computing Surveys 51(1), 2018.",
    ),
    Rule(
        code="C07",
        title="every context tensor and target matters",
        group="weights",
        severity="warning",
        check_all=every_tensor_matters,
        applies=_has_silent_tensors,
        regimes={"distinct": 4, "large": 1},
        smooth=True,
        why="Weights that are read and never applied look like weights in every log.",
        example="shares = weights.unsqueeze(-1).softmax(-1)      # over an axis of size one: always 1",
        mend="Apply it; if it is only there for another loss of the same interface, declare `laws.inert(name)`.",
        source="Mutation testing: DeMillo, Lipton & Sayward, IEEE Computer 11(4), 1978.",
    ),
    Rule(
        code="C08",
        title="what weighs nothing has no gradient",
        group="weights",
        severity="error",
        check_all=nothing_left_has_no_gradient,
        applies=_could_weigh,
        regimes={"distinct": 4},
        smooth=True,
        why="A batch whose mask is empty trains on everything that the mask should have left out.",
        example="scores.masked_fill(mask == 0, -1e9).softmax(-1)      # an empty mask weighs everything alike",
        mend="Return zero, with a graph, where nothing is left: `(x * weights).sum() / weights.sum().clamp(min=1)`.",
        source="pytorch/pytorch#41508, attention over a fully masked row.",
    ),
)
