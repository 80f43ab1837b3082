#!/usr/bin/env bash
# What torch.export writes down is the forward. An autograd.Function's own backward is gone from the exported module, and
# `run_decompositions()` also removes a `detach()`: same value, another gradient, no error.
#
# Source: https://github.com/pytorch/pytorch/issues/193279 (the same through torch.func.grad under torch.compile)
#
# Output:
#     torch 2.13.0
#     Reversed eager      value 4 gradient -4
#     Reversed exported   value 4 gradient +4
#     Reversed decomposed value 4 gradient +4
#     Detached eager      value 8 gradient +8
#     Detached exported   value 8 gradient +8
#     Detached decomposed value 8 gradient +12
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
from torch import nn

print("torch", torch.__version__.split("+")[0])


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Reversed(nn.Module):
    def forward(self, p, y):
        return ((Reverse.apply(p) - y) ** 2).mean()


class Detached(nn.Module):
    def forward(self, p, y):
        return ((p - y).abs().detach() * (p - y) ** 2).mean()


p, y = torch.tensor([2.0], requires_grad=True), torch.zeros(1)
table = {}
for loss in (Reversed(), Detached()):
    program = torch.export.export(loss, (p, y))
    modules = {"eager": loss, "exported": program.module(), "decomposed": program.run_decompositions().module()}
    for name, module in modules.items():
        value = module(p, y)
        table[type(loss).__name__, name] = torch.autograd.grad(value, p)[0].item()
        print(f"{type(loss).__name__:8} {name:10} value {value.item():.0f} gradient {table[type(loss).__name__, name]:+.0f}")
assert list(table.values()) == [-4, 4, 4, 8, 8, 12]
EOF
