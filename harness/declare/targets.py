"""TARGET -> specs: a module, an attribute, or a file anywhere."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from harness.declare.on_command_line import Declaration
from harness.declare.spec import LossSpec, Source
from harness.errors import DeclarationError, TargetError, nearest, shown


def load_specs(targets: Sequence[str] | Set[str], begin: Callable[[str], None] = lambda target: None) -> list[LossSpec]:
    """Every spec that the targets name, in order; ``package.module``, ``package.module:Name``, ``path/file.py[:Name]``.

    An attribute may be a spec, a collection of specs, or a class or function whose annotations declare it.  A target
    without an attribute gives the module's ``SPECS``, else every spec in it, else every loss that its annotations declare.

    Args:
        targets: in any number.
        begin: is told each before it is loaded.

    Raises:
        TargetError: nothing there, or two specs of one name; the message says what is there.
        DeclarationError: a loss without a declaration that can be understood.
    """
    if isinstance(targets, (str, bytes)) or not isinstance(targets, Sequence | Set):
        raise TargetError(f"got targets={shown(targets)}, expected a list, such as ['losses']")
    specs: list[LossSpec] = []
    for target in targets:
        if not isinstance(target, str):
            raise TargetError(f"got target {shown(target)}, expected text, such as 'package.module:Name'")
        begin(target)
        specs += _load(target)
    names = [spec.name for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TargetError(
            f"two specs have the name {shown(twice[0])}; give one of them another name, so that their results stay apart"
        )
    return specs


def load_declared(declaration: Declaration) -> LossSpec:
    """The spec of a loss that is declared beside it, on the command line.

    Raises:
        TargetError: the target, or the reference's, names no single loss.
        DeclarationError: the declaration cannot be read or contradicts the loss.
    """
    name, loss = _one_loss(declaration.target)
    reference = _one_loss(declaration.reference)[1] if declaration.reference else None
    spec = declaration.spec(name, loss, reference)
    spec.source = _source(loss) or spec.source
    spec.target = declaration.as_target
    return spec


def _one_loss(target: str) -> tuple[str, Any]:
    found = losses_of(target)
    if len(found) > 1:
        choices = "".join(f"\n    {split(target)[0]}:{name}" for name in found)
        raise TargetError(
            f"target {shown(target)} holds {len(found)} losses; write one of{choices}\n"
            f"with --reference {split(target)[0]}:NAME for the one that it is held to"
        )
    ((name, loss),) = found.items()
    return name, loss


def losses_of(target: str) -> dict[str, Any]:
    """Losses by name, declared or not: the attribute that the target names, else every public function and module class.

    Raises:
        TargetError: nothing there, or something that is no loss.
    """
    module, _, attribute = _module_of(target)
    if attribute is None:
        found = {name: value for name, value in vars(module).items() if _is_own_loss(module, name, value)}
        if not found:
            raise TargetError(
                f"target {shown(target)} holds no loss: no public function and no subclass of torch.nn.Module"
            )
        return found
    value = getattr(module, attribute)
    if isinstance(value, LossSpec):
        raise TargetError(f"target {shown(target)} is a LossSpec, which declares itself; run it as it is")
    if not callable(value):
        raise TargetError(f"target {shown(target)} is {type(value).__name__}, expected a loss: a function or a class")
    return {attribute: value}


def _is_own_loss(module: ModuleType, name: str, value: Any) -> bool:
    if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
        return False
    return inspect.isfunction(value) or (inspect.isclass(value) and issubclass(value, nn.Module))


def _module_of(target: str) -> tuple[ModuleType, str, str | None]:
    place, attribute = split(target)
    module = _import_file(Path(place), target) if is_file(place) else _import_module(place, target)
    if attribute is not None and not hasattr(module, attribute):
        raise TargetError(
            f"target {shown(target)}: {place} has no {shown(attribute)}{nearest(attribute, vars(module))}"
        )
    return module, place, attribute


def _load(target: str) -> list[LossSpec]:
    if target.startswith("{"):
        return [load_declared(Declaration.from_target(target))]
    module, place, attribute = _module_of(target)
    if attribute is None:
        found = _everything(module, target)
    else:
        found = _specs_in(getattr(module, attribute), target, attribute)
    for spec in found:
        spec.target = f"{place}:{attribute}" if attribute else place
    return found


def split(target: str) -> tuple[str, str | None]:
    """The module or file of a target, and the attribute that it names, if any."""
    place, separator, attribute = target.rpartition(":")
    if separator and attribute.isidentifier() and place:
        return place, attribute
    return target, None


def is_file(place: str) -> bool:
    """Whether a target's place is a file, and no module."""
    return place.endswith(".py") or "/" in place or "\\" in place


def _import_module(name: str, target: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        kind = "a directory; name a file in it" if name and exists(Path(name)) else "no module name"
        raise TargetError(
            f"target {shown(target)}: {shown(name)} is {kind}; write package.module, path/file.py or either with :Name"
        )
    here = Path.cwd()
    if str(here) not in sys.path:
        sys.path.insert(0, str(here))
    top = name.partition(".")[0]
    known, own = sys.modules.get(top), next((p for p in (here / top, here / f"{top}.py") if exists(p)), None)
    if known is not None and own is not None and not _lies_in(known, here):
        raise TargetError(
            f"target {shown(target)}: {own} is meant, but another {shown(top)} is already imported from {_home(known)}; write the path "
            f"of the file, such as {top}/loss.py"
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise TargetError(
                f"target {shown(target)}: no module {shown(name)} in {here} or among the installed packages"
            ) from error
        raise TargetError(_broken(target, error)) from error
    except TargetError as error:  # the module itself says what it lacks, such as a package
        raise TargetError(f"target {shown(target)}: {error}") from error
    except (Exception, SystemExit) as error:
        raise TargetError(_broken(target, error)) from error


def _broken(target: str, error: BaseException) -> str:
    """Why a user's module cannot be imported, and in which line."""
    frames = traceback.extract_tb(error.__traceback__)
    user = [frame for frame in frames if "importlib" not in frame.filename and frame.filename != __file__]
    place = f"{user[-1].filename}:{user[-1].lineno}" if user else ""
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
    where = f" at {place}" if place else ""
    return f"target {shown(target)}: importing it raised {type(error).__name__}: {error}{where}; it must import without an error"


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; none has a name that the system does not allow."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _home(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), "memory"))


def _lies_in(module: ModuleType, directory: Path) -> bool:
    home = _home(module)
    return home != "memory" and Path(home).resolve().is_relative_to(directory.resolve())


def _import_file(path: Path, target: str) -> ModuleType:
    if exists(path) and path.is_dir():
        raise TargetError(
            f"target {shown(target)}: {path} is a directory; name a file in it, such as {path / 'loss.py'}"
        )
    if not exists(path) or not path.is_file():
        raise TargetError(f"target {shown(target)}: no file {path}")
    path = path.resolve()
    root, dotted = path.parent, path.stem
    while (root / "__init__.py").exists():
        dotted, root = f"{root.name}.{dotted}", root.parent
    dotted = dotted.removesuffix(".__init__")
    known = sys.modules.get(dotted)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    # In front, as for a script: a package of the user's that has the name of an installed one is the one that is meant.
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        if root == path.parent:
            return _import_as(f"{path.stem}_{_digest(path)}", path)
        top = dotted.partition(".")[0]
        clash = sys.modules.get(top)
        if clash is None or _lies_in(clash, root / top):
            module = importlib.import_module(dotted)
            if getattr(module, "__file__", None) == str(path):
                return module
        renamed = f"{top}_{_digest(root)}"  # another package of that name is imported: this one gets a name of its own
        _import_as(renamed, root / top / "__init__.py")
        return importlib.import_module(dotted.replace(top, renamed, 1))
    except (Exception, SystemExit) as error:
        raise TargetError(_broken(target, error)) from error


def _digest(path: Path) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()[:8]


def _import_as(name: str, path: Path) -> ModuleType:
    """Import a file under a name of ours; a package is found by its ``__init__.py``."""
    if name in sys.modules:
        return sys.modules[name]
    folders = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=folders)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
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
    problems: dict[str, str] = {}
    for name, value in vars(module).items():
        if _is_own_loss(module, name, value):
            try:
                specs.append(_zero_config(value, name))
            except DeclarationError as error:
                problems[name] = str(error)
    if not specs and problems:
        raise DeclarationError(
            f"target {shown(target)} holds no SPECS, and no loss whose annotations declare it:\n\n"
            + "\n\n".join(problems.values())
        )
    for name, problem in problems.items():
        if inspect.isclass(getattr(module, name)):  # a function beside annotated losses is most likely a helper
            warnings.warn(f"target {shown(target)}: {name} is left out: {problem}", stacklevel=2)
    if specs:
        return specs
    raise TargetError(
        f"target {shown(target)} holds no SPECS, no LossSpec and no loss; write SPECS = [LossSpec(...)] in it"
    )


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
            f"target {shown(target)}: {attribute} should hold LossSpecs, but holds {strangers[:1] or 'nothing'}"
        )
    if callable(value):
        return [_zero_config(value, attribute)]
    raise TargetError(
        f"target {shown(target)}: {attribute} is {type(value).__name__}, expected a LossSpec, a list of them, or a loss"
    )


def _zero_config(loss: Any, name: str) -> LossSpec:
    spec = LossSpec(name=name, implementations={name: loss})
    spec.source = _source(loss) or spec.source
    return spec


def _source(loss: Any) -> Source | None:
    """Where a loss is written; ``None`` for a builtin."""
    try:
        file, (_, line) = inspect.getsourcefile(loss), inspect.getsourcelines(loss)
    except (OSError, TypeError):
        return None
    return Source(str(file), loss.__module__, line)
