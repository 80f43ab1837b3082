"""What each fault costs: every one is injected into a run of the command, beside a loss that must come out unharmed.

python -m property_tests.tools.faults            all of them, as a table
python -m property_tests.tools.faults segfault   one
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "property_tests/examples"
HARNESS = [sys.executable, "-m", "harness"]
CODES = "B01,B05,S02,S04,E01"
LOSSES = ("segfault", "endless", "bomb", "leaves", "forks", "deadlocks", "prints", "poisons", "cuda_assert")


@dataclass(frozen=True)
class Injected:
    """What came of one fault.

    Args:
        fault: its name.
        exit_code: of the command; ``None`` where it was not run.
        message: what it said of the fault.
        lost: what is missing or changed beside the faulty implementation; empty is what is wanted.
        seconds: that it took, the runs that it is compared with among them.
    """

    fault: str
    exit_code: int | None
    message: str
    lost: str
    seconds: float = 0.0


def environment() -> dict[str, str]:
    """Of the commands: they find the losses of the examples, and what was on the path before, where their own packages may lie."""
    before = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(EXAMPLES), *([before] if before else [])])}


def command(folder: Path, *arguments: str, wait: bool = True) -> subprocess.Popen[str]:
    """Run `loss-harness` in a folder."""
    started = subprocess.Popen(
        [*HARNESS, *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if wait:
        started.wait(600)
    return started


def results(file: Path) -> dict[str, list[Any]]:
    """Loss / implementation -> its outcomes and findings."""
    found: dict[str, list[Any]] = {}
    for loss in json.loads(file.read_text())["losses"]:
        for record in (*loss["outcomes"], *loss["findings"]):
            found.setdefault(f"{loss['name']} / {record['implementation']}", []).append(record)
    return found


def report(folder: Path, *arguments: str, wait: bool = True) -> subprocess.Popen[str]:
    """A report without timing on the hostile losses."""
    options = [
        "--profile",
        "quick",
        "--select",
        CODES,
        "--costs-only",
        "--timeout",
        "5",
        "--memory",
        "2",
        "--out",
        "out",
    ]
    return command(folder, "report", *arguments, *options, wait=wait)


def of_a_loss(fault: str, folder: Path, baseline: dict[str, list[Any]]) -> Injected:
    """A loss harms its process; the report on all others must be what it is without it."""
    if fault.startswith("cuda") and not torch.cuda.is_available():
        return Injected(fault, None, "not run: there is no CUDA device", "")
    target = folder / "hostile.py"
    target.write_text(
        "from harness import LossSpec\nfrom hostile_losses import good, " + fault + "\n"
        f"SPECS = [LossSpec('fine', {{'good': good, 'again': lambda predictions, labels: good(predictions, labels)}}),\n"
        f"         LossSpec('faulty', {{'good': good, '{fault}': {fault}}})]\n"
    )
    done = report(folder, "hostile.py")
    found = results(folder / "out" / "report.json")
    lost = [name for name, records in baseline.items() if found.get(name) != records]
    return Injected(fault, done.returncode, said_of(found[f"faulty / {fault}"]), ", ".join(lost))


def said_of(records: Sequence[Any]) -> str:
    """What a report says of an implementation: the rules that it stopped, or what they found."""
    stopped = [record for record in records if record.get("status") in ("crashed", "timed out")]
    if stopped:
        return f"{len(stopped)} of {len(CODES.split(','))} rules stopped: {stopped[0]['reason']}"
    found = [record for record in records if "message" in record]
    return found[0]["message"].splitlines()[1].strip() if found else "nothing"


def killed(folder: Path, _: dict[str, list[Any]]) -> Injected:
    """kill -9 in the middle; the resumed report must be that of an unbroken run."""
    target = "losses.focal"
    (folder / "whole").mkdir()
    report(folder / "whole", target)
    started = report(folder, target, wait=False)
    journal = folder / "out" / "journal.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
        time.sleep(0.05)
    started.send_signal(signal.SIGKILL)
    started.wait()
    kept = journal.read_bytes().count(b"\n") - 1
    resumed = report(folder, target, "--resume")
    same = results(folder / "out" / "report.json") == results(folder / "whole" / "out" / "report.json")
    return Injected(
        "kill -9, then --resume",
        resumed.returncode,
        f"{kept} jobs were kept",
        "" if same else "the report is another one",
    )


def two_runs(folder: Path, _: dict[str, list[Any]]) -> Injected:
    """A second run into the folder of a first one."""
    first = report(folder, "losses.focal", wait=False)
    while not (folder / "out" / "journal.jsonl").exists():
        time.sleep(0.05)
    second = report(folder, "losses.focal")
    first.wait(600)
    message = second.stderr.read().strip() if second.stderr else ""
    return Injected(
        "two runs into one folder", second.returncode, message, "" if first.returncode in (0, 1) else "the first run"
    )


def read_only(folder: Path, _: dict[str, list[Any]]) -> Injected:
    """A folder that cannot be written, as a file in its place: whoever may do anything is refused nothing else."""
    (folder / "out").write_text("mine")
    done = report(folder, "losses.focal")
    message = done.stderr.read().strip() if done.stderr else ""
    return Injected(
        "no folder to write to", done.returncode, message, "" if (folder / "out").read_text() == "mine" else "the file"
    )


def full_disk(folder: Path, _: dict[str, list[Any]]) -> Injected:
    """A disk that is full while the journal is written, as a limit on the size of files."""
    (folder / "out").mkdir()
    (folder / "out" / "report.json").write_text("earlier")
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); from harness import cli; cli.main()"
    )
    arguments = ["report", "losses.focal", "--profile", "quick", "--select", CODES, "--costs-only", "--out", "out"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    kept = (folder / "out" / "report.json").read_text() == "earlier"
    return Injected(
        "full disk", done.returncode, done.stderr.strip().splitlines()[-1], "" if kept else "the earlier report"
    )


RUNS: dict[str, Callable[[Path, dict[str, list[Any]]], Injected]] = {
    "killed": killed,
    "two_runs": two_runs,
    "read_only": read_only,
    "full_disk": full_disk,
}


def inject(names: Sequence[str]) -> list[Injected]:
    """Each fault in a folder of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        alone = root / "alone"
        alone.mkdir()
        baseline = _baseline(alone)
        found = []
        for name in names:
            folder = root / name
            folder.mkdir()
            started = time.monotonic()
            made = RUNS[name](folder, {}) if name in RUNS else of_a_loss(name, folder, baseline)
            found.append(replace(made, seconds=time.monotonic() - started))
            shutil.rmtree(folder)
        return found


def _baseline(folder: Path) -> dict[str, list[Any]]:
    """What the losses beside the faulty one give without it."""
    (folder / "hostile.py").write_text(
        "from harness import LossSpec\nfrom hostile_losses import good\n"
        "again = lambda predictions, labels: good(predictions, labels)\n"
        "SPECS = [LossSpec('fine', {'good': good, 'again': again}), LossSpec('faulty', {'good': good, 'x': again})]\n"
    )
    report(folder, "hostile.py")
    found = results(folder / "out" / "report.json")
    return {name: records for name, records in found.items() if not name.endswith("/ x")}


def main() -> None:
    """Print the table; the exit code is 1 where anything beside the fault was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", choices=[*LOSSES, *RUNS, []], help="all by default")
    chosen = parser.parse_args().faults or [*LOSSES, *RUNS]
    table = Table("fault", "exit", "message", "lost beside it", "seconds")
    found = inject(chosen)
    for made in found:
        table.add_row(
            made.fault,
            "" if made.exit_code is None else str(made.exit_code),
            made.message,
            made.lost or "nothing",
            f"{made.seconds:.0f}",
        )
    Console(width=160).print(table)
    sys.exit(any(made.lost for made in found))


if __name__ == "__main__":
    main()
