"""The wheel: what is in it, and that it works where the user's own package is called `losses`."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from property_tests import wheels

ROOT = wheels.ROOT

USER_LOSS = """
from jaxtyping import Float
from torch import Tensor
from harness import LossSpec

def mine(predictions: Float[Tensor, "B"], labels: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    return (predictions - labels).square().mean()

SPECS = [LossSpec("mine", {"only": mine})]
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel is installed."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_holds_every_file_of_both_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {
        path.relative_to(ROOT) for top in ("harness", "losses") for path in (ROOT / top).rglob("*") if path.is_file()
    }
    assert names == {path.as_posix() for path in files if "__pycache__" not in path.parts}


@pytest.mark.parametrize(
    "name",
    [
        "harness/py.typed",
        "losses/py.typed",
        "harness/report/rule_texts.json",
        "harness/report/templates/report.html.jinja",
        "harness/report/templates/report.css",
        "harness/report/templates/report.js",
    ],
)
def test_types_words_of_the_rules_and_the_page_of_the_report_are_installed(wheel: Path, name: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.getinfo(name).file_size == (ROOT / name).stat().st_size


def test_the_wheel_has_the_command_and_the_pytest_plugin(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = (
            archive.read(name).decode() for name in archive.namelist() if name.endswith("entry_points.txt")
        )
    assert "loss-harness = harness.cli:main" in entry_points
    assert "loss-harness = harness.pytest_plugin" in entry_points


@pytest.mark.parametrize("target", ["losses", "losses/loss.py"])
def test_the_installed_harness_verifies_a_package_of_the_users_that_is_called_losses(
    site: Path, tmp_path: Path, target: str
) -> None:
    project = tmp_path / "project"
    (project / "losses").mkdir(parents=True)
    (project / "losses/__init__.py").write_text("from losses.loss import SPECS\n")
    (project / "losses/loss.py").write_text(USER_LOSS)
    main = "import sys, harness.cli as cli; print(cli.__file__, file=sys.stderr); cli.main()"
    ran = subprocess.run(
        [sys.executable, "-c", main, "verify", target, "--select", "B01", "--profile", "quick"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert str(site) in ran.stderr.splitlines()[0]
    assert (ran.returncode, "mine  only" in ran.stdout) == (0, True), ran.stdout + ran.stderr
