"""`loss-harness replay`: run stored failures again."""

from __future__ import annotations

import fnmatch
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from harness.cli import apart, exits, options
from harness.results.strict_json import parse_json


@click.command()
@click.argument("failures", metavar="FAILURE...", nargs=-1, required=True, type=click.Path(path_type=str))
@options.triton_interpret
@click.option("--target", metavar="TARGET", help="The loss to run; needed for a failure that was not written here.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="What each may take before it is ended, and FAILED.",
)
def replay(failures: tuple[str, ...], target: str | None, timeout: float, **_: Any) -> None:
    """Run stored failures again: FIXED, FAILED or ERROR.

    FAILURE is a file, or the id of one in .loss-harness/failures, such as squares-E01-3f2a or 3f2a alone; a glob such as
    'squares-*' names several. Without --target, a file and the loss that it names must lie in the working directory: replaying
    imports that loss.
    """
    files = list(dict.fromkeys(file for failure in failures for file in _named(failure)))
    read = [(file, _read(file, target)) for file in files]
    losses = [str(target or data.get("target")) for _, data in read]
    apart.interpret_kernels(losses, [str(data.get("device", "cpu")) for _, data in read])
    statuses = [_show(file, data, target, timeout, is_alone=len(read) == 1) for file, data in read]
    if len(read) > 1:
        click.echo(", ".join(f"{statuses.count(status)} {status}" for status in _COLORS if status in statuses))
    if "ERROR" in statuses:
        sys.exit(exits.USAGE)
    sys.exit(exits.FINDINGS if "FAILED" in statuses else exits.CLEAN)


_COLORS = {"FIXED": "green", "FAILED": "red", "ERROR": "red"}


def _named(failure: str) -> list[Path]:
    """The files that an argument names: a path, else ids of stored failures."""
    from harness.errors import nearest, shown
    from harness.report.writer import OWN_FAILURES

    try:
        if Path(failure).exists():
            return [Path(failure)]
    except (OSError, ValueError) as error:  # no name that the system allows
        raise exits.Refused(f"no file and no id of a failure: {shown(failure)}") from error
    pattern = failure.removesuffix(".json")
    stored = sorted(Path(OWN_FAILURES).glob("*.json"))
    found = [file for file in stored if fnmatch.fnmatchcase(file.stem, pattern)]
    found = found or [file for file in stored if fnmatch.fnmatchcase(file.stem.rpartition("-")[2], pattern)]
    if not found:
        near = nearest(pattern, [file.stem for file in stored])
        raise exits.Refused(
            f"no file {failure}, and none of the {len(stored)} failures in {OWN_FAILURES} has this id{near}; `loss-harness verify` writes them"
        )
    return found


def _read(failure: Path, target: str | None) -> dict[str, Any]:
    from harness.declare import trust

    try:
        data = parse_json(failure.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise exits.Refused(f"{failure} is not a failure file: {error}; `loss-harness verify` writes them") from error
    if not isinstance(data, dict):
        raise exits.Refused(f"{failure} is not a failure file: it holds a {type(data).__name__}, expected an object")
    if target is None and not trust.is_own(failure):
        raise exits.Refused(
            f"{failure} lies outside the working directory {Path.cwd()} and says which code to run; if you trust it, name the "
            f"loss yourself: loss-harness replay {shlex.quote(str(failure))} --target {shlex.quote(str(data.get('target', 'TARGET')))}"
        )
    return data


def _show(failure: Path, data: dict[str, Any], target: str | None, timeout: float, *, is_alone: bool) -> str:
    """Run one failure, say what became of it, and return that as FIXED, FAILED or ERROR."""
    from harness.results import words

    status, message = _again(data, target, timeout)
    message = words.printable(message)
    if status == "ERROR":
        if is_alone:
            raise exits.Refused(f"cannot replay {failure}: {message}")
        message = f"{failure}: {message}"
    click.echo(f"{click.style(status, fg=_COLORS[status], bold=True)} {message}")
    return status


def _again(failure: dict[str, Any], target: str | None, timeout: float) -> tuple[str, str]:
    """(FIXED, FAILED or ERROR, what it says), from a process of its own, which the loss may end or keep for ever."""
    from harness.isolation.limits import Limits

    box = apart.box()
    from harness.runs.conduct import called
    from harness.runs.executors import isolation

    told, reason = called(box or isolation(), "replay", {"failure": failure, "target": target}, Limits(timeout))
    if told is None:
        return "FAILED", f"{failure.get('loss')} / {failure.get('implementation')}\n  {reason}"
    return told["status"], told["message"]
