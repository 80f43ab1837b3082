"""Starting the fresh processes that time, and reading their answers."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.declare.spec import LossSpec
from harness.results.variants import eager_name
from harness.timing.constants import COMPILER_S, GRACE_S, WORKER_ENVIRONMENT
from harness.timing.design import Heat, Samples
from harness.timing.worker import MARK, fingerprint, read_samples

_running: set[subprocess.Popen[str]] = set()


@dataclass(frozen=True)
class Answer:
    """What one process said.

    Args:
        samples: what it measured.
        environment: what it was measured under; ``None`` where the spec could not be loaded.
        start_s: seconds from its start until it could measure, without ``compiler_s``.
        compiler_s: seconds that it took to load the compiler.
        unloadable: why the spec could not be loaded there.
        broken: how the process ended, where it did not end well.
    """

    samples: tuple[Samples, ...] = ()
    environment: Mapping[str, object] | None = None
    start_s: float = 0.0
    compiler_s: float = 0.0
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
        "heats": [heat.to_json() for heat in heats],
        "device": device,
        "left_s": left_s,
        "process": process,
        "processes": processes,
        "seed": seed,
        "started": time.time(),
    }
    killed = False
    is_compiled = any(eager_name(spec.implementations, name) for heat in heats for name in heat.contestants)
    grace_s = GRACE_S + (COMPILER_S if is_compiled else 0.0)
    started = subprocess.Popen(
        [sys.executable, "-m", "harness.timing.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    _running.add(started)
    try:
        stdout, stderr = started.communicate(json.dumps(job), timeout=left_s + grace_s)
    except subprocess.TimeoutExpired:
        killed = True
        started.kill()
        stdout, stderr = started.communicate()
    except BaseException:
        started.kill()
        started.wait()
        raise
    finally:
        _running.discard(started)
    return _read(stdout, _how_it_ended(started.returncode, stderr, killed, left_s, grace_s))


def kill_all() -> None:
    """Kill whoever times just now; for a process that is about to end without unwinding."""
    for process in list(_running):
        process.kill()


def _environment() -> dict[str, str]:
    environment = {**os.environ, **WORKER_ENVIRONMENT, MARK: "1"}
    found = importlib.util.find_spec("harness")
    root = str(Path(str(found.origin)).parent.parent) if found is not None else ""
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    if root and root not in installed:  # used from a checkout that is on this process's path only
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), root]))
    return environment


def _how_it_ended(code: int, stderr: str, killed: bool, left_s: float, grace_s: float) -> str:
    if killed:
        return f"it was killed {grace_s:g} s after the {left_s:.1f} s that the budget had left"
    if code == 0:
        return ""
    last = (stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"it died of {signal.Signals(-code).name}: {last}" if code < 0 else f"it ended with code {code}: {last}"


def _read(stdout: str, broken: str) -> Answer:
    samples: list[Samples] = []
    environment: Mapping[str, object] | None = None
    start_s, compiler_s, unloadable = 0.0, 0.0, ""
    complete = stdout[: stdout.rfind("\n") + 1]  # a killed process may leave half a line
    for text in complete.splitlines():
        line: dict[str, Any] = json.loads(text)
        if line["event"] == "loaded":
            environment, start_s, compiler_s = line["environment"], line["start_s"], line["compiler_s"]
        elif line["event"] == "unloadable":
            unloadable = line["reason"]
        elif line["event"] == "finished":
            environment = {**(environment or {}), **line["environment"]}
        else:
            samples.append(read_samples(line))
    return Answer(tuple(samples), environment, start_s, compiler_s, unloadable, broken)
