"""Catalogs: losses of well-known packages, declared as their documentation says, ready to be verified and timed.

    loss-harness verify harness.catalogs.torch_nn                    every loss of one catalog
    loss-harness verify harness.catalogs.torch_nn:CROSS_ENTROPY      one of them
    loss-harness report harness.catalogs                             every catalog whose package is installed

A catalog is a module or package in here with ``SPECS``.  It declares losses with the public interface of `harness` alone, as a
user would.  Names of specs begin with the package, ``nn.CrossEntropyLoss-weighted``, so that catalogs can be reported together.
The first implementation of a spec, where there are two, is the documented formula written out, and the other is the package's.

A catalog of a package that may be absent imports it with `require`.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import warnings
from types import ModuleType
from typing import Any

from harness import LossSpec, TargetError

# PyKEEN refuses to be imported after a package that has given a scheduler of its own the name of one of torch's.
_FIRST = ("pykeen",)


class MissingPackageError(TargetError):
    """A catalog was asked for whose package is not installed."""


def require(module: str, install: str = "'loss-harness[survey]'") -> ModuleType:
    """Import a module of a package that need not be there, such as ``kornia.losses``.

    Args:
        module: its name.
        install: what pip installs, by default the extra of loss-harness for packages that install beside each other.

    Raises:
        MissingPackageError: the package is not installed; the message says what to install.
        TargetError: it is installed and raises when it is imported.
    """
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(
            f"the package {package!r}, whose losses are declared here, is not installed; write\n"
            f"    pip install {install}"
        )
    try:
        return importlib.import_module(module)
    except Exception as error:  # whatever a package's own code raises, beside the packages that are imported already
        raised = f"{type(error).__name__}: {error}"
        raise TargetError(f"the package {package!r} is installed, but importing {module!r} raised {raised}") from error


def catalogs() -> tuple[str, ...]:
    """Names of all catalogs, whether or not their packages are installed."""
    return tuple(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))


def specs() -> tuple[LossSpec, ...]:
    """The specs of every catalog whose package can be imported; a warning names each catalog that is left out, and why."""
    found: dict[str, tuple[LossSpec, ...]] = {}
    reasons: dict[str, TargetError] = {}
    for name in sorted(catalogs(), key=lambda name: name not in _FIRST):
        try:
            found[name] = tuple(importlib.import_module(f"{__name__}.{name}").SPECS)
        except TargetError as reason:
            reasons[name] = reason
    for name in catalogs():
        if name in reasons:
            warnings.warn(f"catalog {name!r} is left out: {reasons[name]}", stacklevel=2)
    return tuple(spec for name in catalogs() for spec in found.get(name, ()))


def __getattr__(name: str) -> Any:
    # All catalogs are imported only when all are asked for: one of them must not need the packages of the others.
    if name == "SPECS":
        return specs()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
