"""loss-harness: verify and benchmark a custom PyTorch loss before you adopt it.

Names are imported on first use, so that loading the command line or the pytest plugin imports no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from harness.results.shown import Shown
from harness.version import __version__

if TYPE_CHECKING:
    from harness.checking.verify import verify
    from harness.declare import domains, laws
    from harness.declare.annotations import Context
    from harness.declare.declared import ErrorInput
    from harness.declare.spec import LossSpec
    from harness.declare.structures import several
    from harness.declare.tensor_spec import TensorSpec, scalar
    from harness.drawing.case import Case
    from harness.drawing.strategies import cases
    from harness.errors import DeclarationError, HarnessError, TargetError
    from harness.pytest_plugin import Check, parametrize_with_checks
    from harness.pytest_plugin.speed import parametrize_with_benchmarks
    from harness.results.findings import Finding, Outcome, Verification
    from harness.timing.benchmark import Benchmark, benchmark

_HOMES = {
    "Benchmark": "harness.timing.benchmark",
    "Case": "harness.drawing.case",
    "Check": "harness.pytest_plugin",
    "Context": "harness.declare.annotations",
    "DeclarationError": "harness.errors",
    "ErrorInput": "harness.declare.declared",
    "Finding": "harness.results.findings",
    "HarnessError": "harness.errors",
    "LossSpec": "harness.declare.spec",
    "Outcome": "harness.results.findings",
    "TargetError": "harness.errors",
    "TensorSpec": "harness.declare.tensor_spec",
    "Verification": "harness.results.findings",
    "benchmark": "harness.timing.benchmark",
    "cases": "harness.drawing.strategies",
    "domains": "harness.declare.domains",
    "laws": "harness.declare.laws",
    "parametrize_with_benchmarks": "harness.pytest_plugin.speed",
    "parametrize_with_checks": "harness.pytest_plugin",
    "scalar": "harness.declare.tensor_spec",
    "several": "harness.declare.structures",
    "verify": "harness.checking.verify",
}

__all__ = [
    "Benchmark",
    "Case",
    "Check",
    "Context",
    "DeclarationError",
    "ErrorInput",
    "Finding",
    "HarnessError",
    "LossSpec",
    "Outcome",
    "TargetError",
    "TensorSpec",
    "Verification",
    "__version__",
    "benchmark",
    "cases",
    "domains",
    "laws",
    "parametrize_with_benchmarks",
    "parametrize_with_checks",
    "scalar",
    "several",
    "verify",
]


if not TYPE_CHECKING:  # to a type checker, the names above are all there are

    def __getattr__(name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            from harness.errors import nearest

            raise AttributeError(f"module 'harness' has no attribute {name!r}{nearest(name, __all__)}")
        module = importlib.import_module(home)
        value = module if home == f"harness.declare.{name}" else getattr(module, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _page(shown: Any) -> str:
    from harness.runs.notebook import html

    return html(shown)


Shown.page = staticmethod(_page)
