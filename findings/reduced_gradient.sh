#!/usr/bin/env bash
# In two processes, of one sum of squares: all_reduce gives the value and the gradient of each process's own part,
# torch.distributed.nn.all_reduce the same value and world-size times that gradient, and all_gather no gradient at all.
#
# Source: https://github.com/pytorch/pytorch/pull/190419 (documents issue 121587), https://github.com/pytorch/pytorch/issues/120386
#
# Output:
#     torch 2.13.0
#     dist.all_reduce     value 5 gradient 2.0
#     dist.nn.all_reduce  value 5 gradient 4.0
#     dist.all_gather     value 5 gradient None
#     dist.nn.all_gather  value 5 gradient 4.0
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
cat >reduce.py <<'EOF'
import os
import sys

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{os.getcwd()}/rendezvous", rank=rank, world_size=2)
x = torch.tensor([1.0 + rank], requires_grad=True)


def in_place():
    value = (x**2).clone()
    dist.all_reduce(value)
    return value.sum()


def gathered():
    parts = [torch.zeros(1), torch.zeros(1)]
    dist.all_gather(parts, x)
    return (torch.cat(parts) ** 2).sum()


seen = {}
for name, loss in {
    "dist.all_reduce": in_place,
    "dist.nn.all_reduce": lambda: differentiable.all_reduce(x**2).sum(),
    "dist.all_gather": gathered,
    "dist.nn.all_gather": lambda: (torch.cat(differentiable.all_gather(x)) ** 2).sum(),
}.items():
    value = loss()
    seen[name] = torch.autograd.grad(value, x)[0].item() if value.requires_grad else None
    if rank == 0:
        print(f"{name:19} value {value.item():.0f} gradient {seen[name]}")
dist.destroy_process_group()
assert list(seen.values()) == [2 * x.item(), 4 * x.item(), None, 4 * x.item()]
EOF
export GLOO_SOCKET_IFNAME=lo
env/bin/python -c 'import torch; print("torch", torch.__version__.split("+")[0])'
env/bin/python reduce.py 1 2>/dev/null &
env/bin/python reduce.py 0 2>/dev/null
wait $!
