"""What a worker elsewhere does with a job before it carries it out; light, for a scheduler imports it too.

A job comes with its origin: the working directory of the run and the versions on which findings depend.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.version import __version__

# Beside the harness itself: torch computes, Hypothesis draws the cases.
_PACKAGES = ("torch", "hypothesis")


class WorkerError(HarnessError, RuntimeError):
    """A worker cannot give the findings that the run would get where it was started."""


def origin() -> dict[str, Any]:
    """Of jobs that leave this process, as JSON types."""
    return {"folder": str(Path.cwd()), "versions": versions()}


def versions() -> dict[str, str]:
    """Package -> version on which findings depend; builds of torch for other devices (``+cpu``, ``+cu130``) count as equal."""
    found = {"loss-harness": __version__}
    return found | {name: metadata.version(name).partition("+")[0] for name in _PACKAGES}


def carry_out(job: str, origin: Mapping[str, Any]) -> str:
    """Carry out a job here.

    Raises:
        WorkerError: other versions here, or a file of the targets is missing.
    """
    from harness.runs import executors
    from harness.runs.job import Job

    return executors.carry_out(job, _admitted(origin, Job.loads(job).targets))


def call(function: str, payload: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    """Call a short function of `harness.runs.perform` here.

    Raises:
        WorkerError: see `carry_out`.
    """
    from harness.runs import executors

    return executors.call_there(function, dict(payload), _admitted(origin, payload.get("targets", ())))


def _admitted(origin: Mapping[str, Any], targets: Sequence[str]) -> str:
    """The folder in which the targets mean here what they mean where they come from."""
    here = versions()
    if origin["versions"] != here:
        raise WorkerError(differing("a worker", here, origin["versions"]))
    folder = origin["folder"] if os.path.isdir(origin["folder"]) else os.getcwd()
    for file in filter(None, map(_file_of, targets)):
        if not os.path.exists(os.path.join(folder, file)):
            raise WorkerError(
                f"target {file!r}: no such file on a worker, in {folder}; put it into a folder that every worker shares under the "
                "same path, or install it on the workers and name the module"
            )
    return str(folder)


def differing(who: str, there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Which versions differ, and how to mend it."""
    names = [name for name in here if there.get(name) != here[name]]
    theirs = ", ".join(f"{name} {there.get(name) or '(not installed)'}" for name in names)
    ours = ", ".join(f"{name} {here[name]}" for name in names)
    return f"{who} has {theirs}, but this run {ours}; findings depend on it: install the same on both"


def _file_of(target: str) -> str | None:
    """The file that a target names, if it names one; those of a declaration are found when it is loaded."""
    from harness.declare.targets import is_file, split

    place, _ = split(target)
    return place if not target.startswith("{") and is_file(place) else None
