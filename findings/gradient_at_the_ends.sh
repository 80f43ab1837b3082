#!/usr/bin/env bash
# The thresholds of an ordinal loss end at minus and plus infinity. deepordinal takes the penalty of both neighbours and drops the
# one that is infinitely far by torch.where: the value is right, and the branch that is dropped has squared infinity, whose gradient
# is NaN. Every sample of the first or the last class then has a gradient of NaN, unless the penalty is the plain hinge, whose
# slope stays finite.
#
# Source: https://github.com/pytorch/pytorch/issues/68425 (torch.where passes NaN from the branch that is not taken); no report of
# deepordinal was found
#
# Output:
#     torch 2.13.0 deepordinal 0.2.1.post1
#     smooth_hinge: finite loss True, NaN gradients of classes 0 and 2
#     modified_least_squares: finite loss True, NaN gradients of classes 0 and 2
#     hinge: finite loss True, NaN gradients of no class
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
if [ -n "${PYTHON:-}" ]; then # an interpreter whose torch is to be used
    packages=$("$folder/env/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' >"$packages/torch.pth"
fi
cd "$folder"
env/bin/pip install --quiet torch==2.13.0 deepordinal==0.2.1.post1
env/bin/python - <<'EOF'
from importlib.metadata import version

import torch
from deepordinal.torch import ordinal_loss

print("torch", torch.__version__.split("+")[0], "deepordinal", version("deepordinal"))
classes, thresholds = torch.tensor([0, 1, 2]), torch.tensor([-1.0, 1.0])
found = {}
for penalty in "smooth_hinge", "modified_least_squares", "hinge":
    scores = torch.zeros(3, requires_grad=True)
    loss = ordinal_loss(scores, classes, thresholds, construction="immediate", penalty=penalty)
    (gradient,) = torch.autograd.grad(loss, scores)
    found[penalty] = classes[gradient.isnan()].tolist()
    of = "classes " + " and ".join(map(str, found[penalty])) if found[penalty] else "no class"
    print(f"{penalty}: finite loss {bool(loss.isfinite())}, NaN gradients of {of}")
assert found == {"smooth_hinge": [0, 2], "modified_least_squares": [0, 2], "hinge": []}
EOF
