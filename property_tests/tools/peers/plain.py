"""`torch.autograd.gradcheck` in pytest: what most packages have for a loss."""

from __future__ import annotations

import torch
from torch.autograd import gradcheck

from property_tests.tools.peers.losses import PREDICTIONS, VALUE, WEIGHTS, chosen


def test_value() -> None:
    p = torch.tensor(PREDICTIONS)
    torch.testing.assert_close(chosen()(torch.tensor(WEIGHTS))(p, torch.zeros_like(p)), torch.tensor(VALUE))


def test_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    p, y = (torch.randn(4, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    loss = chosen()(torch.rand(4, dtype=torch.float64, generator=generator))
    assert gradcheck(loss, (p.requires_grad_(), y))
