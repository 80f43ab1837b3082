"""Time of a loss over that of a copy which moves the bytes of its bound, in rounds in turn, in fresh processes.

python -m property_tests.tools.comparison.copying: one such process; a job as JSON on stdin, seconds per call as JSON on stdout.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial

import torch

from harness.declare import targets
from harness.declare.dims import Size
from harness.declare.spec import LossSpec
from harness.errors import HarnessError
from harness.results.measured import Cell
from harness.results.schema import record
from harness.timing.clocks import clock_for
from harness.timing.constants import PROCESSES, ROUNDS, WORKER_ENVIRONMENT
from harness.timing.design import calibrate, order
from harness.timing.quiet import Quiet
from harness.timing.statistics import Ratio, paired_ratio
from harness.timing.workload import Workload, inputs

COPY = "copy"
# A process starts in 3 s and measures for less than one; on a machine under load ten times that.
LIMIT_S = 60.0


@dataclass(frozen=True)
class Copied:
    """Rounds of a loss and of the copy.

    Args:
        moved_bytes: what the copy reads and writes.
        loss_seconds: seconds per call of the loss, one per round.
        copy_seconds: the same of the copy.
        process: which process each round ran in.
        seed: of the resampling.
    """

    moved_bytes: int
    loss_seconds: tuple[float, ...]
    copy_seconds: tuple[float, ...]
    process: tuple[int, ...]
    seed: int

    @property
    def ratio(self) -> Ratio:
        """Time of the loss over that of the copy."""
        return paired_ratio(self.loss_seconds, self.copy_seconds, self.process, self.seed)


def copy_of(moved_bytes: int) -> Callable[[], object]:
    """A call that reads half of the bytes and writes the other half, with torch's own copy."""
    source = torch.ones(moved_bytes // 8, dtype=torch.float32)
    destination = torch.empty_like(source)
    return lambda: destination.copy_(source)


def time_over_copy(
    spec: LossSpec,
    implementation: str,
    sizes: Mapping[str, Size],
    moved_bytes: int,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
    is_warm: bool = True,
) -> Copied:
    """Forward and backward of a loss, and a copy, in turn.

    Warm, each runs in blocks of calls that find in the caches what the call before them left: 8 MiB to copy stay in a cache of
    32 MiB.  In turn, each runs once and finds what the other left, as a loss in training finds what the model left.

    Args:
        spec: the declaration, whose ``target`` names where it can be loaded from.
        implementation: which of its implementations.
        sizes: a size for every symbol.
        moved_bytes: what the copy is to read and write together.
        rounds: in all processes together.
        seed: of inputs and order.
        is_warm: blocks of calls; else one call of each in turn.

    Raises:
        HarnessError: a process failed; the message has the last line that it wrote.
    """
    found: dict[str, list[float]] = {implementation: [], COPY: []}
    process: list[int] = []
    for number in range(PROCESSES):
        job = {
            "target": spec.target,
            "spec": spec.name,
            "implementation": implementation,
            "cell": asdict(Cell(sizes, "cpu", "float32", "full")),
            "moved_bytes": moved_bytes,
            "rounds": -(-rounds // PROCESSES),
            "process": number,
            "seed": seed,
            "is_warm": is_warm,
        }
        for name, seconds in _in_fresh_process(job).items():
            found[name] += seconds
        process += [number] * job["rounds"]
    return Copied(moved_bytes, tuple(found[implementation]), tuple(found[COPY]), tuple(process), seed)


def _in_fresh_process(job: Mapping[str, object]) -> dict[str, list[float]]:
    path = os.pathsep.join(place for place in sys.path if place)
    ran = subprocess.run(
        [sys.executable, "-m", __spec__.name],
        input=json.dumps(job),
        env={**os.environ, **WORKER_ENVIRONMENT, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise HarnessError(f"the process that times a copy ended with code {ran.returncode}: {last}")
    found: dict[str, list[float]] = json.loads(ran.stdout)
    return found


def race(job: Mapping[str, object], spec: LossSpec) -> dict[str, list[float]]:
    """Seconds per call of the loss and of the copy, in random order within each round."""
    cell, name = record(Cell, job["cell"], "cell"), str(job["implementation"])
    calls = {name: Workload(spec, name, inputs(spec, cell, job["seed"])).full, COPY: copy_of(job["moved_bytes"])}
    clock = clock_for(cell)
    for call in calls.values():
        clock.warm_up(call)
    blocks = {who: calibrate(clock, call) if job["is_warm"] else 1 for who, call in calls.items()}
    generator, quiet = random.Random(f"{job['seed']} {job['process']} {cell}"), Quiet()
    seconds: dict[str, list[float]] = {who: [] for who in calls}
    for _ in range(job["rounds"]):
        for who in order(list(calls), generator):
            if job["is_warm"]:
                calls[who]()  # the one before has filled the caches with its own data
            block = partial(clock.block, calls[who], blocks[who])
            seconds[who].append(quiet.run(block, calls[who], lambda: clock.idle_s) / blocks[who])
    return seconds


def main() -> None:
    """Read a job, run it, answer."""
    torch.set_num_threads(1)
    job = json.load(sys.stdin)
    spec = {spec.name: spec for spec in targets.load_specs([job["target"]])}[job["spec"]]
    print(json.dumps(race(job, spec)))


if __name__ == "__main__":
    main()
