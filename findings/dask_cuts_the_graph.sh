#!/usr/bin/env bash
# A tensor that has a graph is pickled by dask's processes as a leaf that requires grad: `backward()` of what comes back
# succeeds and reaches nothing. In threads the same lines train; `copy.deepcopy` of that tensor refuses.
#
# Source: https://github.com/pytorch/pytorch/issues/36457, https://github.com/pytorch/pytorch/pull/10220
#
# Output:
#     torch 2.13.0 dask 2026.8.0
#     threads   value 18, a leaf: False, gradient of the weight: [18.0, 18.0]
#     processes value 18, a leaf: True, gradient of the weight: None
#     deepcopy: Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
if [ -n "${PYTHON:-}" ]; then # an interpreter whose torch is to be used
    packages=$("$folder/env/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' >"$packages/torch.pth"
fi
cd "$folder"
env/bin/pip install --quiet torch==2.13.0 dask==2026.8.0
cat >train.py <<'EOF'
import copy

import dask
import torch


def loss(p):
    return (p**2).sum()


if __name__ == "__main__":
    print("torch", torch.__version__.split("+")[0], "dask", dask.__version__)
    gradients = {}
    for scheduler in "threads", "processes":
        weight = torch.ones(2, requires_grad=True)
        predictions = weight * 3
        (value,) = dask.compute(dask.delayed(loss)(predictions), scheduler=scheduler)
        value.backward()
        gradients[scheduler] = None if weight.grad is None else weight.grad.tolist()
        print(f"{scheduler:9} value {value.item():.0f}, a leaf: {value.is_leaf}, gradient of the weight: {gradients[scheduler]}")
    try:
        copy.deepcopy(predictions)
    except RuntimeError as error:
        print("deepcopy:", str(error).partition(" at the moment")[0])
    assert gradients == {"threads": [18, 18], "processes": None}
EOF
env/bin/python train.py
