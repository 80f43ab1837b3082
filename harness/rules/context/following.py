"""Rules about the context: C01, C02."""

from __future__ import annotations

import copy
import pickle
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from harness.calls import devices, tolerance
from harness.calls.evaluation import LossRaised
from harness.drawing.case import Recipe
from harness.errors import NotApplicable, told_in_a_line
from harness.private_names import version
from harness.rules.dtypes.kept import usual
from harness.rules.rule import Kind, Mismatch, Rule
from harness.rules.tools.compare import same_output
from harness.rules.trial import Scale, Trial, checked, contract, describe


def loose_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Tensors that a module keeps as plain attributes, in lists or in dicts: attribute path -> tensor."""
    found: dict[str, Tensor] = {}

    def visit(path: str, value: Any, depth: int) -> None:
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            found[path] = value
        elif isinstance(value, (list, tuple, dict)) and depth < 3:
            for key, item in islice(value.items() if isinstance(value, dict) else enumerate(value), 64):
                visit(f"{path}[{key!r}]", item, depth + 1)

    internal = set(vars(nn.Module()))
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            if name not in internal:
                visit(f"{prefix}.{name}" if prefix else name, value, 0)
    return found


STEPS_BEFORE = (2, 1)  # of training, before what is kept is saved: a pointer may come round to where it began
STEPS_AFTER = 3  # as many go on from there: the first may overwrite what the second meets


def _built(trial: Trial, tensors: Mapping[str, Tensor], *, train: bool = False) -> Any:
    """A fresh instance with a context of its own: one that keeps what it is given, and writes into it, changes no other."""
    return trial.candidate.build({name: tensor.clone() for name, tensor in tensors.items()}, train=train)


def context_follows_the_module(trial: Trial) -> Iterator[Mismatch]:
    """The context moves, saves and copies with the module.

        module.to(dtype or device), state_dict, pickle and deepcopy carry every tensor that the loss uses

    So is what the loss keeps of its calls: saved after a step or two of training and loaded into a fresh instance, it goes on
    with the same numbers for three steps.  A context that is a parameter changes with the first step of the optimizer.
    """
    if not trial.candidate.is_module:
        raise NotApplicable("not an nn.Module: its context is given with each call")
    tensors = trial.tensors(usual(trial))
    module: Any = _built(trial, tensors)
    loose = False
    for path, tensor in loose_tensors(module).items():
        if _is_read(trial, tensors, path):
            is_context = _is_context(trial, tensors, path)
            yield from _loose(trial, path, tensor) if is_context else _constant(path, tensor)
            loose |= is_context
    yield from _moves(trial, tensors)
    if not loose:  # whose being missing in the checkpoint is said above
        found = _saves(trial, tensors) or (_resumes(trial, tensors) if trial.exhaustive else None)
        if found is not None:
            yield found
    yield from _learned(trial, tensors)
    yield from _copies(trial, tensors)


def _is_read(trial: Trial, tensors: Mapping[str, Tensor], path: str) -> bool:
    """Whether the loss needs the attribute: one that it keeps beside the buffer that it uses is no defect."""
    at_work = any(bool(gradient.any()) for gradient in trial.base.gradients.values() if gradient is not None)
    if "[" in path or not at_work:  # a batch without a pair, say, needs nothing of what the loss keeps
        return True
    module: Any = _built(trial, tensors)
    prefix, _, name = path.rpartition(".")
    vars(module.get_submodule(prefix))[name] = object()
    try:
        with torch.no_grad():
            came = trial.candidate.call(module, tensors)
    except LossRaised:
        return True
    should = trial.candidate(tensors).detach()
    if not isinstance(came, Tensor) or came.shape != should.shape:
        return True
    off, largest = (came.nan_to_num() - should.nan_to_num()).abs(), float(should.nan_to_num().abs().sum())
    eps = 0.0 if devices.is_cpu(trial.device) else torch.finfo(should.dtype).eps  # elsewhere atomics sum in any order
    return bool((off > tolerance.forward_error(eps, largest, 0.0)).any())


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same numbers; torch compares no sparse ones."""
    return a.shape == b.shape and torch.equal(*(t if t.layout == torch.strided else t.to_dense() for t in (a, b)))


def _is_context(trial: Trial, tensors: Mapping[str, Tensor], path: str) -> bool:
    """Whether the attribute comes from the context.  What another context leaves as it is, the constructor makes itself."""
    constructed = trial.candidate.constructed
    if any(isinstance(option, Tensor) for option in trial.spec.options.values()):
        return True
    if not constructed:
        return False
    seeds = {name: Recipe(seed=zlib.crc32(f"another {name}".encode())) for name in constructed}
    other = trial.at(replace(trial.case, tensors={**trial.case.tensors, **seeds})).tensors(usual(trial))
    if any(same(other[name], tensors[name]) for name in constructed):
        return True  # nothing is shown by a context that could be drawn in one way only
    one, another = (loose_tensors(_built(trial, given)) for given in (tensors, other))
    return path not in another or not same(one[path], another[path])


def _constant(path: str, tensor: Tensor) -> Iterator[Mismatch]:
    yield Mismatch(
        f"device of self.{path} {list(tensor.shape)} after module.to('meta')",
        str(tensor.device),
        "meta",
        aspect=f"{path} constant",
        severity="note",
        hint=f"move it where it is used, or register it: self.register_buffer({path.rpartition('.')[2]!r}, ..., persistent=False)",
        note="the constructor makes it from constants, so that a checkpoint need not carry it; T03 says whether a device is missed",
    )


def _loose(trial: Trial, path: str, tensor: Tensor) -> Iterator[Mismatch]:
    shape = list(tensor.shape)
    hint = f'self.register_buffer("{path.split("[")[0].split(".")[-1]}", ...) in the constructor'
    build = "module = build(**tensors)"
    if tensor.device.type != "meta":
        yield Mismatch(
            f"device of self.{path} {shape} after module.to('meta')",
            str(tensor.device),
            "meta",
            aspect=f"{path} to",
            kind="not moved",
            tensor=path,
            hint=hint,
            note="a plain tensor attribute follows neither .to(), .cuda() nor .half()",
            tensors=trial.tensors(usual(trial)),
            code=f"{build}.to('meta')\nprint(module.{path}.device)",
        )
    yield Mismatch(
        f"self.{path} {shape} in module.state_dict()",
        "missing",
        "there",
        aspect=f"{path} state_dict",
        kind="not saved",
        tensor=path,
        hint=hint,
        note="a checkpoint does not carry it: the loss that is loaded may use another context",
        tensors=trial.tensors(usual(trial)),
        code=f"{build}\nprint(list(module.state_dict()))",
    )


def _moves(trial: Trial, tensors: Mapping[str, Tensor]) -> Iterator[Mismatch]:
    """Built in float32 and moved to float64 = built in float64."""
    if trial.precision.takes != torch.float64:
        return
    wide = {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}
    expected = trial.run(wide, wrt=())
    module: Any = _built(trial, tensors)
    if any(kept.is_complex() for kept in module.state_dict().values() if isinstance(kept, Tensor)):
        return  # module.to(torch.float64) drops imaginary parts, whatever the module does
    came: str | BaseException
    try:
        with torch.no_grad():
            moved = trial.candidate.call(module.to(torch.float64), wide)
    except LossRaised as raised:
        came, should = raised.error, f"{expected.scalar:.6g}"
    else:
        mismatch = same_output(moved.detach(), expected.output, trial.measure_scale(wide))
        if mismatch is None:
            return
        came, should = mismatch.came, mismatch.should
    yield _of_module("loss after module.to(torch.float64)", came, should, "moved", tensors, "moved")


def _of_module(
    where: str, came: str | BaseException, should: str, aspect: str, tensors: Mapping[str, Tensor], kind: Kind = ""
) -> Mismatch:
    code = {
        "moved": "module = build(**tensors).to(torch.float64)\nprint(call(module, **{n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}))",
        "pickle": "import pickle\nmodule = build(**tensors)\ncall(module, **tensors)\npickle.loads(pickle.dumps(module))",
        "deepcopy": "import copy\nmodule = build(**tensors)\ncall(module, **tensors)\ncopy.deepcopy(module)",
        "load": "module = build(**tensors)\nother = build(**{n: t.flip(0) if t.ndim else t for n, t in tensors.items()})\ncall(other, **tensors)\nother.load_state_dict(module.state_dict())\nprint(call(module, **tensors), call(other, **tensors))",
        "resume": "module, other = (build(**{n: t.detach().clone() for n, t in tensors.items()}).train() for _ in range(2))\nbatches = [{n: t / k if t.requires_grad else t for n, t in tensors.items()} for k in (1, 2, 3)]\nfor _ in range(STEPS):\n    call(module, **batches[1])\nother.load_state_dict(module.state_dict())\nfor mode, batch in zip((False, True, True, True), (batches[0], *batches)):\n    print(call(module.train(mode), **batch), call(other.train(mode), **batch))",
        "parameter": "module = build(**tensors)\ntotal(call(module, **tensors)).backward()\nprint({n: p.grad for n, p in module.named_parameters()})",
    }[aspect]
    hints = {
        "moved": "cast the context to the predictions' dtype where it is used, and register what is derived from it",
        "pickle": "keep no lambda, generator, open file or graph-attached tensor on self",
        "deepcopy": "keep no graph-attached tensor on self: store it detached, or not at all",
        "load": "derive it from the registered context in each call, or register it as a persistent buffer in the constructor",
        "resume": "register what is kept from call to call as a persistent buffer in the constructor, and write into it",
        "parameter": "self.register_buffer(...), or nn.Parameter(..., requires_grad=False); what is learned on purpose is no context",
    }
    shown, error = (came, None) if isinstance(came, str) else (told_in_a_line(came), came)
    return Mismatch(
        where, shown, should, aspect=aspect, kind=kind, error=error, tensors=tensors, code=code, hint=hints[aspect]
    )


def _learned(trial: Trial, tensors: Mapping[str, Tensor]) -> Iterator[Mismatch]:
    """Parameters that come from the context and get a gradient: the first step of the optimizer changes the context."""
    module: Any = _built(trial, tensors)
    learned = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not learned:
        return
    other: Any = _built(trial, _with_another_context(tensors, trial.candidate.constructed))
    start = dict(other.named_parameters())
    made = {n: p for n, p in learned.items() if n in start and not same(p, start[n])}
    if not made:
        return
    output = contract(checked(trial.candidate.call(module, tensors), tensors))
    if not output.requires_grad:
        return
    gradients = torch.autograd.grad(output, list(made.values()), allow_unused=True)
    for (name, parameter), gradient in zip(made.items(), gradients, strict=True):
        if gradient is not None and bool(gradient.any()):
            yield replace(
                _of_module(
                    f"gradient of the parameter {name} {list(parameter.shape)}, which comes from the context",
                    describe(float(gradient.abs().max())),
                    "none",
                    "parameter",
                    tensors,
                ),
                severity="warning",
                note="an optimizer that is given the loss's parameters trains the context away",
            )


def _with_another_context(tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    return {n: t.flip(0) if n in names and t.ndim else t for n, t in tensors.items()}


def _resumes(trial: Trial, tensors: Mapping[str, Tensor]) -> Mismatch | None:
    """What is saved after some steps of training and loaded into a fresh instance goes on with the same numbers.

    What is not saved may show in a later step alone: a pointer into a queue decides what is overwritten, which the next meets.
    """
    for steps in STEPS_BEFORE:
        found = _resumes_after(trial, tensors, steps)
        if found is not None:
            return replace(found, code=found.code.replace("range(STEPS)", f"range({steps})"))
    return None


def _resumes_after(trial: Trial, tensors: Mapping[str, Tensor], steps: int) -> Mismatch | None:
    module: Any = _built(trial, tensors, train=True)
    try:
        for _ in range(steps):
            trial.run(_batch(trial, tensors, 71), built=module)
        state = copy.deepcopy(module.state_dict())
    except (LossRaised, RuntimeError):
        return None  # S03 says so of training, and `_copies` of what cannot be copied
    other: Any = _built(trial, tensors)
    try:
        other.load_state_dict(state)
    except (RuntimeError, KeyError) as error:
        return _of_module("module.load_state_dict(...) of one that was called", error, "loaded", "resume", tensors)
    for step in range(STEPS_AFTER + 1):
        batch = tensors if step < 2 else _batch(trial, tensors, 71 + step)
        came, should = (_value(trial, each.train(step > 0), batch) for each in (other, module))
        if isinstance(should, str):
            return None
        mismatch = _off(trial, came, should)
        if mismatch is not None:
            when = "eval()" if not step else "train()" if step == 1 else f"train(), step {step}"
            where = f"loss in {when} after training, saved and loaded"
            return _of_module(where, mismatch.came, f"{mismatch.should}, as without the break", "resume", tensors)
    return None


def _batch(trial: Trial, tensors: Mapping[str, Tensor], salt: int) -> dict[str, Tensor]:
    """Another draw of what each call is given."""
    called = trial.candidate.called
    return {n: trial.another(n, t, salt=salt) if n in called else t.clone() for n, t in tensors.items()}


def _value(trial: Trial, module: Any, tensors: Mapping[str, Tensor]) -> Tensor | str:
    """The value of an instance, or what it raised."""
    try:
        return trial.run({n: t.clone() for n, t in tensors.items()}, wrt=(), built=module).output
    except LossRaised as raised:
        return told_in_a_line(raised.error)


def _off(trial: Trial, came: Tensor | str, should: Tensor) -> Mismatch | None:
    if isinstance(came, str):
        return Mismatch("", came, describe(float(contract(should))))
    scale = Scale(lambda: (abs(float(contract(should))), 0.0), max(trial.eps, tolerance.eps_of(should.dtype)))
    return same_output(came.double(), should.double(), scale)


def _saves(trial: Trial, tensors: Mapping[str, Tensor]) -> Mismatch | None:
    """A module with another context gives this one's number once it has loaded this one's state_dict.

    A context that nothing of the state_dict depends on is to come from elsewhere where a buffer says persistent=False.
    What is saved in a part only is stale after loading: the rest was derived from the other context.
    """
    for name in trial.candidate.constructed:
        module: Any = _built(trial, tensors)
        other: Any = _built(trial, _with_another_context(tensors, [name]))
        state, replaced = module.state_dict(), other.state_dict()
        is_saved = any(
            isinstance(t, Tensor) and key in replaced and not same(t, replaced[key]) for key, t in state.items()
        )
        if not is_saved and {key for key, _ in module.named_buffers()} - set(state):
            continue
        _value(trial, other, tensors)  # what is derived in the first call is kept too
        try:
            other.load_state_dict(state)
        except RuntimeError as error:
            found = _of_module("module.load_state_dict(...)", error, "loaded", "load", tensors)
            repeated = [
                key
                for key, buffer in other.named_buffers()
                if any(n > 1 and not step for n, step in zip(buffer.shape, buffer.stride(), strict=True))
            ]
            if repeated:
                hint = f"{repeated[0]} repeats elements with stride 0, and nothing can be written into it: register it after .clone()"
                found = replace(found, hint=hint)
            return found
        came, should = _value(trial, other, tensors), _value(trial, module, tensors)
        mismatch = None if isinstance(should, str) else _off(trial, came, should)
        if mismatch is not None:
            return _of_module("loss after load_state_dict", mismatch.came, mismatch.should, "load", tensors)
    return None


def _copies(trial: Trial, tensors: Mapping[str, Tensor]) -> Iterator[Mismatch]:
    """deepcopy and pickle work, also after a forward and backward."""
    module: Any = _built(trial, tensors)
    leaves = trial.leaves(tensors)
    output = trial.candidate.call(module, leaves)
    if isinstance(output, Tensor) and output.requires_grad:
        _backward(contract(checked(output, leaves)))
    held = {**loose_tensors(module), **dict(module.named_buffers())}.values()
    kind: Kind = "keeps a graph" if any(tensor.grad_fn is not None for tensor in held) else ""
    try:
        copy.deepcopy(module)
    except Exception as error:
        yield _of_module("copy.deepcopy(module) after a forward", error, "a copy", "deepcopy", tensors, kind)
        return
    name = type(module).__qualname__
    if "<locals>" in name or "<lambda>" in name or any(map(is_parametrized, module.modules())):
        return  # torch pickles neither a class inside a function nor a parametrized module, whatever the loss does
    try:
        pickle.loads(pickle.dumps(module))
    except Exception as error:
        yield _of_module("pickle.dumps(module) after a forward", error, "bytes", "pickle", tensors, kind)


def nothing_is_modified(trial: Trial) -> Iterator[Mismatch]:
    """Inputs, targets and context are the same bytes, and the same version, after forward and backward.

    x after L(x).backward() = x before
    """
    tensors = trial.tensors()
    leaves = trial.leaves(tensors)
    before = {name: tensor.detach().clone() for name, tensor in leaves.items()}
    versions = {name: version(tensor) for name, tensor in leaves.items()}
    try:
        scalar = contract(trial.output(leaves))
    except LossRaised:
        if not any(_changed(leaves[n], before[n]) for n in leaves):
            raise
    else:
        _backward(scalar)
    for name, tensor in leaves.items():
        bytes_changed = _changed(tensor, before[name])
        if bytes_changed or version(tensor) != versions[name]:
            role = "context" if name in trial.spec.context else "input"
            yield Mismatch(
                f"{role} {name} after forward and backward",
                _values_text(tensor) if bytes_changed else f"version {version(tensor)}",
                f"{_values_text(before[name])} as before" if bytes_changed else f"version {versions[name]} as before",
                aspect=name,
                tensors=trial.tensors(),
                code=_MODIFIED_CODE.format(name=name),
                hint="use the out-of-place operation, or work on a clone; .data and no_grad() do not make an in-place edit safe"
                + _meant(tensor, name),
            )


def _meant(tensor: Tensor, name: str) -> str:
    """The line to write where an input holds its own gradient: fused kernels save memory that way."""
    if tensor.grad is None or not torch.equal(tensor.grad, tensor.detach()):
        return ""
    return (
        f"; {name} holds its gradient: if nobody reads it afterwards, declare LossSpec(writes_gradient_into={name!r})"
    )


def _backward(scalar: Tensor) -> None:
    if scalar.requires_grad:
        try:
            scalar.backward()
        except Exception as error:  # a graph of an earlier call, say
            raise LossRaised(error) from error


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


RULES = (
    Rule(
        code="C01",
        title="the context follows the module",
        draws_anew="another dtype draws other numbers",
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
)
