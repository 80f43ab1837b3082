#!/usr/bin/env bash
# An infinity cast to float8_e4m3fn is 448 in torch and in ONNX, NaN in ml_dtypes (JAX), and another float8 of torch
# makes NaN of it too. A loss that has diverged looks finite after such a cast.
#
# Source: https://github.com/pytorch/pytorch/pull/178817, https://github.com/jax-ml/ml_dtypes/issues/400,
#         https://github.com/onnx/onnx/pull/4805
#
# Output:
#     torch 2.13.0 ml_dtypes 0.6.0 onnx 1.23.2
#     torch float8_e4m3fn      of 460, 1e6, inf: [448.0, 448.0, 448.0]
#     torch float8_e4m3fnuz    of 460, 1e6, inf: [nan, nan, nan]
#     torch float8_e5m2        of 460, 1e6, inf: [448.0, inf, inf]
#     ml_dtypes float8_e4m3fn  of 460, 1e6, inf: [448.0, nan, nan]
#     onnx FLOAT8E4M3FN        of 460, 1e6, inf: [448.0, 448.0, 448.0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
if [ -n "${PYTHON:-}" ]; then # an interpreter whose torch is to be used
    packages=$("$folder/env/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' >"$packages/torch.pth"
fi
cd "$folder"
env/bin/pip install --quiet torch==2.13.0 ml_dtypes==0.6.0 onnx==1.23.2
env/bin/python - <<'EOF'
import math

import ml_dtypes
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

print("torch", torch.__version__.split("+")[0], "ml_dtypes", ml_dtypes.__version__, "onnx", onnx.__version__)
values = np.array([460, 1e6, math.inf], dtype=np.float32)
casts = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT8E4M3FN), helper.make_node("Cast", ["y"], ["z"], to=1)]
graph = helper.make_graph(
    casts, "cast", [helper.make_tensor_value_info("x", 1, [3])], [helper.make_tensor_value_info("z", 1, [3])]
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
seen = {
    "torch float8_e4m3fn": torch.from_numpy(values).to(torch.float8_e4m3fn).float().tolist(),
    "torch float8_e4m3fnuz": torch.from_numpy(values).to(torch.float8_e4m3fnuz).float().tolist(),
    "torch float8_e5m2": torch.from_numpy(values).to(torch.float8_e5m2).float().tolist(),
    "ml_dtypes float8_e4m3fn": values.astype(ml_dtypes.float8_e4m3fn).astype(np.float32).tolist(),
    "onnx FLOAT8E4M3FN": ReferenceEvaluator(model).run(None, {"x": values})[0].tolist(),
}
for name, row in seen.items():
    print(f"{name:24} of 460, 1e6, inf: {row}")
assert [str(row) for row in seen.values()] == [
    "[448.0, 448.0, 448.0]", "[nan, nan, nan]", "[448.0, inf, inf]", "[448.0, nan, nan]", "[448.0, 448.0, 448.0]",
]
EOF
