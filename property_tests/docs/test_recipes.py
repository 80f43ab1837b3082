"""The recipes of CONTRIBUTING.md, followed in a copy of the tree."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import report_examples as examples

from harness.results import schema

ROOT = Path(__file__).parents[2]

RULE = '''

def value_is_below_a_million(trial: Trial) -> Mismatch | None:
    """The loss of a small batch is a number that a person can read.

        |L| < 10^6
    """
    value = abs(trial.base.scalar)
    return None if value < 1e6 else Mismatch("loss", f"{value:.3g}", "below 1e+06", hint="divide by the number of elements")


RULES += (
    Rule(
        code="P09",
        title="the value is below a million",
        group="costs",
        severity="warning",
        check=value_is_below_a_million,
        regimes={"distinct": 2},
        why="Large losses hide small ones in a sum.",
        example="(predictions - labels).square().sum() * 1e9",
        mend="Divide by the number of elements.",
        source="this recipe",
    ),
)
'''

MUTANT = """

def far_too_large(predictions, labels):
    return 1e9 + (predictions - labels).square().mean()


def as_large_as_the_error(predictions, labels):
    return (predictions - labels).square().mean()


PAIRS += (pair("P09", "a loss of a billion", far_too_large, as_large_as_the_error, severity="warning", says="expected below"),)
"""

FORMAT = """def _names(report: Report, how: Presentation) -> str:
    return "".join(f"{loss.name}\\n" for loss in report.losses)


FORMATS:"""


@pytest.fixture
def copy(tmp_path):
    for name in ("docs", "harness", "losses", "property_tests"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(copy, *args):
    done = subprocess.run(
        [sys.executable, "-P", "-m", *args],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(copy), "PATH": "", "HOME": str(copy), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_rule_is_one_file_and_its_mutant_another(copy):
    for file, text in (("harness/rules/costs/host_reads.py", RULE), ("property_tests/mutants/costs.py", MUTANT)):
        (copy / file).write_text((ROOT / file).read_text() + text)
    run(copy, "docs.generate")
    assert run(copy, "harness", "explain", "P09").startswith("# P09 the value is below a million")
    tests = ("property_tests/rules/test_rules_catch_mutants.py", "-k", "(P09 and not code) or every_rule")
    assert "3 passed" in run(copy, "pytest", "-q", "-p", "no:cacheprovider", *tests)


def test_a_format_is_one_file(copy):
    file = copy / "harness/report/formats.py"
    text = (
        file.read_text()
        .replace("FORMATS:", FORMAT)
        .replace('    "csv": _csv,\n', '    "csv": _csv,\n    "names": _names,\n')
    )
    file.write_text(text)
    (copy / "report.json").write_text(schema.dumps(examples.report()))
    assert run(copy, "harness", "show", "report.json", "--format", "names") == "graph_distance\n"
