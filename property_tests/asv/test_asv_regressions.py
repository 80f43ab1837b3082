"""asv itself, on a repository of two commits: what keeps more for backward is named, and what changes nothing is not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("asv")
pytest.importorskip("virtualenv")

ROOT = Path(__file__).parents[2]
COPIED = ("harness", "asv_benchmarks", "pyproject.toml", "README.md", "LICENSE")

LOSSES = """
from jaxtyping import Float
from torch import Tensor

from harness import LossSpec


def naive(predictions: Float[Tensor, "B"], labels: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    return sum((p - y) ** 2 for p, y in zip(predictions, labels, strict=True)) / len(predictions)


def vectorized(predictions, labels):
    return (predictions - labels).square().mean()


def fused(predictions, labels):
    difference = predictions - labels
    return difference.dot(difference) / len(difference)


SPECS = [
    LossSpec("squared", {"naive": naive, "vectorized": vectorized}, bench_sizes=({"B": 64}, {"B": 256})),
]
"""
KEEPS_NOTHING_ELSE = "(predictions - labels).square()"
KEEPS_BOTH = "((predictions - labels) * (predictions - labels).clone())"
TWO, THREE = '{"naive": naive, "vectorized": vectorized}', '{"naive": naive, "fused": fused, "vectorized": vectorized}'


class Repository:
    """A repository of its own with the files of this one, where asv compares commits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # asv writes what it asked about the machine to the home folder, and git should read nobody's settings
        self.environment = {**os.environ, "HOME": str(folder.parent), "LOSS_HARNESS_ASV_PROFILE": "fast"}
        self.environment["VIRTUALENV_NO_PERIODIC_UPDATE"] = "1"  # in a new home it would download its own parts again
        folder.mkdir()
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, symlinks=True)  # one of them leads to the losses
            else:
                shutil.copy(ROOT / name, folder / name)
        shutil.rmtree(folder / "asv_benchmarks" / ".asv", ignore_errors=True)
        (folder / ".gitignore").write_text("__pycache__/\n.asv/\n.venv\n")
        (folder / ".venv").symlink_to(sys.prefix)
        self.git("init", "--quiet", "--initial-branch=main")
        assert self.asv("machine", "--yes").returncode == 0

    def git(self, *arguments: str) -> None:
        who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
        subprocess.run(["git", *who, *arguments], cwd=self.folder, env=self.environment, check=True)

    def commit(self, name: str) -> None:
        """Commit everything, and give the commit a name."""
        self.git("add", "--all")
        self.git("commit", "--quiet", f"--message={name}")
        self.git("tag", name)

    def losses(self, *replaced: tuple[str, str]) -> None:
        """Write the losses, with some of their text replaced."""
        text = LOSSES
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        (self.folder / "losses").mkdir(exist_ok=True)
        (self.folder / "losses" / "__init__.py").write_text(text)

    def asv(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        asv = [sys.executable, "-m", "asv", *arguments]
        return subprocess.run(
            asv, cwd=self.folder / "asv_benchmarks", env=self.environment, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Commits `base`; `planted`, which keeps more for backward; `more`, with one more implementation before the last."""
    made = Repository(tmp_path_factory.mktemp("asv") / "repository")
    for name, replaced in {"base": [], "planted": [(KEEPS_NOTHING_ELSE, KEEPS_BOTH)], "more": [(TWO, THREE)]}.items():
        made.losses(*replaced)
        made.commit(name)
    return made


def continuous(repository, head):
    done = repository.asv("continuous", "--show-stderr", "--factor", "1", "--bench", "^exact_costs", "base", head)
    assert "failed" not in done.stdout, done.stdout
    return done


def test_a_commit_that_keeps_more_for_backward_fails_with_the_name_of_the_metric(repository):
    done = continuous(repository, "planted")
    assert "PERFORMANCE DECREASED" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1
    rows = [line for line in done.stdout.splitlines() if line.startswith("| +")]
    assert any("exact_costs.squared.track_saved_bytes('vectorized', 'B=64', 'cpu')" in row for row in rows)
    assert all("'vectorized'" in row for row in rows)
    compared = repository.asv("compare", "--only-changed", "--factor", "1", "base", "planted").stdout.splitlines()
    assert {row.split("|")[-2] for row in rows} == {line.split("|")[-2] for line in compared if line.startswith("| +")}


def test_one_more_implementation_is_no_regression_of_the_others(repository):
    """asv goes by position, and the last implementation of one commit stands where the other has the new one."""
    done = continuous(repository, "more")
    assert "BENCHMARKS NOT SIGNIFICANTLY CHANGED" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
    assert "fused" in done.stdout
    assert "n/a" in done.stdout
