"""Rules about the transforms of `torch.func`: T02.

They load torch's compiler, which takes seconds once in a process; the profile ``quick`` leaves them out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from harness.calls.evaluation import LossRaised
from harness.declare.spec import ONE_BACKWARD
from harness.declare.structures import SPARSE
from harness.drawing.case import Case, Recipe
from harness.errors import NotApplicable, told_in_a_line
from harness.results.findings import Severity
from harness.rules.gradients.second_order import told_of_functions
from harness.rules.rule import Mismatch, Partly, Rule
from harness.rules.tools.compare import same_gradients, same_output
from harness.rules.trial import Trial, contract, is_finite

BATCH = 3


def gap(trial: Trial) -> Severity | None:
    """What a missing capability is worth: nobody transforms the reference."""
    return "note" if trial.is_reference else None


def dense(output: Tensor) -> Tensor:
    """The output as `Trial.output` gives it: sparse ones made dense."""
    return output if output.layout == torch.strided else output.to_dense()


def refuse_sparse(trial: Trial) -> None:
    """Raise where torch's transforms take no argument as the loss is given it.

    Raises:
        NotApplicable: one is sparse or nested.
    """
    for name, tensor in trial.spec.tensors.items():
        kind = "sparse" if tensor.domain.form in SPARSE else "nested" if tensor.jagged else ""
        if kind:
            raise NotApplicable(f"{name} is {kind}, which torch.compile and torch.func take no argument to be")


def transforms_give_the_same(trials: Sequence[Trial]) -> Iterator[Mismatch | Partly]:
    """`torch.func.grad` gives autograd's gradient, and `torch.func.vmap` over a batch of inputs the loop's values.

    grad(L)(x) = dL/dx        vmap(L)(x_1, ..., x_k) = (L(x_1), ..., L(x_k))
    """
    for trial in trials[:1]:
        refuse_sparse(trial)
        if not trial.base.finite:
            raise NotApplicable("not finite; see G08")
        if trial.spec.once:  # torch.func.grad keeps the graph for a further derivative
            yield Partly(f"torch.func.grad is not asked: {ONE_BACKWARD}")
        found = (None if trial.spec.once else _functional_gradient(trial)) or _batched(trial)
        if found is not None:
            yield found


_NOTHING_CUT = "let the loss detach, checkpoint or edit in place nothing"
_A_GRADIENT = (
    "the loss takes a gradient on its way: by torch.func.grad of a function, or written out, and not by requires_grad_() "
    "and torch.autograd.grad"
)


def _functional_gradient(trial: Trial) -> Mismatch | None:
    names, tensors = trial.spec.differentiable, trial.tensors()
    if not names or not trial.base.connected:
        return None
    built = None if set(names) & set(trial.candidate.constructed) else trial.candidate.build(tensors)

    def value(*leaves: Tensor) -> Tensor:
        given = {**tensors, **dict(zip(names, leaves, strict=True))}
        return contract(dense(trial.candidate.call(built or trial.candidate.build(given), given)))

    code = f"""
        names = {list(names)!r}
        value = lambda *leaves: total(loss(**{{**tensors, **dict(zip(names, leaves))}}))
        print(torch.func.grad(value, argnums=tuple(range(len(names))))(*[tensors[n].detach() for n in names]))
    """
    try:
        gradients = torch.func.grad(value, argnums=tuple(range(len(names))))(*[tensors[n] for n in names])
    except LossRaised as raised:
        refusal = Mismatch(
            "torch.func.grad(loss)",
            told_in_a_line(raised.error),
            "the gradient that backward() gives",
            error=raised.error,
            aspect="grad raises",
            severity=gap(trial),
            tensors=tensors,
            code=code,
            hint=_A_GRADIENT if "requires_grad_()" in str(raised.error) else _NOTHING_CUT,
        )
        return told_of_functions(trial, "T02", refusal)
    came = dict(zip(names, gradients, strict=True))
    found = same_gradients(came, trial.base.gradients, tensors, trial, trial.scale)
    if found is None:
        return None
    return replace(found, where=f"{found.where} by torch.func.grad", aspect="grad", tensors=tensors, code=code)


def _batched(trial: Trial) -> Mismatch | None:
    """What differs when several draws of the inputs are given at once, by vmap."""
    called = [n for n, t in trial.spec.inputs.items() if n in trial.candidate.called and not t.number]
    if not called:
        return None
    cases = [_redrawn(trial, called, draw) for draw in range(BATCH)]
    drawn = [trial.at(case).tensors() for case in cases]
    should = [trial.output(tensors).detach() for tensors in drawn]
    tensors = trial.tensors()
    built = trial.candidate.build(tensors)

    def one(*inputs: Tensor) -> Any:
        return dense(trial.candidate.call(built, {**tensors, **dict(zip(called, inputs, strict=True))}))

    stacked = [torch.stack([given[name] for given in drawn]) for name in called]
    code = f"""
        names = {called!r}
        one = lambda *inputs: loss(**{{**tensors, **dict(zip(names, inputs))}})
        scaled = lambda t, k: t.detach() * (1 - k / 10) if t.is_floating_point() else t
        draws = [[scaled(tensors[n], k) for n in names] for k in range({BATCH})]
        print(torch.stack([one(*draw) for draw in draws]))
        print(torch.func.vmap(one, randomness="same")(*[torch.stack(drawn) for drawn in zip(*draws)]))
    """
    where = f"torch.func.vmap(loss) over {BATCH} draws of {' and '.join(called)}"
    try:
        came = torch.func.vmap(one, randomness="same")(*stacked)
    except LossRaised as raised:
        refusal = Mismatch(
            where,
            told_in_a_line(raised.error),
            "a batch of losses",
            error=raised.error,
            aspect="vmap raises",
            severity=gap(trial),
            tensors=tensors,
            code=code,
            hint="no shapes and branches that depend on values: torch.where and masks instead of boolean indexing, .item() and "
            "`if tensor:`; no writing into what new_zeros() made: torch.stack, torch.cat or scatter",
        )
        return told_of_functions(trial, "T02", refusal)
    for each, value, case in zip(came, should, cases, strict=True):
        found = same_output(each, value, trial.at(case).scale) if is_finite(value) else None
        if found is not None:
            return replace(found, where=f"{found.where} of {where}", aspect="vmap", tensors=tensors, code=code)
    return None


def _redrawn(trial: Trial, names: Sequence[str], draw: int) -> Case:
    recipes = {name: Recipe(seed=101 + 7919 * draw + k) for k, name in enumerate(names)}
    return replace(trial.case, tensors={**trial.case.tensors, **recipes})


RULES = (
    Rule(
        code="T02",
        title="torch.func.grad and vmap give the same",
        group="transforms",
        severity="warning",
        check_all=transforms_give_the_same,
        regimes={"distinct": 1},
        smooth=True,
        compiles=True,
        why="Per-sample gradients, Hessians and ensembles transform the loss; one that reads values or edits in place cannot be.",
        example="return errors[mask].mean()      # how many elements there are depends on values",
        mend="Masks instead of indexing, new tensors instead of edits, setup_context in a custom Function.",
        source="PyTorch, 'torch.func', UX limitations; pytorch/functorch#257.",
    ),
)
