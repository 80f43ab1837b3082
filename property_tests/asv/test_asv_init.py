"""`loss-harness asv init`: the folder that it writes is one that asv understands, in a repository of one's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("asv_runner")
json5 = pytest.importorskip("json5")

from harness.cli import cli  # noqa: E402

ROOT = Path(__file__).parents[2]

LOSS = """
from jaxtyping import Float
from torch import Tensor

from harness import LossSpec


def only(predictions: Float[Tensor, "B"], labels: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    return (predictions - labels).square().mean()


SPECS = [LossSpec("squared_of_mine", {"only": only}, bench_sizes=({"B": 8},))]
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / "src" / "mine").mkdir(parents=True)
    (tmp_path / "src" / "mine" / "__init__.py").write_text(LOSS, encoding="utf-8")
    (tmp_path / "specs_mine.py").write_text(LOSS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(*args: str) -> Result:
    return CliRunner().invoke(cli, ["asv", "init", *args])


def imported(repository: Path, path: Path) -> str:
    """What the benchmarks of the folder measure, as a process finds them that sees the losses in a folder."""
    code = (
        "from asv_benchmarks.benchmarks import exact_costs, times\n"
        "print([n for n in dir(times) if n.startswith('squared')], exact_costs.squared_of_mine.params[:2])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(repository), str(ROOT)])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    return done.stdout or done.stderr


@pytest.mark.parametrize(
    ("target", "module"), [("specs_mine.py", "specs_mine"), ("src/mine/__init__.py:SPECS", "mine:SPECS")]
)
def test_the_benchmarks_that_are_written_measure_the_losses_of_the_target(
    repository: Path, target: str, module: str
) -> None:
    done = init(target)
    assert done.exit_code == 0, done.output
    folder = repository / "asv_benchmarks"
    assert json.loads((folder / "benchmarks" / "config.json").read_text(encoding="utf-8"))["targets"] == [module]
    settings = json5.loads((folder / "asv.conf.json").read_text(encoding="utf-8"))
    assert (settings["project"], settings["repo"], settings["build_command"]) == (repository.name, "..", [])
    place = repository / "src" if "src" in target else repository
    assert imported(repository, place) == "['squared_of_mine'] (['only'], ['B=8'])\n"


def test_a_commit_is_seen_by_the_environment_before_the_packages_that_it_shares(
    repository: Path, tmp_path: Path
) -> None:
    init("specs_mine.py")
    written = tmp_path / "site-packages"
    written.mkdir()
    code = (
        f"import runpy, sys, sysconfig; real = sysconfig.get_path; own = {str(written)!r}\n"
        "sysconfig.get_path = lambda name, vars=None: real(name, vars=vars) if vars else own\n"
        f"sys.argv = ['', {sys.prefix!r}, {str(repository)!r}]; runpy.run_path('asv_benchmarks/share_packages.py', run_name='__main__')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=repository, check=True)
    lines = (written / "shared_packages.pth").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == [str(repository / "src"), str(repository)]
    assert lines[2].startswith("import site; site.addsitedir(")


def test_what_no_commit_could_find_is_refused(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (repository / "my-specs.py").write_text(LOSS, encoding="utf-8")
    outside = tmp_path_factory.mktemp("outside") / "specs.py"
    outside.write_text(LOSS, encoding="utf-8")
    for target, reason in {
        "nowhere.py": "there is no file 'nowhere.py'",
        "my-specs.py": "my-specs.py cannot be imported as a module",
        str(outside): "is outside the repository",
    }.items():
        refused = init(target)
        assert (refused.exit_code, reason in refused.output) == (2, True), refused.output
        assert not Path("asv_benchmarks").exists()


def test_files_that_are_there_are_overwritten_only_where_that_is_asked(repository: Path) -> None:
    assert init("specs_mine.py").exit_code == 0
    again = init("specs_mine.py")
    assert again.exit_code == 2
    assert "--force overwrites" in again.output
    assert init("specs_mine.py", "--force").exit_code == 0


def test_a_folder_in_no_repository_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    refused = init("harness.losses")
    assert refused.exit_code == 2
    assert "git init" in refused.output
