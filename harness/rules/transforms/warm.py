"""Does once, before any job is forked, what torch's compiler does when it first captures a graph: a third of a second.

Not where torch may find CUDA, for which a capture asks: forks of a process that has used a device cannot.
"""

import torch

from harness.rules.transforms.compiler import quiet_compiler

if not torch.backends.cuda.is_built():
    with quiet_compiler():
        torch.compile(torch.nn.Softplus(), backend="eager", fullgraph=True)(
            torch.ones(2, 3, device="cpu", requires_grad=True)
        )
