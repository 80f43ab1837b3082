"""What the code of a user prints while it is timed goes to stderr, wherever it writes it; stdout is for results."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
from harness.timing.user_code import printing_to_stderr
if "closed" in sys.argv:
    os.close(1)
if "none" in sys.argv:
    os.close(1)
    sys.stdout = None
with printing_to_stderr():
    print("of the loss")
    if len(sys.argv) == 1:
        os.system("echo of a child")
        os.write(1, b"of a library\\n")
if len(sys.argv) == 1:
    print("the result")
else:
    os.write(2, b"and it goes on\\n")
"""


def printed(*words):
    path = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_only_the_result_is_on_stdout():
    assert printed() == (["the result"], ["of the loss", "of a child", "of a library"])


@pytest.mark.parametrize("how", ["closed", "none"])
def test_a_process_without_stdout_prints_to_stderr_too(how):
    out, error = printed(how)
    assert out == []
    assert error[:2] == ["of the loss", "and it goes on"]
