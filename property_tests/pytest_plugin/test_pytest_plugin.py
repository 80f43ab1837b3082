"""Projects of their own under the plugin.

`pytester` forgets what a run in this process imports, so the harness is imported before: its classes must stay the same.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import harness.checking.verify
from harness.errors import HarnessError
from harness.pytest_plugin import parametrize_with_checks
from harness.results import schema

LOSSES = """
from jaxtyping import Float
from torch import Tensor

import harness
from harness import LossSpec


def naive(predictions: Float[Tensor, "B"], labels: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    return sum((p - y) ** 2 for p, y in zip(predictions, labels)) / len(predictions)


def vectorized(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def wrong(predictions, labels):
    return ((predictions - labels) ** 2).mean() * 1.5


GOOD = LossSpec("good", {"naive": naive, "vectorized": vectorized})
BAD = LossSpec("bad", {"naive": naive, "wrong": wrong})
WAIVED = LossSpec("waived", {"naive": naive, "wrong": wrong}, waivers={"E01": "half as much again, on purpose"})
"""

TEST = """
import harness
from my_losses import BAD, GOOD, WAIVED


@harness.parametrize_with_checks([GOOD, BAD, WAIVED])
def test_project(check):
    check()
"""


@pytest.fixture
def project(pytester):
    """A project of its own that has losses and one decorated test."""
    pytester.makepyfile(my_losses=LOSSES, test_project=TEST)
    pytester.makeini("[pytest]\naddopts = --strict-markers --harness-profile=quick\nfilterwarnings = error\n")
    return pytester


def test_ids_are_stable_and_name_spec_implementation_and_rule(project):
    shown = project.runpytest_inprocess("--collect-only", "-q", "-k", "vectorized and E01")
    shown.stdout.fnmatch_lines(["test_project.py::test_project?good-vectorized-E01?"])
    assert "wrong" not in shown.stdout.str()


def test_a_wrong_loss_fails_with_the_finding_and_without_our_traceback(project):
    done = project.runpytest_inprocess("-k", "bad-wrong-E01 or good-vectorized-E01")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(
        [
            "*.py:*: E01 bad / wrong: * expected *",
            "  value equals *",
            "  repeat: loss-harness replay *bad-E01-*.json",
        ]
    )
    done.stdout.no_fnmatch_line("*pytest_plugin/__init__.py*")
    (failure,) = (project.path / ".loss-harness" / "failures").iterdir()
    assert json.loads(failure.read_text())["rule"] == "E01"


def test_a_rule_that_says_nothing_is_skipped_with_its_reason(project):
    done = project.runpytest_inprocess("-rs", "-k", "good-naive-E01 or good-vectorized-C01")
    done.assert_outcomes(skipped=2)
    done.stdout.fnmatch_lines(["SKIPPED*reference*"])


def test_a_waived_rule_is_an_expected_failure_with_its_reason(project):
    done = project.runpytest_inprocess("-rx", "-k", "waived-wrong-E01")
    done.assert_outcomes(xfailed=1)
    done.stdout.fnmatch_lines(["XFAIL*half as much again, on purpose*"])


PATCHED = '''
import sys

import pytest

import harness.checking.verify
from harness.results.findings import Finding, Outcome, Status, Verification


@pytest.fixture(autouse=True)
def found(monkeypatch):
    """Every check ends as {status}, with a finding of severity {severity}."""

    def checked(session, *, rules, implementations):
        spec, (rule,), (name,) = session.spec, rules, implementations
        findings = [Finding(name, rule, "law", "{severity}", "cpu", f"{spec.name} / {name} / {rule} law\\n  x = 1, expected 2")] if "{severity}" else []
        outcome = Outcome(name, rule, "cpu", Status("{status}"), 3, "the reason")
        return Verification(spec.name, "ci", 0, "cpu", spec.reference, (name,), (outcome,), tuple(findings))

    monkeypatch.setattr(sys.modules["harness.checking.verify"], "checked", checked)
'''


@pytest.mark.parametrize(
    ("status", "severity", "strict", "outcome"),
    [
        ("failed", "error", False, {"failed": 1}),
        ("failed", "warning", False, {"passed": 1}),
        ("failed", "warning", True, {"failed": 1}),
        ("failed", "note", True, {"passed": 1}),
        ("passed", "", True, {"passed": 1}),
        ("crashed", "", False, {"failed": 1}),
        ("timed out", "", False, {"failed": 1}),
        ("skipped", "", False, {"skipped": 1}),
        ("inapplicable", "", False, {"skipped": 1}),
        ("waived", "", True, {"xfailed": 1}),
    ],
)
def test_every_status_ends_a_test_in_its_own_way(project, status, severity, strict, outcome):
    project.makeconftest(PATCHED.replace("{status}", status).replace("{severity}", severity))
    done = project.runpytest_inprocess("-rA", "-k", "good-naive-B01", *(["--harness-strict"] if strict else []))
    done.assert_outcomes(**outcome)
    assert ("the reason" in done.stdout.str()) is (status not in ("passed", "failed"))


def test_warnings_are_listed_at_the_end_and_notes_are_counted(project):
    project.makeconftest(PATCHED.replace("{status}", "failed").replace("{severity}", "warning"))
    done = project.runpytest_inprocess("-k", "good-naive-B01")
    done.stdout.fnmatch_lines(
        ["*= loss-harness: 1 warning =*", "warning: my_losses.py:*: B01 good / naive: x = 1, expected 2"]
    )
    project.makeconftest(PATCHED.replace("{status}", "failed").replace("{severity}", "note"))
    project.runpytest_inprocess("-k", "good-naive-B01").stdout.fnmatch_lines(["1 note not shown; -v shows them*"])


def test_the_project_chooses_the_profile_and_the_command_line_wins(project):
    project.makeini("[pytest]\nfilterwarnings = error\n")
    (project.path / "pyproject.toml").write_text("[tool.loss-harness]\nprofile = 'thorough'\n")
    shown = 'def pytest_report_header(config):\n    return f"profile={config.option.harness_profile}"\n'
    project.makeconftest(shown)
    project.runpytest_inprocess("--collect-only").stdout.fnmatch_lines(["profile=thorough"])
    project.runpytest_inprocess("--collect-only", "--harness-profile=quick").stdout.fnmatch_lines(["profile=quick"])
    (project.path / "pyproject.toml").write_text("[tool.loss-harness]\nprofile = 'thorogh'\n")
    refused = project.runpytest_inprocess("--collect-only")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["ERROR: *pyproject.toml: *did you mean 'thorough'*"])
    project.runpytest_inprocess("--collect-only", "--harness-profile=ci").stdout.fnmatch_lines(["profile=ci"])


def test_a_test_that_never_calls_its_check_fails(project):
    project.makepyfile(test_project=TEST.replace("    check()", "    pass"))
    done = project.runpytest_inprocess("-k", "good-vectorized-E01")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*did not call check(), so nothing was verified*"])


def test_a_function_without_the_argument_is_refused(project):
    project.makepyfile(test_project=TEST.replace("(check)", "()"))
    done = project.runpytest_inprocess()
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*takes an argument `check`*"])


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_the_report_holds_what_ran(project, workers):
    if workers:
        pytest.importorskip("xdist")
    run = project.runpytest_subprocess if workers else project.runpytest_inprocess
    done = run("--harness-report=out", "-k", "E01 or B01", *workers)
    done.assert_outcomes(passed=7, failed=1, skipped=3, xfailed=1)
    report = schema.loads((project.path / "out" / "report.json").read_text())
    assert [loss.name for loss in report.losses] == ["bad", "good", "waived"]
    assert all(len(loss.outcomes) == 4 for loss in report.losses)
    assert all("4 of " in loss.missing for loss in report.losses)
    verdicts = {(loss.name, v.implementation): v.verdict for loss in report.losses for v in loss.verdicts}
    assert verdicts["bad", "wrong"] == "do not adopt"
    assert verdicts["good", "vectorized"] == "inconclusive"
    assert [path.name for path in (project.path / "out" / "failures").glob("bad-*")]
    assert "timings.csv" not in {path.name for path in (project.path / "out").iterdir()}


def test_a_report_folder_that_cannot_be_written_is_refused_at_once(project):
    done = project.runpytest_inprocess("--harness-report=my_losses.py")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: --harness-report: cannot write reports to *my_losses.py*"])


def test_a_project_that_does_not_use_the_plugin_pays_nothing(pytester):
    pytester.makepyfile("import sys\n\ndef test_light():\n    assert 'torch' not in sys.modules\n")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("specs", "error", "message"),
    [([], HarnessError, "at least one LossSpec"), (["text"], TypeError, r"needs LossSpecs, but got str")],
)
def test_what_is_no_spec_is_refused_where_it_is_written(specs, error, message):
    with pytest.raises(error, match=message):
        parametrize_with_checks(specs)


def test_two_specs_of_one_name_are_refused(tmp_path):
    (tmp_path / "twice.py").write_text(LOSSES)
    from harness.declare.targets import load_specs

    (good,) = load_specs([f"{Path(tmp_path, 'twice.py')}:GOOD"])
    with pytest.raises(HarnessError, match="two specs have the name 'good'"):
        parametrize_with_checks([good, good])


# --- what a failure shows


LONG = PATCHED.replace("\\n  x = 1, expected 2", "\\n  x = 1, expected 2" + "\\n  more" * 40)


@pytest.mark.parametrize("findings", [1, 2, 9])
def test_a_failure_takes_twelve_lines_and_says_how_to_repeat_it(project, findings):
    patched = LONG.replace("] if", f"] * {findings} if")
    project.makeconftest(patched.replace("{status}", "failed").replace("{severity}", "error"))
    shown = project.runpytest_inprocess("-k", "good-naive-B01").stdout.str()
    failure = shown.partition("B01] _")[2].partition("\n")[2].partition("\n====")[0].splitlines()
    assert len(failure) <= 12
    assert failure[0].startswith("my_losses.py:")
    assert sum("repeat: loss-harness replay" in line for line in failure) == 1
    assert any("more; -v shows them" in line for line in failure)
    assert project.runpytest_inprocess("-v", "-k", "good-naive-B01").stdout.str().count("  more") == 40 * findings


def test_the_short_summary_says_the_reason(project):
    project.makeconftest(PATCHED.replace("{status}", "failed").replace("{severity}", "error"))
    done = project.runpytest_inprocess("-k", "good-naive-B01")
    done.stdout.fnmatch_lines(["FAILED test_project.py::test_project?good-naive-B01? - x = 1, expected 2"])


# --- what becomes of warnings


@pytest.mark.parametrize(
    ("given", "outcome", "is_listed"),
    [
        ([], {"passed": 1}, True),
        (["--harness-warnings=default"], {"passed": 1}, True),
        (["--harness-warnings=ignore"], {"passed": 1}, False),
        (["--harness-warnings=error"], {"failed": 1}, True),
        (["--harness-strict"], {"failed": 1}, True),
    ],
)
def test_warnings_fail_are_listed_or_are_counted(project, given, outcome, is_listed):
    project.makeconftest(PATCHED.replace("{status}", "failed").replace("{severity}", "warning"))
    done = project.runpytest_inprocess(*given, "-k", "good-naive-B01")
    done.assert_outcomes(**outcome)
    done.stdout.fnmatch_lines(["*= loss-harness: 1 warning =*"])
    assert ("warning: my_losses.py" in done.stdout.str()) is is_listed


# --- only what has changed


SPLIT = LOSSES.replace("def vectorized", "from formulas import squares\n\n\ndef vectorized").replace(
    "    return ((predictions - labels) ** 2).mean()\n\n\ndef wrong",
    "    return squares(predictions, labels)\n\n\ndef wrong",
)
FORMULA = "def squares(predictions, labels):\n    return ((predictions - labels) ** 2).mean()\n"


@pytest.fixture
def run(project):
    """Runs a few checks of a project whose loss has its formula from another file."""
    project.makepyfile(my_losses=SPLIT, formulas=FORMULA)
    return lambda *given: project.runpytest_inprocess("-rs", "-k", "E01 or B01 and vectorized", *given)


def test_what_passed_is_skipped_and_what_failed_is_checked_again(project, run):
    run().assert_outcomes(passed=2, failed=1, skipped=3, xfailed=1)
    done = run("--harness-changed")
    done.assert_outcomes(failed=1, skipped=6)
    done.stdout.fnmatch_lines(["SKIPPED*unchanged since it passed: code, declaration, profile and versions"])
    run().assert_outcomes(passed=2, failed=1, skipped=3, xfailed=1)
    assert (project.path / ".loss-harness" / ".gitignore").read_text().endswith("\n*\n")


@pytest.mark.parametrize("what", ["code", "helper", "declaration", "profile"])
def test_a_change_of_anything_that_it_depends_on_checks_a_loss_again(project, run, what):
    run()
    given = ["--harness-changed"]
    if what == "code":
        project.makepyfile(my_losses=SPLIT.replace("* 1.5", "* 1.25"))
    elif what == "helper":
        project.makepyfile(formulas=FORMULA.replace("mean()", "mean() * 1.0"))
    elif what == "declaration":
        project.makepyfile(my_losses=SPLIT + "GOOD = GOOD.replace(requires=['G01'])\n")
    else:
        given += ["--harness-profile=ci"]
    run(*given).assert_outcomes(passed=2, failed=1, skipped=3, xfailed=1)
    run(*given).assert_outcomes(failed=1, skipped=6)


def test_of_two_losses_only_the_one_that_changed_is_checked(project, run):
    project.makepyfile(
        other=SPLIT,
        test_other="import harness\nfrom other import GOOD\n\n\n@harness.parametrize_with_checks(GOOD)\ndef test_other(check):\n    check()\n",
    )
    run()
    project.makepyfile(other=SPLIT + "# more\n")
    run("--harness-changed").assert_outcomes(passed=2, failed=1, skipped=7)


@pytest.mark.parametrize("text", ["", "[]", '{"test_project.py::test_project[good]": 3}', "\0"])
def test_a_broken_record_of_what_passed_checks_everything(project, run, text):
    run()
    (project.path / ".loss-harness" / "passed.json").write_text(text)
    run("--harness-changed").assert_outcomes(passed=2, failed=1, skipped=3, xfailed=1)


# --- types


def test_a_strict_type_checker_accepts_a_test_and_refuses_a_wrong_one(tmp_path):
    pytest.importorskip("mypy")
    for file in ("__init__.py", "py.typed", "errors.py", "pytest_plugin/__init__.py"):  # torch takes half a minute
        (tmp_path / "harness" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(harness.__file__).parent / file, tmp_path / "harness" / file)
    (tmp_path / "mine.py").write_text(
        "import harness\n\n\n@harness.parametrize_with_checks(harness.LossSpec('mine'))\n"
        "def test_losses(check: harness.Check) -> None:\n    check()\n    reveal_type(check)\n    check(1)\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--no-site-packages", "mine.py"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    mine = [line for line in done.stdout.splitlines() if line.startswith("mine.py")]
    assert len(mine) == 2, done.stdout + done.stderr
    assert 'Revealed type is "harness.pytest_plugin.Check"' in mine[0]
    assert "mine.py:8: error: Too many arguments" in mine[1]
