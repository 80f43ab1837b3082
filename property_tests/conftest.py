"""Shared by all tests: one thread, so that workers do not fight over cores, and pytest's own test tools."""

import gc

import pytest
import torch
from fake_time import FakeTime, install

from harness.cli import apart
from harness.isolation.sandbox import Sandbox
from harness.runs.preload import COMPILER, TIMERS, TIMING

pytest_plugins = ["pytester"]

# The files that take longest, from the longest: they begin, so that in several processes none is left when all others are done.
LONGEST = (
    "test_properties.py",
    "test_rules_catch_mutants.py",
    "test_jobs.py",
    "test_asv_regressions.py",
    "test_propose.py",
    "test_losses.py",
    "test_catalogs.py",
    "test_benchmark.py",
    "test_cheats.py",
    "test_report_in_chromium.py",
    "test_determinism.py",
    "test_played_device.py",
    "test_cli.py",
    "test_docs.py",
    "test_index_in_chromium.py",
    "test_wheel.py",
    "test_no_false_alarm.py",
    "test_peers.py",
    "test_leaks.py",
    "test_mutation.py",
    "test_pytest_plugin.py",
    "test_terminal.py",
    "test_speed.py",
)

gc.disable()  # until all tests are found: modules leave little behind, and looking for it takes a tenth of the time
torch.set_num_threads(1)


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The time by which this process times, which stands still but for whoever sleeps by it."""
    fake = FakeTime()
    install(fake, monkeypatch.setattr)
    return fake


@pytest.fixture(scope="session")
def one_box() -> Sandbox | None:
    """What starts the jobs of all commands in this process: one that has what any of them needs, and not one for each need."""
    return apart.box((*COMPILER, *TIMERS, *TIMING))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of the files; within a file, tests keep theirs."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_collection_finish() -> None:
    """Look for garbage from now on, and only in what the tests make."""
    gc.freeze()
    gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    """Before 2.13 torch asks a sparse tensor to opt in or out of its checks even where `check_invariants` does."""
    if torch.__version__ < (2, 13):
        config.addinivalue_line("filterwarnings", "ignore:Sparse invariant checks are implicitly disabled:UserWarning")
