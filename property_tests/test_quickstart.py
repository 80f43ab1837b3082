"""From the wheel to a first verdict on a loss of one's own: the three commands of the README, and no file but the loss."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from property_tests import wheels
from property_tests.documents.blocks import blocks, pattern

README = blocks(wheels.ROOT / "README.md")
(LOSS,) = (block for block in README if block.file == "my_loss.py")
(COMMANDS,) = (block for block in README if block.language == "console" and "pip install" in block.text)

# Where Python would import both packages from, without importing them.
WHERE = "from importlib.util import find_spec; print(find_spec('harness').origin, find_spec('losses').origin)"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a loss, a package called `losses`, the wheel, and a fresh environment, in which nothing is installed."""
    folder = tmp_path_factory.mktemp("project")
    wheels.environment(folder / "env")
    wheels.build(folder)
    (folder / "my_loss.py").write_text(LOSS.text, encoding="utf-8")
    (folder / "losses").mkdir()
    (folder / "losses/__init__.py").write_text("", encoding="utf-8")
    return folder


def run(project: Path, command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A command as a user of the project's environment types it, by default in the folder of the project."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    variables |= {"PATH": f"{project / 'env/bin'}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        shlex.split(command), cwd=folder or project, env=variables, capture_output=True, text=True, check=False
    )


def test_three_commands_lead_from_the_wheel_to_a_first_verdict(project: Path) -> None:
    install, *others = COMMANDS.steps
    assert (install.command.split()[:2], len(others)) == (["pip", "install"], 2)
    installed = run(project, f"python -m {install.command} --no-deps --no-index --quiet")
    assert installed.returncode == 0, installed.stderr
    for step, code in zip(others, (0, 1), strict=True):
        quick = " --profile quick" if " verify " in step.command else ""
        ran = run(project, step.command + quick)
        assert ran.returncode == code, ran.stdout + ran.stderr
        assert pattern(step.shown).match(ran.stdout + "\n"), ran.stdout


def test_the_installed_losses_and_the_users_own_package_of_that_name_stay_what_they_are(project: Path) -> None:
    (site,) = (project / "env").glob("lib/python*/site-packages")
    beside = run(project, f'python -c "{WHERE}"', project).stdout.split()
    elsewhere = run(project, f'python -c "{WHERE}"', project / "env").stdout.split()
    assert beside == [str(site / "harness/__init__.py"), str(project / "losses/__init__.py")]
    assert elsewhere == [str(site / "harness/__init__.py"), str(site / "losses/__init__.py")]
