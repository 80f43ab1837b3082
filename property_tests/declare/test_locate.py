"""TARGET -> specs: modules, attributes, files, clashing names, and what is said where nothing can be loaded."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import DeclarationError, TargetError
from harness.declare.targets import load_specs

ANNOTATED = """
from jaxtyping import Float
from torch import Tensor, nn

class {name}(nn.Module):
    def forward(self, predictions: Float[Tensor, "B"], labels: Float[Tensor, "B"]) -> Float[Tensor, ""]:
        return (predictions - labels).square().mean()
"""
DECLARED = ANNOTATED + "\nfrom harness import LossSpec\nSPECS = [LossSpec('{name}', {{'only': {name}}})]\n"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _clean_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test imports as in a fresh process that was started in an empty directory."""
    before, path = dict(sys.modules), list(sys.path)
    monkeypatch.chdir(tmp_path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(before):
        home = getattr(sys.modules[name], "__file__", None)
        if home is not None and Path(home).is_relative_to(tmp_path):
            del sys.modules[name]
    sys.modules.update(before)


def write(path: str, text: str) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text))
    return file.resolve()


def names(*targets: str) -> list[str]:
    return [spec.name for spec in load_specs(targets)]


def test_a_file_gives_its_specs_else_every_loss_that_its_annotations_declare() -> None:
    write("declared.py", DECLARED.format(name="Declared"))
    write("bare.py", ANNOTATED.format(name="First") + ANNOTATED.format(name="Second") + "def helper(x): return x\n")
    assert names("declared.py") == ["Declared"]
    assert names("./bare.py") == ["First", "Second"]
    assert names("bare.py:Second", "declared.py:SPECS") == ["Second", "Declared"]


def test_a_module_and_its_attribute() -> None:
    write("package/__init__.py", "")
    write("package/loss.py", DECLARED.format(name="Loss"))
    assert names("package.loss") == ["Loss"]
    assert names("package.loss:Loss") == ["Loss"]


def test_two_files_of_one_name_stay_apart() -> None:
    for folder in ("a", "b"):
        write(f"{folder}/loss.py", DECLARED.format(name=f"Loss{folder}"))
    specs = load_specs(["a/loss.py", "b/loss.py"])
    assert [spec.name for spec in specs] == ["Lossa", "Lossb"]
    loss = specs[1].implementations["only"]
    assert pickle.loads(pickle.dumps(loss)) is loss


def test_files_in_two_packages_of_one_name_stay_apart_with_their_relative_imports() -> None:
    for folder in ("a", "b"):
        write(f"{folder}/mine/__init__.py", "")
        write(f"{folder}/mine/base.py", f"NAME = 'Loss{folder}'\n")
        text = DECLARED.format(name="Loss").replace("'Loss'", "NAME")
        write(f"{folder}/mine/loss.py", "from .base import NAME\n" + text)
    assert names("a/mine/loss.py", "b/mine/loss.py") == ["Lossa", "Lossb"]


def test_a_file_imports_its_neighbours() -> None:
    write("project/neighbour_of_loss.py", "NAME = 'Found'\n")
    write("project/loss.py", "import neighbour_of_loss\n" + DECLARED.format(name="Loss"))
    assert names("project/loss.py") == ["Loss"]


LOADS = "import sys; from harness.declare.targets import load_specs; print([spec.name for spec in load_specs(sys.argv[1:])])"


@pytest.mark.parametrize("target", ["losses", "check.py"])
def test_a_directory_whose_own_package_is_called_losses(target: str) -> None:
    write("losses/__init__.py", "from losses.mine import SPECS\n")
    write("losses/mine.py", DECLARED.format(name="Mine"))
    write("check.py", "from losses.mine import SPECS\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", LOADS, target], capture_output=True, text=True, env=environment, check=False
    )
    assert (ran.stdout.strip(), ran.stderr) == ("['Mine']", "")


def test_a_package_that_another_one_of_its_name_hides_is_an_error_not_the_wrong_losses() -> None:
    import losses  # noqa: F401  (the repository's own)

    write("losses/__init__.py", DECLARED.format(name="Mine"))
    with pytest.raises(TargetError, match=r"is already imported from .* write the path of the file"):
        load_specs(["losses"])
    assert names("losses/__init__.py") == ["Mine"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", "'' is no module name; write package.module, path/file.py"),
        (".", r"'\.' is a directory; name a file in it"),
        (".relative", "is no module name"),
        ("no such", "is no module name"),
        ("no_such_module", r"no module 'no_such_module' in .* or among the installed packages"),
        ("loss.inner", r"no module 'loss\.inner'"),
        ("gone.py", r"no file gone\.py"),
        ("folder/", r"folder is a directory; name a file in it, such as folder/loss\.py"),
        ("loss.py:Los", r"loss\.py has no 'Los'; did you mean 'Loss'"),
        ("loss.py:NUMBER", "NUMBER is int, expected a LossSpec, a list of them, or a loss"),
        ("loss.py:EMPTY", "EMPTY should hold LossSpecs, but holds nothing"),
        ("loss.py:MIXED", "MIXED should hold LossSpecs, but holds"),
        ("empty.py", r"write SPECS = \[LossSpec\(\.\.\.\)\] in it"),
        ("syntax.py", r"raised SyntaxError: .* at .*syntax\.py:1; it must import without an error"),
        ("broken.py", r"raised ZeroDivisionError: division by zero at .*broken\.py:2"),
        ("quits.py", r"raised SystemExit: 3 at .*quits\.py:1"),
        ("lacks.py", r"raised ModuleNotFoundError: No module named 'no_such_dependency'"),
    ],
)
def test_a_target_that_holds_nothing_says_what_to_write(target: str, message: str) -> None:
    write("loss.py", ANNOTATED.format(name="Loss") + "NUMBER, EMPTY, MIXED = 3, [], [3]\n")
    write("empty.py", "X = 1\n")
    write("syntax.py", "def (:\n")
    write("broken.py", "\n1 / 0\n")
    write("quits.py", "raise SystemExit(3)\n")
    write("lacks.py", "import no_such_dependency\n")
    write("folder/loss.py", "")
    with pytest.raises(TargetError, match=message):
        load_specs([target])


def test_a_loss_that_nothing_declares_gets_the_line_to_write() -> None:
    write("bare.py", "def loss(p, y): return p\n")
    with pytest.raises(DeclarationError, match=r'p: Float\[Tensor, "B"\]'):
        load_specs(["bare.py"])
    with pytest.raises(DeclarationError, match=r'LossSpec\(\.\.\., inputs={"p": TensorSpec\("B"\)}\)'):
        load_specs(["bare.py:loss"])


def test_a_module_class_that_nothing_declares_is_not_left_out_silently() -> None:
    text = "class Bare(nn.Module):\n    def forward(self, p): return p\n"
    write("half.py", ANNOTATED.format(name="Loss") + text)
    with pytest.warns(UserWarning, match="Bare is left out: loss 'Bare': nothing says what parameter 'p'"):
        assert names("half.py") == ["Loss"]


def test_two_specs_of_one_name_are_refused() -> None:
    for file in ("a.py", "b.py"):
        write(file, DECLARED.format(name="Same"))
    with pytest.raises(TargetError, match="two specs have the name 'Same'; give one of them another name"):
        load_specs(["a.py", "b.py"])


def test_a_spec_remembers_its_target_and_the_line_of_its_loss() -> None:
    file = write("bare.py", ANNOTATED.format(name="Loss"))
    (spec,) = load_specs(["bare.py:Loss"])
    assert spec.target == "bare.py:Loss"
    assert (spec.source.file, spec.source.line) == (str(file), 5)
