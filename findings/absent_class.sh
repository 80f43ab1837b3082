#!/usr/bin/env bash
# Neither prediction nor target has a class: the Dice loss of MONAI is 0 (perfect), the Dice score of torchmetrics is NaN,
# and the F1 score, the same formula 2 TP / (2 TP + FP + FN), is 0 (the worst) in torchmetrics and in scikit-learn.
#
# Source: https://github.com/Lightning-AI/torchmetrics/issues/2850, https://github.com/MIC-DKFZ/nnUNet/issues/1065
#
# Output:
#     monai 1.6.1 torchmetrics 1.9.0 scikit-learn 1.9.1
#     1 - MONAI DiceLoss  1.0
#     torchmetrics dice   nan
#     torchmetrics F1     0.0
#     scikit-learn F1     0.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
if [ -n "${PYTHON:-}" ]; then # an interpreter whose torch is to be used
    packages=$("$folder/env/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' >"$packages/torch.pth"
fi
cd "$folder"
env/bin/pip install --quiet torch==2.13.0 monai==1.6.1 torchmetrics==1.9.0 scikit-learn==1.9.1
env/bin/python - 2>/dev/null <<'EOF'
import math

import monai
import sklearn
import torch
import torchmetrics
from monai.losses import DiceLoss
from sklearn.metrics import f1_score
from torchmetrics.functional.classification import binary_f1_score
from torchmetrics.functional.segmentation import dice_score

print("monai", monai.__version__, "torchmetrics", torchmetrics.__version__, "scikit-learn", sklearn.__version__)
empty = torch.zeros(1, 1, 2, 2)
values = [
    1 - DiceLoss()(empty, empty).item(),
    dice_score(empty.long(), empty.long(), num_classes=1).item(),
    binary_f1_score(empty.flatten(), empty.flatten().long()).item(),
    float(f1_score([0] * 4, [0] * 4)),
]
for name, value in zip(("1 - MONAI DiceLoss", "torchmetrics dice", "torchmetrics F1", "scikit-learn F1"), values):
    print(f"{name:19} {value:.1f}")
assert values[0] == 1 and math.isnan(values[1]) and values[2] == values[3] == 0
EOF
