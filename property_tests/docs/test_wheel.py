"""The wheel and an installation in place: they bring `harness` alone, and a user's own `losses` stays the user's."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from losses import SPECS
from property_tests.helpers import wheels

ROOT = wheels.ROOT

USER_LOSS = """
from jaxtyping import Float
from torch import Tensor
from harness import LossSpec

def mine(predictions: Float[Tensor, "B"], labels: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    return (predictions - labels).square().mean()

SPECS = [LossSpec("{name}", {{"only": mine}})]
"""

# Which of these folders of the repository Python would import, and how many losses the harness brings.
WHERE = """
from importlib.util import find_spec
from harness.losses import SPECS
print([name for name in ("losses", "docs", "property_tests", "asv_benchmarks") if find_spec(name)], len(SPECS))
"""


def held(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module", params=["wheel", "in place"])
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the harness is installed, and a package of the user's that is called `losses`."""
    folder = tmp_path_factory.mktemp("installed") / "env"
    if request.param == "in place":
        pytest.importorskip("editables", reason="an installation in place takes editables, which pip installs for it")
        what = f"--no-build-isolation --editable {ROOT}"
    else:
        what = str(request.getfixturevalue("wheel"))
    wheels.environment(folder)
    installed = wheels.run(folder, f"python -m pip install --no-deps --no-index --quiet {what}", ROOT)
    assert installed.returncode == 0, installed.stderr
    return folder


def is_in_place(environment: Path) -> bool:
    """Whether the checkout is on the path, so that its other folders can be imported too."""
    return any(wheels.packages(environment).glob("*loss_harness*.pth"))


@pytest.fixture(scope="module")
def theirs(environment: Path) -> Path:
    """A package of the user's that is installed beside the harness, and is called `losses`."""
    package = wheels.packages(environment) / "losses"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text("from losses.loss import SPECS\n", encoding="utf-8")
    (package / "loss.py").write_text(USER_LOSS.format(name="installed"), encoding="utf-8")
    return package


def test_the_wheel_holds_every_file_of_the_package_and_of_the_losses_in_it_and_nothing_else(wheel: Path) -> None:
    linked = {f"harness/{name}": ROOT / name for name in ("losses", "asv_benchmarks")}
    places = {"harness": ROOT / "harness", **linked}
    files = {
        f"{place}/{path.relative_to(folder).as_posix()}"
        for place, folder in places.items()
        for path in folder.rglob("*")
        if path.is_file() and not {"__pycache__", ".asv"} & {*path.parts}
    }
    assert held(wheel) == files


def test_the_wheel_of_the_sdist_is_the_same(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(wheels.build(tmp_path, "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert held(wheels.build(tmp_path, source=source)) == held(wheel)


@pytest.mark.parametrize(
    "name",
    [
        "harness/py.typed",
        "harness/losses/py.typed",
        "harness/asv_benchmarks/asv.conf.json",
        "harness/results/rule_texts.json",
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


def test_an_installation_brings_the_harness_with_its_losses_and_no_other_name(
    environment: Path, tmp_path: Path
) -> None:
    found = wheels.run(environment, f"python -c '{WHERE}'", tmp_path)
    assert found.stdout.endswith(f" {len(SPECS)}\n"), found.stderr
    assert is_in_place(environment) or found.stdout.startswith("[] "), found.stdout
    ran = wheels.run(
        environment, "loss-harness verify harness.losses.focal:SPEC --profile quick --select B01", tmp_path
    )
    assert (ran.returncode, "focal" in ran.stdout) == (0, True), ran.stdout + ran.stderr


def test_a_report_of_nothing_asks_for_a_loss(environment: Path, tmp_path: Path) -> None:
    if is_in_place(environment):
        pytest.skip("in place, the losses of the checkout are found and reported")
    ran = wheels.run(environment, "loss-harness report", tmp_path)
    assert (ran.returncode, "loss-harness report my_loss.py" in ran.stderr) == (2, True), ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def verified(environment: Path, theirs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """What a target gives in a folder that has a package `losses`, and by the name "installed" in one that has none."""
    targets = {"losses": "losses", "losses/loss.py": "losses/loss.py", "installed": "losses"}
    folders = {name: tmp_path_factory.mktemp("project") for name in targets}
    for name, folder in folders.items():
        if name != "installed":
            (folder / "losses").mkdir()
            (folder / "losses/__init__.py").write_text("from losses.loss import SPECS\n", encoding="utf-8")
            (folder / "losses/loss.py").write_text(USER_LOSS.format(name="mine"), encoding="utf-8")
    commands = {folders[name]: f"verify {target} --profile quick --select B01" for name, target in targets.items()}
    told = wheels.run_together(environment, commands)
    return {name: told[folder] for name, folder in folders.items()}


@pytest.mark.parametrize("target", ["losses", "losses/loss.py"])
def test_losses_in_the_working_directory_are_the_users(verified: dict[str, tuple[int, str]], target: str) -> None:
    code, text = verified[target]
    assert (code, "mine  only" in text) == (0, True), text


def test_losses_among_the_installed_packages_are_the_users(verified: dict[str, tuple[int, str]]) -> None:
    code, text = verified["installed"]
    assert (code, "installed  only" in text) == (0, True), text


def test_uninstalling_leaves_what_is_the_users(environment: Path, theirs: Path, tmp_path: Path) -> None:
    """The last: it ends the installation."""
    before = {path: path.read_bytes() for path in theirs.glob("*.py")}
    removed = wheels.run(environment, "python -m pip uninstall --yes --quiet loss-harness", tmp_path)
    assert removed.returncode == 0, removed.stderr
    assert {path: path.read_bytes() for path in theirs.glob("*.py")} == before
    assert not (environment / "bin/loss-harness").exists()
    assert (ROOT / "losses/__init__.py").is_file()
