"""The reference losses and the installed catalogs under the battery, with seeds that no earlier run had: `make fuzz HOURS=1`.

The folder keeps what was found, on how many examples, the seeds that are done, and a journal of the one that is not: the next run
goes on there.  Each finding is tried with a second seed; one that does not come again is listed as flaky.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from harness.catalogs import catalogs
from harness.errors import HarnessError
from harness.isolation.limits import Limits, descendants, private_bytes
from harness.isolation.sandbox import Sandbox
from harness.report.writer import write_text
from harness.results.observer import Observer, Step
from harness.results.schema import Report
from harness.runs.driver import Driver
from harness.runs.executors import Local
from harness.runs.journal import Journal
from harness.runs.ledger import Request
from harness.runs.preload import ALL_RULES, COMPILER, PRELOAD
from property_tests.tools.leaks import held_bytes, is_flat

FIRST_SEED = 1  # 0 is the default of every command
SECOND = 1_000_000  # added to a seed for the second try
STEP_S = 300.0
NEEDS_A_GPU = "liger_kernel"


class OutOfTime(BaseException):
    """The hours are over; no `Exception`, so that no one takes it for a fault of a loss."""


class Until(Observer):
    """Ends a run at the first step after a time.

    Args:
        end: on `time.monotonic`.
    """

    def __init__(self, end: float) -> None:
        self.end = end

    def begin(self, step: Step) -> None:
        """See `Observer`."""
        if time.monotonic() > self.end:
            raise OutOfTime


class Book:
    """What all runs have found so far: findings by loss, implementation, rule and aspect, the units that are done, the examples
    on which rules were asked in each unit and second try, and the seconds that all of it took.

    Args:
        folder: where ``found.json`` is.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "found.json"
        empty: dict[str, Any] = {"done": [], "findings": {}, "examples": {}, "seconds": 0.0}
        self.data = empty | (json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {})

    @property
    def examples(self) -> int:
        """On how many examples rules were asked, in all runs."""
        return sum(self.data["examples"].values())

    def write(self) -> None:
        """Keep it, whole or as it was."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, json.dumps(self.data, indent=1))

    def units(self, targets: Sequence[str], absent: Collection[str]) -> Iterator[tuple[str, int]]:
        """(target, seed) that are not done, every target with one seed before any has the next, while one is not absent."""
        done, seed = {tuple(unit) for unit in self.data["done"]}, FIRST_SEED
        while here := [target for target in targets if target not in absent]:
            yield from ((target, seed) for target in here if (target, seed) not in done)
            seed += 1

    def add(self, target: str, seed: int, report: Report) -> list[dict[str, Any]]:
        """Take in what a seed has found; returns what was never tried with a second seed."""
        new = []
        for key, finding in found(report).items():
            entry = self.data["findings"].setdefault(key, {"target": target, "seeds": [], "repeated": None, **finding})
            entry["seeds"] += [seed] * (seed not in entry["seeds"])  # which a unit that was stopped has told before
            if len(entry["seeds"]) > 1:
                entry["repeated"] = True
            elif entry["repeated"] is None:
                new.append(entry)
        return new


def found(report: Report) -> dict[str, dict[str, Any]]:
    """Errors and warnings of a report by what they are about."""
    told: dict[str, dict[str, Any]] = {}
    for loss in report.losses:
        for finding in loss.findings:
            if finding.severity != "note":
                aspect = str(finding.evidence.get("aspect", ""))
                key = " / ".join((loss.name, finding.implementation, finding.rule, aspect))
                about = {
                    "loss": loss.name,
                    "implementation": finding.implementation,
                    "rule": finding.rule,
                    "aspect": aspect,
                }
                told[key] = {**about, "severity": finding.severity, "message": finding.message}
    return told


class Fuzzer:
    """Runs units until the time is over.

    Args:
        folder: of the book and of the journals.
        profile: of every run.
        end: on `time.monotonic`.
        workers: jobs at a time.
    """

    def __init__(self, folder: Path, profile: str, end: float, workers: int) -> None:
        self.folder, self.profile, self.end, self.workers = folder, profile, end, workers
        self.book = Book(folder)
        self.box = Sandbox((*PRELOAD, *ALL_RULES, *COMPILER)) if hasattr(os, "fork") else None
        self.absent: dict[str, str] = {}
        self.held: list[dict[str, int]] = []

    def run(self, targets: Sequence[str]) -> None:
        """Every target with the next seed, again and again.

        Raises:
            OutOfTime: always, but where no target can be loaded; what is done is kept.
        """
        for target, seed in self.book.units(targets, self.absent):
            if time.monotonic() > self.end:
                raise OutOfTime
            request = Request(profile=self.profile, seed=seed)
            try:
                report = self._unit(target, request)
            except HarnessError as error:  # a catalog whose package is not installed
                self.absent[target] = " ".join(str(error).split())
                continue
            self._try_again(target, seed, self.book.add(target, seed, report))
            self.book.data["done"].append([target, seed])
            self.book.write()
            for done in (seed, seed + SECOND):  # until here an interrupted run finds what was done
                shutil.rmtree(self._place(target, done), ignore_errors=True)
            held = held_bytes() + private_bytes(descendants(os.getpid()))
            self.held.append({"examples": self.book.examples, "bytes": held})
            told = f"{len(found(report))} findings, {self.book.examples} examples so far, {held / 2**20:.0f} MiB"
            print(f"{target}, seed {seed}: {told}", flush=True)

    def _place(self, target: str, seed: int) -> Path:
        return self.folder / f"{target.replace(os.sep, '_')}-{seed}"

    def _unit(self, target: str, request: Request) -> Report:
        shop, begun = Local(self.workers, self.box), time.monotonic()
        place = self._place(target, request.seed)
        try:
            driver = Driver([target], request, shop, allowed=Limits(STEP_S))
            with Journal(place, driver.targets, request, code=driver.code, resume=True) as journal:
                driver.journal = journal
                try:
                    driver.verify(Until(self.end))
                except (OutOfTime, KeyboardInterrupt):  # shown, and looked for anew by the next run
                    self.book.add(target, request.seed, driver.report())
                    raise
                finally:  # a unit that goes on later counts again as a whole
                    outcomes = (outcome for loss in driver.report().losses for outcome in loss.outcomes)
                    self.book.data["examples"][place.name] = sum(outcome.examples for outcome in outcomes)
                    self.book.data["seconds"] += time.monotonic() - begun
                    self.book.write()
                return driver.report()
        finally:
            shop.close()

    def _try_again(self, target: str, seed: int, new: Sequence[dict[str, Any]]) -> None:
        """Ask the rules that have found something new, with another seed, of the implementations on which they did."""
        if not new:
            return
        # What crashed or hung is about the rule that was asked then, if any was.
        codes = {entry["aspect"] if entry["rule"] == "X01" else entry["rule"] for entry in new}
        names, asked = sorted({entry["implementation"] for entry in new}), None if "" in codes else tuple(sorted(codes))
        request = Request(profile=self.profile, seed=seed + SECOND, codes=asked, implementations=tuple(names))
        again = {(f["loss"], f["implementation"], f["rule"]) for f in found(self._unit(target, request)).values()}
        for entry in new:
            entry["repeated"] = (entry["loss"], entry["implementation"], entry["rule"]) in again

    def close(self) -> None:
        """End what was started."""
        if self.box is not None:
            self.box.close()


def table(book: Book) -> Table:
    """Every finding of all runs, those that were not repeated as flaky."""
    shown = Table("loss", "implementation", "rule", "severity", "seeds", "second seed")
    for entry in book.data["findings"].values():
        words = {True: "again", False: "flaky", None: "not tried"}[entry["repeated"]]
        seeds = ",".join(map(str, entry["seeds"][:6])) + ("..." if len(entry["seeds"]) > 6 else "")
        shown.add_row(entry["loss"], entry["implementation"], entry["rule"], entry["severity"], seeds, words)
    return shown


def memory(held: Sequence[dict[str, int]]) -> str:
    """What this process took at most, and whether it and the one that forks jobs grew from one unit to the next.

    Args:
        held: of both, after each unit, and the examples until then.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    told = f"memory: {peak / 2**20:.0f} MiB at most"
    if len(held) < 2:
        return f"{told}, fewer than two units to compare"
    first, last = (held[place]["bytes"] / 2**20 for place in (0, -1))
    return f"{told}, {first:.0f} to {last:.0f} MiB after a unit, {'flat' if is_flat(held) else 'it grew'}"


@click.command()
@click.option("--hours", default=1.0, show_default=True, type=click.FloatRange(min=0, min_open=True))
@click.option("--folder", default=".loss-harness/fuzz", show_default=True, type=click.Path(path_type=Path))
@click.option("--profile", default="thorough", show_default=True, type=click.Choice(["quick", "ci", "thorough"]))
@click.option("--workers", default=2, show_default=True, type=click.IntRange(min=1))
@click.argument("targets", nargs=-1)
def main(hours: float, folder: Path, profile: str, workers: int, targets: tuple[str, ...]) -> None:
    """Look for findings until the hours are over; exit 1 where one on the reference losses is an error that came again.

    TARGETS default to the reference losses and every catalog whose package is installed.
    """
    chosen = targets or ("losses", *(f"harness.catalogs.{name}" for name in catalogs() if name != NEEDS_A_GPU))
    fuzzer = Fuzzer(folder, profile, time.monotonic() + 3600 * hours, workers)
    try:
        fuzzer.run(chosen)
    except (OutOfTime, KeyboardInterrupt):
        print("stopped; the next run goes on from here")
    finally:
        fuzzer.close()
    book = fuzzer.book
    for target, reason in fuzzer.absent.items():
        print(f"left out {target}: {reason}")
    Console().print(table(book))
    wrong = [
        entry
        for entry in book.data["findings"].values()
        if entry["target"] == "losses" and entry["severity"] == "error" and entry["repeated"]
    ]
    for entry in wrong:
        print(entry["message"])
    repeated = sum(entry["repeated"] is True for entry in book.data["findings"].values())
    flaky = sum(entry["repeated"] is False for entry in book.data["findings"].values())
    print(f"{len(book.data['done'])} runs, {repeated} findings that came again, {flaky} flaky")
    print(f"{book.examples} examples, {3600 * book.examples / max(book.data['seconds'], 1):.0f} an hour")
    print(memory(fuzzer.held))
    raise SystemExit(int(bool(wrong)))


if __name__ == "__main__":
    main()
