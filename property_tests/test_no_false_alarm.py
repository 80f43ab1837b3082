"""Correct losses raise no error: torch's own, declared as a user would."""

from __future__ import annotations

import pytest

from harness import LossSpec
from property_tests.false_alarms import tally
from property_tests.torch_losses import SPECS


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_loss_of_torch_raises_no_error(spec: LossSpec) -> None:
    (found,) = tally([spec], seeds=range(2), profile="quick")
    assert found.examples > 20
    assert [finding.message for _, finding in found.errors] == []
