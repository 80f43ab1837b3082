"""Runs the code that findings print, and says whether it shows the defect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[1]
ROOT = HERE.parent

RUNNER = """
import contextlib, io, json, os, sys, traceback
import torch
torch.set_num_threads(1)
done, home, streams, mse_loss = {}, os.getcwd(), (sys.stdout, sys.stderr), torch.nn.functional.mse_loss
for name, code in json.load(sys.stdin).items():
    torch.set_grad_enabled(True)  # the code before may have been about what a loss leaves behind
    torch.set_default_dtype(torch.float32)
    torch.autograd.set_detect_anomaly(False)
    torch.use_deterministic_algorithms(False)
    os.chdir(home)
    torch.nn.functional.mse_loss = mse_loss
    sys.stdout, sys.stderr = streams
    out, error = io.StringIO(), ""
    with contextlib.redirect_stdout(out):
        try:
            exec(compile(code, name, "exec"), {"__name__": "__main__"})
        except Exception:
            error = traceback.format_exc()
    done[name] = {"out": out.getvalue(), "error": error}
print(json.dumps(done))
"""


def run_each(codes, cwd=ROOT, path=()):
    """What each code prints and raises, all in one fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(codes),
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def shows(finding, result):
    """Whether the run shows the defect: it raises what the loss raised, or prints."""
    raised = finding.evidence["came"].partition(":")[0]
    if result["error"]:
        return any(line.partition(":")[0].endswith(raised) for line in result["error"].splitlines())
    return bool(result["out"].strip())
