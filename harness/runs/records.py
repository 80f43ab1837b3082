"""Results of `verify` and `benchmark` -> records of the report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.results.findings import Finding, Outcome, Status, in_order
from harness.results.measured import Measurement
from harness.results.schema import READ_AS, LossRecord, digest, plain
from harness.runs.sources import described, located

if TYPE_CHECKING:
    from harness.declare.spec import LossSpec
    from harness.results.findings import Verification
    from harness.timing.benchmark import Benchmark


def target(spec: LossSpec) -> str:
    """How the loss was named on the command line, else the file that declares it, seen from here."""
    if spec.target:
        return spec.target
    file = Path(spec.source.file)
    return file.relative_to(Path.cwd()).as_posix() if file.is_relative_to(Path.cwd()) else file.name


def empty(spec: LossSpec, implementations: Sequence[str] | None = None) -> LossRecord:
    """The record of a loss of which nothing is known yet."""
    chosen = tuple(spec.implementations) if implementations is None else tuple(implementations)
    return LossRecord(
        spec.name,
        target(spec),
        spec.reference if len(spec.implementations) > 1 else "",
        chosen,
        notes=_of_declaration(spec),
        description=described(spec),
        sources=located(spec),
    )


def _of_declaration(spec: LossSpec) -> tuple[str, ...]:
    """What the declaration leaves unchecked, and how the tensors are read, where that says more than data."""
    roles = [
        f"{name} is {'an' if role == 'index' else 'a'} {role}" for name, role in spec.roles.items() if role != "data"
    ]
    how = "--role NAME=ROLE" if spec.is_inline else "role= of a TensorSpec"
    read = f"{READ_AS}{', '.join(roles)} ({how} says otherwise)" if roles else ""
    return tuple(note for note in (spec.unchecked, read) if note)


def skipped(planned: LossRecord, implementation: str, code: str, device: str, reason: str) -> LossRecord:
    """The record of a check that cannot run here."""
    outcome = Outcome(implementation, code, device, Status.SKIPPED, 0, reason)
    return replace(planned, implementations=(implementation,), outcomes=(outcome,))


def from_verification(spec: LossSpec, verification: Verification) -> tuple[LossRecord, dict[str, dict[str, Any]]]:
    """The record of one verification, and the failures to replay by file name."""
    from harness.checking.replay import failure_record

    findings: list[Finding] = []
    failures: dict[str, dict[str, Any]] = {}
    for finding in verification.findings:
        failure = plain(failure_record(spec, verification, finding))
        name = file_name(spec.name, finding.rule, digest(failure))
        failures[name] = failure
        findings.append(replace(finding, failure=name))
    record = replace(
        empty(spec, verification.implementations),
        outcomes=verification.outcomes,
        findings=in_order(findings),
        suggestions=verification.suggestions,
    )
    return record, failures


def of_verification(verification: Verification) -> LossRecord:
    """The record of a verification alone, where its declaration is not at hand; nothing is stored to be replayed."""
    return LossRecord(
        verification.loss,
        "",
        verification.reference,
        verification.implementations,
        outcomes=verification.outcomes,
        findings=in_order(verification.findings),
        suggestions=verification.suggestions,
        notes=verification.notes,
    )


def from_benchmark(spec: LossSpec, benchmark: Benchmark) -> LossRecord:
    """The record of one benchmark of one loss."""
    known = empty(spec)
    return replace(
        of_benchmark(benchmark),
        target=known.target,
        reference=known.reference,
        implementations=known.implementations,
        description=known.description,
        sources=known.sources,
    )


def of_benchmark(benchmark: Benchmark) -> LossRecord:
    """The record of a benchmark alone, where its declaration is not at hand; the reference is measured first."""
    from harness.timing.growth import crossovers, growths

    names = tuple(dict.fromkeys(m.implementation for m in benchmark.measurements))
    return LossRecord(
        benchmark.loss,
        "",
        names[0] if len(names) > 1 else "",
        names,
        findings=in_order(benchmark.findings),
        measurements=benchmark.measurements,
        comparisons=benchmark.comparisons,
        growths=growths(benchmark),
        crossovers=crossovers(benchmark),
        notes=tuple(benchmark.notes),
    )


def untimed(
    planned: LossRecord, implementation: str, devices: Sequence[str], reason: str, *, status: str = "skipped"
) -> LossRecord:
    """The record of an implementation that is left out of the timing, or whose timing failed as a whole."""
    measurements = tuple(
        Measurement({}, device, "", "", implementation=implementation, status=status, reason=reason)
        for device in devices
    )
    return replace(planned, measurements=measurements)


def file_name(loss: str, rule: str, digits: str) -> str:
    """``<loss>-<rule>-<digits>.json`` as one path component, whatever the loss is called."""
    parts = [re.sub(r"[^A-Za-z0-9_]+", "_", part)[:80].strip("_") or "unnamed" for part in (loss, rule, digits)]
    return "-".join(parts) + ".json"
