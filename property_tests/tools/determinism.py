"""The same seed gives the same findings, byte for byte: `python -m property_tests.tools.determinism --runs 20`.

Every run verifies the usual forms of the reference losses, which have findings of many rules, in 1, 2 or 4 worker
processes with a hash seed of their own, and in another order; all runs must write the same text.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click

EXAMPLES = Path(__file__).parents[1] / "examples"
TARGETS = tuple(f"usual_forms/{name}.py" for name in ("weighted_mse", "graph_distance", "dynamic_weighted"))
WORKERS = (1, 2, 4)


def findings(target: str, profile: str) -> dict[str, list[dict[str, object]]]:
    """The findings of every loss of a target, as JSON types."""
    import torch

    from harness import verify
    from harness.declare.targets import load_specs

    torch.set_num_threads(1)
    found = {}
    for spec in load_specs([str(EXAMPLES / target)]):
        verification = verify(spec, profile=profile, seed=0)
        found[spec.name] = [
            {
                "rule": f.rule,
                "severity": f.severity,
                "implementation": f.implementation,
                "message": f.message,
                "evidence": f.evidence,
                "case": f.case,
                "follows": f.follows,
                "reproduction": f.reproduction,
            }
            for f in verification.findings
        ]
    return found


def run(number: int, workers: int, profile: str, targets: Sequence[str] = TARGETS) -> str:
    """The findings of all targets from one run, as text."""
    order = list(targets)
    random.Random(number).shuffle(order)
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = str(number + 1)  # read by the workers when they start
    try:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            parts = list(pool.map(findings, order, [profile] * len(order)))
    finally:
        os.environ.pop("PYTHONHASHSEED") if before is None else os.environ.update(PYTHONHASHSEED=before)
    merged = {name: found for part in parts for name, found in part.items()}
    return json.dumps(merged, sort_keys=True, indent=1)


@click.command()
@click.option("--runs", default=20, show_default=True)
@click.option("--profile", default="ci", show_default=True)
def main(runs: int, profile: str) -> None:
    """Compare the findings of many runs; exit 1 if any two differ."""
    digests: dict[str, list[int]] = {}
    for number in range(runs):
        workers = WORKERS[number % len(WORKERS)]
        text = run(number, workers, profile)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        digests.setdefault(digest, []).append(number)
        count = sum(len(found) for found in json.loads(text).values())
        click.echo(f"run {number}: {workers} workers, {count} findings, {digest}")
    click.echo(f"{len(digests)} different texts in {runs} runs")
    sys.exit(0 if len(digests) == 1 else 1)


if __name__ == "__main__":
    main()
