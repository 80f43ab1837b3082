"""Does once, before any job is forked, what torch does when it first makes a dual number: it compiles formulas for a third of a second."""

import torch
from torch.autograd import forward_ad

with forward_ad.dual_level():
    forward_ad.make_dual(torch.zeros((), device="cpu"), torch.zeros((), device="cpu"))
