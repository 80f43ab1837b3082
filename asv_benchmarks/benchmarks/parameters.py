"""The parameters of the benchmarks: implementation, size and device of each loss that `config.json` names.

asv runs a benchmark by the *position* of its parameters, as it discovered them at one of the commits.  A commit that has
another list of implementations or sizes would measure one and have it filed as another.  So wherever asv runs a commit,
the parameters are read from what it discovered, and what the commit does not have is not available (``n/a``).
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from harness import LossSpec
from harness.declare.dims import Size
from harness.declare.targets import load_specs
from harness.results.measured import Cell
from harness.timing.workload import Workload, checked_sizes, elements, inputs

from . import profiles

SPECS = load_specs(profiles.configured()["targets"])
AXES = ("implementation", "size", "device")
DISCOVERED = Path(__file__).parent.parent / ".asv" / "results" / "benchmarks.json"
LOOPED_ELEMENTS = 100_000  # a loop over so many takes seconds, over a thousand times as many an hour
_RUNNING = ("run", "run_server", "setup_cache")  # the commands by which asv's own processes run a commit

Grid = Sequence[Sequence[str]]


def label(sizes: Mapping[str, Size]) -> str:
    """Sizes as asv shows them: ``B=64 rest=8x8``; no axes at all are ``()``."""
    return " ".join(
        f"{symbol}={size if isinstance(size, int) else 'x'.join(map(str, size)) or '()'}"
        for symbol, size in sizes.items()
    )


def read_label(spec: LossSpec, text: str) -> dict[str, Size]:
    """The sizes that `label` wrote.

    Raises:
        DeclarationError: the spec has other symbols.
    """
    pairs = dict(part.split("=") for part in text.split())
    sizes: dict[str, Size] = {
        symbol: tuple(int(axis) for axis in size.split("x") if axis != "()") if symbol in spec.variadic else int(size)
        for symbol, size in pairs.items()
    }
    return checked_sizes(spec, [sizes])[0]


def devices() -> list[str]:
    """The configured devices that torch sees here."""
    return [name for name in profiles.configured()["devices"] if name == "cpu" or torch.cuda.is_available()]


def grids(module: str) -> dict[str, Grid]:
    """Parameters of each loss, by its name, as a module's benchmarks have them."""
    profile = profiles.chosen()
    own = {
        spec.name: (
            profiles.implementations(spec, profile),
            [label(sizes) for sizes in profiles.sizes(spec, profile)],
            devices(),
        )
        for spec in SPECS
    }
    filed = {name.split(".")[1]: grid for name, grid in discovered(module).items()}
    return {**own, **filed}


def discovered(module: str) -> dict[str, Grid]:
    """Parameters of a module's benchmarks as asv discovered them; nothing while it does so, or without asv."""
    if Path(sys.argv[0]).name != "benchmark.py" or sys.argv[1:2] == [] or sys.argv[1] not in _RUNNING:
        return {}
    found: dict[str, Any] = json.loads(DISCOVERED.read_text(encoding="utf-8"))
    return {
        name: [[ast.literal_eval(value) for value in axis] for axis in benchmark["params"]]
        for name, benchmark in found.items()
        if name.startswith(f"{module}.")
    }


def workload(loss: str, grid: Grid, implementation: str, size: str, device: str) -> Workload:
    """The implementation on seeded inputs, float32.

    Raises:
        NotImplementedError: what cannot run here; asv shows ``n/a``.
        DeclarationError: a size that the loss does not have in this commit.
    """
    spec = next((spec for spec in SPECS if spec.name == loss), None)
    if spec is None or implementation not in spec.implementations:
        raise NotImplementedError(f"this commit has no {implementation} implementation of {loss}")
    sizes = read_label(spec, size)
    if implementation == spec.reference and (size != grid[1][0] or elements(spec, sizes) > LOOPED_ELEMENTS):
        raise NotImplementedError("a loop over elements would take all the time there is")
    if device != "cpu" and not torch.cuda.is_available():
        raise NotImplementedError(f"torch sees no {device} here")
    torch.set_num_threads(1)
    cell = Cell(sizes, device, "float32", "full")
    return Workload(spec, implementation, inputs(spec, cell, seed=0))
