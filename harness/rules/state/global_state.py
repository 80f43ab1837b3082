"""Rules about state: S01, S02."""

from __future__ import annotations

import math
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.calls import backends, devices, process_state, tolerance
from harness.calls.evaluation import LossRaised, begin_draws
from harness.calls.watch import Watch
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools.compare import same_output
from harness.rules.tools.detach import placed
from harness.rules.trial import UNSET, Scale, Trial, checked, contract, is_finite

SEEDS = (11, 12)
STATES = (*SEEDS, 13)  # beside RNG_SEED: a draw of few values, such as an index, is often the same twice


def same_input_same_output(trial: Trial) -> Mismatch | None:
    """The same input gives the same output, whatever state the random generators are in and whatever memory held before.

        L(x; generator state s) = L(x; generator state s'),   for `LossSpec(stochastic=True)` L(x; s) = L(x; s)

    Memory that `torch.empty` and its relatives leave as it was is filled with NaN once: where that reaches value or
    gradient, it is read before it is written, and what it holds is another number in each process.
    Source: torch.utils.deterministic.fill_uninitialized_memory.
    """
    tensors = trial.tensors()
    filled = _Filled()
    outputs = [_with_unset_memory_filled(trial, tensors, filled)]
    if filled.read_by:
        return _read_unset(filled, tensors)
    for state in STATES:
        begin_draws(state)
        outputs.append(checked(trial.candidate(tensors), tensors))  # one that is to draw begins at a state of its own
    # Beyond float32 what differs from call to call is no rounding, though it may have been taken for one.
    eps = min(trial.eps, tolerance.eps_of(torch.float32))
    scale = Scale(lambda: (trial.scale.condition, trial.scale.intermediate), eps)
    compared = (same_output(output, outputs[0], scale) for output in outputs[1:])
    mismatch = next((found for found in compared if found is not None), None)
    if mismatch is None:
        return None
    drawn = [] if trial.spec.stochastic else _generators_that_draw(trial, tensors)
    where = " and the same state of every generator" if trial.spec.stochastic else ""
    meant = trial.spec.line_that_says("stochastic")
    unseeded = "draw from the global generators, or from a parameter `generator` that takes a torch.Generator"
    return replace(
        mismatch,
        where=f"{mismatch.where} on a second call with the same input{where}",
        tensors=tensors,
        code="print(loss(**tensors).tolist(), loss(**tensors).tolist())",
        hint=f"where it is meant to draw in eval() too, declare {meant}" if drawn else unseeded,
        note=f"it draws from {' and '.join(drawn)}; rules that compare two calls compare two draws" if drawn else "",
    )


class _Filled(Watch):
    """Fills memory that an operation leaves unset with NaN, and records which line of the loss asked for it."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []
        self.read_by = ""

    def _see(self, func: Any, args: Any, kwargs: Any) -> Any:
        returned = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name in UNSET and returned.is_floating_point() and returned.numel():
            returned.fill_(math.nan)
            self.places.append(placed(f"torch.{name}"))
        return returned


def _with_unset_memory_filled(trial: Trial, tensors: Mapping[str, Tensor], filled: _Filled) -> Tensor:
    """The output; ``filled`` then names what of value and gradients depends on the memory."""
    with filled:
        run = trial.run(tensors)
    if filled.places and trial.base.finite:
        read = {"loss": run.output, **{f"d loss / d {name}": gradient for name, gradient in run.gradients.items()}}
        odd = (name for name, values in read.items() if values is not None and not is_finite(values))
        filled.read_by = next(odd, "")
    return run.output


def _read_unset(filled: _Filled, tensors: Mapping[str, Tensor]) -> Mismatch:
    return Mismatch(
        f"{filled.read_by} with NaN in memory that was left unset",
        "nan",
        "a number that does not depend on it",
        aspect="unset memory",
        kind="reads unset memory",
        tensors=tensors,
        code=_UNSET_CODE,
        hint=f"use torch.zeros, or write every element before it is read: {', '.join(dict.fromkeys(filled.places))}",
        note="it is read before it is written, and holds whatever the process left there",
    )


_UNSET_CODE = """
    torch.use_deterministic_algorithms(True)      # fills what torch.empty returns with NaN
    value = total(loss(**tensors))
    wrt = [t for t in tensors.values() if t.requires_grad]
    print(value, torch.autograd.grad(value, wrt, allow_unused=True) if value.requires_grad else None)
"""


def _generators_that_draw(trial: Trial, tensors: Mapping[str, Tensor]) -> list[str]:
    before = _generator_states()
    trial.candidate(tensors)
    return [name for name, state in _generator_states().items() if name in before and state != before[name]]


def _numpy_state() -> bytes:
    state: Any = np.random.get_state(legacy=False)
    return bytes(state["state"]["key"].tobytes()) + bytes(str(state["state"]["pos"]), "ascii")


GLOBALS: Mapping[str, Callable[[], Any]] = {
    "torch.is_grad_enabled()": torch.is_grad_enabled,
    "torch.get_default_dtype()": torch.get_default_dtype,
    "torch.get_default_device()": torch.get_default_device,
    "torch.get_num_threads()": torch.get_num_threads,
    "torch.are_deterministic_algorithms_enabled()": torch.are_deterministic_algorithms_enabled,
    "torch.is_anomaly_enabled()": torch.is_anomaly_enabled,
    "torch.is_autocast_enabled('cpu')": lambda: torch.is_autocast_enabled("cpu"),
    "torch.is_autocast_enabled('cuda')": lambda: torch.is_autocast_enabled("cuda"),
    "os.getcwd()": os.getcwd,
    "sys.getrecursionlimit()": sys.getrecursionlimit,
}


def _generator_states() -> dict[str, Any]:
    """The state of every global generator by its name; those of CUDA devices are among torch's."""
    states: dict[str, Any] = {name: each.get_state().numpy().tobytes() for name, each in devices.generators().items()}
    return states | {"Python's global generator": random.getstate(), "NumPy's global generator": _numpy_state()}


def global_state_is_untouched(trial: Trial) -> Iterator[Mismatch]:
    """A call leaves the global generators, grad mode, default dtype, threads and autocast as they were, and the process too.

        state after L(x).backward() = state before

    So do the settings of torch's backends: in which precision float32 is multiplied and convolved (TF32), and which kernels
    cuDNN may take.  Generators of CUDA devices are among those that are watched where the process uses CUDA.
    """
    tensors = trial.tensors()
    for changes in (_nothing, _process_changed, _settings_changed, _backends_changed, _generators_changed):
        with process_state.surrounded():  # what one call changes for good would no longer change in the next one
            found = list(changes(trial, tensors))
        yield from found


def _nothing(trial: Trial, tensors: Mapping[str, Tensor]) -> Iterator[Mismatch]:
    """The first call of all, in which a loss may import what it needs."""
    trial.base  # noqa: B018 - a loss that raises is B01's
    return iter(())


def _settings_changed(trial: Trial, tensors: Mapping[str, Tensor]) -> Iterator[Mismatch]:
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            before = {name: read() for name, read in GLOBALS.items()}
            output = _call(trial, trial.leaves(tensors))
            after = {name: read() for name, read in GLOBALS.items()}
        _backward(output, tensors, grad)
        for name, value in after.items():
            if value != before[name]:
                where, mode = ("with grad enabled", "enable_grad()") if grad else ("inside no_grad()", "no_grad()")
                yield Mismatch(
                    f"{name} after a call {where}",
                    str(value),
                    f"{before[name]} as before",
                    aspect=name,
                    tensors=tensors,
                    code=f"import os\nimport sys\n\nwith torch.{mode}:\n    print({name})\n    loss(**tensors)\n    print({name})",
                    hint="use `with torch.no_grad():` (or torch.autocast, ...) as a context manager; it restores what was",
                )


def _backends_changed(trial: Trial, tensors: Mapping[str, Tensor]) -> Iterator[Mismatch]:
    before = backends.read()
    _backward(_call(trial, trial.leaves(tensors)), tensors, True)
    for setting, came, was in backends.changed(before, backends.read()):
        yield Mismatch(
            f"{setting.name} after a call",
            str(came),
            f"{was} as before",
            aspect=setting.name,
            tensors=tensors,
            code=f"print({setting.name})\nloss(**tensors)\nprint({setting.name})",
            hint="leave it to whoever trains, or put it back in a `finally`",
            note=f"from now on it decides {setting.about} of the whole program" if setting.about else "",
        )


def _printed_around(name: str) -> str:
    """Lines that print a part of the process before and after a call; a variable of the environment may be unset."""
    is_variable = name.startswith("os.environ[")
    shown = name.replace("os.environ[", "os.environ.get(").removesuffix("]") + ")" if is_variable else name
    return f"import os\nimport sys\n\nprint({shown})\nloss(**tensors)\nprint({shown})"


def _process_changed(trial: Trial, tensors: Mapping[str, Tensor]) -> Iterator[Mismatch]:
    before = process_state.read()
    _call(trial, trial.leaves(tensors))
    for name, came, was in process_state.changed(before, process_state.read()):
        yield Mismatch(
            f"{name} after a call",
            came,
            f"{was} as before",
            aspect=name,
            tensors=tensors,
            code=_printed_around(name),
            hint="do it once, where the program starts, or put it back in a `finally`",
        )


def _generators_changed(trial: Trial, tensors: Mapping[str, Tensor]) -> Iterator[Mismatch]:
    takes_one = bool(trial.candidate.drawn_from or trial.candidate.built_from)
    after: list[dict[str, Any]] = []
    before: list[dict[str, Any]] = []
    with trial.candidate.beginning(None):
        for state in SEEDS:
            built = trial.candidate.build(tensors)
            begin_draws(state)
            before.append(_generator_states())
            output = trial.candidate.call(built, trial.leaves(tensors))
            _backward(output, tensors, True)
            after.append(_generator_states())
    for name in before[0]:  # a generator that the loss itself was the first to use is not among them
        if after[0][name] == before[0][name]:
            continue
        reseeded = after[0][name] == after[1][name]
        if trial.spec.stochastic and not takes_one and not reseeded:
            continue  # as it is meant to
        yield Mismatch(
            f"the state of {name} after a call",
            "always the same, whatever it was before: the loss re-seeds it" if reseeded else "advanced by random draws",
            "as before the call",
            aspect=name,
            kind="" if reseeded else "draws",
            severity=None if reseeded else "warning",
            tensors=tensors,
            code=_draw_after(name),
            hint="draw from the generator that it is given" if takes_one else "use a local torch.Generator",
            note="every other random draw of the training repeats: augmentation, dropout, sampling" if reseeded else "",
        )


def _draw_after(name: str) -> str:
    """Lines that show the next draw of a generator after a call."""
    device = name.rpartition(" of ")[2] if " of cuda" in name else ""
    draw = f"torch.rand((), device={device!r})" if device else "torch.rand(())"
    return (
        f"for seed in (1, 2):\n    torch.manual_seed(seed)\n    loss(**tensors)\n"
        f"    print('next draw after the call:', {draw}.item())"
    )


def _call(trial: Trial, tensors: Mapping[str, Tensor]) -> Any:
    try:
        return trial.candidate(tensors)
    except LossRaised:
        return None  # what it changed before it raised is still compared


def _backward(output: Any, tensors: Mapping[str, Tensor], grad: bool) -> None:
    if grad and isinstance(output, Tensor) and output.requires_grad:
        scalar = contract(checked(output, tensors))
        try:
            scalar.backward()
        except RuntimeError as error:
            raise LossRaised(error) from error


RULES = (
    Rule(
        code="S01",
        title="deterministic",
        group="state",
        severity="error",
        check=same_input_same_output,
        regimes={"distinct": 2, "large": 1},
        smooth=True,
        why="A loss that changes from call to call cannot be debugged, compared or resumed.",
        example="noise = torch.rand_like(predictions)      # in eval mode too",
        mend="Draw in training mode only, from a generator that the caller gives.",
        source="PyTorch, 'Reproducibility'.",
    ),
    Rule(
        code="S02",
        title="global state is untouched",
        group="state",
        severity="error",
        check=global_state_is_untouched,
        regimes={"distinct": 2},
        smooth=True,
        why="A loss that re-seeds the generator repeats every augmentation; one that enables grad leaks memory in validation.",
        example="torch.set_grad_enabled(False); w = weight(p); torch.set_grad_enabled(True)",
        mend="Context managers and local generators.",
        source="PyTorch, 'Reproducibility'; torch.set_grad_enabled.",
    ),
)
