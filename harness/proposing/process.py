"""Proposals from processes of their own: a loss that hangs, crashes or fills the memory takes nobody with it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from harness.errors import TargetError
from harness.isolation import events
from harness.isolation.events import Ended
from harness.isolation.limits import Limits
from harness.isolation.sandbox import Here, Isolation, Sandbox
from harness.proposing.proposal import Proposal

LIMIT_S = 120.0
_SHARE = 0.5  # of the limit, for any one loss: one that hangs leaves the others some
_MEMORY = 2 << 30  # bytes: many times what any loss needs for a few dozen numbers
_WORK = "harness.proposing.worker:work"
_PRELOAD = ("harness.proposing.worker",)


@dataclass
class Proposals:
    """What workers have found for a target so far.

    Args:
        found: proposals by the name of the loss.
        problems: why others got none, by name.
        unloadable: why the target cannot be loaded; empty where it can.
    """

    found: dict[str, Proposal] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    unloadable: str = ""

    def _hear(self, kind: str, data: Any) -> None:
        if kind != "result":
            return
        if "unloadable" in data:
            self.unloadable = data["unloadable"]
        elif "problem" in data:
            self.problems[data["name"]] = data["problem"]
        else:
            proposal = Proposal.from_json(data["proposal"])
            self.found[proposal.name] = proposal

    def _lose(self, target: str, ended: Ended) -> None:
        """The loss under way is the one that its process did not survive.

        Raises:
            TargetError: it was none, but loading the target.
        """
        last = ended.output.splitlines()[-1:] if ended.how != events.RAISED else []
        reason = ": ".join([ended.how, ended.reason, *last])
        if ended.how == events.TIMED_OUT:
            reason = f"{ended.reason}, and no call of it could be interrupted; does it hang?"
        if not ended.step or ended.step in {*self.found, *self.problems}:
            raise TargetError(f"target {target!r}: the process that loads it ended; {reason}")
        self.problems[ended.step] = f"the process that called it ended; {reason}"


def proposals(
    target: str,
    *,
    with_laws: bool = True,
    settings: Sequence[str] = (),
    limit_s: float = LIMIT_S,
    most: int | None = None,
    box: Isolation | None = None,
) -> Proposals:
    """Propose a declaration for every loss that a target names; one that ends its process has the others go on without it.

    Args:
        target: as for `harness.declare.targets.losses_of`.
        with_laws: whether to try laws too.
        settings: constants, each ``name=value``.
        limit_s: seconds after which no further loss is looked at; any one of them is ended after half of that.
        most: how many losses to look at; all of them by default.
        box: where the losses run; one of its own by default.

    Raises:
        TargetError: the target cannot be loaded; the message says why.
    """
    with ExitStack() as stack:
        if box is None:
            box = Sandbox(_PRELOAD) if hasattr(os, "fork") else Here()
            stack.callback(box.close)
        heard = Proposals()
        until = time.monotonic() + limit_s
        while True:
            left = max(until - time.monotonic(), 0.0)
            job = {"target": target, "with_laws": with_laws, "settings": list(settings)}
            job |= {"done": [*heard.found, *heard.problems], "limit_s": left, "most": most}
            job["found"] = {name: proposal.to_json() for name, proposal in heard.found.items()}
            ended = box.run(_WORK, job, Limits(_SHARE * limit_s, _MEMORY), heard._hear)
            if ended.ok:
                break
            heard._lose(target, ended)
    if heard.unloadable:
        raise TargetError(heard.unloadable)
    return heard
