"""The pytest fixture ``paired_benchmark``; its results stand at the end of the run and in JUnit's properties.

Loading this imports no torch; using the fixture does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.timing.paired import PairedBenchmark, PairedComparison

_PROPERTY = "paired_benchmark"


@pytest.fixture
def paired_benchmark(request: pytest.FixtureRequest) -> PairedBenchmark:
    """Time a candidate and a baseline in turn: ``paired_benchmark(new, old).must_not_be_slower()``.

    See `harness.timing.paired.PairedBenchmark`.  Under pytest-benchmark's ``--benchmark-disable`` each is called once and nothing
    is asserted about time; ``--benchmark-skip`` skips the test.
    """
    from harness.timing.paired import PairedBenchmark

    config = request.config
    if config.getoption("benchmark_skip", False):
        pytest.skip("--benchmark-skip: this test times")

    def report(comparison: PairedComparison) -> None:
        # the fixture record_property would do no more, and warn under pytest's own default, junit_family = xunit2
        request.node.user_properties.append((_PROPERTY, str(comparison)))

    return PairedBenchmark(
        disabled=bool(config.getoption("benchmark_disable", False)),
        report=report,
        repeat=f'pytest "{request.node.nodeid}"',
    )


class PairedSummary:
    """One line for each comparison at the end of the run."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect what the test recorded, in this process or in a worker of pytest-xdist."""
        if report.when == "call":
            self.lines += [f"{report.nodeid}: {text}" for name, text in report.user_properties if name == _PROPERTY]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write them."""
        if self.lines:
            terminalreporter.section("paired benchmarks")
        for line in self.lines:
            terminalreporter.line(line)
