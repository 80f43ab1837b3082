#!/usr/bin/env bash
# One entropic transport problem, four numbers: POT's sinkhorn2 is the cost without the entropy, ot.solve adds it (twice
# differently), and geomloss halves the cost and subtracts what each cloud has with itself.
#
# Source: https://github.com/jeanfeydy/geomloss/issues/45
#
# Output:
#     torch 2.13.0 geomloss 0.3.1 POT 0.9.7.post1
#     ot.sinkhorn2                    +0.9158
#     ot.solve                        +0.9714
#     ot.solve entropy                +0.4221
#     geomloss                        +0.3782
#     geomloss debias=False, doubled  +0.9714
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
if [ -n "${PYTHON:-}" ]; then # an interpreter whose torch is to be used
    packages=$("$folder/env/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' >"$packages/torch.pth"
fi
cd "$folder"
env/bin/pip install --quiet torch==2.13.0 geomloss==0.3.1 POT==0.9.7.post1
env/bin/python - 2>/dev/null <<'EOF'
import geomloss
import ot
import torch

print("torch", torch.__version__.split("+")[0], "geomloss", geomloss.__version__, "POT", ot.__version__)
x = torch.tensor([[0.1, 0.2], [0.8, 0.3], [0.5, 0.9]], dtype=torch.double)
y = torch.tensor([[1.1, 0.4], [0.9, 1.2], [1.4, 1.3]], dtype=torch.double)
weights, cost, epsilon = torch.full((3,), 1 / 3, dtype=torch.double), ((x[:, None] - y) ** 2).sum(-1), 0.25


def geometric(debias):
    blur = (epsilon / 2) ** 0.5
    return geomloss.SamplesLoss(blur=blur, backend="tensorized", scaling=0.99, debias=debias)(x, y).item()


values = {
    "ot.sinkhorn2": ot.sinkhorn2(weights, weights, cost, epsilon).item(),
    "ot.solve": ot.solve(cost, weights, weights, reg=epsilon).value.item(),
    "ot.solve entropy": ot.solve(cost, weights, weights, reg=epsilon, reg_type="entropy").value.item(),
    "geomloss": geometric(True),
    "geomloss debias=False, doubled": 2 * geometric(False),
}
for name, value in values.items():
    print(f"{name:31} {value:+.4f}")
first, solved, entropic, debiased, doubled = values.values()
assert abs(solved - doubled) < 1e-3 and len({round(value, 2) for value in (first, solved, entropic, debiased)}) == 4
EOF
