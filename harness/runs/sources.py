"""Where losses are defined and what they say of themselves, for reports that point at a line."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.results.schema import SourceRecord

if TYPE_CHECKING:
    from harness.declare.spec import LossSpec


def located(spec: LossSpec) -> tuple[SourceRecord, ...]:
    """The declaration and every implementation whose source can be found, in that order."""
    found = [_record("", spec.source.file, spec.source.line, 1)]
    for name, implementation in spec.implementations.items():
        place = _place(implementation)
        found += [] if place is None else [_record(name, *place)]
    return tuple(found)


def described(spec: LossSpec) -> str:
    """The formula, else the first paragraph of the first docstring of an implementation, in one line; empty where none is."""
    for implementation in spec.implementations.values():
        if getattr(implementation, "is_formula", False):
            return str(getattr(implementation, "text", ""))
    for implementation in spec.implementations.values():
        defined = _defined(implementation)
        text = inspect.cleandoc(getattr(defined, "__doc__", None) or "") if _has_source(defined) else ""
        if text:
            return " ".join(text.partition("\n\n")[0].split())
    return ""


def code_digest(specs: Iterable[LossSpec]) -> str:
    """Names the text of all files in which these losses are declared and defined: another one where any has changed.

    Files of the working directory whose modules, functions or classes those use by their global names count too.
    """
    places, modules = set(), set()
    for spec in specs:
        defined = [_defined(implementation) for implementation in spec.implementations.values()]
        places |= {spec.source.file, *(place[0] for each in defined if (place := _defined_at(each)) is not None)}
        modules |= {spec.source.module, *(getattr(each, "__module__", None) or "" for each in defined)}
    found = hashlib.sha256()
    for file in sorted(places | _used_by(modules)):
        path = Path(file)
        found.update(path.read_bytes() if path.is_file() else file.encode())
    return found.hexdigest()[:16]


def declaration_digest(spec: LossSpec) -> str:
    """Names a declaration and the text of its files: another one where either has changed."""
    declared = [repr(spec.tensors), *(f"{name}={value!r}" for name, value in sorted(spec.declared.items()))]
    text = re.sub(r" at 0x[0-9a-f]+", "", "\n".join([code_digest([spec]), spec.name, *declared]))
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _used_by(modules: Collection[str]) -> set[str]:
    """Files in the working directory that these modules use, themselves included."""
    files: set[str] = set()
    left, seen = list(modules), set(modules)
    while left:
        module = sys.modules.get(left.pop())
        file = getattr(module, "__file__", None)
        if module is None or not file or not _is_local(Path(file)):
            continue
        files.add(file)
        values = list(vars(module).values())
        names = {value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None) for value in values}
        new = {name for name in names if isinstance(name, str)} - seen
        left += new
        seen |= new
    return files


def _is_local(path: Path) -> bool:
    return path.is_relative_to(Path.cwd()) and not any(path.is_relative_to(folder) for folder in _installed())


def _defined(implementation: Callable[..., Any]) -> Any:
    """The class or function that a reader would open."""
    while isinstance(implementation, functools.partial):
        implementation = implementation.func
    unwrapped = inspect.unwrap(implementation)
    if inspect.isclass(unwrapped) or inspect.isroutine(unwrapped):
        return unwrapped
    return type(unwrapped)


def _has_source(defined: Any) -> bool:
    return inspect.isclass(defined) or inspect.isfunction(defined) or inspect.ismethod(defined)


def _place(implementation: Callable[..., Any]) -> tuple[str, int, int] | None:
    if getattr(implementation, "is_formula", False):
        return None  # it stands in the declaration
    return _defined_at(_defined(implementation))


@functools.lru_cache(maxsize=256)
def _defined_at(defined: Any) -> tuple[str, int, int] | None:
    """File, line and column, which count from 1; every check of a loss asks, and each time its file would be read up to there."""
    try:
        file = inspect.getsourcefile(defined)
        lines, line = inspect.getsourcelines(defined)
    except (OSError, TypeError):
        return None  # a builtin, or code that no file holds
    return None if file is None else (file, max(line, 1), len(lines[0]) - len(lines[0].lstrip()) + 1)


def _record(implementation: str, file: str, line: int, column: int) -> SourceRecord:
    name, is_local = _named(file, str(Path.cwd()), tuple(sys.path))
    return SourceRecord(implementation, name, line, is_local, column)


@functools.lru_cache(maxsize=256)  # every check of a loss asks
def _named(file: str, folder: str, places: tuple[str, ...]) -> tuple[str, bool]:
    """(a file as it is seen from a folder, else from where Python looks for modules; whether it is in that folder)."""
    path = Path(file)
    if _is_local(path):
        return path.relative_to(folder).as_posix(), True
    roots = [root for root in (*_installed(), *map(Path, places)) if path.is_relative_to(root)]
    deepest = max(roots, key=lambda root: len(root.parts), default=path.parent)
    return path.relative_to(deepest).as_posix(), False


@functools.cache
def _installed() -> tuple[Path, ...]:
    return tuple(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib"))
