"""This must not be slower than that: two calls timed in turn, in this process, and what their paired rounds show."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.declare.dims import Size
from harness.declare.spec import LossSpec
from harness.errors import HarnessError, nearest
from harness.results.measured import MARGIN, Cell, Pass
from harness.timing.admission import Patience, admit
from harness.timing.clock import Call, Clock
from harness.timing.clocks import clock_for
from harness.timing.constants import BOOTSTRAP_ROUNDS, ROUNDS
from harness.timing.design import calibrate, order
from harness.timing.devices import current, unavailable
from harness.timing.statistics import Ratio, paired_ratio
from harness.timing.workload import Workload, checked_sizes, inputs

# Its rounds of two blocks take 0.2 s; this is for calls that fill a block many times over.
BUDGET_S = 30.0


@dataclass(frozen=True)
class PairedComparison:
    """Two calls, timed in turn.

    Args:
        candidate: name of what must not be slower.
        baseline: name of what it is held to.
        where: device, and the input where a spec was timed.
        candidate_seconds: seconds per call, one per round; nothing where timing is disabled.
        baseline_seconds: the same of the baseline, in the same rounds.
        calls_per_block: calls in each block of the candidate and of the baseline.
        seed: of the order.
        repeat: a command that repeats it.
    """

    candidate: str
    baseline: str
    where: str
    candidate_seconds: tuple[float, ...] = ()
    baseline_seconds: tuple[float, ...] = ()
    calls_per_block: tuple[int, int] = (1, 1)
    seed: int = 0
    repeat: str = ""

    @property
    def is_measured(self) -> bool:
        """False where timing is disabled, and each was called once."""
        return bool(self.candidate_seconds)

    @cached_property
    def ratio(self) -> Ratio:
        """The speedup, baseline time / candidate time, with its 95 % interval; NaN where nothing was timed."""
        if not self.is_measured:
            return Ratio(math.nan, math.nan, math.nan)
        rounds = len(self.candidate_seconds)
        return paired_ratio(self.baseline_seconds, self.candidate_seconds, [0] * rounds)

    @property
    def speedup(self) -> float:
        """Baseline time / candidate time: exp of the median over rounds of the log ratio."""
        return self.ratio.speedup

    @property
    def low(self) -> float:
        """Lower end of the speedup's 95 % interval."""
        return self.ratio.low

    @property
    def high(self) -> float:
        """Upper end of the speedup's 95 % interval."""
        return self.ratio.high

    @property
    def verdict(self) -> str:
        """``faster`` or ``slower`` by more than 5 %, ``equivalent``, ``inconclusive``; ``not measured`` where disabled."""
        return self.ratio.verdict if self.is_measured else "not measured"

    def __str__(self) -> str:
        title = f"{self.candidate} against {self.baseline} ({self.where}): {self.verdict}"
        if not self.is_measured:
            return title
        return f"{title}, speedup {self.speedup:.3g} ({self.low:.3g} to {self.high:.3g}), {len(self.candidate_seconds)} rounds"

    def must_not_be_slower(self, *, by: float = MARGIN, decided: bool = False) -> None:
        """Fail where the candidate is slower than the baseline.

            slower:  the whole 95 % interval of (candidate time / baseline time) lies above ``by``

        An interval that contains ``by`` decides nothing, and passes: a busy machine widens intervals, and a test that fails
        on a busy machine is soon ignored.  It issues no warning either, which a project that turns warnings into errors
        would fail by; the line in pytest's summary says ``inconclusive``.  ``decided=True`` is for a machine that is quiet
        enough to ask for an answer.  Where timing is disabled nothing is asserted.

        Args:
            by: how many times the baseline's time is still allowed; 1 or more.
            decided: fail too where the interval contains ``by``.

        Raises:
            AssertionError: it is slower.
            HarnessError: ``by`` is below 1.
        """
        __tracebackhide__ = True
        if not by >= 1:
            raise HarnessError(
                f"by={by} came, but it should be 1 or more: how many times the baseline's time is allowed. To ask for a "
                f"speedup, assert comparison.low > {1 / by if by > 0 else 2:.3g}"
            )
        if not self.is_measured:
            return
        least, most = 1 / self.ratio.high, 1 / self.ratio.low
        if least > by or (decided and most > by):
            raise AssertionError(self._message(by, least, most))

    def _message(self, by: float, least: float, most: float) -> str:
        times = (self.candidate_seconds, self.baseline_seconds)
        candidate, baseline = (f"{statistics.median(seconds) * 1e6:.3g}" for seconds in times)
        found = f"{1 / self.speedup:.3g} times that of {self.baseline} (95 % interval {least:.3g} to {most:.3g})"
        undecided = "" if least > by else "; the interval decides nothing, and decided=True came"
        lines = [
            f"{self.candidate} / not slower than {self.baseline} / {self.where}",
            f"  time of {self.candidate} = {found}, expected at most {by:g} times{undecided}",
            f"  medians {candidate} and {baseline} us a call, {len(self.candidate_seconds)} paired rounds of "
            f"{self.calls_per_block[0]} and {self.calls_per_block[1]} calls, seed={self.seed}",
            *([f"  repeat: {self.repeat}"] if self.repeat else []),
        ]
        return "\n".join(lines)


class PairedBenchmark:
    """What the fixture ``paired_benchmark`` gives: call it with a candidate and a baseline.

        def test_vectorized_is_not_slower(paired_benchmark):
            paired_benchmark(lambda: vectorized(x), lambda: naive(x)).must_not_be_slower()

    Both run in blocks of about 2 ms, one block of each a round, in random order, so that whatever disturbs the machine
    disturbs both; a speedup is a median of ratios within rounds.  All of it happens in this process.  `harness.benchmark`
    uses fresh processes with settings of their own for the allocator, and so sees how much a speedup depends on the layout
    of memory in one process: here that is part of the result, and its interval knows nothing of it.

    Args:
        disabled: call each once and time nothing.
        report: called with each comparison.
        repeat: a command that repeats it, for messages.
    """

    def __init__(
        self, *, disabled: bool = False, report: Callable[[PairedComparison], None] | None = None, repeat: str = ""
    ) -> None:
        self.disabled, self.report, self.repeat = disabled, report, repeat

    def __call__(
        self,
        candidate: Call,
        baseline: Call,
        *,
        rounds: int = ROUNDS,
        budget_s: float = BUDGET_S,
        device: str = "cpu",
        seed: int = 0,
    ) -> PairedComparison:
        """Time two callables without arguments against each other.

        Args:
            candidate: what must not be slower.
            baseline: what it is held to.
            rounds: paired rounds, 6 or more.
            budget_s: seconds after which no further round begins, once there are 6.
            device: the device that both work on; a block on CUDA ends when the device is done.
            seed: of the order.

        Raises:
            TypeError: something that cannot be called.
            HarnessError: fewer than 6 rounds, or a device that is not there.
        """
        for call in (candidate, baseline):
            if not callable(call):
                raise TypeError(f"paired_benchmark needs two callables without arguments, but got {call!r}")
        names = _names(candidate, baseline)
        effort = _Effort(rounds, budget_s, seed)
        return self._compare(names, device, (candidate, baseline), Cell({}, device, "", "full"), effort)

    def implementations(
        self,
        spec: LossSpec,
        candidate: str,
        baseline: str | None = None,
        *,
        sizes: Mapping[str, Size] | None = None,
        pass_name: Pass = "full",
        dtype: str = "float32",
        rounds: int = ROUNDS,
        budget_s: float = BUDGET_S,
        device: str = "cpu",
        seed: int = 0,
    ) -> PairedComparison:
        """Time two implementations of a spec on one input, after both gave the same loss and gradients.

        Args:
            spec: the declaration.
            candidate: name of the implementation that must not be slower.
            baseline: name of the one that it is held to; the reference if ``None``.
            sizes: a size for every symbol; the first of the spec's ``bench_sizes`` if ``None``.
            pass_name: ``forward``, ``backward`` or ``full``.
            dtype: ``float64``, ``float32``, ``bfloat16`` or ``float16``.
            rounds: paired rounds, 6 or more.
            budget_s: seconds after which no further round begins, once there are 6.
            device: where the tensors lie.
            seed: of the inputs and of the order.

        Raises:
            HarnessError: an unknown implementation, sizes that do not fit, or as `__call__`.
            AssertionError: an implementation that raises, or that disagrees with the baseline: a wrong result is not timed.
        """
        names = (candidate, spec.reference if baseline is None else baseline)
        for name in names:
            if name not in spec.implementations:
                raise HarnessError(
                    f"{spec.name} has no implementation {name!r}, but {list(spec.implementations)}"
                    f"{nearest(name, spec.implementations)}"
                )
        cell = Cell(checked_sizes(spec, None if sizes is None else [sizes])[0], device, dtype, pass_name)
        _check_device(device)
        _agree(spec, names, cell, seed, budget_s)
        works = [Workload(spec, name, inputs(spec, cell, seed)) for name in names]
        calls = works[0].call(pass_name), works[1].call(pass_name)

        def restore() -> None:
            for work in works if pass_name != "backward" else ():  # whose kept graph may hold its gradient there
                work.restore()

        return self._compare(names, f"{spec.name}, {cell}", calls, cell, _Effort(rounds, budget_s, seed), restore)

    def _compare(
        self,
        names: tuple[str, str],
        where: str,
        calls: tuple[Call, Call],
        cell: Cell,
        effort: _Effort,
        restore: Callable[[], None] = lambda: None,
    ) -> PairedComparison:
        if effort.rounds < BOOTSTRAP_ROUNDS:
            raise HarnessError(f"rounds={effort.rounds} came, but an interval needs {BOOTSTRAP_ROUNDS} or more")
        _check_device(cell.device)
        if self.disabled:
            for call in calls:
                call()
            made = PairedComparison(*names, where)
        else:
            with current(cell.device):
                times, calls_per_block = _rounds(calls, clock_for(cell), effort, restore)
            made = PairedComparison(*names, where, *times, calls_per_block, effort.seed, self.repeat)
        if self.report is not None:
            self.report(made)
        return made


@dataclass(frozen=True)
class _Effort:
    """How long two are timed, and in which order."""

    rounds: int
    budget_s: float
    seed: int


def _rounds(
    calls: tuple[Call, Call],
    clock: Clock,
    effort: _Effort,
    restore: Callable[[], None],
) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], tuple[int, int]]:
    """Seconds per call of both, one per round, and the calls in a block of each."""
    until = time.perf_counter() + effort.budget_s
    for call in calls:
        clock.warm_up(call)
    candidate, baseline = (calibrate(clock, call) for call in calls)
    timed = {"candidate": (calls[0], candidate), "baseline": (calls[1], baseline)}
    times: dict[str, list[float]] = {name: [] for name in timed}
    generator = random.Random(effort.seed)
    for number in range(effort.rounds):
        if number >= BOOTSTRAP_ROUNDS and time.perf_counter() > until:
            break
        for name in order(list(timed), generator):
            call, calls_per_block = timed[name]
            restore()
            if calls_per_block > 1:
                call()  # the other has filled the caches with its own data
            times[name].append(clock.block(call, calls_per_block) / calls_per_block)
    return (tuple(times["candidate"]), tuple(times["baseline"])), (candidate, baseline)


def _names(candidate: Call, baseline: Call) -> tuple[str, str]:
    """What to call them: their own names where these tell them apart."""
    found = [getattr(call, "__name__", "<") for call in (candidate, baseline)]
    if found[0] == found[1] or any(name.startswith("<") for name in found):
        return "candidate", "baseline"
    return found[0], found[1]


def _check_device(device: str) -> None:
    reason = unavailable(device)
    if reason is not None:
        raise HarnessError(f"nothing can be timed on {device}: {reason}")


def _agree(spec: LossSpec, names: tuple[str, str], cell: Cell, seed: int, seconds: float) -> None:
    candidate, baseline = names
    passes = (cell.pass_name,)
    reference = admit(spec, baseline, cell, passes, {}, seed=seed, patience=Patience(seconds))
    held = admit(spec, candidate, cell, passes, reference, seed=seed, patience=Patience(seconds))
    for name, trials in ((baseline, reference), (candidate, held)):
        trial = trials[cell.pass_name]
        if trial.status != "measured":
            raise AssertionError(
                f"{spec.name} / {name} / {cell}\n  was not timed, for it {trial.status}: {trial.reason}"
            )
