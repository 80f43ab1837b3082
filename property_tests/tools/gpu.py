"""What only a GPU can say of this repository, in nine minutes: `make gpu` (ARGS="--minutes 5", ARGS="--out reports/cuda").

1. Tests that are marked `cuda`.
2. The reference losses and kernels under the battery on the device and on the CPU: every status is to be the same.
3. A loss that ends the device: nothing else is lost.
4. A function timed against itself there.
5. The report: times with warm and cold caches, by wall clock, events and graphs, launches, peak memory.  What an earlier run was
   stopped at is taken up again.

`device.md` in the folder says what came of each, and beside the report's hardware, driver and clocks which share of the measured
bandwidth a loss uses: least bytes / seconds / bandwidth, with cold caches.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from harness.timing.cold import Flush, flush_bytes
from harness.timing.cuda import EventClock
from harness.timing.devices import unavailable

ROOT = Path(__file__).parents[2]
HARNESS = (sys.executable, "-m", "harness")
KERNELS = "losses.kernels"
NO_DEVICE = 2  # exit code, as of a wrong use
CALLS, BLOCKS = 10, 5  # of the measurement of the bandwidth
STOPPING_S = 10  # for what is told to stop


@dataclass(frozen=True)
class Step:
    """A command with a limit; ``is_gate`` where it must end with 0."""

    name: str
    seconds: float
    words: tuple[str, ...]
    is_gate: bool = True


@dataclass(frozen=True)
class Done:
    """What came of a step: its exit code, ``None`` where it was stopped at its limit, and what it printed last."""

    step: Step
    code: int | None
    seconds: float
    last: str

    @property
    def status(self) -> str:
        """In a word."""
        return "stopped at its limit" if self.code is None else "passed" if self.code == 0 else f"exit code {self.code}"


def steps(targets: Sequence[str], out: Path, work: Path) -> tuple[Step, ...]:
    """All of it; the report takes the time that the others leave."""
    verify = (*HARNESS, "verify", *targets, "--profile", "quick", "--timeout", "60", "--format", "json", "--output")
    marked = (sys.executable, "-m", "pytest", "-q", "-m", "cuda", "--benchmark-disable", "property_tests")
    report = (*HARNESS, "report", *targets, "--device", "cuda", "--profile", "quick", "--out", str(out), "--resume")
    return (
        Step("tests", 110, marked),
        Step("verify cuda", 90, (*verify, str(work / "cuda.json"), "--device", "cuda"), is_gate=False),
        Step("verify cpu", 60, (*verify, str(work / "cpu.json")), is_gate=False),
        Step("lost device", 40, (sys.executable, "-m", "property_tests.tools.faults", "cuda_assert")),
        Step("calibration", 50, (*HARNESS, "calibrate", "--device", "cuda", "--pairs", "40", "--budget", "40")),
        Step("report", float("inf"), (*report, "--budget", "4"), is_gate=False),
    )


def run(step: Step, limit: float) -> Done:
    """Run a step, and end all that it started once its limit is over."""
    begin = time.monotonic()
    started = subprocess.Popen(
        step.words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    code: int | None = None
    try:
        printed, _ = started.communicate(timeout=min(step.seconds, limit))
        code = started.returncode
    except subprocess.TimeoutExpired:
        started.terminate()  # a report writes what it has
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.communicate(timeout=STOPPING_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        printed, _ = started.communicate()
    lines = [line for line in printed.splitlines() if line.strip()]
    return Done(step, code, time.monotonic() - begin, lines[-1] if lines else "")


def statuses(path: Path) -> dict[tuple[str, str, str], str]:
    """(loss, implementation, rule) -> status, of a verification as JSON; empty where there is none."""
    if not path.exists():
        return {}
    return {
        (loss["name"], outcome["implementation"], outcome["rule"]): outcome["status"]
        for loss in json.loads(path.read_text(encoding="utf-8"))["losses"]
        for outcome in loss["outcomes"]
    }


def differences(work: Path) -> list[str]:
    """What the device says otherwise than the CPU, or why nothing can be compared."""
    cuda, cpu = statuses(work / "cuda.json"), statuses(work / "cpu.json")
    if not cuda or not cpu:
        return [
            f"nothing to compare: no result on {' and '.join(n for n, s in (('cuda', cuda), ('cpu', cpu)) if not s)}"
        ]
    return [
        f"{' / '.join(key)}: {cuda.get(key, 'missing')} on cuda, {cpu.get(key, 'missing')} on the CPU"
        for key in sorted({*cuda, *cpu})
        if cuda.get(key) != cpu.get(key)
    ]


def bandwidth(device: torch.device) -> float:
    """Bytes that the device writes and reads in a second, going through more memory than its caches hold."""
    flush, clock = Flush(device), EventClock(device)
    call = clock.prepare(lambda: flush)
    clock.warm_up(call)  # type: ignore[arg-type]
    seconds = min(clock.block(call, CALLS) / CALLS for _ in range(BLOCKS))  # type: ignore[arg-type]
    return 2 * flush_bytes(device) / seconds


def shares(report: Mapping[str, Any], bytes_per_second: float) -> Iterator[str]:
    """A row of Markdown for each time on the device; the share is known for cold caches and declared bounds."""
    yield "| loss | implementation | sizes | pass | caches | clock | µs | launches | peak KiB | share of bandwidth |"
    yield "| --- | --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: |"
    for loss in report["losses"]:
        for m in loss["measurements"]:
            if m["status"] != "measured" or not m["device"].startswith("cuda") or not m["seconds_per_call"]:
                continue
            seconds, costs, bound = statistics.median(m["seconds_per_call"]), m["costs"] or {}, m["bound_bytes"]
            sizes = ", ".join(f"{symbol}={size}" for symbol, size in m["sizes"].items())
            launches, peak = costs.get("kernel_launches"), costs.get("peak_bytes")
            is_cold = m["cache"] == "cold" and bound
            cells = (
                loss["name"], m["implementation"], sizes, m["pass_name"], m["cache"], m["clock"], f"{1e6 * seconds:.1f}",
                "?" if launches is None else launches, "?" if peak is None else f"{peak / 1024:.0f}",
                f"{bound / seconds / bytes_per_second:.0%}" if is_cold else "",
            )  # fmt: skip
            yield f"| {' | '.join(map(str, cells))} |"


def page(done: Sequence[Done], apart: Sequence[str], report: Mapping[str, Any] | None, rate: float) -> str:
    """`device.md`."""
    lines = ["# On a GPU", "", "`make gpu` writes this page.", ""]
    if report is not None:
        gpu = (report["environment"].get("cuda") or {}).get("gpu") or {}
        known = {name: value for name, value in gpu.items() if not isinstance(value, dict)}
        lines += [", ".join(f"{name} {value}" for name, value in known.items()) or "hardware unknown", ""]
    lines += [f"Bandwidth, written and read: {rate / 1e9:.0f} GB/s.", "", "| step | result | s | last line |"]
    lines += ["| --- | --- | ---: | --- |"]
    lines += [f"| {d.step.name} | {d.status} | {d.seconds:.0f} | {d.last.replace('|', ' ')[:150]} |" for d in done]
    lines += ["", "## Rules on the device and on the CPU", "", *([f"- {text}" for text in apart] or ["All are equal."])]
    if report is not None:
        lines += ["", "## Times", "", *shares(report, rate)]
    return "\n".join(lines) + "\n"


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 where a gate fails or the device says otherwise than the CPU; 2 without a device."""
    parser = argparse.ArgumentParser(prog="make gpu", description="What only a GPU can say.")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all of it")
    chosen = parser.parse_args(words)
    if (missing := unavailable("cuda")) is not None:
        print(f"make gpu: not run, {missing}; the rest of the tests needs no GPU: make test", file=sys.stderr)
        return NO_DEVICE
    until = time.monotonic() + 60 * chosen.minutes
    targets = ["losses", *([KERNELS] if find_spec("triton") is not None else [])]
    if len(targets) == 1:
        print(f"{KERNELS} left out: triton is not installed; pip install 'loss-harness[kernels]'")
    with tempfile.TemporaryDirectory() as place:
        work, done = Path(place), []
        for step in steps(targets, chosen.out, work):
            done.append(run(step, max(1.0, until - time.monotonic() - 2 * STOPPING_S)))
            print(f"{step.name}: {done[-1].status}, {done[-1].seconds:.0f} s: {done[-1].last}", flush=True)
        apart = differences(work)
    found = chosen.out / "report.json"
    report = json.loads(found.read_text(encoding="utf-8")) if found.exists() else None
    chosen.out.mkdir(parents=True, exist_ok=True)
    rate = bandwidth(torch.device("cuda", 0))  # last: until here this process takes none of the device
    (chosen.out / "device.md").write_text(page(done, apart, report, rate), encoding="utf-8")
    shutil.rmtree(chosen.out / "failures", ignore_errors=True)  # inputs of failures are for whoever looks for them
    print(f"written: {chosen.out / 'device.md'}")
    return int(bool(apart) or any(d.step.is_gate and d.code != 0 for d in done))


if __name__ == "__main__":
    raise SystemExit(main())
