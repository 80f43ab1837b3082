"""What a notebook shows of results that Python made.

`Verification`, `Benchmark`, `Finding` and `LossSpec` ask this when IPython asks them, so that nobody else loads the templates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.report import notebook
from harness.results.rule_texts import rule_text
from harness.runs import records
from harness.runs.sources import described

if TYPE_CHECKING:
    import pandas as pd

    from harness.declare.spec import LossSpec
    from harness.results.findings import Finding, Verification
    from harness.timing.measurement import Benchmark


def verification_html(found: Verification) -> str:
    """Part of a page, in HTML."""
    asked = f"profile {found.profile}, seed {found.seed}, {found.device}"
    return notebook.verification_html(records.of_verification(found), asked)


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


_COLUMNS = ["rule", "title", "severity", "implementation", "finding", "hint", "follows"]


def findings_frame(found: Sequence[Finding]) -> pd.DataFrame:
    """One row a finding, with ``size_<symbol>`` for each size of its case."""
    import pandas as pd

    rows = []
    for finding in found:
        values = (
            *(finding.rule, finding.title, finding.severity, finding.implementation),
            *(finding.fact, finding.hint, finding.follows),
        )
        sizes = {} if finding.case is None else finding.case["sizes"]
        shown = {f"size_{name}": n if isinstance(n, int) else "x".join(map(str, n)) for name, n in sizes.items()}
        rows.append({**dict(zip(_COLUMNS, values, strict=True)), **shown})
    return pd.DataFrame(rows, columns=None if rows else _COLUMNS)


def outcomes_frame(found: Verification) -> pd.DataFrame:
    """One row a planned implementation x rule, with its gravest finding."""
    import pandas as pd

    rows = []
    for outcome in found.outcomes:
        gravest = next((f for f in found.of(outcome.implementation) if f.rule == outcome.rule), None)
        rows.append(
            {
                "loss": found.loss,
                "implementation": outcome.implementation,
                "rule": outcome.rule,
                "title": rule_text(outcome.rule).title,
                "device": outcome.device,
                "status": outcome.status.value,
                "examples": outcome.examples,
                "reason": outcome.reason,
                "severity": None if gravest is None else gravest.severity,
                "finding": None if gravest is None else gravest.fact,
            }
        )
    return pd.DataFrame(rows)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
