import csv
import inspect
import io
import json
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness import cli
from harness.report.writer import OWN_FAILURES
from harness.results import schema

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
    return ((predictions - labels) ** 2).mean()


def wrong(predictions, labels):
    return ((predictions - labels) ** 2).mean() * 1.5


SIZES = ({"B": 8},)
GOOD = LossSpec("good", {"naive": naive, "vectorized": vectorized}, bench_sizes=SIZES)
BAD = LossSpec("bad", {"naive": naive, "wrong": wrong}, bench_sizes=SIZES)
"""


# The reference is checked, the other implementation never gets through.
STUCK = (
    LOSS.partition("SIZES = ")[0]
    + """
def stuck(predictions, labels):
    while True:
        pass


GOOD = LossSpec("good", {"naive": naive, "stuck": stuck})
"""
)


@pytest.fixture
def place(tmp_path, monkeypatch, one_box):
    """A directory that is not the repository, with one file of losses, and one of a loss that never ends."""
    (tmp_path / "mine.py").write_text(LOSS)
    (tmp_path / "stuck.py").write_text(STUCK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args):
    return CliRunner().invoke(cli.cli, list(args))


def verify(*args):
    return run("verify", *args, "--profile", "quick", "--select", "B01,E01")


def python(*args, **changes):
    environment = {**os.environ, **changes}
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, env=environment, check=False)


# ---- starting ------------------------------------------------------------------------------------------------------------


def test_help_and_the_plugin_import_no_torch():
    code = (
        "import sys, runpy\n"
        "import harness.pytest_plugin\n"
        "sys.argv = ['loss-harness', '--help']\n"
        "try:\n    runpy.run_module('harness', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'harness.errors' in sys.modules\n"
        "heavy = {'torch', 'pandas', 'hypothesis', 'rich', 'jinja2', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "Usage: loss-harness" in done.stdout


def test_the_versions_are_shown_without_loading_what_they_are_of():
    code = "import sys; from harness.cli import cli; cli(['--version'], standalone_mode=False); sys.exit('torch' in sys.modules)"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    versions = (metadata.version("torch"), platform.python_version())
    assert done.stdout == "loss-harness 0.1.0, torch {}, Python {}\n".format(*versions)


# ---- usage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["verify"], "Missing argument 'TARGET...'"),
        (["verify", "nowhere.py"], "no file nowhere.py"),
        (["verify", "mine.py:GOD"], "did you mean 'GOOD'?"),
        (["verify", "no_such_module"], "no module 'no_such_module'"),
        (["verify", "broken.py"], "target 'broken.py': importing it raised ZeroDivisionError: division by zero"),
        (["verify", "exits.py"], "target 'exits.py': importing it raised SystemExit: 5"),
        (["verify", "syntax.py"], "target 'syntax.py': importing it raised SyntaxError"),
        (["verify", "undeclared.py"], "loss"),
        (["verify", "mine.py", "--device", "tpu"], "a device is cpu, cuda or cuda:0"),
        (["verify", "mine.py", "--device", ","], "needs a device"),
        (["verify", "mine.py", "--select", "G99"], "G"),
        (["verify", "mine.py", "--ignore", "Q1"], "Q1"),
        (["verify", "mine.py", "--select", "G01", "--ignore", "G"], "no rule is left"),
        (["verify", "mine.py", "--implementation", "vectorised"], "did you mean 'vectorized'?"),
        (["bench", "mine.py", "--budget", "0"], "--budget"),
        (["bench", "mine.py", "--cache", "luke"], "'luke', expected some of warm, cold"),
        (["bench", "mine.py", "--pass", "ful"], "did you mean 'full'?"),
        (["report", "mine.py", "--dtype", "int8"], "expected some of float64, float32, bfloat16, float16"),
        (["report", "mine.py", "--out", "mine.py"], "mine.py"),
        (["report", "mine.py:GOOD", "--out", "mine.py/below"], "cannot write reports to mine.py/below"),
        (["explain", "G99"], "no rule 'G99'; did you mean 'G"),
        (["explain", "indx"], "did you mean 'index'?"),
        (["replay", "nothing.json"], "nothing.json"),
        (["replay", "mine.py"], "mine.py is not a failure file"),
        (["replay", "list.json"], "holds a list, expected an object"),
        (["replay", "empty.json"], "cannot replay empty.json: "),
        (["nonsense"], "No such command 'nonsense'"),
        (["verify", "mine.py", "--out", "a"], "did you mean --output (Write there instead of to the terminal)?"),
        (["bench", "mine.py", "--outpu", "a"], "did you mean --output (Write there instead of to the terminal)?"),
        (["calibrate", "--output", "a"], "did you mean --save (Write every comparison there, as JSON)?"),
        (["init", "mine.py", "--save", "a"], "did you mean --output (The file to write"),
        (["verify", "mine.py", "--form", "json"], "did you mean --format (full"),
        (["verify", "mine.py", "--dtype", "float32"], "did you mean --dtypes (The dtypes that the loss takes"),
        (["bench", "mine.py", "--profile", "ci"], "has no option --profile, which `report` and `verify` take"),
        (["--resume", "report", "mine.py"], "has no option --resume, which `report` takes; write it after the command"),
        (["report", "mine.py", "--output", "reports/new"], "the folder of the report is --out"),
        (["verify", "mine.py", "--baseline", "nothing.json"], "nothing.json"),
        (["verify", "mine.py", "--baseline", "list.json"], "list.json: not a baseline"),
        (["--config", "nothing.toml", "verify", "mine.py"], "nothing.toml: cannot be read"),
    ],
)
def test_what_cannot_be_understood_is_a_message_and_exit_code_2(place, args, message):
    (place / "broken.py").write_text("1 / 0")
    (place / "exits.py").write_text("raise SystemExit(5)")
    (place / "syntax.py").write_text("def (")
    (place / "undeclared.py").write_text("def loss(predictions, labels):\n    return predictions\n")
    (place / "list.json").write_text("[]")
    (place / "empty.json").write_text("{}")
    done = run(*args)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


# ---- verify --------------------------------------------------------------------------------------------------------------


def test_a_right_loss_is_clean(place):
    done = verify("mine.py:GOOD")
    assert done.exit_code == 0, done.output
    assert "0 errors" in done.stdout.splitlines()[-1]
    assert not Path(OWN_FAILURES).exists()


def test_a_wrong_loss_is_found_and_can_be_repeated_as_printed(place):
    done = verify("mine.py:BAD")
    assert done.exit_code == 1
    assert "E01 bad / wrong: " in done.stdout
    assert "E01 bad / naive" not in done.stdout
    repeat = next(line for line in done.stdout.splitlines() if "repeat: " in line).partition("repeat: loss-harness ")[2]
    assert repeat.startswith("replay .loss-harness/failures/bad-E01-")
    again = run(*repeat.split())
    assert again.exit_code == 1
    assert again.stdout.startswith("FAILED")


def test_a_mended_loss_replays_as_fixed(place):
    verify("mine.py:BAD")
    failure = next(Path(OWN_FAILURES).glob("bad-E01-*.json"))
    (place / "mine.py").write_text(LOSS.replace(" * 1.5", ""))
    done = run("replay", str(failure))  # in a process of its own, which reads the file anew
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("FIXED")


def test_failures_are_named_by_their_ids_or_by_a_glob(place):
    verify("mine.py:BAD")
    failure = next(Path(OWN_FAILURES).glob("bad-E01-*.json"))
    for name in (failure.stem, failure.name, failure.stem.rpartition("-")[2], "bad-E01-*"):
        done = run("replay", name)
        assert (done.exit_code, done.stdout.partition(" ")[0]) == (1, "FAILED"), done.output
        assert json.loads(failure.read_text())["message"] in done.stdout  # as the report has it
    stored = len(list(Path(OWN_FAILURES).glob("bad-*.json")))
    (Path(OWN_FAILURES) / "bad-G01-0.json").write_text('{"schema": 1}')
    done = run("replay", "bad-*")
    assert done.exit_code == 2
    assert "ERROR .loss-harness/failures/bad-G01-0.json: not a failure file: " in done.stdout
    assert done.stdout.splitlines()[-1].endswith("1 ERROR")
    assert sum(line.startswith("FAILED ") for line in done.stdout.splitlines()) == stored


def test_several_failures_that_are_mended_are_fixed(place):
    verify("mine.py:BAD")
    files = [str(path) for path in sorted(Path(OWN_FAILURES).glob("bad-E0*.json"))]
    (place / "mine.py").write_text(LOSS.replace(" * 1.5", ""))
    done = run("replay", *files, files[0])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("FIXED bad / wrong") == len(files)
    assert len(files) == 1 or done.stdout.splitlines()[-1] == f"{len(files)} FIXED"


def test_an_id_that_no_failure_has_says_the_nearest(place):
    verify("mine.py:BAD")
    failure = next(Path(OWN_FAILURES).glob("bad-E01-*.json"))
    done = run("replay", failure.stem.replace("bad", "bed"))
    assert done.exit_code == 2
    assert f"did you mean '{failure.stem}'?" in done.stderr


def test_verbose_adds_code_that_runs_without_the_harness(place):
    shown = verify("mine.py:BAD", "-v").stdout
    assert "    import torch" in shown
    assert "import torch" not in verify("mine.py:BAD").stdout


def test_counts_add_up_in_text_and_json(place):
    data = schema.loads(verify("mine.py", "--format", "json").stdout)
    assert [loss.name for loss in data.losses] == ["good", "bad"]
    for loss in data.losses:
        counts = [sum(loss.counts(name, "cpu").values()) for name in loss.implementations]
        assert counts == [2, 2]
    assert "8 planned = " in verify("mine.py").stdout.splitlines()[-1]


def test_the_same_seed_gives_byte_identical_findings(place):
    def findings():
        return json.dumps(
            [loss["findings"] for loss in json.loads(verify("mine.py", "--format", "json").stdout)["losses"]]
        )

    assert findings() == findings()


def test_json_goes_to_a_file_and_nothing_to_the_terminal(place):
    done = verify("mine.py:BAD", "--format", "json", "--output", "deep/out.json")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "")
    assert not schema.loads(Path("deep/out.json").read_text()).ok


def test_a_pipe_gets_neither_colours_nor_progress(place):
    done = python("-m", "harness", "verify", "mine.py:BAD", "--profile", "quick", "--select", "E01")
    assert done.returncode == 1
    assert done.stderr == ""
    assert "\x1b" not in done.stdout


def test_rules_and_implementations_are_chosen(place):
    done = run(
        *("verify", "mine.py:BAD", "--profile", "quick", "--format", "json"),
        *("--select", "B01", "--select", "e", "--ignore", "E02,E03,E04,E05,E06", "--implementation", "wrong"),
    )
    (loss,) = schema.loads(done.stdout).losses
    assert {(o.implementation, o.rule) for o in loss.outcomes} == {("wrong", "B01"), ("wrong", "E01")}


def test_an_interrupt_shows_what_is_done_and_exits_130(place, monkeypatch, capsys):
    _interrupt_after(monkeypatch, 2)
    monkeypatch.setattr(
        sys, "argv", ["loss-harness", "verify", "stuck.py", "--select", "B01,E01", "--profile", "quick"]
    )
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    assert end.value.code == 130
    assert "2 planned = " in out
    assert "interrupted" in err


def _interrupt_after(monkeypatch, count):
    """As soon as so many outcomes are known; in `stuck.py` they are all that ever will be."""
    from harness.runs.driver import Driver

    original = Driver._show

    def show(driver, observer):
        original(driver, observer)
        if sum(len(driver.known(plan).outcomes) for plan in driver.plans) >= count:
            raise KeyboardInterrupt

    monkeypatch.setattr(Driver, "_show", show)


def test_a_bug_of_the_tool_is_not_taken_for_a_finding(place, monkeypatch, capsys):
    from harness.runs.driver import Driver

    def bug(*args, **kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr(Driver, "verify", bug)
    monkeypatch.setattr(sys, "argv", ["loss-harness", "verify", "mine.py:GOOD"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 3
    assert "RuntimeError: a bug" in capsys.readouterr().err


# ---- configuration -------------------------------------------------------------------------------------------------------


def configure(place, text):
    (place / "pyproject.toml").write_text(f"[tool.loss-harness]\n{text}\n")


def outcomes(*args):
    done = run(*args, "--format", "json")
    made = schema.loads(done.stdout)
    return made, {o.rule for loss in made.losses for o in loss.outcomes}


def test_pyproject_says_what_the_command_line_does_not(place, monkeypatch):
    configure(place, 'select = ["B01", "E01"]\nignore = "E"\nprofile = "quick"\nseed = 3')
    (place / "deep").mkdir()
    monkeypatch.chdir(place / "deep")
    made, checked = outcomes("verify", "../mine.py:GOOD")
    assert (made.profile, made.seed, checked) == ("quick", 3, {"B01"})


def test_the_command_line_wins(place):
    configure(place, 'select = ["B01"]\nignore = ["E"]\nprofile = "thorough"\nseed = 3')
    made, checked = outcomes("verify", "mine.py:GOOD", "--select", "E01", "--profile", "quick", "--seed", "0")
    assert (made.profile, made.seed, checked) == ("quick", 0, {"E01"})


def test_a_configuration_can_be_named_or_left_out(place):
    configure(place, "profile = 'nonsense'")
    (place / "other.toml").write_text("[tool.loss-harness]\nprofile = 'quick'\n")
    assert outcomes("--config", "other.toml", "verify", "mine.py:GOOD", "--select", "B01")[0].profile == "quick"
    made, _ = outcomes("--config", "none", "verify", "mine.py:GOOD", "--select", "B01")
    assert made.profile == "ci"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profle = 'ci'", "did you mean 'profile'?"),
        ("select = ['G99']", "'G99' selects no rule"),
        ("device = 'tpu'", "tpu"),
    ],
)
def test_a_configuration_that_cannot_be_understood_is_exit_code_2(place, text, message):
    configure(place, text)
    done = run("verify", "mine.py")
    assert done.exit_code == 2, done.output
    assert message in done.stderr


# ---- baseline and timings ------------------------------------------------------------------------------------------------


def test_old_code_is_accepted_once_and_guarded_from_then_on(place):
    assert verify("mine.py").exit_code == 1
    assert verify("mine.py", "--write-baseline", "accepted.json").exit_code == 0
    done = verify("mine.py", "--baseline", "accepted.json")
    assert done.exit_code == 0, done.output
    assert re.search(r"1 accepted\n  \S+: E01 bad / wrong: ", done.stdout)
    (place / "later.py").write_text(LOSS.replace("((predictions - labels) ** 2).mean() * 1.5", "predictions[:2].sum()"))
    worse = run("verify", "later.py", "--profile", "quick", "--select", "E01,C07", "--baseline", "accepted.json")
    assert "accepted" in worse.stdout
    assert "C07 bad / wrong: " in worse.stdout


def test_a_baseline_that_is_no_longer_needed_shrinks(place):
    verify("mine.py", "--write-baseline", "accepted.json")
    (place / "mended.py").write_text(LOSS.replace(" * 1.5", ""))
    done = verify("mended.py", "--baseline", "accepted.json")
    assert done.exit_code == 0
    assert "accepted, but no longer found: bad / wrong / E01" in done.stdout
    verify("mended.py", "--write-baseline", "accepted.json")
    assert json.loads(Path("accepted.json").read_text())["accepted"] == []


def test_an_interrupted_run_writes_no_baseline(place, monkeypatch):
    _interrupt_after(monkeypatch, 2)
    verify("stuck.py", "--write-baseline", "accepted.json")
    assert not Path("accepted.json").exists()


def test_timings_are_shown_and_stored(place):
    assert "of the time is the loss and autograd" in verify("mine.py:GOOD", "--timings").stdout
    (loss,) = schema.loads(verify("mine.py:GOOD", "--timings", "--format", "json").stdout).losses
    assert len(loss.check_times) == len(loss.outcomes)
    assert all(0 <= t.loss_seconds + t.autograd_seconds + t.watched_seconds <= t.seconds for t in loss.check_times)
    assert schema.loads(verify("mine.py:GOOD", "--format", "json").stdout).losses[0].check_times == ()


# ---- report and bench ----------------------------------------------------------------------------------------------------


def make_report(*args):
    return run("report", *args, "--profile", "quick", "--budget", "3600", "--out", "out")


def test_a_report_says_the_verdict_and_writes_the_folder(place, monkeypatch):
    monkeypatch.setattr("harness.timing.calibrate.GROUP_S", 1.0)  # what the machine scatters by is not looked at here
    done = make_report("mine.py")
    assert done.exit_code == 1, done.output
    assert re.search(r"^good: Take vectorized: .*\n  naive +reference  ", done.stdout, re.MULTILINE)
    assert re.search(r"^  wrong +do not adopt  +Do not adopt it: .*\(E01 fails\)", done.stdout, re.MULTILINE)
    assert re.search(r"^2 losses: .*1 do not adopt$", done.stdout, re.MULTILINE)
    written = schema.loads(Path("out/report.json").read_text())
    verdicts = {(loss.name, v.implementation): v for loss in written.losses for v in loss.verdicts}
    assert verdicts["good", "vectorized"].verdict != "do not adopt"
    good, bad = written.losses
    assert any(m.status == "measured" for m in good.measurements)
    assert not any(m.status == "measured" for m in bad.measurements if m.implementation == "wrong")
    assert Path("out/timings.csv").read_text().count("\n") > 1
    names = {finding.failure for loss in written.losses for finding in loss.findings}
    assert {path.name for path in Path("out/failures").iterdir()} == names
    assert "# Loss report" in Path("out/report.md").read_text()


def test_an_interrupted_report_is_written_beside_the_complete_one(place, monkeypatch):
    Path("out").mkdir()
    Path("out/report.json").write_text("earlier")
    _interrupt_after(monkeypatch, 4)
    done = make_report("stuck.py", "--select", "B01,E01,B02,B05")
    assert done.exit_code == 130
    assert Path("out/report.json").read_text() == "earlier"
    (loss,) = schema.loads(Path("out/interrupted/report.json").read_text()).losses
    assert loss.missing == "interrupted: 4 of 8 planned checks ran"
    assert [v.verdict for v in loss.verdicts] == ["reference", "inconclusive"]


def test_a_run_without_results_leaves_the_folder_alone(place, monkeypatch):
    Path("out").mkdir()
    Path("out/report.json").write_text("earlier")
    _interrupt_after(monkeypatch, 0)
    make_report("stuck.py", "--select", "B01")
    assert sorted(path.name for path in Path("out").iterdir()) == ["journal.jsonl", "report.json"]
    assert Path("out/report.json").read_text() == "earlier"


@pytest.mark.parametrize(
    ("form", "expected"), [("text", "verdict"), ("csv", "implementation"), ("json", '"measurements"')]
)
def test_bench_times_and_nothing_else(place, form, expected):
    done = run("bench", "mine.py:GOOD", "--budget", "1", "--format", form)
    assert done.exit_code == 0, done.output
    assert expected in done.stdout
    assert "vectorized" in done.stdout
    assert {path.name for path in place.iterdir()} - {"__pycache__"} == {"mine.py", "stuck.py"}


def test_bench_takes_what_is_timed_and_how(place):
    options = ["--pass", "forward", "--dtype", "float64,bfloat16", "--cache", "cold", "--clock", "wall"]
    done = run("bench", "mine.py:GOOD", "--budget", "1", "--format", "csv", *options)
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {row["dtype"] for row in rows} == {"float64", "bfloat16"}
    assert {(row["pass_name"], row["cache"], row["clock"]) for row in rows} == {("forward", "cold", "wall")}


# ---- rules ---------------------------------------------------------------------------------------------------------------


def test_every_rule_is_listed_and_explained():
    from harness.rules import DOCUMENTED

    listed = run("rules").stdout
    for rule in DOCUMENTED:
        assert rule.code in listed
        assert rule.title in listed
        explained = run("explain", rule.code)
        assert explained.exit_code == 0
        assert rule.title in explained.stdout


@pytest.mark.parametrize("kind", ["domains", "laws"])
def test_every_domain_and_law_is_listed_and_explained(kind):
    import harness

    listed = run("explain", kind).stdout
    module = getattr(harness, kind)
    made = {"Domain": "domains", "Law": "laws"}
    public = [f for f in vars(module).values() if made.get(getattr(f, "__annotations__", {}).get("return")) == kind]
    names = [f.__name__ for f in public if not f.__name__.startswith("_")]
    assert len(names) > 10
    for name in names:
        assert f"{name}(" in listed
        assert f"\n  {inspect.getdoc(getattr(module, name))[:40]}" in run("explain", name).stdout
