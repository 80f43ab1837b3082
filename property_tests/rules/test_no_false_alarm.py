"""Correct losses raise no error: torch's own, declared as a user would."""

from __future__ import annotations

import pytest

from harness import LossSpec
from property_tests.examples import torch_losses, torch_modules
from property_tests.tools.false_alarms import tally


@pytest.mark.parametrize("spec", [*torch_losses.SPECS, *torch_modules.SPECS], ids=lambda spec: spec.name)
def test_a_loss_of_torch_raises_no_error(spec: LossSpec) -> None:
    (found,) = tally([spec], seeds=range(1), profile="quick")
    assert found.examples > 20
    assert [finding.message for _, finding in found.errors] == []
