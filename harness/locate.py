"""TARGET -> specs: a module, an attribute, or a file anywhere."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from harness.errors import DeclarationError, TargetError, nearest
from harness.spec import LossSpec, Source


def load_specs(targets: Iterable[str]) -> list[LossSpec]:
    """Every spec that the targets name, in order; ``package.module``, ``package.module:Name``, ``path/file.py[:Name]``.

    An attribute may be a spec, a collection of specs, or a class or function whose annotations declare it.  A target
    without an attribute gives the module's ``SPECS``, else every spec in it, else every loss that its annotations declare.

    Raises:
        TargetError: nothing there, or two specs of one name; the message says what is there.
        DeclarationError: a loss without a declaration that can be understood.
    """
    specs: list[LossSpec] = []
    for target in targets:
        specs += _load(target)
    names = [spec.name for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TargetError(
            f"two specs have the name {twice[0]!r}; give one of them another name, so that their results stay apart"
        )
    return specs


def _load(target: str) -> list[LossSpec]:
    place, attribute = _split(target)
    module = _import_file(Path(place), target) if _is_file(place) else _import_module(place, target)
    if attribute is None:
        found = _everything(module, target)
    else:
        if not hasattr(module, attribute):
            raise TargetError(f"target {target!r}: {place} has no {attribute!r}{nearest(attribute, vars(module))}")
        found = _specs_in(getattr(module, attribute), target, attribute)
    for spec in found:
        spec.target = f"{place}:{attribute}" if attribute else place
    return found


def _split(target: str) -> tuple[str, str | None]:
    place, separator, attribute = target.rpartition(":")
    if separator and attribute.isidentifier() and place:
        return place, attribute
    return target, None


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place


def _import_module(name: str, target: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            hint = f"; for the file write {name}.py" if Path(f"{name}.py").exists() else ""
            raise TargetError(
                f"target {target!r}: no module {name!r} in {here} or among the installed packages{hint}"
            ) from error
        raise


def _import_file(path: Path, target: str) -> ModuleType:
    if not path.is_file():
        raise TargetError(f"target {target!r}: no file {path}")
    path = path.resolve()
    root, dotted = path.parent, path.stem
    while (root / "__init__.py").exists():
        dotted, root = f"{root.name}.{dotted}", root.parent
    known = sys.modules.get(dotted)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    clash = sys.modules.get(dotted.partition(".")[0])
    if "." in dotted and (clash is None or str(root) in str(getattr(clash, "__file__", ""))):
        if str(root) not in sys.path:
            sys.path.insert(0, str(root))
        return importlib.import_module(dotted.removesuffix(".__init__"))
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"target {target!r}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that its classes can be pickled
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _everything(module: ModuleType, target: str) -> list[LossSpec]:
    if hasattr(module, "SPECS"):
        return _specs_in(module.SPECS, target, "SPECS")
    specs = list({id(v): v for v in vars(module).values() if isinstance(v, LossSpec)}.values())
    if specs:
        return specs
    problems: list[str] = []
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        is_loss = inspect.isfunction(value) or (inspect.isclass(value) and issubclass(value, nn.Module))
        if is_loss:
            try:
                specs.append(_zero_config(value, name))
            except DeclarationError as error:
                problems.append(str(error))
    if specs:
        return specs
    if problems:
        raise DeclarationError(
            f"target {target!r} holds no SPECS, and no loss whose annotations declare it:\n\n" + "\n\n".join(problems)
        )
    raise TargetError(f"target {target!r} holds no SPECS, no LossSpec and no loss; write SPECS = [LossSpec(...)] in it")


def _specs_in(value: Any, target: str, attribute: str) -> list[LossSpec]:
    if isinstance(value, LossSpec):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        strangers = [item for item in value if not isinstance(item, LossSpec)]
        if value and not strangers:
            return list(value)
        raise TargetError(
            f"target {target!r}: {attribute} should hold LossSpecs, but holds {strangers[:1] or 'nothing'}"
        )
    if callable(value):
        return [_zero_config(value, attribute)]
    raise TargetError(
        f"target {target!r}: {attribute} is {type(value).__name__}, but should be a LossSpec, a list of them, or a loss"
    )


def _zero_config(loss: Any, name: str) -> LossSpec:
    spec = LossSpec(name=name, implementations={name: loss})
    try:
        file, (_, line) = inspect.getsourcefile(loss), inspect.getsourcelines(loss)
    except (OSError, TypeError):
        return spec
    spec.source = Source(str(file), loss.__module__, line)
    return spec
