"""The same loss with the same defects under four suites: what each says, as a table.

    git clone --depth 1 https://github.com/kornia/kornia ../kornia      # its BaseTester is in no wheel
    python -m property_tests.tools.peers --kornia ../kornia

Without a clone of kornia its column says so.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click

from harness import LossSpec, TensorSpec, domains, verify
from harness.results.words import table
from property_tests.tools.peers.losses import LOSSES

FOLDER = Path(__file__).parent
ROOT = Path(__file__).parents[3]
SUITES = ("plain", "base_tester", "checks")


def naive(predictions, labels, weights):  # type: ignore[no-untyped-def]
    """The formula as loops."""
    return sum(w * (p - y).norm() for w, p, y in zip(weights, predictions, labels, strict=True)) / len(predictions)


def suite(name: str, loss: str, kornia: str) -> list[str]:
    """The tests of a suite that fail for a loss; what it cannot run is said."""
    if name == "base_tester" and not kornia:
        return ["no clone"]
    path = os.pathsep.join(filter(None, (str(ROOT), kornia, os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=line", "-p", "no:cacheprovider", str(FOLDER / f"{name}.py")],
        cwd=ROOT,
        env=os.environ | {"LOSS": loss, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise click.ClickException(done.stdout + done.stderr)
    failed = re.findall(r"^FAILED \S+::(\S+)", done.stdout, re.MULTILINE)
    return list(dict.fromkeys(re.sub(r"^test_loss\[(.*)\]$", r"\1", each) for each in failed))


def ours(loss: str) -> list[str]:
    """Rules that find an error or a warning, each with what was found."""
    spec = LossSpec(
        name="residual",
        implementations={"naive": naive, loss: LOSSES[loss]},
        inputs={"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
        context={"weights": TensorSpec("B", domains.nonnegative())},
    )
    found = verify(spec, implementations=[loss])
    return [f"{f.rule} {f.fact}" for f in found.findings if not f.follows and f.severity != "note"]


@click.command()
@click.option("--kornia", default="", help="A clone of kornia.")
@click.option("--only", default="", help="One of the losses.")
def main(kornia: str, only: str) -> None:
    """Run every suite on every loss."""
    rows = [["loss", *SUITES, "loss-harness"]]
    facts = []
    for name in LOSSES:
        if only in ("", name):
            found = ours(name)
            facts += [f"{name}: {line}" for line in found]
            codes = ", ".join(dict.fromkeys(line.partition(" ")[0] for line in found))
            rows.append(
                [name, *(", ".join(suite(each, name, kornia)) or "passes" for each in SUITES), codes or "passes"]
            )
    click.echo(table(rows))
    click.echo("\n" + "\n".join(facts))


if __name__ == "__main__":
    main()
