"""`loss-harness asv init`: the costs of losses over the history of a repository, by asv."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click

import harness
from harness.cli.exits import Refused
from harness.errors import shown

SUITE = Path(harness.__file__).parent / "asv_benchmarks"  # as this repository runs it


@click.group()
def asv() -> None:
    """Follow the costs of losses over the commits of a repository."""


@asv.command()
@click.argument("targets", nargs=-1, required=True)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("asv_benchmarks"),
    show_default=True,
    help="Where it is written, in a git repository.",
)
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
def init(targets: tuple[str, ...], folder: Path, force: bool) -> None:
    """Write a folder with which asv measures the losses of TARGETS at any commit.

    Each commit is taken from its checkout, which is not built, with the packages of the environment that runs this.  asv
    itself is installed by `pip install asv virtualenv`.
    """
    root = _root(folder)
    if folder.exists() and any(folder.iterdir()) and not force:
        raise Refused(f"{folder} is there already; --force overwrites its files, --folder names another")
    modules = [_module(target, root) for target in targets]
    shutil.copytree(SUITE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".asv", "__pycache__"))
    _configure(folder, root, modules)
    (folder / ".gitignore").write_text(".asv/\n", encoding="utf-8")
    click.echo(
        f"written: {folder}\n"
        f"next:    commit what {', '.join(modules)} needs, then\n"
        f"         cd {folder}\n"
        "         asv machine --yes\n"
        "         asv run HEAD^!                                    the costs of one commit\n"
        "         asv continuous --factor 1 --bench ^exact_costs HEAD~1 HEAD   fails where an exact cost has grown\n"
        "         asv publish                                       web pages in .asv/html"
    )


def _root(folder: Path) -> Path:
    """The repository in which a folder is to be."""
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    command = ["git", "-C", str(place), "rev-parse", "--show-toplevel"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise Refused(f"{folder} is in no git repository, and asv compares commits; write `git init` first") from error
    return Path(found)


def _module(target: str, root: Path) -> str:
    """The target by which every checkout finds a loss: files are named as modules."""
    place, colon, name = target.partition(":")
    path = Path(place)
    if path.suffix != ".py":
        return target
    if not path.is_file():
        raise Refused(f"there is no file {shown(place)}")
    try:
        inside = path.resolve().relative_to(root.resolve())
    except ValueError as error:
        raise Refused(f"{place} is outside the repository {root}, so no commit has it") from error
    parts = inside.with_suffix("").parts
    parts = parts[1:] if parts[0] == "src" else parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    if not all(part.isidentifier() for part in parts):
        raise Refused(f"{place} cannot be imported as a module; give it a name of letters, digits and underscores")
    return ".".join(parts) + colon + name


def _configure(folder: Path, root: Path, modules: list[str]) -> None:
    file = folder / "benchmarks" / "config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**settings, "targets": modules}, indent=4) + "\n", encoding="utf-8")
    prefix, home = Path(sys.prefix), folder.absolute()
    # A path in the repository is the same for everybody who makes the environment there.
    shared = Path(os.path.relpath(prefix, home)) if prefix.is_relative_to(root) else prefix
    environment = shared.as_posix() if shared.is_absolute() else f"{{conf_dir}}/{shared.as_posix()}"
    install = f"python {{conf_dir}}/share_packages.py {environment} {{build_dir}}"
    values = {
        "project": root.name,
        "repo": Path(os.path.relpath(root, home)).as_posix(),
        "build_command": [],
        "install_command": [install],
        "uninstall_command": [],
    }
    conf = folder / "asv.conf.json"
    text = conf.read_text(encoding="utf-8")
    for key, value in values.items():
        setting = re.search(rf'"{key}": (".*?"|\[.*?\])', text, flags=re.DOTALL)
        assert setting is not None, key
        text = text.replace(setting[0], f'"{key}": {json.dumps(value)}')
    conf.write_text(text, encoding="utf-8")
