"""The recipes for CI parse, are the ones that the page shows, and every command in them runs."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import warm_command
import yaml
from junitparser import JUnitXml

import harness
from harness.results import schema

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGE = (DOCS / "ci.md").read_text(encoding="utf-8")
RECIPES = sorted((DOCS / "ci").iterdir())

LOSS = """
from jaxtyping import Float
from torch import Tensor

from harness import LossSpec


def naive(predictions: Float[Tensor, "B"], labels: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    total = predictions.new_zeros(())
    for prediction, label in zip(predictions, labels, strict=True):
        total = total + (prediction - label) ** 2
    return total / len(predictions)


def vectorized(predictions, labels):
    return ((predictions - labels) ** 2).mean(){mistake}


SPEC = LossSpec("squares", {{"naive": naive, "vectorized": vectorized}}, bench_sizes=({{"B": 8}},))
"""
# What a CI machine has and this one may not: it is written down that it was called, with what.
STUB = '#!/bin/sh\necho "$(basename "$0") $*" >> "$CALLS"\n'
# The recipes verify with every rule; here a few are enough to see that the commands are right.
FEW = '\n[tool.loss-harness]\nselect = ["B01", "E01"]\nprofile = "quick"\n'


class Project:
    """A repository with one loss, and a shell that has the tool."""

    def __init__(self, folder: Path, command: Path, mistake: str = "") -> None:
        self.folder, self.calls = folder, folder / "calls.txt"
        (folder / "losses").mkdir(parents=True)
        (folder / "losses" / "__init__.py").write_text("from losses.squares import SPEC\n\nSPECS = (SPEC,)\n")
        (folder / "losses" / "squares.py").write_text(LOSS.format(mistake=mistake))
        (folder / "pyproject.toml").write_text(FEW)
        tools = folder / ".tools"
        tools.mkdir()
        for name in ("pip", "uv", "gh"):
            (tools / name).write_text(STUB)
            (tools / name).chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(tools), str(command), os.environ["PATH"]]),
            "CALLS": str(self.calls),
            "GITHUB_STEP_SUMMARY": str(folder / "summary.txt"),
            "GITHUB_OUTPUT": str(folder / "output.txt"),
        }

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script as GitHub Actions does, which ends at the first command that fails."""
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def file(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")


def parsed(name: str) -> dict:
    return yaml.safe_load((DOCS / "ci" / name).read_text(encoding="utf-8"))


def value(expression: str, known: dict[str, str]) -> str:
    """What GitHub puts in the place of ``${{ ... }}``."""
    return re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda found: known[found[1]], expression)


def run_step(project: Project, step: dict, known: dict[str, str]) -> subprocess.CompletedProcess[str]:
    variables = {name: value(text, known) for name, text in step.get("env", {}).items()}
    return project.run(value(step["run"], known), **variables)


def run_action(project: Project) -> dict[str, subprocess.CompletedProcess[str]]:
    action = parsed("action.yml")
    known = {f"inputs.{name}": given["default"] for name, given in action["inputs"].items()}
    ended = {}
    for step in action["runs"]["steps"]:
        if "run" not in step:
            continue
        ended[step["name"]] = run_step(project, step, known)
        if step.get("id") == "verify":
            key, _, status = project.file("output.txt").strip().partition("=")
            known[f"steps.verify.outputs.{key}"] = status
    return ended


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with warm_command.command(tmp_path_factory.mktemp("command")) as folder:
        yield folder


@pytest.fixture(scope="module")
def wrong(
    command: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, dict[str, subprocess.CompletedProcess[str]]]:
    """The action on a loss with a mistake."""
    project = Project(tmp_path_factory.mktemp("wrong"), command, mistake=" * 1.5")
    return project, run_action(project)


def test_every_recipe_stands_on_the_page_as_it_is_in_its_file():
    shown = dict(re.findall(r"<!-- ci/([\w.-]+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL))
    assert set(shown) == {recipe.name for recipe in RECIPES} - {"action.yml"}
    for name, text in shown.items():
        assert text == (DOCS / "ci" / name).read_text(encoding="utf-8"), name


def test_every_yaml_file_can_be_parsed_and_every_link_leads_somewhere():
    for recipe in RECIPES:
        if recipe.suffix in (".yml", ".yaml"):
            assert isinstance(yaml.safe_load(recipe.read_text(encoding="utf-8")), dict)
    links = re.findall(r"\]\(([^)#:]+)\)", PAGE)
    assert links
    assert [link for link in links if not (DOCS / link).exists()] == []


def test_the_action_writes_every_form_and_fails_at_the_end(wrong):
    project, ended = wrong
    assert [step.returncode for step in ended.values()] == [0, 0, 1], [step.stderr for step in ended.values()]
    assert schema.loads(project.file("loss-report/report.json")).losses[0].name == "squares"
    (suite,) = JUnitXml.fromfile(str(project.folder / "loss-report" / "report.xml"))
    assert suite.failures == 1
    assert '"ruleId": "E01"' in project.file("loss-report/report.sarif")
    assert project.file("loss-report/report.html").startswith("<!doctype html>")


def test_the_action_marks_the_line_of_the_loss_and_summarizes(wrong):
    project, ended = wrong
    assert "::error file=losses/squares.py,line=15,title=E01" in ended["Mark and summarize"].stdout
    assert project.file("summary.txt").startswith("### loss-harness: 1 do not adopt")


def test_the_action_passes_on_a_loss_that_is_right(tmp_path, command):
    assert [step.returncode for step in run_action(Project(tmp_path, command)).values()] == [0, 0, 0]


def test_the_action_stops_at_once_where_nothing_could_be_looked_at(tmp_path, command):
    project = Project(tmp_path, command)
    shutil.rmtree(project.folder / "losses")
    step = parsed("action.yml")["runs"]["steps"][0]
    ended = run_step(project, step, {"inputs.targets": "nowhere.py", "inputs.options": "", "inputs.folder": "out"})
    assert ended.returncode == 1
    assert "no file nowhere.py" in ended.stderr


def test_the_workflow_comments_with_the_summary(wrong):
    project, _ = wrong
    steps = parsed("workflow.yml")["jobs"]["verify"]["steps"]
    uses = [step["uses"].partition("@")[0] for step in steps if "uses" in step]
    assert "./.github/actions/loss-harness" in uses
    (upload,) = (step for step in steps if "upload-sarif" in step.get("uses", ""))
    assert (project.folder / upload["with"]["sarif_file"]).is_file()
    (comment,) = (step for step in steps if step.get("name") == "Comment")
    known = {"github.token": "token", "github.event.pull_request.number": "7"}
    ended = run_step(project, comment, known)
    assert ended.returncode == 0, ended.stderr
    assert project.file("summary.md").startswith("### loss-harness: ")
    assert "gh pr comment 7 --edit-last --create-if-none --body-file summary.md" in project.file("calls.txt")


def test_the_workflow_stops_costs_that_grow(tmp_path, command):
    project = Project(tmp_path, command)
    git = "git -c user.name=a -c user.email=a@example.org -c commit.gpgsign=false"
    made = project.run(
        f"git init -q . && git add losses pyproject.toml && {git} commit -q -m one && git rev-parse HEAD"
    )
    assert made.returncode == 0, made.stderr
    squares = project.folder / "losses" / "squares.py"
    squares.write_text(LOSS.format(mistake=" + 0 * predictions.sum()"))
    gate = [step for step in parsed("workflow.yml")["jobs"]["costs"]["steps"] if "run" in step]
    known = {"github.event.pull_request.base.sha": made.stdout.strip()}
    ended = [run_step(project, step, known) for step in gate]
    assert [step.returncode for step in ended] == [0, 0, 1], [step.stderr for step in ended]
    assert "Exact costs that grew" in project.file("summary.txt")
    assert project.file("calls.txt").startswith("pip install wheels/loss_harness-")


def test_gitlab_and_jenkins_find_the_files_that_they_are_told_of(tmp_path, command):
    job = parsed("gitlab-ci.yml")["losses"]
    project = Project(tmp_path, command, mistake=" * 1.5")
    ended = project.run("\n".join(job["script"]))
    assert ended.returncode == 1, ended.stderr
    assert (project.folder / job["artifacts"]["reports"]["junit"]).is_file()
    assert job["artifacts"]["paths"] == ["loss-report"]
    jenkins = (DOCS / "ci" / "Jenkinsfile").read_text(encoding="utf-8")
    commands = re.findall(r"sh '(.*)'", jenkins)
    assert commands == job["script"]
    (file,) = re.findall(r"junit '(.*)'", jenkins)
    assert file == job["artifacts"]["reports"]["junit"]
    plain = (DOCS / "ci" / "losses.sh").read_text(encoding="utf-8").splitlines()
    assert plain[-len(commands) :] == commands
    shutil.rmtree(project.folder / "loss-report")
    ran = project.run(f"sh {DOCS / 'ci' / 'losses.sh'}")
    assert (ran.returncode, (project.folder / file).is_file()) == (1, True), ran.stderr


def test_nothing_is_installed_by_a_name_that_may_be_somebody_elses(tmp_path):
    pages = [ROOT / "README.md", DOCS / "ci.md", *RECIPES]
    installed = [line for page in pages for line in re.findall(r"\bpip install (.*)", page.read_text(encoding="utf-8"))]
    own = [word.strip("`';.") for line in installed for word in line.split() if "loss" in word and "_harness" in word]
    assert len(own) >= 8
    assert [word for line in installed for word in line.split() if word.startswith("loss-harness")] == []
    wheel = f"wheels/loss_harness-{harness.__version__}-py3-none-any.whl"
    assert all(fnmatch.fnmatch(wheel, word) or wheel.endswith(word) for word in own)


def hook(name: str) -> dict:
    (found,) = (
        hook for repo in parsed("pre-commit-config.yaml")["repos"] for hook in repo["hooks"] if hook["id"] == name
    )
    return found


@pytest.mark.parametrize(("mistake", "code"), [("", 0), (" * 1.5", 1)])
def test_the_hook_of_annotated_losses_verifies_the_files_that_it_is_given(tmp_path, mistake, code, command):
    chosen = hook("loss-harness-annotated")
    given = ["losses/__init__.py", "losses/_helpers.py", "losses/squares.py", "tests/test_squares.py"]
    files = [file for file in given if re.search(chosen["files"], file) and not re.search(chosen["exclude"], file)]
    assert files == ["losses/squares.py"]
    ended = Project(tmp_path, command, mistake).run(f"{chosen['entry']} {' '.join(files)}")
    assert ended.returncode == code, ended.stderr


def test_the_hook_of_declarations_finds_them_in_any_folder_and_passes_where_there_are_none(tmp_path, command):
    chosen, project = hook("loss-harness"), Project(tmp_path, command)
    assert not chosen["pass_filenames"]

    def commit() -> subprocess.CompletedProcess[str]:
        staged = project.run("git add --all")
        assert staged.returncode == 0, staged.stderr
        return project.run(shlex.join(shlex.split(chosen["entry"])))  # as pre-commit splits it

    assert project.run("git init -q .").returncode == 0
    (project.folder / "helpers.py").write_text("def helper(x):\n    return x\n")
    passed = commit()
    assert (passed.returncode, passed.stdout) == (0, ""), passed.stderr
    folder = project.folder / "src" / "a folder"
    folder.mkdir(parents=True)
    for file in (project.folder / "specs_one.py", folder / "specs_two.py"):
        file.write_text(LOSS.format(mistake="").replace('"squares"', f'"{file.stem}"'))
    assert commit().returncode == 0
    (folder / "specs_two.py").write_text(LOSS.format(mistake=" * 1.5").replace('"squares"', '"specs_two"'))
    failed = commit()
    assert failed.returncode not in (0, 2), failed.stderr
    assert "E01 specs_two / vectorized" in failed.stdout


def shell_blocks() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    return [block for block in blocks if not block.startswith("#!")]  # a recipe, which has its own test


@pytest.mark.parametrize("block", shell_blocks(), ids=[block.split("\n")[0][:50] for block in shell_blocks()])
def test_every_command_of_the_page_runs(tmp_path, block, command):
    project = Project(tmp_path, command)
    if "show report.json" in block and "verify" not in block:
        assert project.run("loss-harness verify losses --write json:report.json").returncode == 0
    ended = project.run(block)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
