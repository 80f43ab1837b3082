"""`loss-harness replay`: run a stored failure again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from harness.commands import exits


@click.command()
@click.argument("failure", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def replay(failure: Path) -> None:
    """Run a stored failure again: FIXED, FAILED or ERROR."""
    from harness.replay import replay as again
    from harness.report import text

    try:
        data = json.loads(failure.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise exits.Refused(f"{failure} is not a failure file: {error}; `loss-harness verify` writes them") from error
    if not isinstance(data, dict):
        raise exits.Refused(
            f"{failure} is not a failure file: it holds a {type(data).__name__}, but should hold an object"
        )
    found = again(data)
    message = text.printable(found.message)
    if found.status == "ERROR":
        raise exits.Refused(f"cannot replay {failure}: {message}")
    is_fixed = found.status == "FIXED"
    click.echo(f"{click.style(found.status, fg='green' if is_fixed else 'red', bold=True)} {message}")
    sys.exit(exits.CLEAN if is_fixed else exits.FINDINGS)
