"""The wheel: what is in it, and that it works where the user's own package is called `losses`."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

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
    """The wheel of this tree, built once and without the network."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; `make install` installs it")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_holds_both_packages_with_their_types_and_templates_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"harness", "losses"}
    sources = {str(p.relative_to(ROOT)) for top in tops for p in (ROOT / top).rglob("*.py")}
    templates = {str(p.relative_to(ROOT)) for p in (ROOT / "harness/report/templates").iterdir()}
    assert {*sources, *templates, "harness/py.typed", "losses/py.typed"} <= set(names)
    assert not [name for name in names if "__pycache__" in name]
    assert "loss-harness = harness.cli:main" in entry_points
    assert "loss-harness = harness.pytest_plugin" in entry_points


@pytest.mark.parametrize("target", ["losses", "losses/loss.py"])
def test_the_installed_harness_verifies_a_package_of_the_users_that_is_called_losses(
    wheel: Path, tmp_path: Path, target: str
) -> None:
    site, project = tmp_path / "site", tmp_path / "project"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
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
