"""From the wheel to a first verdict on a loss of one's own: the three commands of the README, and no file but the loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from property_tests.helpers import wheels
from property_tests.helpers.documents.blocks import blocks, pattern

README = blocks(wheels.ROOT / "README.md")
(LOSS,) = (block for block in README if block.file == "my_loss.py")
(COMMANDS,) = (block for block in README if block.language == "console" and "pip install" in block.text)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a loss, the wheel, and a fresh environment, in which nothing is installed."""
    folder = tmp_path_factory.mktemp("project")
    wheels.environment(folder / "env")
    wheels.build(folder)
    (folder / "my_loss.py").write_text(LOSS.text, encoding="utf-8")
    return folder


def test_three_commands_lead_from_the_wheel_to_a_first_verdict(project: Path) -> None:
    install, *others = COMMANDS.steps
    assert (install.command.split()[:2], len(others)) == (["pip", "install"], 2)
    installed = wheels.run(project / "env", f"python -m {install.command} --no-deps --no-index --quiet", project)
    assert installed.returncode == 0, installed.stderr
    for step, code in zip(others, (0, 1), strict=True):
        quick = " --profile quick" if " verify " in step.command else ""
        ran = wheels.run(project / "env", step.command + quick, project)
        assert ran.returncode == code, ran.stdout + ran.stderr
        assert pattern(step.shown).match(ran.stdout + "\n"), ran.stdout
