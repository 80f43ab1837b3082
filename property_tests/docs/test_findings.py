"""Findings are scripts that anybody can run and read; what they show is not asserted here, since it is other people's."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

FINDINGS = Path(__file__).parents[2] / "findings"
SCRIPTS = sorted(FINDINGS.glob("*.sh"))


def test_every_finding_has_a_row_and_every_row_a_finding() -> None:
    rows = re.findall(r"^\| \[\w+\]\((\w+\.sh)\)", (FINDINGS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [script.name for script in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_finding_is_a_script_with_its_source_and_the_output_that_was_seen(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    assert re.search(r"^# Source: https://", text, re.MULTILINE)
    assert re.search(r"^# Output:\n#     \S", text, re.MULTILINE)
    assert "set -euo pipefail" in text
    assert "harness" not in text
