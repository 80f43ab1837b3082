"""What the command line takes from `pyproject.toml`, and how much it says."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_cli import LOSS

from harness import cli
from harness.results import schema

FEW = ("--profile", "quick", "--select", "B01,E01")


@pytest.fixture
def place(tmp_path, monkeypatch, one_box):
    """A directory that is not the repository, with one file of losses."""
    (tmp_path / "mine.py").write_text(LOSS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args):
    return CliRunner().invoke(cli.cli, list(args))


def configure(place, text):
    (place / "pyproject.toml").write_text(f"[tool.loss-harness]\n{text}\n")


def test_a_bare_command_checks_the_targets_of_the_project(place, monkeypatch):
    configure(place, 'targets = ["mine.py:GOOD"]\n[tool.loss-harness.verify]\nformat = "json"')
    (place / "deep").mkdir()
    monkeypatch.chdir(place / "deep")
    done = run("verify", *FEW)
    assert done.exit_code == 0, done.output
    assert [loss.name for loss in schema.loads(done.stdout).losses] == ["good"]
    assert [loss.name for loss in schema.loads(run("verify", "../mine.py:BAD", *FEW).stdout).losses] == ["bad"]


def test_a_baseline_of_the_project_is_taken(place):
    assert run("verify", "mine.py:BAD", *FEW, "--write-baseline", "accepted.json").exit_code == 0
    configure(place, 'baseline = "accepted.json"')
    assert run("verify", "mine.py:BAD", *FEW).exit_code == 0
    assert run("--config", "none", "verify", "mine.py:BAD", *FEW).exit_code == 1


def test_without_any_target_the_message_says_where_to_write_one(place):
    done = run("verify")
    assert done.exit_code == 2
    assert "write `targets` in [tool.loss-harness]" in done.stderr


def test_quiet_is_silent_about_a_right_loss_and_says_errors_alone(place):
    assert run("verify", "mine.py:GOOD", *FEW, "-q").output == ""
    shown = run("verify", "mine.py:BAD", *FEW, "-q")
    assert shown.exit_code == 1
    assert re.match(r"1 error\n\n\S+: E01 bad / wrong: ", shown.stdout)
    assert "planned" not in shown.stdout
    assert "import torch" not in shown.stdout


def test_the_command_line_outvotes_a_file_on_how_much_is_said(place):
    configure(place, "quiet = true")
    assert run("verify", "mine.py:GOOD", *FEW).output == ""
    assert "planned" in run("verify", "mine.py:GOOD", *FEW, "-v").stdout
    both = run("verify", "mine.py:GOOD", "-q", "-v")
    assert both.exit_code == 2
    assert "expected one of them" in both.stderr


def test_a_quiet_difference_shows_what_fails_the_gate_alone(place):
    for name in ("old.json", "new.json"):
        assert run("bench", "mine.py:GOOD", "--costs-only", "-q", "--save", name).output == ""
    assert run("diff", "old.json", "new.json", "-q").output == ""
    data = json.loads(Path("new.json").read_text())
    for measurement in data["losses"][0]["measurements"]:
        measurement["costs"]["aten_calls"] += 1
    Path("new.json").write_text(json.dumps(data))
    done = run("diff", "old.json", "new.json", "-q")
    assert done.exit_code == 1
    assert done.stdout.startswith("Exact costs that grew\n")


def test_colours_of_the_project_count_more_than_the_environment(place, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in run("verify", "mine.py:BAD", *FEW).stdout
    configure(place, 'color = "always"')
    assert "\x1b[" in run("verify", "mine.py:BAD", *FEW).stdout
    assert "\x1b[" not in run("--color", "never", "verify", "mine.py:BAD", *FEW).stdout


def test_times_go_to_a_file_as_findings_do(place):
    assert run("bench", "mine.py:GOOD", "--costs-only", "--output", "deep/times.txt").output == ""
    assert "ATen calls" in Path("deep/times.txt").read_text()
