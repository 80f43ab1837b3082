"""A process that calls a user's losses: ``python -m harness.starting.worker``, a job as JSON on stdin, JSON lines on stdout.

Lines: ``{"event": "trying", "name": ...}`` before each loss, so that who waits knows which one hangs, then
``{"event": "proposal", ...}`` or ``{"event": "problem", "name": ..., "reason": ...}``; a target that cannot be loaded gives
one ``{"event": "unloadable", "reason": ...}``.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import torch

from harness.errors import HarnessError
from harness.locate import losses_of
from harness.starting.parameters import parameters_of
from harness.starting.proposal import Proposal
from harness.starting.propose import propose

MEMORY = 8 << 30  # bytes above what the process has at its start
_NAIVE = {"naive", "slow", "loop", "loops", "looped", "reference", "ref", "simple", "plain", "explicit"}

Emit = Callable[[Mapping[str, Any]], None]


def run(job: Mapping[str, Any], emit: Emit) -> None:
    """Propose a declaration for every loss that the job's target names."""
    torch.set_num_threads(1)
    sys.path += [place for place in job["path"] if place not in sys.path]
    try:
        found = losses_of(job["target"])
    except HarnessError as error:
        emit({"event": "unloadable", "reason": str(error)})
        return
    everything = _with_neighbours(found)
    references = {name: reference for name in everything if (reference := _reference(name, everything))}
    for name, loss in found.items():
        if name in references.values() and len(found) > 1:
            continue
        emit({"event": "trying", "name": name})
        try:
            proposal = propose(name, loss, with_laws=job["with_laws"])
        except HarnessError as error:
            emit({"event": "problem", "name": name, "reason": str(error)})
            continue
        if len(found) > 1 and not inspect.isclass(loss) and _is_helper(proposal):
            reason = "it does not return one number, so it is most likely a helper; name it to get a spec for it"
            emit({"event": "problem", "name": name, "reason": reason})
            continue
        made = {**proposal.to_json(), "reference": references.get(name, "")}
        emit({"event": "proposal", "module": _module(loss), "proposal": made})


def _module(loss: Any) -> str:
    return str(getattr(loss, "__module__", None) or type(loss).__module__)


def _is_helper(proposal: Proposal) -> bool:
    return proposal.output != ""


def _with_neighbours(found: Mapping[str, Any]) -> dict[str, Any]:
    """The losses beside the functions of their modules, among which may be a reference."""
    everything = dict(found)
    for loss in found.values():
        module = sys.modules.get(_module(loss))
        for name, value in vars(module).items() if module is not None else ():
            if inspect.isfunction(value) and value.__module__ == _module(loss) and not name.startswith("_"):
                everything.setdefault(name, value)
    return everything


def _reference(name: str, everything: Mapping[str, Any]) -> str:
    """Another loss that is called naive, slow or the like and takes the same tensors; empty where there is none."""
    if _words(name) & _NAIVE:
        return ""
    wanted = _required(everything[name])
    alike = [other for other in everything if _words(other) & _NAIVE and _required(everything[other]) == wanted]
    own = _words(name) - {"loss"}
    return max(alike, key=lambda other: len(_words(other) & own), default="") if wanted else ""


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+|\d+", re.sub(r"(?<=[a-z\d])(?=[A-Z])", "_", name).lower()))


def _required(loss: Any) -> frozenset[str]:
    try:
        return frozenset(parameter.name for parameter in parameters_of(loss) if not parameter.optional)
    except HarnessError:
        return frozenset()


def _limit_memory() -> None:
    """A loss that asks for more memory than a check could need gets an error, and not the machine's last page."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    with open("/proc/self/statm", encoding="ascii") if os.path.exists("/proc/self/statm") else open(os.devnull) as file:
        pages = (file.read().split() or ["0"])[0]
    used = int(pages) * os.sysconf("SC_PAGE_SIZE")
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _private_stdout() -> TextIO:
    """The real stdout, for the answers alone: whatever the user's code prints goes to stderr."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def main() -> None:
    """Read a job, run it, answer."""
    answers = _private_stdout()
    job = json.load(sys.stdin)
    _limit_memory()
    run(job, lambda line: print(json.dumps(line), file=answers, flush=True))


if __name__ == "__main__":
    main()
