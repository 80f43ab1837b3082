#!/usr/bin/env bash
# The concordance correlation of torchmetrics has variances over n - 1 and that of Lin's paper over n. The two differ where
# the means do, most in small batches: as a loss it is not the function that the paper names.
#
# Source: https://github.com/Lightning-AI/torchmetrics/pull/1201, https://github.com/HumeAI/competitions/issues/3
#
# Output:
#     torch 2.13.0 torchmetrics 1.9.0
#     n =   3: torchmetrics 0.5870, Lin 0.5000
#     n = 300: torchmetrics 0.5007, Lin 0.5000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
if [ -n "${PYTHON:-}" ]; then # an interpreter whose torch is to be used
    packages=$("$folder/env/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' >"$packages/torch.pth"
fi
cd "$folder"
env/bin/pip install --quiet torch==2.13.0 torchmetrics==1.9.0
env/bin/python - <<'EOF'
import torch
import torchmetrics
from torchmetrics.functional import concordance_corrcoef

print("torch", torch.__version__.split("+")[0], "torchmetrics", torchmetrics.__version__)
x, y = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 3.0, 5.0])


def lin(x, y):
    moved = x - x.mean(), y - y.mean()
    return 2 * (moved[0] * moved[1]).mean() / ((moved[0] ** 2).mean() + (moved[1] ** 2).mean() + (x.mean() - y.mean()) ** 2)


values = []
for copies in 1, 100:
    pair = x.repeat(copies), y.repeat(copies)
    values.append((round(concordance_corrcoef(*pair).item(), 4), round(lin(*pair).item(), 4)))
    print(f"n = {3 * copies:3}: torchmetrics {values[-1][0]:.4f}, Lin {values[-1][1]:.4f}")
assert values[0][0] > values[0][1] + 0.05 and abs(values[1][0] - values[1][1]) < 0.001
EOF
