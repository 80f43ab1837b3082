#!/usr/bin/env bash
# The chunked path of F.linear_cross_entropy has a forward-mode derivative: it is zero. The path without chunks has the
# right one, and neither raises.
#
# Source: https://github.com/pytorch/pytorch/pull/181574 adds the path; its derivative is computed in the forward, by hand
#
# Output:
#     torch 2.13.0
#     whole    forward mode +0.0759 reverse mode +0.0759
#     chunked  forward mode +0.0000 reverse mode +0.0759
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
env/bin/python - 2>/dev/null <<'EOF'
import torch
from torch import nn
from torch.nn import functional as F

print("torch", torch.__version__.split("+")[0])
x, v = torch.tensor([[1.0, -0.5]]), torch.tensor([[0.5, 2.0]])
weight, target = torch.tensor([[1.0, 0.0], [-1.0, 1.0]]), torch.tensor([0])
slopes = {}
for name, options in ("whole", None), ("chunked", nn.LinearCrossEntropyOptions(allow_retain_graph=True)):
    loss = lambda x: F.linear_cross_entropy(x, weight, target, options=options)
    forward = torch.func.jvp(loss, (x,), (v,))[1].item()
    leaf = x.clone().requires_grad_()
    reverse = (torch.autograd.grad(loss(leaf), leaf)[0] * v).sum().item()
    slopes[name] = forward, reverse
    print(f"{name:8} forward mode {forward:+.4f} reverse mode {reverse:+.4f}")
assert abs(slopes["whole"][0] - slopes["whole"][1]) < 1e-6
assert slopes["chunked"][0] == 0 != slopes["chunked"][1]
EOF
