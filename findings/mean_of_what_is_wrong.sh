#!/usr/bin/env bash
# pytorch-metric-learning's ContrastiveLoss takes the mean of the pairs that have a loss, not of the pairs, and does not square
# the margin: a batch in which one pair is still wrong has the same loss as one in which all are.
#
# Source: https://kevinmusgrave.github.io/pytorch-metric-learning/reducers (AvgNonZeroReducer)
#
# Output:
#     torch 2.13.0 pytorch-metric-learning 2.9.0
#     default      one pair of three wrong 0.4, three wrong 0.4
#     MeanReducer  one pair of three wrong 0.133, three wrong 0.4
#     the paper's (1 - d)^2 of a wrong pair 0.16, here 1 - d = 0.4
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
if [ -n "${PYTHON:-}" ]; then # an interpreter whose torch is to be used
    packages=$("$folder/env/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' >"$packages/torch.pth"
fi
cd "$folder"
env/bin/pip install --quiet torch==2.13.0 pytorch-metric-learning==2.9.0
env/bin/python - 2>/dev/null <<'EOF'
import pytorch_metric_learning
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import ContrastiveLoss
from pytorch_metric_learning.reducers import MeanReducer

print("torch", torch.__version__.split("+")[0], "pytorch-metric-learning", pytorch_metric_learning.__version__)
labels = torch.arange(3)  # no two are of one class: every pair is to be apart by the margin of 1
one_wrong = torch.tensor([[0.0, 0.0], [0.6, 0.0], [9.0, 0.0]])
all_wrong = torch.tensor([[0.0, 0.0], [0.6, 0.0], [0.3, 0.27**0.5]])
distance = LpDistance(normalize_embeddings=False)
seen = []
for name, loss in {
    "default": ContrastiveLoss(distance=distance),
    "MeanReducer": ContrastiveLoss(distance=distance, reducer=MeanReducer()),
}.items():
    seen.append([round(loss(points, labels).item(), 3) for points in (one_wrong, all_wrong)])
    print(f"{name:12} one pair of three wrong {seen[-1][0]}, three wrong {seen[-1][1]}")
print("the paper's (1 - d)^2 of a wrong pair 0.16, here 1 - d = 0.4")
assert seen == [[0.4, 0.4], [0.133, 0.4]]
EOF
