"""What a notebook shows of results that Python made, and of a declaration."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.report import notebook
from harness.runs import records
from harness.runs.sources import described

if TYPE_CHECKING:
    from harness.declare.spec import LossSpec
    from harness.results.findings import Verification
    from harness.timing.measurement import Benchmark


def html(shown: object) -> str:
    """Part of a page, in HTML: of a `Verification`, a `Benchmark`, a `Finding` or a `LossSpec`."""
    makers: dict[str, Callable[[Any], str]] = {
        "Verification": _verification_html,
        "Benchmark": _benchmark_html,
        "Finding": notebook.finding_html,
        "LossSpec": _declaration_html,
    }
    kind = next(base.__name__ for base in type(shown).__mro__ if base.__name__ in makers)
    return makers[kind](shown)


def _verification_html(found: Verification) -> str:
    asked = f"profile {found.profile}, seed {found.seed}, {found.device}"
    return notebook.verification_html(records.of_verification(found), asked)


def _benchmark_html(found: Benchmark) -> str:
    devices = ", ".join(dict.fromkeys(m.device for m in found.measurements))
    return notebook.benchmark_html(records.of_benchmark(found), f"seed {found.seed}, {devices}")


def _declaration_html(spec: LossSpec) -> str:
    tensors = spec._rows()
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
