"""`loss-harness calibrate`: the harness timed on itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from harness.cli import exits, options, running
from harness.cli.terminal import progress


@click.command()
@click.option("--pairs", type=click.IntRange(min=1), default=300, show_default=True, help="Comparisons with itself.")
@click.option("--rounds", type=click.IntRange(min=2), default=30, show_default=True, help="Of each comparison.")
@click.option(
    "--budget", type=click.FloatRange(min=0, min_open=True), help="Seconds for everything; by default no limit."
)
@options.option("device")
@options.option("seed")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False), help="Write every comparison there, as JSON.")
def calibrate(
    pairs: int, rounds: int, budget: float | None, devices: Sequence[str], seed: int, form: str, save: Path | None
) -> None:
    """Time a function against itself and against known slowdowns: false alarms and power of the harness itself.

    Up to 25 pairs try only a slowdown of 3 %, up to 50 only 3 and 5 %; 51 or more try 10 % too.  Exit code 1 where the false
    alarms are significantly more than 1 %.
    """
    from harness.cli.terminal.calibration import calibration_text
    from harness.report import writer
    from harness.timing import calibrate as calibration

    if len(devices) != 1:
        raise click.BadParameter(f"{','.join(devices)}: one device at a time", param_hint="--device")
    with progress.counting("comparison") as watch:
        made = calibration.calibrate(pairs, rounds=rounds, budget_s=budget, device=devices[0], seed=seed, watch=watch)
    as_json = json.dumps(made.to_json(), indent=2) + "\n"
    if save is not None:
        writer.write_text(save, as_json)
    running.emit(as_json if form == "json" else calibration_text(made), None)
    sys.exit(exits.CLEAN if made.ok else exits.FINDINGS)
