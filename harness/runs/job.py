"""One job: one implementation of one loss on one device, to be checked; or one loss, to be timed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.isolation.limits import Limits
from harness.results.schema import LossRecord, loss_dumps

VERIFY, MEASURE = "verify", "measure"
LOADING, SUGGESTIONS = "loading", "suggestions"  # steps of a job that belong to no rule


def result(step: str, record: LossRecord, failures: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What came of one step of a job, as it is told: in JSON types."""
    told = {"step": step, "record": loss_dumps(record), "failures": dict(failures or {})}
    return told | {"is_outcome": bool(record.outcomes)}


@dataclass(frozen=True)
class Job:
    """What another process needs to know, as JSON types.

    Args:
        kind: ``verify`` or ``measure``.
        targets: where the losses are.
        loss: which one.
        implementation: which one; empty where all are timed together.
        device: where.
        codes: rules to check, in their order.
        suggests: whether to look for laws that could be declared.
        request: what the run is asked for.
        verified: what is known of the loss, where it is to be timed.
        step_s: seconds that one check may take.
        memory_bytes: what the job may take.
        has_own_core: whether it is to run on a core that no other such job has meanwhile.
    """

    kind: str
    targets: tuple[str, ...]
    loss: str
    implementation: str
    device: str
    codes: tuple[str, ...]
    suggests: bool
    request: dict[str, Any]
    verified: str = ""
    step_s: float | None = None
    memory_bytes: int | None = None
    has_own_core: bool = False

    @property
    def key(self) -> str:
        """Names the job in its run."""
        return " / ".join((self.kind, self.loss, self.implementation, self.device))

    @property
    def limits(self) -> Limits:
        """What it may take."""
        return Limits(self.step_s, self.memory_bytes)

    def payload(self) -> dict[str, Any]:
        """For the function that performs it."""
        codes = list(self.codes) or None
        own = {"devices": [self.device], "codes": codes, "implementations": [self.implementation]}
        request = self.request | (own if self.kind == VERIFY else {})
        return {
            "targets": list(self.targets),
            "loss": self.loss,
            "request": request,
            "checks": bool(self.codes),
            "suggests": self.suggests,
            "verified": self.verified,
            "has_own_core": self.has_own_core,
        }

    def without(self, codes: set[str]) -> Job:
        """The same job, with less to check."""
        return replace(self, codes=tuple(code for code in self.codes if code not in codes))

    def dumps(self) -> str:
        """As text, for another machine."""
        return json.dumps(asdict(self))

    @staticmethod
    def loads(text: str) -> Job:
        """The job that `dumps` wrote."""
        data: dict[str, Any] = json.loads(text)
        return Job(**(data | {name: tuple(data[name]) for name in ("targets", "codes")}))
