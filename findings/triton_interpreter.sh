#!/usr/bin/env bash
# Triton's interpreter, with which kernels run on the CPU: bfloat16 arithmetic is done on the bits, a float argument has no
# `.to`, and programs run one after another, so that a race on the GPU gives the right number here.
#
# Source: https://github.com/triton-lang/triton/issues/11584, https://github.com/triton-lang/triton/pull/10945
#
# Output:
#     torch 2.13.0 triton 3.9.0
#     1 + 1 and -2 + -2 in float16:  [2.0, -4.0]
#     1 + 1 and -2 + -2 in bfloat16: [1.7014118346046923e+38, -0.0]
#     scale.to(tl.float32): InterpreterError AttributeError("'float' object has no attribute 'to'")
#     1000 programs that count without an atomic: 1000.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
if [ -n "${PYTHON:-}" ]; then # an interpreter whose torch is to be used
    packages=$("$folder/env/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' >"$packages/torch.pth"
fi
cd "$folder"
env/bin/pip install --quiet torch==2.13.0 triton==3.9.0
cat >kernels.py <<'EOF'
import torch
import triton
import triton.language as tl


@triton.jit
def add(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i) + tl.load(x + i))


@triton.jit
def convert(out, scale):
    tl.store(out, scale.to(tl.float32))


@triton.jit
def count(out):
    tl.store(out, tl.load(out) + 1.0)


def doubled(dtype):
    out = torch.zeros(2, dtype=dtype)
    add[(1,)](torch.tensor([1.0, -2.0], dtype=dtype), out, N=2)
    return out.tolist()


print("torch", torch.__version__.split("+")[0], "triton", triton.__version__)
print("1 + 1 and -2 + -2 in float16: ", doubled(torch.float16))
print("1 + 1 and -2 + -2 in bfloat16:", doubled(torch.bfloat16))
try:
    convert[(1,)](torch.zeros(1), 0.5)
    refused = False
except Exception as error:
    refused = True
    print("scale.to(tl.float32):", type(error).__name__, error)
counter = torch.zeros(1)
count[(1000,)](counter)
print("1000 programs that count without an atomic:", counter.item())
assert doubled(torch.float16) == [2, -4] != doubled(torch.bfloat16) and refused and counter.item() == 1000
EOF
TRITON_INTERPRET=1 env/bin/python kernels.py
