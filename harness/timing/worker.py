"""What a fresh process does that times, and what it tells.

Results: first ``{"event": "loaded", "environment": {...}}`` or ``{"event": "unloadable", "reason": "..."}``, then one
``{"event": "samples", ...}`` for each implementation of each heat as soon as it is known, so that what was measured before
a crash is not lost, and last ``{"event": "finished", "environment": {...}}`` with what is known about it only then.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from harness.calls import environment
from harness.declare import targets
from harness.declare.spec import LossSpec
from harness.errors import told
from harness.results.schema import record
from harness.results.variants import eager_name
from harness.timing import timers as time
from harness.timing.budget import Budget
from harness.timing.cold import flushes
from harness.timing.compiled import unavailable_compiler
from harness.timing.constants import LEAST_PROCESS_S, LOOKS
from harness.timing.cores import run_on
from harness.timing.design import Heat, Samples, measure
from harness.timing.devices import lost, unusable
from harness.timing.keeper import Witness, kept

# Set in workers: a file that calls benchmark() while it is loaded would start workers without end.
MARK = "LOSS_HARNESS_TIMING_WORKER"


def fingerprint(spec: LossSpec) -> dict[str, Any]:
    """What must be equal in the spec that another process loads; a name is not enough, for specs can be changed."""
    return {
        "name": spec.name,
        "implementations": {name: _identity(value) for name, value in spec.implementations.items()},
        "tensors": {name: repr(tensor) for name, tensor in spec.tensors.items()},
        "differentiable": list(spec.differentiable),
        "options": {name: _identity(value) for name, value in spec.options.items()},
        "select": None if spec.select is None else _identity(spec.select),
    }


def _identity(value: object) -> str:
    name = getattr(value, "__qualname__", None)
    code = getattr(value, "__code__", None)
    if name is not None:
        return f"{name}, line {code.co_firstlineno}" if code is not None else str(name)
    return re.sub(r" at 0x[0-9a-f]+", "", f"{type(value).__qualname__} {value!r}")


def load(job: Mapping[str, Any]) -> LossSpec:
    """The spec that a job names.

    Raises:
        LookupError: no such spec there, or another one of the same name.
        Exception: whatever loading the user's file raises.
    """
    wanted = job["fingerprint"]
    found = {spec.name: spec for spec in targets.load_specs([job["target"]])}
    spec = found.get(wanted["name"])
    if spec is None:
        raise LookupError(f"it declares {sorted(found)}, not {wanted['name']!r}")
    theirs = fingerprint(spec)
    changed = [key for key in wanted if wanted[key] != theirs[key]]
    if changed:
        raise LookupError(f"{wanted['name']!r} there has other {' and '.join(changed)}")
    return spec


def run(job: Mapping[str, Any], emit: Callable[[Mapping[str, Any]], None], witness: Witness | None = None) -> None:
    """Load the spec and time the job's heats."""
    torch.set_num_threads(1)
    sys.path[:] = job["path"]  # what lies beside the harness in a checkout hides nothing of the user's
    try:
        spec = load(job)
    except Exception as error:  # the user's file is run here
        emit({"event": "unloadable", "reason": told(error)})
        return
    heats = [record(Heat, heat, "heat") for heat in job["heats"]]
    devices = sorted({heat.cell.device for heat in heats})
    reason = next(filter(None, map(unusable, devices)), None)  # asking wakes them, too
    if reason is not None:  # such as a device that one process has to itself
        emit({"event": "unloadable", "reason": reason})
        return
    begin = time.perf_counter()
    _load_compiler(spec, heats)
    cold = flushes(heat.cell for heat in heats)
    tools_s = time.perf_counter() - begin
    asked = time.perf_counter()
    before = environment.gpu_states(devices)
    asked_s = time.perf_counter() - asked  # and as long again in the end
    under = environment.describe(job["device"])
    start_s = time.time() - job["started"] - tools_s
    budget = Budget(job["left_s"], is_wall=devices != ["cpu"])
    emit({"event": "loaded", "environment": under, "start_s": start_s, "tools_s": tools_s})
    measure(
        spec,
        heats,
        looks=LOOKS,
        seconds=max(seconds_here(job["left_s"], job["processes"] - job["process"], start_s) - asked_s, 0.0),
        seed=job["seed"],
        process=job["process"],
        report=lambda samples: emit({"event": "samples", **asdict(samples)}),
        flushes=cold,
        witness=witness,
    )
    after = environment.gpu_states([device for device in devices if not lost(device)])
    states = {"gpu_states": {"before": before, "after": after}}
    emit({"event": "finished", "environment": states, "spent_s": budget.spent + start_s})


def _load_compiler(spec: LossSpec, heats: Sequence[Heat]) -> None:
    """Load the compiler where it is needed, which is no loss's time."""
    for device in {h.cell.device for h in heats if any(eager_name(spec.implementations, n) for n in h.contestants)}:
        unavailable_compiler(device)


def seconds_here(left_s: float, processes: int, start_s: float) -> float:
    """Seconds to measure in, so that every process left gets as many after its start, and the budget is kept.

    A budget that the starts alone would fill goes to fewer processes.
    """
    equal = left_s / processes - start_s
    return max(equal, min(left_s - start_s, LEAST_PROCESS_S), 0.0)


def read_samples(line: Mapping[str, Any]) -> Samples:
    """The samples of a ``samples`` line, whose blocks the process that holds the clock has looked at."""
    return record(Samples, {**line, "blocks": ()}, "samples")


def timed(job: Mapping[str, Any], tell: Callable[[str, Any], None]) -> None:
    """What a fork of `harness.timing.processes` runs; it tells through the process that holds the clock."""
    os.environ[MARK] = "1"
    witness = kept()  # which runs on any core
    run_on(job["cores"])
    run(job, witness.tell, witness)
