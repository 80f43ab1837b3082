"""Rules about the context: C01, C02."""

from __future__ import annotations

import copy
import pickle
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from harness import devices, tolerance
from harness.case import Recipe
from harness.errors import NotApplicable
from harness.evaluation import LossRaised
from harness.rules.broadcasting import first_line
from harness.rules.compare import same_output
from harness.rules.rule import Kind, Mismatch, Rule
from harness.rules.trial import Scale, Trial, checked, contract, describe


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
        if _is_read(trial, tensors, path):
            yield from _loose(trial, path, tensor) if _is_context(trial, tensors, path) else _constant(path, tensor)
    yield from _moves(trial, tensors)
    yield from _saves(trial, tensors)
    yield from _copies(trial, tensors)


def _is_read(trial: Trial, tensors: Mapping[str, Tensor], path: str) -> bool:
    """Whether the loss needs the attribute: one that it keeps beside the buffer that it uses is no defect."""
    at_work = any(bool(gradient.any()) for gradient in trial.base.gradients.values() if gradient is not None)
    if "[" in path or not at_work:  # a batch without a pair, say, needs nothing of what the loss keeps
        return True
    module: Any = trial.candidate.build(tensors)
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


def _is_context(trial: Trial, tensors: Mapping[str, Tensor], path: str) -> bool:
    """Whether the attribute comes from the context.  What another context leaves as it is, the constructor makes itself."""
    constructed = trial.candidate.constructed
    if any(isinstance(option, Tensor) for option in trial.spec.options.values()):
        return True
    if not constructed:
        return False
    seeds = {name: Recipe(seed=zlib.crc32(f"another {name}".encode())) for name in constructed}
    other = trial.at(replace(trial.case, tensors={**trial.case.tensors, **seeds})).tensors(torch.float32)
    if any(torch.equal(other[name], tensors[name]) for name in constructed):
        return True  # nothing is shown by a context that could be drawn in one way only
    one: Any = trial.candidate.build(tensors)
    another: Any = trial.candidate.build(other)
    kept = loose_tensors(another).get(path)
    return kept is None or not torch.equal(loose_tensors(one)[path], kept)


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
    moved = copy.copy(tensor)
    if moved.device.type != "meta":
        yield Mismatch(
            f"device of self.{path} {shape} after module.to('meta')",
            str(tensor.device),
            "meta",
            aspect=f"{path} to",
            kind="not moved",
            tensor=path,
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
        kind="not saved",
        tensor=path,
        hint=hint,
        note="a checkpoint does not carry it: the loss that is loaded may use another context",
        tensors=trial.tensors(torch.float32),
        code=f"{build}\nprint(list(module.state_dict()))",
    )


def _moves(trial: Trial, tensors: Mapping[str, Tensor]) -> Iterator[Mismatch]:
    """Built in float32 and moved to float64 = built in float64."""
    if trial.precision.takes != torch.float64:
        return
    wide = {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}
    expected = trial.run(wide, wrt=())
    module: Any = trial.candidate.build(tensors)
    try:
        with torch.no_grad():
            came = trial.candidate.call(module.to(torch.float64), wide)
    except LossRaised as raised:
        yield _of_module(
            "loss after module.to(torch.float64)", raised.error, f"{expected.scalar:.6g}", "moved", tensors
        )
        return
    mismatch = same_output(came.detach(), expected.output, trial.measure_scale(wide))
    if mismatch is not None:
        yield _of_module("loss after module.to(torch.float64)", mismatch.came, mismatch.should, "moved", tensors)


def _of_module(
    where: str, came: str | BaseException, should: str, aspect: str, tensors: Mapping[str, Tensor], kind: Kind = ""
) -> Mismatch:
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
    shown, error = (came, None) if isinstance(came, str) else (first_line(came), came)
    kind = "moved" if aspect == "moved" else kind
    return Mismatch(
        where, shown, should, aspect=aspect, kind=kind, error=error, tensors=tensors, code=code, hint=hints[aspect]
    )


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
        yield _of_module(
            "module.load_state_dict(...)",
            error.error if isinstance(error, LossRaised) else error,
            "loaded",
            "load",
            tensors,
        )
        return
    mismatch = same_output(
        came.double(), should.double(), Scale(lambda: (abs(float(contract(should))), 0.0), trial.eps)
    )
    if mismatch is not None and not loose_tensors(module):
        yield _of_module("loss after load_state_dict", mismatch.came, mismatch.should, "load", tensors)


def _copies(trial: Trial, tensors: Mapping[str, Tensor]) -> Iterator[Mismatch]:
    """deepcopy and pickle work, also after a forward and backward."""
    module: Any = trial.candidate.build(tensors)
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
    if "<locals>" in name or "<lambda>" in name:
        return  # a class inside a function cannot be pickled, whatever the loss does
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
    versions = {name: tensor._version for name, tensor in leaves.items()}
    try:
        scalar = contract(trial.output(leaves))
    except LossRaised:
        if not any(_changed(leaves[n], before[n]) for n in leaves):
            raise
    else:
        _backward(scalar)
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


def _backward(scalar: Tensor) -> None:
    if scalar.requires_grad:
        try:
            scalar.backward()
        except RuntimeError as error:  # a graph of an earlier call, say
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
