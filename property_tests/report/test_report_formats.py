import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import hostile
import pytest
import report_examples as examples
from click.testing import CliRunner
from work import growth

from harness import cli
from harness.report import formats, writer
from harness.results import schema

BEGINS = {
    "full": "graph_distance",
    "concise": "losses: G01 graph_distance / vectorized: ",
    "grouped": "losses:\n  G01 graph_distance / vectorized: ",
    "json": "{",
    "junit": '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites',
    "sarif": '{\n "$schema"',
    "github": "::error ",
    "markdown": "### loss-harness: ",
    "html": "<!doctype html>",
    "csv": "loss,implementation,device,dtype,pass_name,cache,clock,status,",
}

HOW = formats.Presentation()


def run(*args):
    return CliRunner().invoke(cli.cli, list(map(str, args)))


@pytest.fixture
def folder(tmp_path):
    """A report folder with one error, and the failure that replays it."""
    found = examples.finding()
    record = examples.loss(findings=(found,), outcomes=(examples.outcome(status="failed"),))
    writer.write_report(tmp_path / "report", examples.report(record), {found.failure: {"a": 1}})
    return tmp_path / "report"


def test_the_names_are_those_that_are_tested_here():
    assert list(formats.FORMATS) == list(BEGINS)


@pytest.mark.parametrize("form", BEGINS)
def test_a_report_is_shown_in_every_form(folder, form):
    done = run("show", folder, "--format", form)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(BEGINS[form])


def test_a_table_of_times_has_those_of_the_report_and_nothing_that_was_not_measured():
    made = examples.loss()
    untimed = replace(made.measurements[0], dtype="", sizes={}, status="skipped")
    text = formats.render("csv", examples.report(replace(made, measurements=(*made.measurements, untimed))), HOW)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["implementation"] for row in rows] == ["naive", "vectorized"]
    assert {row["median_seconds"] for row in rows} == {"2e-05"}
    assert {(row["rounds"], row["aten_calls"], row["size_N"], row["compile_seconds"]) for row in rows} == {
        ("3", "7", "128", "")
    }
    assert formats.render("csv", examples.report(examples.loss(measurements=())), HOW) == ""


@pytest.mark.parametrize("form", BEGINS)
def test_a_folder_and_the_file_in_it_are_the_same_report(folder, form):
    assert run("show", folder, "--format", form, "--output", folder / "a").exit_code == 0
    assert run("show", folder / "report.json", "--format", form, "--output", folder / "b").exit_code == 0
    one, other = (folder / "a").read_text(), (folder / "b").read_text()
    assert one == other.replace(f"{folder.as_posix()}/report.json", folder.as_posix())


def test_the_text_says_how_to_repeat_a_failure_where_its_file_is_there(folder):
    repeat = f"loss-harness replay {folder.as_posix()}/failures/graph_distance-G01-3f2a.json"
    assert repeat in run("show", folder).output
    (folder / "failures" / "graph_distance-G01-3f2a.json").unlink()
    assert "replay" not in run("show", folder).output


def test_several_forms_are_written_at_once(folder, tmp_path):
    given = [f"--write={form}:{tmp_path / 'out' / form}" for form in BEGINS]
    done = run("show", folder, "--format", "github", *given)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("::error ")
    for form, begins in BEGINS.items():
        assert (tmp_path / "out" / form).read_text(encoding="utf-8").startswith(begins)


def test_json_is_the_report(folder):
    shown = run("show", folder, "--format", "json").output
    assert schema.loads(shown) == schema.loads((folder / "report.json").read_text())


def test_the_summary_tells_what_changed_since_an_earlier_report(folder, tmp_path):
    writer.write_report(tmp_path / "old", examples.report(), {})
    shown = run("show", folder, "--format", "markdown", "--against", tmp_path / "old").output
    assert "Since the earlier report: **regression: " in shown


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--write", "xml:a"], "one of the formats full, concise, grouped, json, junit"),
        (["--write", "junt:a"], "did you mean 'junit'?"),
        (["--write", "junit"], "names no file; write it as junit:FILE"),
        (["--write", "junit:"], "names no file"),
        (["--write", "junit:."], "names no file"),
        (["--write", "junit:a", "--write", "sarif:a"], "a would be written twice"),
        (["--write", "junit:a", "--output", "a"], "a would be written twice"),
        (["--write", "junit:report.json/a"], "cannot write reports to report.json"),
        (["--format", "pdf"], "'pdf' is not one of"),
    ],
)
def test_what_cannot_be_written_is_refused(folder, monkeypatch, args, message):
    monkeypatch.chdir(folder)
    done = run("show", ".", *args)
    assert done.exit_code != 0
    assert message in done.output + str(done.exception)
    assert not (folder / "a").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    done = run("verify", "losses.weighted_mse", "--write", "junit:file/report.xml")
    assert done.exit_code != 0
    assert "cannot write reports to file" in done.output + str(done.exception)
    assert not (tmp_path / ".loss-harness").exists()


def test_what_is_no_report_is_refused_with_the_reason(tmp_path):
    (tmp_path / "report.json").write_text('{"schema": 99}')
    done = run("show", tmp_path)
    assert done.exit_code == 2
    assert "schema 99" in done.output


@pytest.mark.parametrize("text", hostile.TEXTS)
@pytest.mark.parametrize("form", BEGINS)
def test_every_form_can_be_written_as_utf_8_whatever_losses_are_called_and_say(tmp_path, form, text):
    how = formats.Presentation(verbose=True, has_verdicts=True)
    writer.write_text(tmp_path / "a", formats.render(form, hostile.report(text), how))
    assert (tmp_path / "a").read_bytes().decode("utf-8")


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_json_is_equal_whatever_losses_are_called_and_say(text):
    made = hostile.report(text)
    assert schema.loads(formats.render("json", made, formats.Presentation())) == made


def test_a_report_with_a_lone_surrogate_can_be_written_and_read(tmp_path):
    made = hostile.report("lone \ud800 surrogate")
    writer.write_report(tmp_path, made, {"a-G01-3f2a.json": {"text": "\ud800"}})
    assert schema.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == made
    assert json.loads((tmp_path / "failures" / "a-G01-3f2a.json").read_text(encoding="utf-8")) == {"text": "\ud800"}


QUICK = ("full", "junit", "sarif", "github", "markdown")


@pytest.mark.parametrize("form", QUICK)
def test_a_large_report_is_shown_without_torch(tmp_path, form):
    file = tmp_path / "report.json"
    file.write_text(schema.dumps(examples.large()))
    assert file.stat().st_size > 1_500_000
    code = (
        "import sys\nfrom harness.cli import cli\n"
        f"cli(['show', {str(file)!r}, '--format', {form!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'pandas', 'hypothesis', 'numpy', 'altair'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("form", QUICK)
def test_a_report_of_twice_as_many_losses_takes_twice_the_work(form):
    def shown(losses):
        text = schema.dumps(examples.large(losses))
        return lambda: formats.render(form, schema.loads(text), formats.Presentation(has_verdicts=True))

    assert growth(shown(5), shown(10)) < 2.1
