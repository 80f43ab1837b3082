"""The wheel of this tree, and an environment that has nothing else of it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Several commands in one process, where torch is imported once for the jobs of all of them.
COMMANDS = """
import json, os, sys
from click.testing import CliRunner
from harness.cli import cli
told = []
for folder, command in json.loads(sys.argv[1]):
    os.chdir(folder)
    done = CliRunner().invoke(cli, command.split())
    told.append((done.exit_code, done.output))
print(json.dumps(told))
"""


def build(folder: Path, kind: str = "wheel", *, source: Path = ROOT) -> Path:
    """Build the wheel, or the sdist, into a folder, without the network."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; `make install` installs it")
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (made,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


def environment(folder: Path) -> Path:
    """A fresh virtual environment, and the folder of its programs; pip and the dependencies are those of this one.

    The file that shares them comes last on the module path, so that what is installed in the new environment wins.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages(folder) / "host.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "bin"


def packages(environment: Path) -> Path:
    """The folder of what is installed in an environment."""
    (site,) = environment.glob("lib/python*/site-packages")
    return site


def run(environment: Path, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command as a user of an environment types it in a folder."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    variables |= {"PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(shlex.split(command), cwd=folder, env=variables, capture_output=True, text=True, check=False)


def run_together(environment: Path, commands: Mapping[Path, str]) -> dict[Path, tuple[int, str]]:
    """The exit code and the output of a command of `loss-harness` in each of some folders."""
    asked = json.dumps([(str(folder), command) for folder, command in commands.items()])
    done = run(environment, f"python -P -c {shlex.quote(COMMANDS)} {shlex.quote(asked)}", environment)
    assert done.returncode == 0, done.stderr
    return {folder: (code, text) for folder, (code, text) in zip(commands, json.loads(done.stdout), strict=True)}
