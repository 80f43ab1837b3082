"""Proposals from a process of their own: a loss that hangs or crashes takes nobody with it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import TargetError
from harness.starting.proposal import Proposal

LIMIT_S = 120.0


@dataclass(frozen=True)
class Proposals:
    """What was found for a target.

    Args:
        found: proposals by the name of the loss.
        modules: the module of each.
        problems: why others got none, by name.
    """

    found: Mapping[str, Proposal] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def proposals(target: str, *, with_laws: bool = True, limit_s: float = LIMIT_S) -> Proposals:
    """Propose a declaration for every loss that a target names.

    Args:
        target: as for `harness.locate.losses_of`.
        with_laws: whether to try laws too.
        limit_s: seconds for everything; what is found until then is kept.

    Raises:
        TargetError: the target cannot be loaded; the message says why.
    """
    job = {"target": target, "with_laws": with_laws, "path": [place for place in sys.path if place]}
    with subprocess.Popen(
        [sys.executable, "-m", "harness.starting.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as started:
        try:
            stdout, stderr = started.communicate(json.dumps(job), timeout=limit_s)
            ended = ""
        except subprocess.TimeoutExpired:
            started.kill()
            stdout, stderr = started.communicate()
            ended = f"it had not ended after {limit_s:g} s, and no call of it could be interrupted; does it hang?"
        except BaseException:
            started.kill()
            raise
    if not ended and started.returncode:
        last = (stderr.strip().splitlines() or ["it said nothing"])[-1]
        ended = f"the process that called it ended with code {started.returncode}: {last}"
    return _read(stdout, ended, target)


def _environment() -> dict[str, str]:
    found = importlib.util.find_spec("harness")
    root = str(Path(str(found.origin)).parent.parent) if found is not None else ""
    before = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in (before, root) if part)}


def _read(stdout: str, ended: str, target: str) -> Proposals:
    found: dict[str, Proposal] = {}
    modules: dict[str, str] = {}
    problems: dict[str, str] = {}
    trying = ""
    complete = stdout[: stdout.rfind("\n") + 1]  # a killed process may leave half a line
    for line in map(json.loads, complete.splitlines()):
        if line["event"] == "unloadable":
            raise TargetError(line["reason"])
        if line["event"] == "trying":
            trying = line["name"]
        elif line["event"] == "problem":
            problems[line["name"]] = line["reason"]
        else:
            proposal = Proposal.from_json(line["proposal"])
            found[proposal.name], modules[proposal.name] = proposal, line["module"]
    if ended:
        if not trying:
            raise TargetError(f"target {target!r}: {ended}")
        if trying not in found and trying not in problems:
            problems[trying] = ended
    return Proposals(found, modules, problems)
