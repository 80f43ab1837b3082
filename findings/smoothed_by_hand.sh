#!/usr/bin/env bash
# `F.cross_entropy` of class indices and of the same targets as probabilities differ by a factor where there are weights: the
# mean of the one divides by the weights of the targets, that of the other by the batch. Sums agree.
#
# Source: https://github.com/pytorch/pytorch/issues/104776, https://github.com/pytorch/pytorch/pull/63122
#
# Output:
#     torch 2.13.0
#     sum  of indices 8.1600, of probabilities 8.1600, ratio 1.0
#     mean of indices 1.3600, of probabilities 4.0800, ratio 3.0
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
logits, target = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 2])
weight, smoothing = torch.tensor([1.0, 2.0, 5.0]), 0.1
probabilities = F.one_hot(target, 3) * (1 - smoothing) + smoothing / 3
ratios = []
for reduction in "sum", "mean":
    indices = F.cross_entropy(logits, target, weight=weight, label_smoothing=smoothing, reduction=reduction)
    by_hand = F.cross_entropy(logits, probabilities, weight=weight, reduction=reduction)
    ratios.append(round((by_hand / indices).item(), 4))
    print(f"{reduction:4} of indices {indices:.4f}, of probabilities {by_hand:.4f}, ratio {ratios[-1]}")
assert ratios == [1, 3]
EOF
