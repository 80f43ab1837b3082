"""Runs a page from top to bottom in a folder of its own, as a reader who follows it would."""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import yaml
from click.testing import CliRunner

from harness import cli
from harness.cli import apart
from harness.isolation.events import Tell
from harness.runs import configuration
from property_tests.helpers.documents.blocks import Block, Step, blocks, borrowed, pattern

ROOT = Path(__file__).parents[3]

# What is not ours to run, and who holds it.
ELSEWHERE = {
    "make": "its targets are looked up in the Makefile",
    "pip": "test_quickstart.py installs the wheel",
    "git": "changes a repository",
    ".ci/run": "runs all tests, these included",
}


class Page:
    """A page, the folder in which it is followed, and what its Python blocks have defined."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page = page
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": page.stem}

    def follow(self) -> None:
        """Write its files, run its commands and its code, in order.

        Raises:
            AssertionError: something else happens than the page says.
        """
        for other in borrowed(self.page):
            for block in blocks(other):
                self._write(block)
        for block in blocks(self.page):
            with _within(self.folder):
                self._take(block)

    def _take(self, block: Block) -> None:
        where = f"{self.page.name}:{block.line}"
        self._write(block)
        if block.language == "python":
            code = compile(block.text, where, "exec")
            if block.file is None and "not run" not in block.marks:
                exec(code, self.names)
        elif block.language == "toml":
            self._settings(block, where)
        elif block.language in ("yaml", "yml"):
            assert yaml.safe_load(block.text), where
        elif block.language == "sh":
            for line in block.text.splitlines():
                check_command(line, where)
        elif block.language == "console":
            steps = block.steps
            for step in steps:
                check_command(step.command, where)
            if "not run" not in block.marks:
                with contextlib.chdir(ROOT if "in" in block.marks else self.folder):
                    for step in steps:
                        self._run(block, step, where, is_last=step is steps[-1])
        else:
            assert block.language == "text", f"{where}: a block of {block.language or 'no language'} is held to nothing"

    def _write(self, block: Block) -> None:
        if block.file is not None:
            (self.folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / block.file).write_text(block.text, encoding="utf-8")

    def _settings(self, block: Block, where: str) -> None:
        tables = tomllib.loads(block.text)
        if configuration.TABLE in tables.get("tool", {}):
            file = self.folder / (block.file or f"settings-{block.line}.toml")
            file.write_text(block.text, encoding="utf-8")
            assert configuration.read(file) is not None, where

    def _run(self, block: Block, step: Step, where: str, *, is_last: bool) -> None:
        words = shlex.split(step.command, comments=True)
        variables = _variables(words)
        words, target = _redirected([name for word in words[len(variables) :] for name in _matching(word)])
        if words[0] in ELSEWHERE:
            return
        if words[0] == "loss-harness":
            words += _understood(words, shlex.split(block.marks.get("run", "")))
        run = {"loss-harness": _loss_harness, "pytest": _pytest}.get(words[0], _process)
        code, told = run(words, variables)
        if target is not None:
            with (self.folder / os.path.expandvars(target[1])).open("a" if target[0] == ">>" else "w") as file:
                file.write(told)
            told = ""
        assert code == (int(block.marks.get("exit", 0)) if is_last else 0), f"{where}: {step.command}\n{told}"
        plain = "\n".join(line.rstrip() for line in told.splitlines()) + "\n"
        assert pattern(step.shown).match(plain), f"{where}: {step.command}\nshows\n{plain}"


def check_command(command: str, where: str) -> None:
    """What can be said of a command without running it: the program, its targets and its options exist.

    Raises:
        AssertionError: one of them does not.
    """
    words = shlex.split(command, comments=True)
    words = _redirected(words[len(_variables(words)) :])[0]
    program, rest = Path(words[0]).name if words[0] not in ELSEWHERE else words[0], words[1:]
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        missing = [word for word in rest if "=" not in word and word not in targets]
        assert not missing, f"{where}: make has no target {missing}"
    elif program == "loss-harness":
        _check_options(rest, where)
    elif program == "python":
        found = importlib.util.find_spec(rest[1]) if rest[0] == "-m" else (ROOT / rest[0]).is_file()
        assert found, f"{where}: there is no {' '.join(rest[:2])}"
    else:
        assert program in {*ELSEWHERE, "pytest"}, f"{where}: nothing says how {program!r} is tried"


def _check_options(words: list[str], where: str) -> None:
    group = {name for parameter in cli.cli.params for name in parameter.opts}
    while words and words[0].startswith("-"):
        assert words[0] in {*group, "--help", "--version"}, f"{where}: loss-harness has no {words[0]}"
        words = words[1:] if words[0] in {"--help", "--version"} else words[2:]
    if not words:
        return
    assert words[0] in cli.cli.commands, f"{where}: loss-harness has no command {words[0]!r}"
    command = cli.cli.commands[words[0]]
    known = _options(command)
    unknown = [word for word in words[1:] if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]
    assert not unknown, f"{where}: loss-harness {command.name} has no {unknown}"


def _options(command: click.Command) -> set[str]:
    parameters = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    return {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


def _understood(words: list[str], further: list[str]) -> list[str]:
    """Of further options, each with its value, those that the command of the words has."""
    (name, *_) = (word for word in words if word in cli.cli.commands)
    known = _options(cli.cli.commands[name])
    starts = [position for position, word in enumerate(further) if word.startswith("--")]
    parts = [further[start:end] for start, end in pairwise([*starts, len(further)])]
    return [word for part in parts if part[0] in known for word in part]


def _loss_harness(words: list[str], variables: dict[str, str]) -> tuple[int, str]:
    """In this process: importing torch for each command would take longer than most of them."""
    outcome = CliRunner().invoke(cli.cli, words[1:], env=variables, prog_name="loss-harness")
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    return outcome.exit_code, outcome.output


def _pytest(words: list[str], variables: dict[str, str]) -> tuple[int, str]:
    """In a fork of the process that starts the jobs of the commands, which has imported torch too."""
    told: list[tuple[int, str]] = []
    box = apart.box()
    assert box is not None
    payload = {"words": words[1:], "variables": variables}
    ended = box.run(f"{__name__}:run_pytest", payload, hear=lambda kind, data: told.append(data))
    assert told, f"pytest ended without a word: {ended}"
    return told[-1][0], told[-1][1]


def run_pytest(payload: dict[str, Any], tell: Tell) -> None:
    """Tell the exit code and the output of pytest in this process, in which the harness was imported before."""
    import pytest

    os.environ.update(payload["variables"])
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = pytest.main([*payload["words"], "-W", "ignore::pytest.PytestAssertRewriteWarning"])
    tell("result", (int(code), output.getvalue()))


def _process(words: list[str], variables: dict[str, str]) -> tuple[int, str]:
    environment = {**os.environ, **variables, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *words[1:]]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def _variables(words: list[str]) -> dict[str, str]:
    """Assignments before a command: `NO_COLOR=1 loss-harness ...`."""
    found: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name.isidentifier():
            break
        found[name] = value
    return found


def _matching(word: str) -> list[str]:
    """The files that a pattern such as ``failures/*-C01-*.json`` stands for, as in a shell."""
    return (sorted(glob.glob(word, include_hidden=True)) or [word]) if "*" in word else [word]


def _redirected(words: list[str]) -> tuple[list[str], tuple[str, str] | None]:
    """The command without `> FILE`, and where its output goes."""
    for sign in (">", ">>"):
        if sign in words:
            position = words.index(sign)
            return words[:position], (sign, words[position + 1])
    return words, None


@contextlib.contextmanager
def _within(folder: Path) -> Iterator[None]:
    """In the folder, importing from it; its modules are forgotten afterwards, since the page may change their files."""
    here, paths = Path.cwd(), list(sys.path)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        os.chdir(here)
        sys.path[:] = paths
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(f"{folder}{os.sep}"):
                del sys.modules[name]
