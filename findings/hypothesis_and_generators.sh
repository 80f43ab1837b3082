#!/usr/bin/env bash
# Hypothesis seeds Python's and numpy's global generators before each example, and not torch's: `np.random.rand()` is the same
# number in every example, so that a random test sees one draw, and `torch.rand` is another in every run.
#
# Source: https://github.com/HypothesisWorks/hypothesis (docstring of `hypothesis.register_random`)
#
# Output:
#     torch 2.13.0 hypothesis 6.170.15 numpy 2.4.6
#     20 examples: 1 number of np.random.rand(), 20 of torch.rand(())
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
if [ -n "${PYTHON:-}" ]; then # an interpreter whose torch is to be used
    packages=$("$folder/env/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' >"$packages/torch.pth"
fi
cd "$folder"
env/bin/pip install --quiet torch==2.13.0 hypothesis==6.170.15 numpy==2.4.6
cat >draw.py <<'EOF'
import hypothesis
import numpy as np
import torch
from hypothesis import given, settings, strategies as st

drawn = []


@settings(max_examples=20, database=None, derandomize=True)
@given(st.integers())
def draw(_):
    drawn.append((float(np.random.rand()), torch.rand(()).item()))


torch.seed()
draw()
of_numpy, of_torch = ({pair[which] for pair in drawn} for which in (0, 1))
print("torch", torch.__version__.split("+")[0], "hypothesis", hypothesis.__version__, "numpy", np.__version__)
print(f"{len(drawn)} examples: {len(of_numpy)} number of np.random.rand(), {len(of_torch)} of torch.rand(())")
assert len(drawn) == len(of_torch) == 20 and len(of_numpy) == 1
EOF
env/bin/python draw.py
