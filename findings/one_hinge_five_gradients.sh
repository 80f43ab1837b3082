#!/usr/bin/env bash
# max(x, 0) at x = 0 has a gradient of 0, 1/2 or 1, depending on how it is written; max over a vector gives a tie to one
# element or shares it, depending on whether `dim` is given, and topk and cummax take another element each.
#
# Source: https://github.com/pytorch/pytorch/issues/184572 (closed; a later torch changes `clamp`)
#
# Output:
#     torch 2.13.0
#     max(x, 0) at 0:     {'F.relu': 0.0, 'clamp(min=0)': 1.0, 'torch.maximum': 0.5, 'torch.fmax': 1.0, 'torch.where(x > 0)': 0.0}
#     max of [2, 2, 2]:   {'max()': [0.33, 0.33, 0.33], 'max(dim=0)': [1.0, 0.0, 0.0], 'amax()': [0.33, 0.33, 0.33], 'topk(1)': [1.0, 0.0, 0.0], 'cummax': [0.0, 0.0, 1.0]}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
if [ -n "${PYTHON:-}" ]; then # an interpreter whose torch is to be used
    packages=$("$folder/env/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' >"$packages/torch.pth"
fi
cd "$folder"
env/bin/pip install --quiet torch==2.13.0
env/bin/python - <<'EOF'
import torch
from torch.nn import functional as F

print("torch", torch.__version__.split("+")[0])
zero = torch.zeros(())
hinges = {
    "F.relu": F.relu,
    "clamp(min=0)": lambda x: x.clamp(min=0),
    "torch.maximum": lambda x: torch.maximum(x, zero),
    "torch.fmax": lambda x: torch.fmax(x, zero),
    "torch.where(x > 0)": lambda x: torch.where(x > 0, x, zero),
}
maxima = {
    "max()": lambda x: x.max(),
    "max(dim=0)": lambda x: x.max(0).values,
    "amax()": lambda x: x.amax(),
    "topk(1)": lambda x: x.topk(1).values.sum(),
    "cummax": lambda x: x.cummax(0).values[-1],
}


def gradient(function, *values):
    x = torch.tensor(values if len(values) > 1 else values[0], requires_grad=True)
    return [round(value, 2) for value in torch.autograd.grad(function(x), x)[0].reshape(-1).tolist()]


at_zero = {name: gradient(function, 0.0)[0] for name, function in hinges.items()}
at_ties = {name: gradient(function, 2.0, 2.0, 2.0) for name, function in maxima.items()}
print("max(x, 0) at 0:    ", at_zero)
print("max of [2, 2, 2]:  ", at_ties)
assert list(at_zero.values()) == [0, 1, 0.5, 1, 0]
assert at_ties["max()"] == at_ties["amax()"] == [0.33] * 3 and at_ties["max(dim=0)"] == [1, 0, 0] != at_ties["cummax"]
EOF
