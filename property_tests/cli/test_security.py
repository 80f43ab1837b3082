"""Files and names from somebody else are data: they run no code, leave no folder, and are nothing but text where they are shown."""

from __future__ import annotations

import ast
import json
from html.parser import HTMLParser
from pathlib import Path

import hostile
import pytest
import report_examples as examples
from click.testing import CliRunner

from harness.cli import cli
from harness.declare.trust import stranger
from harness.judging import diff
from harness.report import diff_html, writer
from harness.report.csv import csv_text
from harness.results import schema
from harness.results.strict_json import parse_json

HARNESS = Path(__file__).parents[2] / "harness"
CODE_FROM_DATA = {"eval", "exec", "compile", "__import__", "exec_module", "load_module"}
UNSAFE_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml"}
# (file, what) -> why
ALLOWED = {
    ("declare/targets.py", "exec_module"): "runs the TARGET that the user names",
    ("rules/context/following.py", "pickle"): "C01 copies the user's own module in memory; nothing is read",
}


def dangers(name: str, source: str) -> set[tuple[str, str]]:
    """(file, what) of everything that turns data into code."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found |= {(name, module) for module in modules if module.partition(".")[0] in UNSAFE_MODULES}
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in CODE_FROM_DATA:
                found.add((name, called.id))
            if isinstance(called, ast.Attribute) and called.attr in ("exec_module", "load_module"):
                found.add((name, called.attr))
            if isinstance(called, ast.Attribute) and ast.unparse(called) in ("torch.load", "os.system", "os.popen"):
                found.add((name, ast.unparse(called)))
            if any(keyword.arg == "shell" for keyword in node.keywords):
                found.add((name, "shell"))
    return found


def test_nothing_in_the_harness_turns_data_into_code():
    found = {
        danger
        for file in HARNESS.rglob("*.py")
        for danger in dangers(file.relative_to(HARNESS).as_posix(), file.read_text(encoding="utf-8"))
    }
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    "planted", ["eval(text)", "import pickle", "torch.load(file)", "run(words, shell=True)", "from yaml import load"]
)
def test_a_planted_danger_is_seen(planted):
    assert dangers("planted.py", planted)


@pytest.mark.parametrize(
    "target",
    [
        "os:system",
        "antigravity",
        "/tmp/loss.py",
        "../loss.py:Loss",
        "torch.hub",
        '{"target": "subprocess:run", "inputs": "input: B", "options": ["shell=true"]}',
        '{"target": "torch.nn:MSELoss", "inputs": "input: B", "reference": "os:system"}',
    ],
)
def test_a_target_from_a_file_that_is_not_of_the_working_directory_has_to_be_named(target):
    assert stranger(target)


@pytest.mark.parametrize(
    "target", ["losses.focal:SPEC", "harness.losses.focal:SPEC", "harness.catalogs.torch_nn", "losses/focal.py"]
)
def test_what_lies_in_the_working_directory_or_in_the_tool_needs_no_name(target):
    assert stranger(target) == ""


def test_losses_that_are_installed_are_no_part_of_the_tool(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert stranger("losses.focal:SPEC") == "losses.focal:SPEC"
    assert stranger("harness.losses.focal:SPEC") == ""


def failure(target: str) -> str:
    return json.dumps({"schema": 1, "target": target, "loss": "x", "implementation": "x", "rule": "B01", "case": None})


@pytest.mark.parametrize("is_inside", [True, False])
def test_a_failure_of_somebody_else_runs_nothing(tmp_path, monkeypatch, is_inside):
    (tmp_path / "evil.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    file = tmp_path / ("here" if is_inside else "") / "failure.json"
    file.write_text(failure(str(tmp_path / "evil.py")))
    done = CliRunner().invoke(cli, ["replay", str(file)])
    assert done.exit_code == 2
    assert "--target" in done.stderr
    assert not (tmp_path / "ran").exists()
    CliRunner().invoke(cli, ["replay", str(file), "--target", str(tmp_path / "evil.py")])
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" * 60 + "]" * 60, '{"a": 1, "a": 2}', "NaN", "1e999", "9" * 40, "9" * 10_000]
)
def test_a_bomb_in_json_is_refused(text):
    with pytest.raises(ValueError, match=r"nested|twice|NaN|number|limit"):
        parse_json(text)


@pytest.mark.parametrize(
    "name", ["../x.json", "/x.json", "..", "a/b.json", "a\\b.json", "a\0.json", "x" * 300 + ".json"]
)
def test_a_report_that_names_a_failure_elsewhere_is_refused(name):
    made = examples.report(examples.loss(findings=(examples.finding(failure=name),)))
    with pytest.raises(schema.ReportError, match=r"expected the name of a \.json file"):
        schema.loads(schema.dumps(made))


def test_a_failures_folder_that_is_a_link_is_not_written_to(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "failures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(writer.FolderError, match="is a link"):
        writer.write_report(tmp_path / "report", examples.report(), {"a.json": {}})
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_no_cell_of_a_table_is_a_formula():
    rows = [{"=reason": text, "seconds": -1.0} for text in ("=1+1", "@x", "-x", "+x", "fine", None)]
    lines = csv_text(rows).splitlines()
    assert lines[0] == "'=reason,seconds"
    assert lines[1:] == ["'=1+1,-1.0", "'@x,-1.0", "'-x,-1.0", "'+x,-1.0", "fine,-1.0", ",-1.0"]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0
        self.handlers: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.handlers += [name for name, value in attrs if name.startswith("on") or "javascript:" in (value or "")]


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_what_a_report_calls_its_losses_is_text_in_the_page_of_a_difference(text):
    def tags(name: str) -> tuple[int, list[str]]:
        made = hostile.report(name)
        seen = _Tags()
        seen.feed(diff_html.render(diff.compare(made, made), made, made))
        return seen.scripts, seen.handlers

    assert tags(text) == tags("plain")
