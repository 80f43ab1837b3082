"""Starting the fresh processes that time, and reading their answers."""

from __future__ import annotations

import atexit
import functools
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.declare.spec import LossSpec
from harness.isolation.events import TIMED_OUT, Ended
from harness.isolation.limits import Limits
from harness.isolation.sandbox import Sandbox
from harness.results.variants import eager_name
from harness.timing.constants import GRACE_S, STRETCH, TOOLS_S, WORKER_ENVIRONMENT
from harness.timing.cores import cores
from harness.timing.design import Heat, Samples
from harness.timing.worker import fingerprint, read_samples


@dataclass(frozen=True)
class Answer:
    """What one process said.

    Args:
        samples: what it measured.
        environment: what it was measured under; ``None`` where the spec could not be loaded.
        start_s: seconds from its start until it could measure, without ``tools_s``.
        tools_s: seconds that it took to load the compiler, and to take the memory that empties caches.
        spent_s: seconds that it took of the budget: by its own account, else all of them.
        unloadable: why the spec could not be loaded there.
        broken: how the process ended, where it did not end well.
    """

    samples: tuple[Samples, ...] = ()
    environment: Mapping[str, object] | None = None
    start_s: float = 0.0
    tools_s: float = 0.0
    spent_s: float = 0.0
    unloadable: str = ""
    broken: str = ""


def target_of(spec: LossSpec) -> tuple[str | None, str]:
    """The TARGET that loads a spec in another process, or ``None`` and the reason why there is none."""
    if spec.target is not None:
        return spec.target, ""
    if Path(spec.source.file).is_file() and spec.source.file.endswith(".py"):
        return spec.source.file, ""
    return None, "it is not declared in a Python file"


def without_folder(text: str, target: str) -> str:
    """Reports travel, and where a file lies on this machine is nobody's business."""
    folder = Path(target).parent
    for place in {str(folder.resolve()), str(folder)} - {"."}:
        text = text.replace(place + os.sep, "")
    return text


def time_in_fresh_process(
    spec: LossSpec,
    target: str,
    heats: Sequence[Heat],
    *,
    device: str,
    left_s: float,
    process: int,
    processes: int,
    seed: int,
) -> Answer:
    """Time heats in a new process, which is killed if it outlives ``left_s``.

    Args:
        spec: the declaration, which the process loads again.
        target: where from.
        heats: what is timed, the quickest first.
        device: whose environment is recorded.
        left_s: seconds for this process and those after it.
        process: number of this one, from 0.
        processes: how many there are to be.
        seed: of inputs and order.
    """
    job = {
        "target": target,
        "fingerprint": fingerprint(spec),
        "path": [place or os.getcwd() for place in sys.path],
        "heats": [asdict(heat) for heat in heats],
        "device": device,
        "left_s": left_s,
        "process": process,
        "processes": processes,
        "seed": seed,
        "cores": cores(),
        "started": time.time(),
    }
    is_compiled = any(eager_name(spec.implementations, name) for heat in heats for name in heat.contestants)
    is_cold = any(heat.cell.cache == "cold" for heat in heats)
    grace_s = GRACE_S + (TOOLS_S if is_compiled or is_cold else 0.0)
    told: list[Mapping[str, Any]] = []

    def hear(kind: str, line: Any) -> None:
        if kind == "result":
            told.append(line)

    begin, longest_s = time.perf_counter(), STRETCH * left_s
    ended = _box().run("harness.timing.worker:timed", job, Limits(step_s=longest_s + grace_s), hear)
    answer = _read(told, _how_it_ended(ended, longest_s, grace_s))
    return answer if answer.spent_s else replace(answer, spent_s=time.perf_counter() - begin - answer.tools_s)


@functools.cache
def _box() -> Sandbox:
    """Whose forks time: a process with the settings of the allocator, which are read where one starts, and torch."""
    box = Sandbox(("torch", "harness.timing.worker"), WORKER_ENVIRONMENT)
    box.begin()
    atexit.register(box.close)
    return box


def begin() -> None:
    """Start now the process whose forks time; forks of this one share it."""
    _box()


def wait() -> None:
    """Until that process can be forked."""
    _box().wait()


def kill_all() -> None:
    """End whoever times just now; for a process that is about to end without unwinding."""
    if _box.cache_info().currsize:
        _box().stop()


def _how_it_ended(ended: Ended, left_s: float, grace_s: float) -> str:
    if ended.ok:
        return ""
    if ended.how == TIMED_OUT:
        return f"it was killed {grace_s:g} s after the {left_s:.1f} s that the budget had left"
    last = (ended.output.strip().splitlines() or ["it said nothing"])[-1]
    return f"{ended.reason}: {last}"


def _read(told: Sequence[Mapping[str, Any]], broken: str) -> Answer:
    answer = Answer(broken=broken)
    for line in told:
        if line["event"] == "loaded":
            answer = replace(answer, environment=line["environment"], start_s=line["start_s"], tools_s=line["tools_s"])
        elif line["event"] == "unloadable":
            answer = replace(answer, unloadable=line["reason"])
        elif line["event"] == "finished":
            under = {**(answer.environment or {}), **line["environment"]}
            answer = replace(answer, environment=under, spent_s=line["spent_s"])
        else:
            answer = replace(answer, samples=(*answer.samples, read_samples(line)))
    return answer
