"""python -m property_tests.tools.comparison: time every loss beside its rivals, print every figure beside its target."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, when torch is imported

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from harness.calls import environment

from . import bounds, report
from .everyone import CONTESTS
from .figure import Figure
from .measure import Outcome, run

BOUNDS = {
    "weighted_mse_over_copy": bounds.weighted_mse_over_copy,
    "weighted_mse_over_warm_copy": bounds.weighted_mse_over_warm_copy,
    "memory_bank_contrastive_large": bounds.large_bank_peak,
}
NAMES = (*BOUNDS, *(contest.name for contest in CONTESTS))


@click.command()
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="These alone.")
@click.option("--out", type=click.Path(path_type=Path), help="Write comparison.md and CSV files into this folder.")
@click.option("--seed", default=0, show_default=True, help="Of inputs, order and resampling.")
@click.option("--strict", is_flag=True, help="Exit with 1 where a figure is not reached or not measured.")
def main(only: tuple[str, ...], out: Path | None, seed: int, strict: bool) -> None:
    """Time every loss beside the usual ways of writing it and beside third-party packages."""
    torch.set_num_threads(1)
    begin = time.perf_counter()
    figures: list[Figure] = []
    outcomes: list[Outcome] = []
    rounds: list[bounds.Round] = []
    for name, measure in BOUNDS.items():
        if name in (only or NAMES):
            figure, raw = measure(seed)
            figures += _shown([figure])
            rounds += raw
    for contest in CONTESTS:
        if contest.name in (only or NAMES):
            outcomes.append(run(contest, seed))
            figures += _shown(outcomes[-1].figures())
            for name, reason in outcomes[-1].excluded.items():
                click.echo(f"  {name} was not timed: {reason}")
    click.echo(f"{time.perf_counter() - begin:.0f} s")
    if out is not None:
        options = "".join(f" --only {name}" for name in only)
        report.write(
            out, figures, outcomes, rounds, _under(outcomes), f"python -m property_tests.tools.comparison{options}"
        )
    if strict and any(figure.verdict != "reached" for figure in figures):
        sys.exit(1)


def _shown(figures: Sequence[Figure]) -> Iterable[Figure]:
    for figure in figures:
        verdict = figure.verdict_text.replace("**", "")
        detail = f"  [{figure.detail}]" if figure.detail else ""
        click.echo(f"{figure.what}: {figure.value_text}, target {figure.target_text}: {verdict}{detail}")
    return figures


def _under(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What was measured under, as the timing processes say, and the versions of the packages that took part."""
    taken: Iterable[Mapping[str, Any]] = (o.benchmark.environment for o in outcomes if o.benchmark is not None)
    packages = {
        one.package: one.version or "not installed"
        for outcome in outcomes
        for one in outcome.contest.contestants
        if one.package is not None
    }
    return {**next(iter(taken), environment.describe()), "packages": packages}


if __name__ == "__main__":
    main()
