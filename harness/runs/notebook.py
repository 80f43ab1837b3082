"""What a notebook shows of results that Python made.

`Verification`, `Benchmark`, `Finding` and `LossSpec` ask this when IPython asks them, so that nobody else loads the templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.report import notebook
from harness.runs import records
from harness.runs.sources import described

if TYPE_CHECKING:
    from harness.declare.spec import LossSpec
    from harness.rules.findings import Finding, Verification
    from harness.timing.measurement import Benchmark


def verification_html(found: Verification) -> str:
    """Part of a page, in HTML."""
    asked = f"profile {found.profile}, seed {found.seed}, {found.device}"
    return notebook.verification_html(records.of_verification(found), asked)


def finding_html(found: Finding) -> str:
    """Part of a page, in HTML."""
    return notebook.finding_html(records.of_finding(found, str(found.evidence.get("device", ""))))


def benchmark_html(found: Benchmark) -> str:
    """Part of a page, in HTML."""
    devices = ", ".join(dict.fromkeys(m.device for m in found.measurements))
    return notebook.benchmark_html(records.of_benchmark(found), f"seed {found.seed}, {devices}")


def declaration_html(spec: LossSpec, tensors: Sequence[Mapping[str, object]]) -> str:
    """Part of a page, in HTML.

    Args:
        spec: the declaration.
        tensors: a row for each of its tensors.
    """
    facts = {
        "says": described(spec),
        "implementations": ", ".join(
            f"{name} (reference)" if spec.role(name) == "reference" else name for name in spec.implementations
        ),
        "options": ", ".join(f"{name}={value!r}" for name, value in spec.options.items()),
        "sizes": ", ".join(f"{symbol}={size}" for symbol, size in spec.fixed_sizes.items()),
        "laws": ", ".join(map(repr, spec.laws)),
        "requires": ", ".join(spec.requires),
        "waivers": "; ".join(f"{code}: {reason}" for code, reason in spec.waivers.items()),
        "to know": spec.unchecked,
    }
    rows = [list(tensors[0])] + [[_cell(value) for value in row.values()] for row in tensors] if tensors else []
    return notebook.declaration_html(spec.name, rows, {what: fact for what, fact in facts.items() if fact})


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
