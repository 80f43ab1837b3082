"""pytest plugin: `@harness.parametrize_with_checks(SPECS)`, one test per spec x implementation x rule.

    @harness.parametrize_with_checks(SPECS)
    def test_losses(check):
        check()

and the fixture ``paired_benchmark`` of `harness.pytest_plugin.paired`: this must not be slower than that.

Loading this imports no torch, so that projects that do not use it pay nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from harness.errors import HarnessError
from harness.pytest_plugin import paired
from harness.runs import configuration
from harness.runs.configuration import PROFILES

if TYPE_CHECKING:
    from harness.checking.session import Session
    from harness.declare.spec import LossSpec
    from harness.results.findings import Finding
    from harness.results.schema import LossRecord

F = TypeVar("F", bound=Callable[..., Any])

FAILURES = ".loss-harness/failures"
_SPECS = "_loss_harness_specs"
_PAYLOAD = "_loss_harness"
_SESSION: pytest.StashKey[Session] = pytest.StashKey()


def parametrize_with_checks(specs: LossSpec | Sequence[LossSpec]) -> Callable[[F], F]:
    """Decorate a test function so that it runs once per spec, implementation and rule.

    The function takes one argument ``check`` and calls it.  A test fails where the rule finds an error, is skipped where
    the rule says nothing, and is an expected failure where the spec waives it.  Ids such as
    ``graph_distance-vectorized-G01`` are stable, for ``-k``.

    Args:
        specs: one spec, or several with different names.

    Raises:
        HarnessError: no spec, or two of one name.
        TypeError: something that is not a LossSpec.
    """
    from harness.declare.spec import LossSpec

    chosen = [specs] if isinstance(specs, LossSpec) else list(specs)
    for spec in chosen:
        if not isinstance(spec, LossSpec):
            raise TypeError(f"parametrize_with_checks([{spec!r}]): needs LossSpecs, but got {type(spec).__name__}")
    names = [spec.name for spec in chosen]
    if not names:
        raise HarnessError("parametrize_with_checks([]): needs at least one LossSpec; no test would run")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise HarnessError(f"two specs have the name {twice[0]!r}; give one another name, so that test ids differ")

    def decorate(function: F) -> F:
        setattr(function, _SPECS, chosen)
        return function

    return decorate


class Check:
    """One implementation x rule of a spec; calling it verifies it and ends the test accordingly."""

    def __init__(self, spec: LossSpec, implementation: str, code: str, planned: int, config: pytest.Config) -> None:
        self.spec = spec
        self.implementation = implementation
        self.code = code
        self.planned = planned
        self.config = config
        self.record: LossRecord | None = None
        self.failures: dict[str, dict[str, Any]] = {}

    def __repr__(self) -> str:
        return f"Check({self.spec.name!r}, {self.implementation!r}, {self.code!r})"

    def __call__(self) -> None:
        """Run the rule: fail with the finding, skip or xfail with the reason, or return."""
        from harness.checking.verify import checked
        from harness.report.writer import write_failures
        from harness.runs.records import from_verification

        verification = checked(self._session(), rules=[self.code], implementations=[self.implementation])
        self.record, self.failures = from_verification(self.spec, verification)
        write_failures(self.config.rootpath / FAILURES, self.failures)
        self._end(self.record)

    def _session(self) -> Session:
        """One for all rules of a loss, which share cases and evaluations; the plugin keeps the latest."""
        from harness.checking.verify import open_session

        latest = self.config.stash.get(_SESSION, None)
        if latest is None or latest.spec is not self.spec:
            latest = open_session(self.spec, profile=self.config.getoption("harness_profile"))
            self.config.stash[_SESSION] = latest
        return latest

    def _end(self, record: LossRecord) -> None:
        fatal = ("error", "warning") if self.config.getoption("harness_strict") else ("error",)
        found = [finding for finding in record.findings if finding.severity in fatal]
        statuses: dict[str, str] = {outcome.status: outcome.reason for outcome in record.outcomes}
        waived = statuses.get("waived")
        if waived is not None and "failed" not in statuses:
            pytest.xfail(waived or "waived")
        if found:
            pytest.fail(self.text(found), pytrace=False)
        for status in ("crashed", "timed out"):
            if status in statuses:
                pytest.fail(
                    f"{self.spec.name} / {self.implementation} / {self.code} {status}: {statuses[status]}",
                    pytrace=False,
                )
        for status in ("skipped", "inapplicable"):
            if status in statuses:
                pytest.skip(statuses[status] or status)

    def text(self, findings: Iterable[Finding]) -> str:
        """The findings as they stand on the command line."""
        from harness.report.text import finding_text

        assert self.record is not None
        folder, verbose = _seen_from_here(self.config.rootpath / FAILURES), self.config.get_verbosity() > 0
        return "\n\n".join(finding_text(self.record, f, folder=folder, verbose=verbose) for f in findings)

    @property
    def payload(self) -> str:
        """What the process that writes the report needs to know, as JSON."""
        from harness.results.schema import loss_dumps

        assert self.record is not None
        return json.dumps({"loss": loss_dumps(self.record), "planned": self.planned, "failures": self.failures})


def _seen_from_here(path: Path) -> str:
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else path.as_posix()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--harness-profile``, ``--harness-report`` and ``--harness-strict``."""
    group = parser.getgroup("loss-harness", "loss-harness: verification of custom losses")
    group.addoption(
        "--harness-profile",
        dest="harness_profile",
        choices=PROFILES,
        default=None,
        help="how many examples each check runs (default: that of [tool.loss-harness] in pyproject.toml, else ci)",
    )
    group.addoption(
        "--harness-report",
        dest="harness_report",
        metavar="DIR",
        default=None,
        help="write report.json and report.md on the checks that ran to this folder",
    )
    group.addoption(
        "--harness-strict",
        dest="harness_strict",
        action="store_true",
        help="warnings fail the test too",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take the project's profile, add `paired_benchmark`, and collect results where they are reported, not in xdist's workers."""
    if config.getoption("harness_profile") is None:
        try:
            chosen = configuration.find(config.rootpath)
        except HarnessError as error:
            raise pytest.UsageError(str(error)) from error
        config.option.harness_profile = chosen.values.get("profile", "ci")
    config.pluginmanager.register(paired, "loss-harness-paired")
    if hasattr(config, "workerinput"):
        return
    config.pluginmanager.register(paired.PairedSummary(), "loss-harness-paired-summary")
    if config.getoption("harness_report") is not None:
        from harness.report.writer import check_folder

        try:
            check_folder(config.invocation_params.dir / config.getoption("harness_report"))
        except HarnessError as error:
            raise pytest.UsageError(f"--harness-report: {error}") from error
    config.pluginmanager.register(_Results(config), "loss-harness-results")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a decorated function its checks."""
    specs = getattr(metafunc.function, _SPECS, None)
    if specs is None:
        return
    if "check" not in metafunc.fixturenames:
        where = f"{metafunc.function.__name__}({', '.join(metafunc.fixturenames)})"
        pytest.fail(f"{where}: a function under parametrize_with_checks takes an argument `check`", pytrace=False)
    from harness.checking.verify import plan

    checks: list[Check] = []
    try:
        for spec in specs:
            pairs = plan(spec)
            checks += [Check(spec, name, code, len(pairs), metafunc.config) for name, code in pairs]
    except HarnessError as error:
        pytest.fail(str(error), pytrace=False)
    metafunc.parametrize("check", checks, ids=[f"{c.spec.name}-{c.implementation}-{c.code}" for c in checks])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach what a check found to the test's report; a test that never called its check fails."""
    report = yield
    check = getattr(item, "callspec", None) and item.callspec.params.get("check")  # type: ignore[attr-defined]
    if not isinstance(check, Check) or call.when != "call":
        return report
    if check.record is None:
        if report.passed:
            report.outcome = "failed"
            report.longrepr = f"{item.name} did not call check(), so nothing was verified"
        return report
    setattr(report, _PAYLOAD, check.payload)
    shown = [finding for finding in check.record.findings if finding.severity != "error"]
    if shown:
        report.sections.append(("loss-harness", check.text(shown)))
    return report


class _Results:
    """What all checks of this session found."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.payloads: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        payload = getattr(report, _PAYLOAD, None)
        if payload is not None:
            self.payloads.append(json.loads(payload))

    def pytest_sessionfinish(self) -> None:
        folder = self.config.getoption("harness_report")
        if folder is None or not self.payloads:
            return
        from harness.calls.environment import describe
        from harness.judging.verdict import assemble
        from harness.report.writer import now, write_report
        from harness.results.schema import plain

        losses = _losses(self.payloads)
        report = assemble(
            losses,
            seed=0,
            profile=self.config.getoption("harness_profile"),
            devices=["cpu"],
            environment={"cpu": plain(describe("cpu"))},
            seconds={},
            made=now(),
            command="pytest",
        )
        failures = {name: failure for payload in self.payloads for name, failure in payload["failures"].items()}
        write_report(self.config.invocation_params.dir / folder, report, failures)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.payloads:
            return
        from harness.report.text import head_text
        from harness.results.words import plural

        losses = _losses(self.payloads)
        shown = ("warning", "note") if self.config.get_verbosity() > 0 else ("warning",)
        lines = [
            f"{finding.severity}: {head_text(loss, finding)}"
            for loss in losses
            for finding in loss.findings
            if finding.severity in shown
        ]
        notes = sum(finding.severity == "note" for loss in losses for finding in loss.findings)
        if not lines and not notes:
            return
        terminalreporter.section("loss-harness")
        for line in lines:
            terminalreporter.line(line)
        if "note" not in shown and notes:
            terminalreporter.line(f"{plural(notes, 'note')} not shown; -v shows them, -rP everything")


def _losses(payloads: Sequence[dict[str, Any]]) -> list[LossRecord]:
    """One record a loss, in an order that does not depend on which worker was first."""
    from dataclasses import replace

    from harness.results.schema import loss_loads, merged

    parts: dict[tuple[str, str], list[tuple[LossRecord, int]]] = {}
    for payload in payloads:
        record = loss_loads(payload["loss"])
        parts.setdefault((record.name, record.target), []).append((record, payload["planned"]))
    losses = []
    for _, found in sorted(parts.items()):
        planned = max(number for _, number in found)
        unique = {(o.implementation != r.reference, o.implementation, o.rule): r for r, _ in found for o in r.outcomes}
        loss = merged([record for _, record in sorted(unique.items())])
        if len(loss.outcomes) < planned:
            loss = replace(loss, missing=f"{len(loss.outcomes)} of {planned} planned checks ran in this pytest run")
        losses.append(loss)
    return losses
