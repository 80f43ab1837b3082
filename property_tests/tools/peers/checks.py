"""Checks in the style of scikit-learn's `check_estimator`: general ones, asked of any loss of this signature.

scikit-learn's own ask estimators, and of a loss nothing; each of these says which one it follows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from property_tests.tools.peers.losses import chosen

Make = Callable[..., nn.Module]


def drawn(batch: int = 4, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((batch, 3), (batch, 3), (batch,))
    p, y, w = (torch.rand(size, generator=generator).to(dtype) for size in sizes)
    return p, y, w


def check_estimators_dtypes(make: Make) -> None:
    for dtype in (torch.float32, torch.float64):
        p, y, w = drawn(dtype=dtype)
        assert make(w)(p, y).dtype == dtype


def check_readonly_memmap_input(make: Make) -> None:
    p, y, w = drawn()
    before = [each.clone() for each in (p, y, w)]
    make(w)(p, y)
    assert all(torch.equal(a, b) for a, b in zip(before, (p, y, w), strict=True))


def check_fit2d_1sample(make: Make) -> None:
    p, y, w = drawn(1)
    assert make(w)(p, y).isfinite()


def check_methods_sample_order_invariance(make: Make) -> None:
    p, y, w = drawn()
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(make(w)(p, y), make(w[order])(p[order], y[order]))


def check_fit_idempotent(make: Make) -> None:
    p, y, w = drawn()
    loss = make(w)
    assert torch.equal(loss(p.clone(), y.clone()), loss(p.clone(), y.clone()))


def check_n_features_in_after_fitting(make: Make) -> None:
    p, y, w = drawn()
    with pytest.raises(ValueError, match="shape"):
        make(w)(p, y[:, :1])


def check_estimators_pickle(make: Make) -> None:
    p, y, w = drawn()
    loss = make(w)
    assert torch.equal(loss(p.clone(), y.clone()), copy.deepcopy(loss)(p.clone(), y.clone()))


def check_gradient(make: Make) -> None:
    p, y, w = drawn()
    assert gradcheck(make(w), (p.requires_grad_(), y))


CHECKS = [check for name, check in list(globals().items()) if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_loss(check: Callable[[Make], None]) -> None:
    check(chosen())
