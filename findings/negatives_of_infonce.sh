#!/usr/bin/env bash
# InfoNCE and NT-Xent at one temperature are two functions: in NT-Xent each of 2N views has 2N - 2 negatives, in
# info-nce-pytorch each of N queries has N - 1. By default their temperatures differ as well (0.1, 0.07, 0.5 in MONAI).
#
# Source: https://github.com/RElbers/info-nce-pytorch,
#         https://kevinmusgrave.github.io/pytorch-metric-learning/losses/ntxent_loss/
#
# Output:
#     info-nce-pytorch 0.1.4 pytorch-metric-learning 2.9.0 monai 1.6.1
#     info-nce InfoNCE               0.6781
#     metric-learning NTXentLoss     1.0847
#     metric-learning one direction  0.6781
#     MONAI ContrastiveLoss          1.0847
#     temperature by default: 0.1 0.07 0.5
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
if [ -n "${PYTHON:-}" ]; then # an interpreter whose torch is to be used
    packages=$("$folder/env/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' >"$packages/torch.pth"
fi
cd "$folder"
env/bin/pip install --quiet torch==2.13.0 info-nce-pytorch==0.1.4 pytorch-metric-learning==2.9.0 monai==1.6.1
env/bin/python - 2>/dev/null <<'EOF'
import importlib.metadata
import inspect

import torch
from info_nce import InfoNCE
from monai.losses import ContrastiveLoss
from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

packages = "info-nce-pytorch", "pytorch-metric-learning", "monai"
print(*(f"{name} {importlib.metadata.version(name)}" for name in packages))
one = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
two = torch.tensor([[1.0, 0.2], [0.1, 1.0], [0.5, 1.0]])
values = {
    "info-nce InfoNCE": InfoNCE(temperature=0.5)(one, two),
    "metric-learning NTXentLoss": SelfSupervisedLoss(NTXentLoss(temperature=0.5))(one, two),
    "metric-learning one direction": SelfSupervisedLoss(NTXentLoss(temperature=0.5), symmetric=False)(one, two),
    "MONAI ContrastiveLoss": ContrastiveLoss(temperature=0.5)(one, two),
}
values = {name: round(value.item(), 4) for name, value in values.items()}
for name, value in values.items():
    print(f"{name:30} {value:.4f}")
kinds = InfoNCE, NTXentLoss, ContrastiveLoss
defaults = [inspect.signature(kind).parameters["temperature"].default for kind in kinds]
print("temperature by default:", *defaults)
info, symmetric, one_way, monai = values.values()
assert info == one_way != symmetric == monai and defaults == [0.1, 0.07, 0.5]
EOF
