#!/usr/bin/env bash
# SSIM of one pair of images is another number in each package. torchmetrics ignores `kernel_size` while its kernel is
# gaussian, kornia's loss is half of 1 - SSIM, and scikit-image takes a uniform window of 7 and a sample covariance.
#
# Source: https://github.com/Lightning-AI/torchmetrics/pull/818, https://github.com/Project-MONAI/MONAI/issues/6249
#
# Output:
#     torchmetrics 1.9.0 kornia 0.9.0 pytorch-msssim 1.0.0 scikit-image 0.26.0
#     pytorch-msssim               +0.3532
#     torchmetrics                 +0.3482
#     torchmetrics kernel_size=5   +0.3482
#     torchmetrics uniform 5       +0.3380
#     scikit-image                 +0.3464
#     1 - kornia.losses.ssim_loss  +0.6741
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
if [ -n "${PYTHON:-}" ]; then # an interpreter whose torch is to be used
    packages=$("$folder/env/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' >"$packages/torch.pth"
fi
cd "$folder"
env/bin/pip install --quiet torch==2.13.0 torchmetrics==1.9.0 kornia==0.9.0 pytorch-msssim==1.0.0 scikit-image==0.26.0
env/bin/python - 2>/dev/null <<'EOF'
import importlib.metadata

import kornia
import pytorch_msssim
import torch
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

packages = "torchmetrics", "kornia", "pytorch-msssim", "scikit-image"
print(*(f"{name} {importlib.metadata.version(name)}" for name in packages))
row = torch.arange(16, dtype=torch.double)
x = ((row[:, None] * 5 + row * 3) % 7 / 7)[None, None]
y = ((row[:, None] * 5 + row * 3 + row % 3) % 7 / 7)[None, None]
values = {
    "pytorch-msssim": pytorch_msssim.ssim(x, y, data_range=1.0),
    "torchmetrics": structural_similarity_index_measure(x, y, data_range=1.0),
    "torchmetrics kernel_size=5": structural_similarity_index_measure(x, y, data_range=1.0, kernel_size=5),
    "torchmetrics uniform 5": structural_similarity_index_measure(
        x, y, data_range=1.0, kernel_size=5, gaussian_kernel=False
    ),
    "scikit-image": structural_similarity(x[0, 0].numpy(), y[0, 0].numpy(), data_range=1.0),
    "1 - kornia.losses.ssim_loss": 1 - kornia.losses.ssim_loss(x, y, 11),
}
values = {name: round(float(value), 4) for name, value in values.items()}
for name, value in values.items():
    print(f"{name:28} {value:+.4f}")
assert values["torchmetrics"] == values["torchmetrics kernel_size=5"] != values["torchmetrics uniform 5"]
assert len(set(values.values())) == 5
EOF
