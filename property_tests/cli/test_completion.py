"""The protocol by which a shell asks what a word may become."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness import cli
from harness.results.rule_texts import rule_texts
from harness.rules import DOCUMENTED

ROOT = Path(__file__).parents[2]


def complete(*words: str) -> list[str]:
    """``type,value`` of every completion of the last word, as bash asks for it; fails where that loads torch."""
    code = (
        "import atexit, os, sys\n"
        "atexit.register(lambda: 'torch' in sys.modules and os._exit(9))\n"
        "sys.argv = ['loss-harness']\n"
        "from harness.cli import main\nmain()\n"
    )
    asked = {"COMP_WORDS": " ".join(["loss-harness", *words]), "COMP_CWORD": str(len(words))}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "_LOSS_HARNESS_COMPLETE": "bash_complete", **asked}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_commands_and_options_are_completed() -> None:
    assert complete("ver") == ["plain,verify"]
    assert {"plain,--select", "plain,--seed"} <= set(complete("verify", "--se"))
    assert complete("verify", "--profile", "th") == ["plain,thorough"]


def test_codes_are_completed_after_a_comma_too() -> None:
    codes = [rule.code for rule in DOCUMENTED]
    assert complete("explain", "g0") == [f"plain,{code}" for code in codes if code.startswith("G0")]
    assert complete("verify", "--select", "G01,E0") == [f"plain,G01,{c}" for c in codes if c.startswith("E0")]


def test_targets_are_files() -> None:
    assert complete("report", "mi") == ["file,mi"]


def test_the_words_that_are_read_without_torch_are_those_of_the_rules() -> None:
    assert list(rule_texts()) == [rule.code for rule in DOCUMENTED]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_asks_in_its_protocol(shell: str) -> None:
    done = CliRunner().invoke(cli.cli, ["completion", shell])
    assert done.exit_code == 0
    assert f"_LOSS_HARNESS_COMPLETE={shell}_complete" in done.stdout
    assert "loss-harness" in done.stdout
