"""pytest plugin: `@harness.parametrize_with_checks(SPECS)`, one test per spec x implementation x rule.

    @harness.parametrize_with_checks(SPECS)
    def test_losses(check: harness.Check) -> None:
        check()

and the fixture ``paired_benchmark`` of `harness.pytest_plugin.paired`: this must not be slower than that.

Loading this imports no torch, so that projects that do not use it pay nothing.
"""

from __future__ import annotations

import functools
import json
import platform
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from harness.errors import HarnessError
from harness.pytest_plugin import changed, paired
from harness.runs import configuration
from harness.runs.configuration import OPTIONS

if TYPE_CHECKING:
    from harness.checking.session import Session
    from harness.declare.spec import LossSpec
    from harness.results.findings import Finding
    from harness.results.schema import LossRecord

F = TypeVar("F", bound=Callable[..., Any])

MOST_LINES = 12  # of a failure; the rest is shown by -v, and by `loss-harness replay`
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
        write_failures(self.config.rootpath, self.failures)
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
        found = self.fatal(record)
        statuses: dict[str, str] = {outcome.status: outcome.reason for outcome in record.outcomes}
        waived = statuses.get("waived")
        if waived is not None and "failed" not in statuses:
            pytest.xfail(waived or "waived")
        if found:
            pytest.fail(self.failure(found), pytrace=False)
        for status in ("crashed", "timed out"):
            if status in statuses:
                pytest.fail(
                    f"{self.spec.name} / {self.implementation} / {self.code} {status}: {statuses[status]}",
                    pytrace=False,
                )
        for status in ("skipped", "inapplicable"):
            if status in statuses:
                pytest.skip(statuses[status] or status)

    @property
    def are_warnings_fatal(self) -> bool:
        """Whether a warning fails the test too."""
        return bool(self.config.getoption("harness_warnings") == "error")

    def fatal(self, record: LossRecord) -> list[Finding]:
        """The findings that fail the test."""
        severities = ("error", "warning") if self.are_warnings_fatal else ("error",)
        return [finding for finding in record.findings if finding.severity in severities]

    def failure(self, findings: Sequence[Finding]) -> str:
        """The first finding and a line for each other one, in `MOST_LINES` lines; with ``-v`` all of them."""
        from harness.report.text import head_text
        from harness.results.words import plural

        if self.config.get_verbosity() > 0:
            return self.text(findings)
        assert self.record is not None
        lines = self.text(findings[:1]).splitlines()
        others = [head_text(self.record, finding) for finding in findings[1:]]
        if len(others) > 3:
            others = [*others[:2], f"and {plural(len(others) - 2, 'finding')} more; -v shows them"]
        room = MOST_LINES - len(others)
        if len(lines) > room:  # the last line says how to repeat it
            left_out = plural(len(lines) - room + 1, "line")
            lines = [*lines[: room - 2], f"  … {left_out} more; -v shows them", lines[-1]]
        return "\n".join([*lines, *others])

    def text(self, findings: Iterable[Finding]) -> str:
        """The findings as they stand on the command line."""
        from harness.report.text import finding_text
        from harness.report.writer import OWN_FAILURES

        assert self.record is not None
        folder, verbose = _seen_from_here(self.config.rootpath / OWN_FAILURES), self.config.get_verbosity() > 0
        return "\n\n".join(finding_text(self.record, f, folder=folder, verbose=verbose) for f in findings)

    @property
    def payload(self) -> str:
        """What the process that writes the report needs to know, as JSON."""
        from harness.results.schema import loss_dumps

        assert self.record is not None
        told = {"planned": self.planned, "failures": self.failures, "ran": [self.spec.name, self.name, self.digest]}
        return json.dumps({"loss": loss_dumps(self.record), **told})

    @property
    def name(self) -> str:
        """In the id of its test."""
        return f"{self.spec.name}-{self.implementation}-{self.code}"

    @property
    def digest(self) -> str:
        """What the outcome depends on."""
        warnings = "error" if self.are_warnings_fatal else "default"
        options = {"profile": self.config.getoption("harness_profile"), "warnings": warnings}
        return f"{_digest(self.spec)} {json.dumps(options)}"


@functools.lru_cache(maxsize=64)
def _digest(spec: LossSpec) -> str:
    from harness.runs.arrival import versions
    from harness.runs.sources import declaration_digest

    return json.dumps({"loss": declaration_digest(spec), "python": platform.python_version(), **versions()})


def _seen_from_here(path: Path) -> str:
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else path.as_posix()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--harness-profile``, ``--harness-report``, ``--harness-warnings`` and ``--harness-changed``."""
    group = parser.getgroup("loss-harness", "loss-harness: verification of custom losses")
    group.addoption(
        "--harness-profile",
        dest="harness_profile",
        choices=OPTIONS["profile"].choices,
        default=None,
        help=f"how many examples each check runs (default: that of [tool.loss-harness] in pyproject.toml, else {OPTIONS['profile'].default})",
    )
    group.addoption(
        "--harness-report",
        dest="harness_report",
        metavar="DIR",
        default=None,
        help="write report.json and report.md on the checks that ran to this folder",
    )
    group.addoption(
        "--harness-warnings",
        dest="harness_warnings",
        choices=("error", "default", "ignore"),
        default="default",
        help="what becomes of warnings: they fail the test, are listed at the end (default), or are counted only",
    )
    group.addoption(
        "--harness-strict",
        dest="harness_warnings",
        action="store_const",
        const="error",
        help="the same as --harness-warnings=error",
    )
    group.addoption(
        "--harness-changed",
        dest="harness_changed",
        action="store_true",
        help="skip checks that passed before, where code, declaration, profile and versions are the same as then",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take the project's profile, add `paired_benchmark`, and collect results where they are reported, not in xdist's workers."""
    if config.getoption("harness_profile") is None:
        try:
            chosen = configuration.find(config.rootpath)
        except HarnessError as error:
            raise pytest.UsageError(str(error)) from error
        config.option.harness_profile = chosen.values.get("profile", OPTIONS["profile"].default)
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
    metafunc.parametrize("check", checks, ids=[check.name for check in checks])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--harness-changed``, skip what has passed and depends on nothing that has changed."""
    if not config.getoption("harness_changed"):
        return
    passed = changed.read(config.rootpath)
    for item in items:
        check = _check_of(item)
        if check is not None and changed.has_passed(
            passed, _place(item.nodeid, check.spec.name), check.name, check.digest
        ):
            item.add_marker(pytest.mark.skip(reason=changed.REASON))


def _check_of(item: pytest.Item) -> Check | None:
    callspec = getattr(item, "callspec", None)
    check = None if callspec is None else callspec.params.get("check")
    return check if isinstance(check, Check) else None


def _place(nodeid: str, loss: str) -> str:
    return f"{nodeid.partition('[')[0]}[{loss}]"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach what a check found to the test's report; a test that never called its check fails."""
    report = yield
    check = _check_of(item)
    if check is None or call.when != "call":
        return report
    if check.record is None:
        if report.passed:
            report.outcome = "failed"
            report.longrepr = f"{item.name} did not call check(), so nothing was verified"
        return report
    setattr(report, _PAYLOAD, check.payload)
    found, crash = check.fatal(check.record), getattr(report.longrepr, "reprcrash", None)
    if report.failed and found and crash is not None:
        crash.message = found[0].fact  # in the short summary, where the id of the test says the rest
    kept = ("note",) if _ignores_warnings(item.config) else ("warning", "note")
    shown = [f for f in check.record.findings if f.severity in kept and f not in found]
    if shown and (not report.failed or item.config.get_verbosity() > 0):
        report.sections.append(("loss-harness", check.text(shown)))
    return report


class _Results:
    """What all checks of this session found."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.payloads: list[dict[str, Any]] = []
        self.outcomes: list[tuple[str, str, str, bool]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        payload = getattr(report, _PAYLOAD, None)
        if payload is not None:
            told = json.loads(payload)
            self.payloads.append(told)
            loss, check, digest = told["ran"]
            self.outcomes.append((_place(report.nodeid, loss), check, digest, not report.failed))

    def pytest_sessionfinish(self) -> None:
        if self.outcomes:
            changed.write(self.config.rootpath, self.outcomes)
        folder = self.config.getoption("harness_report")
        if folder is None or not self.payloads:
            return
        from harness.calls.environment import describe
        from harness.judging.verdict import with_verdicts
        from harness.report.writer import now, write_report
        from harness.results.schema import Report, plain

        report = Report(
            seed=0,
            profile=self.config.getoption("harness_profile"),
            devices=("cpu",),
            environment={"cpu": plain(describe("cpu"))},
            losses=tuple(_losses(self.payloads)),
            made=now(),
            command="pytest",
        )
        failures = {name: failure for payload in self.payloads for name, failure in payload["failures"].items()}
        write_report(self.config.invocation_params.dir / folder, with_verdicts(report), failures)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.payloads:
            return
        from harness.report.text import head_text
        from harness.results.words import plural

        losses = _losses(self.payloads)
        shown = ["note"] if self.config.get_verbosity() > 0 else []
        shown += [] if _ignores_warnings(self.config) else ["warning"]
        lines = [
            f"{finding.severity}: {head_text(loss, finding)}"
            for loss in losses
            for finding in loss.findings
            if finding.severity in shown
        ]
        severities = [finding.severity for loss in losses for finding in loss.findings]
        counts = {word: severities.count(word) for word in ("warning", "note") if word in severities}
        if not counts:
            return
        terminalreporter.section(f"loss-harness: {', '.join(plural(count, word) for word, count in counts.items())}")
        for line in lines:
            terminalreporter.line(line)
        if "note" not in shown and "note" in counts:
            terminalreporter.line(f"{plural(counts['note'], 'note')} not shown; -v shows them, -rP everything")


def _ignores_warnings(config: pytest.Config) -> bool:
    """Whether warnings are not to be shown."""
    return bool(config.getoption("harness_warnings") == "ignore")


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
