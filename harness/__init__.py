"""loss-harness: verify and benchmark a custom PyTorch loss before you adopt it.

Names are imported on first use, so that loading the command line or the pytest plugin imports no torch.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness import domains, laws
    from harness.annotations import Context
    from harness.benchmark import Benchmark, benchmark
    from harness.case import Case
    from harness.errors import DeclarationError, HarnessError, TargetError
    from harness.pytest_plugin import parametrize_with_checks
    from harness.pytest_speed import parametrize_with_benchmarks
    from harness.results import Finding, Outcome, Verification
    from harness.spec import ErrorInput, LossSpec, TensorSpec, scalar, several
    from harness.strategies import cases
    from harness.verify import verify

__version__ = "0.1.0"

_HOMES = {
    "Benchmark": "harness.benchmark",
    "Case": "harness.case",
    "Context": "harness.annotations",
    "DeclarationError": "harness.errors",
    "ErrorInput": "harness.spec",
    "Finding": "harness.results",
    "HarnessError": "harness.errors",
    "LossSpec": "harness.spec",
    "Outcome": "harness.results",
    "TargetError": "harness.errors",
    "TensorSpec": "harness.spec",
    "Verification": "harness.results",
    "benchmark": "harness.benchmark",
    "cases": "harness.strategies",
    "domains": "harness",
    "laws": "harness",
    "parametrize_with_benchmarks": "harness.pytest_speed",
    "parametrize_with_checks": "harness.pytest_plugin",
    "scalar": "harness.spec",
    "several": "harness.spec",
    "verify": "harness.verify",
}

__all__ = [
    "Benchmark",
    "Case",
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
        value = importlib.import_module(f"harness.{name}" if home == "harness" else home)
        if home != "harness":
            value = getattr(value, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps `harness.verify` and `harness.benchmark` the functions.

    Importing the module of such a name binds the module to the package, whoever imports it first.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == value.__name__:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
