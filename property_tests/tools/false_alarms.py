"""Count errors that the harness raises on correct losses: `python -m property_tests.tools.false_alarms --seeds 20`.

The losses are torch's own, declared as their documentation says, and those of this repository.  Every error is printed
with its smallest input; none is expected.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import click
import torch
from rich.console import Console
from rich.table import Table

import losses
from harness import Finding, LossSpec, verify
from property_tests.examples import torch_losses, torch_modules


@dataclass
class Tally:
    """What was found on one loss over all seeds."""

    spec: LossSpec
    examples: int = 0
    seconds: float = 0.0
    warnings: Counter[str] = field(default_factory=Counter)
    errors: list[tuple[int, Finding]] = field(default_factory=list)


def tally(specs: Iterable[LossSpec], seeds: Iterable[int], profile: str) -> Iterator[Tally]:
    """Verify every loss with every seed."""
    for spec in specs:
        found = Tally(spec)
        start = time.perf_counter()
        for seed in seeds:
            verification = verify(spec, seed=seed, profile=profile)
            found.examples += sum(outcome.examples for outcome in verification.outcomes)
            for finding in verification.findings:
                if finding.severity == "error":
                    found.errors.append((seed, finding))
                elif finding.severity == "warning":
                    found.warnings[finding.rule] += 1
        found.seconds = time.perf_counter() - start
        yield found


@click.command()
@click.option("--seeds", default=20, show_default=True, help="How many seeds, from 0 up.")
@click.option("--profile", default="ci", show_default=True)
@click.option("--only", default="", help="Losses whose name contains this.")
def main(seeds: int, profile: str, only: str) -> None:
    """Count errors on correct losses; exit 1 if there is any."""
    torch.set_num_threads(1)
    console = Console()
    table = Table("loss", "examples", "seconds per seed", "errors", "warnings (rule: seeds)")
    specs = [spec for spec in (*torch_losses.SPECS, *torch_modules.SPECS, *losses.SPECS) if only in spec.name]
    results = []
    for found in tally(specs, range(seeds), profile):
        results.append(found)
        warned = ", ".join(f"{rule}: {count}" for rule, count in sorted(found.warnings.items()))
        table.add_row(
            found.spec.name, str(found.examples), f"{found.seconds / seeds:.2f}", str(len(found.errors)), warned
        )
        for seed, finding in found.errors:
            console.print(f"seed {seed}\n{finding.message}\n", markup=False)
    console.print(table)
    errors, examples = sum(len(r.errors) for r in results), sum(r.examples for r in results)
    console.print(f"{errors} errors in {examples} examples on {len(results)} correct losses, {seeds} seeds")
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
