"""What a process does that calls a user's losses: it tells a step before each, so that who waits knows which one hangs.

Results are ``{"proposal": ...}``, ``{"name": ..., "problem": REASON}``, or, where the target cannot be loaded,
one ``{"unloadable": REASON}``.
"""

from __future__ import annotations

import inspect
import re
import sys
import time
from collections.abc import Mapping
from typing import Any

from harness.declare import inline
from harness.declare.targets import losses_of
from harness.errors import HarnessError
from harness.isolation.events import Tell
from harness.proposing import docs
from harness.proposing.parameters import parameters_of
from harness.proposing.proposal import Proposal
from harness.proposing.propose import propose

_NAIVE = {"naive", "slow", "loop", "loops", "looped", "reference", "ref", "simple", "plain", "explicit"}


def work(job: Mapping[str, Any], tell: Tell) -> None:
    """Propose a declaration for every loss that the job's target names and that is not done."""
    started = time.monotonic()
    try:
        found = losses_of(job["target"])
    except HarnessError as error:
        tell("result", {"unloadable": str(error)})
        return
    everything = _with_neighbours(found)
    references = {name: reference for name in everything if (reference := _reference(name, everything))}
    losses = [name for name in found if len(found) == 1 or name not in references.values()]
    losses.sort(key=lambda name: not docs.shapes_in(docs.text_of(found[name])))  # what one says serves its siblings
    known = {name: Proposal.from_json(proposal) for name, proposal in job["found"].items()}
    for name in losses[: job["most"]]:
        if name in job["done"]:
            continue
        if time.monotonic() - started > job["limit_s"]:
            tell("result", {"name": name, "problem": "not looked at within the limit; name it to look at it alone"})
            continue
        tell("step", name)
        try:
            proposal = propose(
                name,
                found[name],
                with_laws=job["with_laws"],
                settings=inline.options(job["settings"]),
                sibling=_sibling(name, found, known),
                reference=everything.get(references.get(name, "")),
            )
        except HarnessError as error:
            tell("result", {"name": name, "problem": str(error)})
            continue
        known[name] = proposal
        tell("result", _answer(name, found, proposal, references.get(name, "")))


def _sibling(name: str, found: Mapping[str, Any], known: Mapping[str, Proposal]) -> Proposal | None:
    """What was found for a loss of the same module whose parameters have the same names."""
    wanted, module = _required(found[name]), _module(found[name])
    alike = (p for other, p in known.items() if _module(found[other]) == module and _required(found[other]) == wanted)
    return next(alike, None)


def _answer(name: str, found: Mapping[str, Any], proposal: Proposal, reference: str) -> dict[str, Any]:
    if len(found) > 1 and not inspect.isclass(found[name]) and proposal.output != "":
        reason = "it does not return one number, so it is most likely a helper; name it to get a spec for it"
        return {"name": name, "problem": reason}
    return {"proposal": {**proposal.to_json(), "reference": reference}}


def _module(loss: Any) -> str:
    return str(getattr(loss, "__module__", None) or type(loss).__module__)


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
