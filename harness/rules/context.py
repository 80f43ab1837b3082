"""Rules about the context: C01, C02, C03."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import NotApplicable
from harness.evaluation import LossRaised
from harness.rules.broadcasting import first_line
from harness.rules.compare import same_output
from harness.rules.masking import aligned, removable, with_some_removed
from harness.rules.rule import Mismatch, Rule
from harness.rules.trial import Trial, contract, describe
from harness.spec import LossSpec


def loose_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Tensors that a module keeps as plain attributes, in lists or in dicts: attribute path -> tensor."""
    found: dict[str, Tensor] = {}

    def visit(path: str, value: Any, depth: int) -> None:
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            found[path] = value
        elif isinstance(value, (list, tuple)) and depth < 3:
            for position, item in enumerate(value[:64]):
                visit(f"{path}[{position}]", item, depth + 1)
        elif isinstance(value, dict) and depth < 3:
            for key, item in list(value.items())[:64]:
                visit(f"{path}[{key!r}]", item, depth + 1)

    internal = set(vars(nn.Module()))
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            if name not in internal:
                visit(f"{prefix}.{name}" if prefix else name, value, 0)
    return found


def context_follows_the_module(trial: Trial) -> Iterator[Mismatch]:
    """The context moves, saves and copies with the module.

    module.to(dtype or device), state_dict, pickle and deepcopy carry every tensor that the loss uses
    """
    if not trial.candidate.is_module:
        raise NotApplicable("not an nn.Module: its context is given with each call")
    tensors = trial.tensors(torch.float32)
    module: Any = trial.candidate.build(tensors)
    for path, tensor in loose_tensors(module).items():
        yield from _loose(trial, path, tensor)
    yield from _moves(trial, tensors)
    yield from _saves(trial, tensors)
    yield from _copies(trial, tensors)


def _loose(trial: Trial, path: str, tensor: Tensor) -> Iterator[Mismatch]:
    shape = list(tensor.shape)
    hint = f'self.register_buffer("{path.split("[")[0].split(".")[-1]}", ...) in the constructor'
    build = "module = build(**tensors)"
    moved = copy.copy(tensor)
    if moved.device.type != "meta":
        yield Mismatch(
            f"device of self.{path} {shape} after module.to('meta')",
            str(tensor.device),
            "meta",
            aspect=f"{path} to",
            hint=hint,
            note="a plain tensor attribute follows neither .to(), .cuda() nor .half()",
            tensors=trial.tensors(torch.float32),
            code=f"{build}.to('meta')\nprint(module.{path}.device)",
        )
    yield Mismatch(
        f"self.{path} {shape} in module.state_dict()",
        "missing",
        "there",
        aspect=f"{path} state_dict",
        hint=hint,
        note="a checkpoint does not carry it: the loss that is loaded may use another context",
        tensors=trial.tensors(torch.float32),
        code=f"{build}\nprint(list(module.state_dict()))",
    )


def _moves(trial: Trial, tensors: Mapping[str, Tensor]) -> Iterator[Mismatch]:
    """Built in float32 and moved to float64 = built in float64."""
    wide = {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}
    expected = trial.run(wide, wrt=())
    module: Any = trial.candidate.build(tensors)
    try:
        with torch.no_grad():
            came = trial.candidate.call(module.to(torch.float64), wide)
    except LossRaised as raised:
        yield _of_module(
            "loss after module.to(torch.float64)", first_line(raised.error), f"{expected.scalar:.6g}", "moved", tensors
        )
        return
    mismatch = same_output(came.detach(), expected.output, *trial.measure_scale(wide))
    if mismatch is not None:
        yield _of_module("loss after module.to(torch.float64)", mismatch.came, mismatch.should, "moved", tensors)


def _of_module(where: str, came: str, should: str, aspect: str, tensors: Mapping[str, Tensor]) -> Mismatch:
    code = {
        "moved": "module = build(**tensors).to(torch.float64)\nprint(call(module, **{n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}))",
        "pickle": "import pickle\nmodule = build(**tensors)\ncall(module, **tensors)\npickle.loads(pickle.dumps(module))",
        "deepcopy": "import copy\nmodule = build(**tensors)\ncall(module, **tensors)\ncopy.deepcopy(module)",
        "load": "module = build(**tensors)\nother = build(**{n: t.flip(0) if t.ndim else t for n, t in tensors.items()})\nother.load_state_dict(module.state_dict())\nprint(call(module, **tensors), call(other, **tensors))",
    }[aspect]
    hints = {
        "moved": "cast the context to the predictions' dtype where it is used, and register what is derived from it",
        "pickle": "keep no lambda, generator, open file or graph-attached tensor on self",
        "deepcopy": "keep no graph-attached tensor on self: store it detached, or not at all",
        "load": "register everything that is derived from the context as a buffer, so that loading replaces it too",
    }
    return Mismatch(where, came, should, aspect=aspect, tensors=tensors, code=code, hint=hints[aspect])


def _saves(trial: Trial, tensors: Mapping[str, Tensor]) -> Iterator[Mismatch]:
    """A module with another context gives this one's number once it has loaded this one's state_dict."""
    constructed = trial.candidate.constructed
    if not constructed:
        return
    module: Any = trial.candidate.build(tensors)
    state = module.state_dict()
    buffers = {name for name, _ in module.named_buffers()}
    if buffers - set(state):
        return  # persistent=False is a choice: the context is to come from elsewhere
    other_tensors = {n: tensors[n].flip(0) if n in constructed and tensors[n].ndim else tensors[n] for n in tensors}
    other: Any = trial.candidate.build(other_tensors)
    try:
        other.load_state_dict(state)
        with torch.no_grad():
            came, should = trial.candidate.call(other, tensors), trial.candidate.call(module, tensors)
    except (LossRaised, RuntimeError) as error:
        yield _of_module("module.load_state_dict(...)", first_line(error), "loaded", "load", tensors)
        return
    mismatch = same_output(came.double(), should.double(), abs(float(contract(should).double())), 0.0)
    if mismatch is not None and not loose_tensors(module):
        yield _of_module("loss after load_state_dict", mismatch.came, mismatch.should, "load", tensors)


def _copies(trial: Trial, tensors: Mapping[str, Tensor]) -> Iterator[Mismatch]:
    """deepcopy and pickle work, also after a forward and backward."""
    module: Any = trial.candidate.build(tensors)
    leaves = trial.leaves(tensors)
    output = trial.candidate.call(module, leaves)
    if isinstance(output, Tensor) and output.requires_grad:
        contract(output).backward()
    try:
        copy.deepcopy(module)
    except Exception as error:
        yield _of_module("copy.deepcopy(module) after a forward", first_line(error), "a copy", "deepcopy", tensors)
        return
    kind = type(module)
    if "<locals>" in kind.__qualname__ or "<lambda>" in kind.__qualname__:
        return  # a class inside a function cannot be pickled, whatever the loss does
    try:
        pickle.loads(pickle.dumps(module))
    except Exception as error:
        yield _of_module("pickle.dumps(module) after a forward", first_line(error), "bytes", "pickle", tensors)


def nothing_is_modified(trial: Trial) -> Iterator[Mismatch]:
    """Inputs, targets and context are the same bytes, and the same version, after forward and backward.

    x after L(x).backward() = x before
    """
    tensors = trial.tensors()
    leaves = trial.leaves(tensors)
    before = {name: tensor.detach().clone() for name, tensor in leaves.items()}
    versions = {name: tensor._version for name, tensor in leaves.items()}
    try:
        output = trial.output(leaves)
        if output.requires_grad:
            contract(output).backward()
    except LossRaised:
        if not any(_changed(leaves[n], before[n]) for n in leaves):
            raise
    except RuntimeError as error:
        raise LossRaised(error) from error
    for name, tensor in leaves.items():
        bytes_changed = _changed(tensor, before[name])
        if bytes_changed or tensor._version != versions[name]:
            role = "context" if name in trial.spec.context else "input"
            yield Mismatch(
                f"{role} {name} after forward and backward",
                _values_text(tensor) if bytes_changed else f"version {tensor._version}",
                f"{_values_text(before[name])} as before" if bytes_changed else f"version {versions[name]} as before",
                aspect=name,
                tensors=trial.tensors(),
                code=_MODIFIED_CODE.format(name=name),
                hint="use the out-of-place operation, or work on a clone; .data and no_grad() do not make an in-place edit safe",
            )


_MODIFIED_CODE = """
    before = tensors[{name!r}].detach().clone()
    value = total(loss(**tensors))
    if value.requires_grad:
        value.backward()
    print("before:", before)
    print("after: ", tensors[{name!r}].detach())
"""


def _changed(tensor: Tensor, before: Tensor) -> bool:
    if tensor.shape != before.shape:  # resize_ and set_ change the caller's tensor too
        return True
    same = (tensor.detach() == before) | ((tensor.detach() != tensor.detach()) & (before != before))
    return not bool(same.all())


def _values_text(tensor: Tensor) -> str:
    flat = [describe(float(v)) for v in tensor.detach().reshape(-1)[:6].tolist()]
    return f"[{', '.join(flat)}{', ...' if tensor.numel() > 6 else ''}]"


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
    if leaks and (promised or len(leaks) < len(seen)):
        yield _in_order(leaks[0], leaks[0].value, name, "value", promised)
    if leaks:
        return
    graded = [found for found in seen if found.gradient is not None]
    if graded:
        yield _in_order(graded[0], graded[0].gradient, name, "gradient", True)
        return
    yield from _leaking_nan(seen[0], name)


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
    condition, intermediate = trial.measure_scale(tensors)
    mismatch = same_output(output, base.output, condition, intermediate)
    if mismatch is not None:
        mismatch = replace(
            mismatch,
            where=f"loss after changing only what {name} removes",
            tensors=tensors,
            code=_removal_code(name, where),
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
                tensors=tensors,
                code=f"value = total(loss(**tensors))\nprint(torch.autograd.grad(value, [tensors[{other!r}]]))",
            )
    return Removal(trial, tensors, where, mismatch, gradient)


def _removal_code(name: str, where: Mapping[str, Tensor]) -> str:
    lines = ["print(loss(**tensors))"]
    for other, mask in where.items():
        lines.append(f"removed = torch.tensor({mask.tolist()})")
        lines.append(
            f"tensors[{other!r}] = torch.where(removed, tensors[{other!r}].flip(0), tensors[{other!r}]).detach()"
        )
    return "\n".join([*lines, f"print(loss(**tensors))      # only what {name} removes has changed"])


def _other_values(trial: Trial, name: str, tensor: Tensor, mask: Tensor) -> Tensor:
    """Other legal values where ``mask`` is set."""
    domain = trial.spec.tensors[name].domain
    sampled = domain.sample(tuple(tensor.shape), trial.generator(salt=1), trial.case.sizes).to(tensor.dtype)
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
            same = same_output(run.output, base.output, *trial.measure_scale(found.tensors)) is None
            if same and run.finite and all(bool(g.isfinite().all()) for g in kept):
                continue
            legal = trial.spec.tensors[other].domain.nan and math.isnan(poison)
            yield Mismatch(
                f"loss with {describe(poison)} in what {name} removes of {other}",
                describe(run.scalar) if not same else "a NaN gradient",
                describe(base.scalar) if not same else "a finite one",
                aspect=f"{name} leak",
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
        code="C01",
        title="the context follows the module",
        group="context",
        severity="error",
        check=context_follows_the_module,
        regimes={"distinct": 1, "coincident": 1},
        smooth=True,
        why="The mask stays on the CPU when the model moves, and a checkpoint comes back with another context.",
        example="self.weights = weights.float()      # a plain attribute",
        mend='`self.register_buffer("weights", weights)`.',
        source="torch.nn.Module.register_buffer; pytorch/pytorch#8637.",
    ),
    Rule(
        code="C02",
        title="inputs, targets and context are not modified",
        group="context",
        severity="error",
        check=nothing_is_modified,
        regimes={"distinct": 3, "coincident": 1},
        why="The next loss, metric or log line reads numbers that this loss has overwritten.",
        example="labels.view(-1).masked_fill_(mask == 0, -100)      # writes into the caller's labels",
        mend="The out-of-place twin (`masked_fill`), or a clone.",
        source="PyTorch autograd mechanics, 'In-place operations with autograd'.",
    ),
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
