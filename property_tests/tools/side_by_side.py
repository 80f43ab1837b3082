"""What is promised to be quick beside something that everybody knows, in turn, on this machine.

    python property_tests/tools/side_by_side.py [--only show] [--rounds 12]

A line says how many times as long ours takes as the other, with the 95 % interval of the median over paired rounds, and what
is promised.  Whatever else the machine does disturbs both alike, so that the ratio is the same on a slow or a busy one.  Exit
code 1 where a whole interval lies beyond what is promised.  `property_tests.tools.compare_clocks` does the same for our timer.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from hypothesis import strategies as st

from harness import LossSpec, TensorSpec, domains
from harness.drawing.case import LAYOUTS
from harness.drawing.hypothesis_runs import run
from harness.drawing.strategies import cases
from harness.report import html
from harness.results import schema
from harness.results.measured import Cell
from harness.timing.clocks import WallClock, clock_for
from harness.timing.design import order
from harness.timing.statistics import Ratio, paired_ratio
from property_tests.examples import html_examples, report_examples

Go = Callable[[], float]
ROOT = Path(__file__).parents[2]
FORMS = ("full", "junit", "sarif", "github", "markdown")
DRAWS = 50


@dataclass(frozen=True)
class Pair:
    """Two that are timed in turn.

    Args:
        name: ours.
        beside: the other.
        ours: runs ours once; its seconds.
        theirs: the same of the other.
        most: how many times as long ours may take.
        least: how many times as long ours must take.
    """

    name: str
    beside: str
    ours: Go
    theirs: Go
    most: float | None = None
    least: float | None = None

    def ratio(self, rounds: int) -> Ratio:
        """How many times as long ours takes."""
        goes, generator = {"ours": self.ours, "theirs": self.theirs}, random.Random(0)
        for go in goes.values():
            go()
        times: dict[str, list[float]] = {name: [] for name in goes}
        for _ in range(rounds):
            for name in order(list(goes), generator):
                times[name].append(goes[name]())
        return paired_ratio(times["ours"], times["theirs"], [0] * rounds)

    def is_kept(self, found: Ratio) -> bool:
        """Whether some of the interval is within what is promised."""
        too_long = self.most is not None and found.low > self.most
        too_short = self.least is not None and found.high < self.least
        return not too_long and not too_short

    @property
    def promise(self) -> str:
        """What is promised, in words."""
        bounds = {"at most": self.most, "at least": self.least}
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)


def once(call: Callable[[], object]) -> Go:
    """The seconds of one call."""
    clock = WallClock()
    return lambda: clock.block(call, 1)


def python(*arguments: str) -> Callable[[], object]:
    """A new interpreter with these arguments."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return lambda: subprocess.run(command, capture_output=True, check=True, env=environment)


def commands(folder: Path) -> Iterator[Pair]:
    """Commands that need no torch, beside an interpreter that only imports what they cannot do without."""
    plain = once(python("-c", "import click"))
    yield Pair("loss-harness --help", "import click", once(python("-m", "harness", "--help")), plain, most=3)
    file = folder / "report.json"
    file.write_text(schema.dumps(report_examples.large()), encoding="utf-8")
    reading = once(python("-c", f"import click, json; json.load(open({str(file)!r}, encoding='utf-8'))"))
    for form in FORMS:
        shown = once(python("-m", "harness", "show", str(file), "--format", form))
        yield Pair(f"show a report of 2 MB as {form}", "import click, read it as JSON", shown, reading, most=8)


def pages(folder: Path) -> Iterator[Pair]:
    """The page of the largest report, beside its JSON."""
    report = html_examples.large()
    as_json = once(lambda: schema.loads(schema.dumps(report)))
    yield Pair(
        "render the largest page", "write and read it as JSON", once(lambda: html.render(report)), as_json, most=8
    )


def draws(folder: Path) -> Iterator[Pair]:
    """Cases that are drawn and made, beside what Hypothesis alone draws for one matrix."""

    def drawing(strategy: object, use: Callable[..., object]) -> Go:
        return once(lambda: run(strategy, use, examples=DRAWS, start=0, shrink=False))  # type: ignore[arg-type]

    # Two sizes, a mode, a byte an element, a layout.
    size = st.integers(1, 8)
    bare = st.tuples(size, size, st.booleans(), st.binary(min_size=9, max_size=9), st.sampled_from(LAYOUTS))
    matrix = {"x": TensorSpec("B C")}
    linked = {**matrix, "y": TensorSpec("B", domains.index("C")), "w": TensorSpec("C", domains.positive())}
    for name, tensors, most in (("one matrix", matrix, 2.5), ("three linked tensors", linked, 6.25)):
        spec = LossSpec("drawn", {"drawn": lambda **given: sum(given.values())}, inputs=tensors)
        ours = drawing(cases(spec), lambda case, spec=spec: case.materialize(spec))
        yield Pair(f"draw and make {name}", "Hypothesis's own draws", ours, drawing(bare, lambda _: None), most=most)


def caches(folder: Path) -> Iterator[Pair]:
    """A sum of 512 KiB with emptied caches, beside one that finds it there from call to call."""
    value = torch.ones(2**17)

    def block(cache: str) -> Go:
        clock = clock_for(Cell({}, "cpu", "float32", "full", cache))  # type: ignore[arg-type]
        clock.warm_up(value.sum)
        return lambda: clock.block(value.sum, 1)

    yield Pair("a sum with cold caches", "with warm ones", block("cold"), block("warm"), least=1.5)


def device(folder: Path) -> Iterator[Pair]:
    """The clocks of a CUDA device."""
    if not torch.cuda.is_available():
        return
    small, large = torch.ones(2**20, device="cuda"), torch.ones(2**26, device="cuda")

    def block(call: Callable[[], torch.Tensor], clock: str, cache: str = "warm", calls: int = 20) -> Go:
        made = clock_for(Cell({}, "cuda", "float32", "full", cache, clock))  # type: ignore[arg-type]
        prepared = made.prepare(lambda: call)
        made.warm_up(prepared)
        return lambda: made.block(prepared, calls)

    # 4 MiB stay in the second-level cache of any device from call to call; 512 MiB take longer than a launch on any.
    cold, warm = block(lambda: small * 2, "events", "cold"), block(lambda: small * 2, "events")
    yield Pair("a copy on CUDA with cold caches", "with warm ones", cold, warm, least=1)
    events, wall = block(lambda: large * 2, "events"), block(lambda: large * 2, "wall")
    yield Pair("a large copy by events", "by the host's clock", events, wall, most=1.05, least=0.8)
    replayed, launched = block(lambda: chain(small[:64]), "graph"), block(lambda: chain(small[:64]), "wall")
    yield Pair("ten small kernels replayed", "launched", replayed, launched, most=1)


def chain(value: torch.Tensor) -> torch.Tensor:
    """Ten kernels, one after the other."""
    for _ in range(10):
        value = value + 1
    return value


SUBJECTS = {"commands": commands, "pages": pages, "draws": draws, "caches": caches, "device": device}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--only", default="", help="those whose name has this in it")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    kept = True
    print(f"{'ours':<36}{'beside':<32}{'takes':>7}  {'95 % interval':<18}promised")
    with tempfile.TemporaryDirectory() as folder:
        for pair in (pair for subject in SUBJECTS.values() for pair in subject(Path(folder))):
            if asked.only not in pair.name:
                continue
            found = pair.ratio(asked.rounds)
            interval = f"{found.low:.3g}x to {found.high:.3g}x"
            late = "" if pair.is_kept(found) else "  not kept"
            print(
                f"{pair.name:<36}{pair.beside:<32}{found.speedup:>6.3g}x  {interval:<18}{pair.promise}{late}",
                flush=True,
            )
            kept = kept and pair.is_kept(found)
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
