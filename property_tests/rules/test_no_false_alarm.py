"""Correct losses raise no error: torch's own, declared as a user would."""

from __future__ import annotations

import pytest

from harness import LossSpec
from harness.catalogs import torch_nn
from property_tests.examples import torch_losses, torch_modules
from property_tests.tools.false_alarms import tally

# All that is found of the losses that the catalog declares is in test_catalogs.py.
DECLARED = [implementation for spec in torch_nn.SPECS for implementation in spec.implementations.values()]
OTHERS = [
    spec
    for spec in (*torch_losses.SPECS, *torch_modules.SPECS)
    if not any(implementation in DECLARED for implementation in spec.implementations.values())
]


@pytest.mark.parametrize("spec", OTHERS, ids=lambda spec: spec.name)
def test_a_loss_of_torch_raises_no_error(spec: LossSpec) -> None:
    (found,) = tally([spec], seeds=range(1), profile="quick")
    assert found.examples > 20
    assert [finding.message for _, finding in found.errors] == []
