"""Which targets that a file names may be imported without the user naming them: a file may come from somebody else.

Importing a module runs it, and a declaration calls a function with constants, so that a stored failure is a program.  What
lies in the working directory is the user's own, and the losses of torch and of this tool compute and do nothing else.
"""

from __future__ import annotations

import site
import sys
import sysconfig
from pathlib import Path

from harness.declare.on_command_line import Declaration
from harness.declare.targets import exists, is_file, split

_HARMLESS = ("harness.losses", "harness.catalogs", "torch.nn.functional", "torch.nn.modules.loss")


def stranger(target: str) -> str:
    """The part of a target that the user has to name before it is imported; empty where there is none.

    Args:
        target: as a file names it: a module or file, with or without an attribute, or a `Declaration` as text.

    Raises:
        DeclarationError: a text that begins as a declaration and is none.
    """
    if not target.startswith("{"):
        return "" if _is_known(target) else target
    declaration = Declaration.from_target(target)
    named = [declaration.target, *([declaration.reference] if declaration.reference else [])]
    return next((each for each in named if not _is_known(each)), "")


def _is_known(target: str) -> bool:
    place, attribute = split(target)
    if is_file(place):
        return is_own(Path(place))
    if place == "torch.nn" and attribute is not None and attribute.endswith("Loss"):
        return True
    if any(place == known or place.startswith(f"{known}.") for known in _HARMLESS):
        return True
    top = Path.cwd() / place.partition(".")[0]
    loaded = getattr(sys.modules.get(top.name), "__file__", None)
    if loaded is not None and not is_own(Path(loaded)):
        return False
    return any(exists(found) and is_own(found) for found in (top, top.with_suffix(".py")))


def is_own(path: Path) -> bool:
    """Whether a path, its links followed, lies in the working directory and in no folder of installed packages."""
    try:
        resolved = path.resolve()
    except (OSError, ValueError):
        return False
    return resolved.is_relative_to(Path.cwd().resolve()) and not any(
        resolved.is_relative_to(folder) for folder in _installed()
    )


def _installed() -> list[Path]:
    named = [*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()]
    folders = {Path(name).resolve() for name in named}
    return [folder for folder in folders if "packages" in folder.name or folder.name.startswith("python")]
