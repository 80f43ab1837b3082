#!/usr/bin/env bash
# A prediction of 1 for a label of 0 has an infinite log-loss. torch says 100 (its logarithm ends at -100), scikit-learn
# says 36 of float64 and 16 of the same numbers in float32 (it clips by the epsilon of their dtype).
#
# Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.modules.loss.BCELoss.html,
#         https://scikit-learn.org/stable/modules/generated/sklearn.metrics.log_loss.html
#
# Output:
#     torch 2.13.0 scikit-learn 1.9.1
#     torch                 100.00
#     scikit-learn float64  36.04
#     scikit-learn float32  15.94
#     torch, gradient       1e+12
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
if [ -n "${PYTHON:-}" ]; then # an interpreter whose torch is to be used
    packages=$("$folder/env/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' >"$packages/torch.pth"
fi
cd "$folder"
env/bin/pip install --quiet torch==2.13.0 scikit-learn==1.9.1
env/bin/python - <<'EOF'
import numpy as np
import sklearn
import torch
from sklearn.metrics import log_loss
from torch.nn import functional as F

print("torch", torch.__version__.split("+")[0], "scikit-learn", sklearn.__version__)
price = {"torch": F.binary_cross_entropy(torch.ones(1), torch.zeros(1)).item()}
for dtype in np.float64, np.float32:
    price[f"scikit-learn {dtype.__name__}"] = log_loss([0], np.ones(1, dtype=dtype), labels=[0, 1])
for name, value in price.items():
    print(f"{name:21} {value:.2f}")
p = torch.ones(1, requires_grad=True)
slope = torch.autograd.grad(F.binary_cross_entropy(p, torch.zeros(1)), p)[0].item()
print(f"torch, gradient       {slope:.0e}")
assert [round(value) for value in price.values()] == [100, 36, 16] and slope > 1e11
EOF
