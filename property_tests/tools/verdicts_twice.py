"""Whether two runs of a report give the same verdicts: ``python -m property_tests.tools.verdicts_twice losses.focal``.

Each target is reported twice in turn, the second time beside processes that only keep the cores busy.  Two verdicts of one
implementation are *equal*; *open* where one of them is inconclusive; else they *contradict* each other.  Given two folders in
place of targets, the reports in them are compared.

    python -m property_tests.tools.verdicts_twice losses --busy 2
    python -m property_tests.tools.verdicts_twice reports/first reports/second --compare
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from harness.judging.speed import place_of
from harness.results import schema
from harness.results.schema import INCONCLUSIVE, LossRecord, Report
from harness.results.words import table

EQUAL, OPEN, CONTRADICTS = "equal", "open in one", "contradicts"
LEAST_EQUAL = 0.97
LEAST_MEASURED = 0.95


def kind(first: str, second: str) -> str:
    """How two verdicts on one implementation stand to each other."""
    if first == second:
        return EQUAL
    return OPEN if INCONCLUSIVE in (first, second) else CONTRADICTS


def verdicts(report: Report) -> dict[tuple[str, str], str]:
    """(loss, implementation) -> verdict."""
    return {(loss.name, v.implementation): v.verdict for loss in report.losses for v in loss.verdicts}


def reached(loss: LossRecord) -> tuple[int, int]:
    """Of the cells that the reference was measured in, how many another was compared with it, and how many there are."""
    mine = [m for m in loss.measurements if m.implementation != loss.reference and m.status != "failed"]
    reference = [m for m in loss.measurements if m.implementation == loss.reference and m.status == "measured"]
    theirs = {place_of(m) for m in reference}
    compared = {(place_of(c), c.implementation) for c in loss.comparisons if c.reference == loss.reference}
    wanted = [m for m in mine if place_of(m) in theirs]
    return sum((place_of(m), m.implementation) in compared for m in wanted), len(wanted)


def told(first: Report, second: Report) -> tuple[str, bool]:
    """A table of both reports, and whether they keep what is promised."""
    one, other = verdicts(first), verdicts(second)
    kinds = {pair: kind(verdict, other[pair]) for pair, verdict in one.items() if pair in other}
    rows = [["loss", "implementation", "first", "second", ""]]
    rows += [[*pair, one[pair], other[pair], found] for pair, found in kinds.items() if found != EQUAL]
    counts = Counter(kinds.values())
    lines = [table(rows)] if len(rows) > 1 else []
    equal = counts[EQUAL] / max(len(kinds), 1)
    lines.append(
        f"{len(kinds)} implementations: {counts[EQUAL]} equal ({equal:.1%}), {counts[OPEN]} open in one, "
        f"{counts[CONTRADICTS]} contradict"
    )
    measured = []
    for name, report in (("first", first), ("second", second)):
        done, wanted = (sum(part) for part in zip(*map(reached, report.losses), strict=True))
        measured.append(done / max(wanted, 1))
        lines.append(f"{name}: {done} of {wanted} cells that the reference reached are compared with it")
    is_kept = equal >= LEAST_EQUAL and not counts[CONTRADICTS] and min(measured) >= LEAST_MEASURED
    return "\n".join(lines), is_kept and bool(kinds)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes beside, each of which takes all of a core that it gets."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def reported(targets: Sequence[str], folder: Path, options: Sequence[str]) -> Report:
    """The report of a run."""
    command = [sys.executable, "-m", "harness", "report", *targets, "--out", str(folder), *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if not (folder / "report.json").is_file():
        raise click.ClickException(f"{' '.join(command)} wrote no report: {ran.stderr.strip()[-500:]}")
    return read(folder)


def read(folder: Path) -> Report:
    """The report in a folder."""
    return schema.loads((folder / "report.json").read_text(encoding="utf-8"))


@click.command()
@click.argument("targets", nargs=-1, required=True)
@click.option("--budget", default=10.0, show_default=True, help="Seconds of timing for each loss.")
@click.option("--profile", default="quick", show_default=True, help="Of the rules, whose verdicts depend on no clock.")
@click.option("--busy", "beside", default=2, show_default=True, help="Busy processes beside the second run.")
@click.option("--compare", is_flag=True, help="Compare two reports that are there already.")
def main(targets: tuple[str, ...], budget: float, profile: str, beside: int, compare: bool) -> None:
    """Print where two runs differ; fail below 97 % of equal verdicts, at a contradiction, or where cells were not measured."""
    if compare:
        first, second = (read(Path(folder)) for folder in targets)
    else:
        options = ["--budget", str(budget), "--profile", profile]
        with tempfile.TemporaryDirectory() as folder:
            first = reported(targets, Path(folder) / "first", options)
            with busy(beside):
                second = reported(targets, Path(folder) / "second", options)
    text, is_kept = told(first, second)
    click.echo(text)
    sys.exit(not is_kept)


if __name__ == "__main__":
    main()
