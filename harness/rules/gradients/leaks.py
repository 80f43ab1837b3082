"""Rule about gradients and graphs that get where they should not: G09."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.calls import tolerance
from harness.calls.evaluation import LossRaised
from harness.errors import told, told_in_a_line
from harness.rules.context.following import loose_tensors
from harness.rules.gradients.cut_off import needs_differentiable
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools.made import signs
from harness.rules.trial import Trial, checked, contract, describe

FAR = 10.0  # of the predictions from a target, in logits: further than the target's own differ


def nothing_leaks(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """No gradient reaches what another network computed as a target, and no graph outlives its call.

        dL/d(target logits) = 0;   after L(x) is dropped its graph is freed;   L(x), L(x') in turn need no retain_graph

    Only a target that is declared as logits counts: a gradient to other floating targets and to weights is ordinary.  Logits
    that the loss does not move towards the predictions, wherever those are, are a second prediction and no target.
    Source: PyTorch FAQ, 'My model reports "cuda runtime error(2): out of memory"'; Hinton et al., 2015, on teachers.
    """
    yield from _trained_targets(trials)
    for train in (False, True) if trials else ():
        try:
            found = list(_kept_graphs(trials[0], train))
        except LossRaised:
            continue  # in train mode only; S03 says so
        yield from found
        if found:
            return


def _trained_targets(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    for name, tensor in trials[0].spec.inputs.items() if trials else ():
        if tensor.domain.text != "logits()" or name in trials[0].spec.differentiable:
            continue
        for trial in trials:
            try:
                run = trial.run(trial.tensors(), wrt=(*trial.spec.differentiable, name))
            except LossRaised:
                continue  # a loss may refuse targets that require grad
            gradient = run.gradients.get(name)
            if gradient is not None and bool((gradient != 0).any()) and _follows(trial, name):
                yield Mismatch(
                    f"d loss / d {name}, which is a target",
                    f"{describe(float(gradient.abs().max()))} in its largest element",
                    "None",
                    aspect=f"{name} is trained",
                    tensors=trial.tensors(),
                    code=f"""
                    target = tensors[{name!r}].requires_grad_()
                    print(torch.autograd.grad(total(loss(**tensors)), [target], allow_unused=True))
                    """,
                    hint=f"{name}.detach(); or, if it is trained too, name it in LossSpec(differentiable=...)",
                    note="the network that computed it is trained towards the predictions",
                )
                break


def _follows(trial: Trial, target: str) -> bool:
    """Whether a step down the loss moves a target after the predictions, on whichever side of it they are.

        <-dL/dt, p - t> > 0  at p = t + v  and at p = t - v      in each row that has a gradient

    A second prediction, such as the logits of a rejected answer, is pushed to one side wherever the first one is; and where
    both are equal, each is pushed away from the other: dL/dp = -dL/dt, which is not 0.
    """
    tensors, spec = trial.tensors(), trial.spec
    names = [n for n in spec.differentiable if tensors[n].shape == tensors[target].shape]
    if not names:
        return True

    def gradients(side: Tensor) -> list[Tensor]:
        given = {**trial.tensors(), names[0]: tensors[target] + side}
        found = trial.run(given, wrt=(names[0], target)).gradients
        both = (found[names[0]], found[target])
        return [torch.zeros_like(side) if g is None else g.nan_to_num() for g in both]

    beside = FAR * signs(tensors[target])
    of_one, of_other = gradients(0 * beside)
    least = tolerance.same_relative(trial.eps)
    if bool(((of_one + of_other).abs() <= least * of_one.abs().max()).all()) and bool((of_one.abs() > least).any()):
        return False
    after = [-gradients(side)[1] * side for side in (beside, -beside)]
    one, other = (moved if moved.ndim < 2 else moved.sum(-1) for moved in after)
    least *= max(float(moved.abs().max()) for moved in after)
    return bool((one > least).any()) and all(
        bool(((one > least) == (other > least)).all() and (moved >= -least).all()) for moved in (one, other)
    )


class _Saved:
    """Stands for a tensor that a graph saves; it dies with the graph."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _kept_graphs(trial: Trial, train: bool) -> Iterator[Mismatch]:
    """What an instance keeps after a call, and whether a second step runs."""
    tensors = trial.tensors()
    built = trial.candidate.build(tensors, train=train)
    before = {path: id(tensor) for path, tensor in _attributes(built).items()}
    saved: list[weakref.ref[_Saved]] = []

    def pack(tensor: Tensor) -> _Saved:
        token = _Saved(tensor.detach())
        saved.append(weakref.ref(token))
        return token

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda token: token.tensor):
        _forward(trial, built, trial.tensors())
    kept = [path for path, t in _attributes(built).items() if t.requires_grad and before.get(path) != id(t)]
    if any(ref() is not None for ref in saved):
        gc.collect()  # a graph in a reference cycle is freed late, which is no leak
    alive = sum(ref() is not None for ref in saved)
    if kept or alive:
        yield _kept(trial, kept, alive, train)
    yield from _second_step(trial, built, train)


def _forward(trial: Trial, built: Any, tensors: Mapping[str, Tensor]) -> Tensor:
    """The loss of inputs that a network has computed."""
    leaves = trial.leaves(tensors)
    inputs = {name: leaf * 1 if leaf.requires_grad else leaf for name, leaf in leaves.items()}
    return contract(checked(trial.candidate.call(built, inputs), inputs))


def _attributes(built: Any) -> dict[str, Tensor]:
    """Every tensor that an instance holds, parameters apart: path -> tensor."""
    if isinstance(built, nn.Module):
        return {**loose_tensors(built), **dict(built.named_buffers())}
    held = vars(built) if hasattr(built, "__dict__") and not isinstance(built, type) else {}
    return {name: value for name, value in held.items() if isinstance(value, Tensor)}


def _kept(trial: Trial, kept: Sequence[str], alive: int, train: bool) -> Mismatch:
    names = ", ".join(f"self.{path}" for path in kept)
    mode = "train()" if train else "eval()"
    return Mismatch(
        f"graph kept after a forward in {mode}{f', by {names}' if names else ''}",
        f"{alive} saved tensors alive" if alive else "attached to a graph",
        "freed with the output",
        aspect="graph kept",
        kind="keeps a graph",
        tensors=trial.tensors(),
        code=_kept_code(train) if kept else "print(loss(**tensors))      # what it saves for backward stays in memory",
        hint=f"self.{kept[0].split('[')[0]} = value.detach()"
        if kept
        else "store value.detach(), not value, where it outlives the call",
        note=f"it stays in memory until the next call{', and deepcopy of the module fails' if kept else ''}",
    )


def _kept_code(train: bool) -> str:
    return f"""
        module = build(**tensors).train({train})
        call(module, **{{n: t * 1 if t.requires_grad else t for n, t in tensors.items()}})
        held = {{**vars(module), **dict(module.named_buffers())}}
        print({{name: value for name, value in held.items() if getattr(value, "requires_grad", False)}})
    """


def _second_step(trial: Trial, built: Any, train: bool) -> Iterator[Mismatch]:
    for step in (1, 2):
        try:
            scalar = _forward(trial, built, trial.tensors())
        except LossRaised as raised:
            error: BaseException | None = raised.error
        else:
            error = _raised_in_backward(scalar)
        if error is not None:
            if step == 1 or "second time" not in told(error):
                return  # another failure: B01 or S03, which makes steps in train() too, says so
            yield Mismatch(
                f"the second step of one instance in {'train()' if train else 'eval()'}",
                told_in_a_line(error),
                "a gradient, as in the first",
                error=error,
                aspect="second step",
                kind="keeps a graph",
                tensors=trial.tensors(),
                code=_STEPS,
                hint="detach what is carried from call to call: self.running = (0.9 * self.running + 0.1 * value).detach()",
            )
            return


def _raised_in_backward(scalar: Tensor) -> Exception | None:
    try:
        if scalar.requires_grad:
            scalar.backward()
    except Exception as error:
        return error
    return None


_STEPS = """
    module = build(**tensors).train()
    for step in (1, 2):
        total(call(module, **{n: t * 1 if t.requires_grad else t for n, t in tensors.items()})).backward()
"""


RULES = (
    Rule(
        code="G09",
        title="no gradient or graph leaks into targets or later calls",
        group="leaks",
        severity="warning",
        check_all=nothing_leaks,
        applies=needs_differentiable,
        regimes={"distinct": 2},
        smooth=True,
        why="A teacher that is trained towards its student collapses with it; a graph that is kept fills the memory batch by batch.",
        example="""
            target = torch.softmax(teacher, -1)                     # no detach: the teacher learns too
            self.last_loss = loss                                   # keeps the whole graph alive
        """,
        mend="Detach targets that another network computed, and whatever is stored on self.",
        source="PyTorch FAQ on memory; Lightning-AI/pytorch-lightning and others on stored losses.",
    ),
)
