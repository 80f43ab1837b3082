"""Shared by all tests: one thread, so that workers do not fight over cores, and pytest's own test tools."""

import pytest
import torch
from fake_time import FakeTime, install

pytest_plugins = ["pytester"]

torch.set_num_threads(1)


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The time by which this process times, which stands still but for whoever sleeps by it."""
    fake = FakeTime()
    install(fake, monkeypatch.setattr)
    return fake


def pytest_configure(config: pytest.Config) -> None:
    """Before 2.13 torch asks a sparse tensor to opt in or out of its checks even where `check_invariants` does."""
    if torch.__version__ < (2, 13):
        config.addinivalue_line("filterwarnings", "ignore:Sparse invariant checks are implicitly disabled:UserWarning")
