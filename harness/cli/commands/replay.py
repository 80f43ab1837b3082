"""`loss-harness replay`: run a stored failure again."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from harness import strict_json
from harness.cli import apart, exits, options


@click.command()
@click.argument("failure", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@options.triton_interpret
@click.option("--target", metavar="TARGET", help="The loss to run; needed for a failure that was not written here.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="What it may take before it is ended, and FAILED.",
)
def replay(failure: Path, target: str | None, timeout: float, **_: Any) -> None:
    """Run a stored failure again: FIXED, FAILED or ERROR.

    Without --target, FAILURE and the loss that it names must lie in the working directory: replaying imports that loss.
    """
    from harness.declare import trust
    from harness.results import words

    try:
        data = strict_json.parse(failure.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise exits.Refused(f"{failure} is not a failure file: {error}; `loss-harness verify` writes them") from error
    if not isinstance(data, dict):
        raise exits.Refused(f"{failure} is not a failure file: it holds a {type(data).__name__}, expected an object")
    if target is None and not trust.is_own(failure):
        raise exits.Refused(
            f"{failure} lies outside the working directory {Path.cwd()} and says which code to run; if you trust it, name the "
            f"loss yourself: loss-harness replay {shlex.quote(str(failure))} --target {shlex.quote(str(data.get('target', 'TARGET')))}"
        )
    apart.interpret_kernels([str(target or data.get("target"))], [str(data.get("device", "cpu"))])
    status, message = _again(data, target, timeout)
    message = words.printable(message)
    if status == "ERROR":
        raise exits.Refused(f"cannot replay {failure}: {message}")
    is_fixed = status == "FIXED"
    click.echo(f"{click.style(status, fg='green' if is_fixed else 'red', bold=True)} {message}")
    sys.exit(exits.CLEAN if is_fixed else exits.FINDINGS)


def _again(failure: dict[str, Any], target: str | None, timeout: float) -> tuple[str, str]:
    """(FIXED, FAILED or ERROR, what it says), from a process of its own, which the loss may end or keep for ever."""
    from harness.isolation.limits import Limits

    box = apart.box()
    from harness.runs.executors import called, isolation

    told, reason = called(box or isolation(), "replay", {"failure": failure, "target": target}, Limits(timeout))
    if told is None:
        return "FAILED", f"{failure.get('loss')} / {failure.get('implementation')}\n  {reason}"
    return told["status"], told["message"]
