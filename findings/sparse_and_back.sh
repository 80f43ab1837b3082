#!/usr/bin/env bash
# `x.to_sparse().to_dense()` is the identity, and its gradient is not: where x is zero the default `masked_grad` gives zero.
# The gradient of the same sum of an adjacency matrix therefore depends on whether somebody made it sparse on the way.
#
# Source: https://github.com/pytorch/pytorch/issues/95550, https://github.com/pytorch/pytorch/pull/96095
#
# Output:
#     torch 2.13.0
#     x                                          [[3.0, 3.0], [3.0, 3.0]]
#     x.to_sparse().to_dense()                   [[0.0, 3.0], [3.0, 0.0]]
#     x.to_sparse_csr().to_dense()               [[0.0, 3.0], [3.0, 0.0]]
#     x.to_sparse().to_dense(masked_grad=False)  [[3.0, 3.0], [3.0, 3.0]]
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

print("torch", torch.__version__.split("+")[0])
x = torch.tensor([[0.0, 1.0], [2.0, 0.0]], requires_grad=True)
seen = {}
for name, same in {
    "x": lambda x: x,
    "x.to_sparse().to_dense()": lambda x: x.to_sparse().to_dense(),
    "x.to_sparse_csr().to_dense()": lambda x: x.to_sparse_csr().to_dense(),
    "x.to_sparse().to_dense(masked_grad=False)": lambda x: x.to_sparse().to_dense(masked_grad=False),
}.items():
    assert torch.equal(same(x), x)
    seen[name] = torch.autograd.grad((3 * same(x)).sum(), x)[0].tolist()
    print(f"{name:42} {seen[name]}")
full, masked = [[3, 3], [3, 3]], [[0, 3], [3, 0]]
assert list(seen.values()) == [full, masked, masked, full]
EOF
