"""kornia's `BaseTester`, which is in its repository and in no wheel, with the tests that kornia has for each of its losses."""

from __future__ import annotations

import pytest
import torch
from testing.base import BaseTester

from property_tests.tools.peers.losses import PREDICTIONS, VALUE, WEIGHTS, chosen


class TestLoss(BaseTester):
    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
    def test_smoke(self, dtype: torch.dtype) -> None:
        p = torch.rand(2, 3, dtype=dtype)
        assert chosen()(torch.ones(2, dtype=dtype))(p, torch.rand(2, 3, dtype=dtype)) is not None

    def test_exception(self) -> None:
        with pytest.raises(ValueError, match="shape"):
            chosen()(torch.ones(2))(torch.rand(2, 3), torch.rand(2, 1))

    @pytest.mark.parametrize("shape", [(1, 1), (2, 3), (8, 5)])
    def test_cardinality(self, shape: tuple[int, int]) -> None:
        assert chosen()(torch.ones(shape[0]))(torch.rand(shape), torch.rand(shape)).shape == ()

    def test_numeric(self) -> None:
        p = torch.tensor(PREDICTIONS)
        self.assert_close(chosen()(torch.tensor(WEIGHTS))(p, torch.zeros_like(p)), torch.tensor(VALUE))

    def test_gradcheck(self) -> None:
        loss = chosen()(torch.rand(4, dtype=torch.float64))
        self.gradcheck(loss, (torch.rand(4, 3), torch.rand(4, 3)), requires_grad=[True, False])
