"""The design of the measurement: implementations interleaved in random order, in rounds of calibrated blocks."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from types import MappingProxyType
from typing import Literal

import torch

from harness.calls.evaluation import LossRaised, is_out_of_memory
from harness.declare.spec import LossSpec
from harness.errors import told
from harness.results.measured import Cell
from harness.results.variants import eager_name, variants_of
from harness.timing import timers as time
from harness.timing.agreement import Values, condition, difference, not_finite, values_of
from harness.timing.audit import (
    Audit,
    Batches,
    Violation,
    audited,
    impossible,
    is_remembered,
    judged,
    least_bytes,
    others_s,
    read,
    settle,
)
from harness.timing.budget import Budget
from harness.timing.clock import Call, Clock, NotTimeable
from harness.timing.clocks import clock_for, waiting_for
from harness.timing.cold import Flush
from harness.timing.compiled import compiling
from harness.timing.constants import (
    AGREEMENT,
    ASKED_AGAIN,
    AUDIT_SHARE,
    BLOCK_HEADROOM,
    BLOCK_S,
    CAPTURE_WARM_UPS,
    FULL_PASS,
    LEAST_PROCESS_S,
    LEFT_OVER_S,
    MOST_UNSEEN,
    OTHERS_WORKED_S,
    SET_UP_S,
    SLOW_CALL_S,
    TIMED_BATCHES,
    UNSEEN_ELEMENTS,
    WRITTEN_TO,
)
from harness.timing.devices import current, lost, out_of_memory, release
from harness.timing.keeper import Outside, Witness
from harness.timing.quiet import Quiet
from harness.timing.statistics import paired_ratio
from harness.timing.user_code import RAISED
from harness.timing.workload import Workload, elements


@dataclass(frozen=True)
class Contestant:
    """An implementation that may be timed.

    Args:
        seconds: about how long one call takes.
        calls_per_block: as an earlier process calibrated it, or ``None``.
        compile_s: about how long its first call takes to compile it in another process.
    """

    seconds: float
    calls_per_block: int | None = None
    compile_s: float = 0.0


@dataclass(frozen=True)
class Heat:
    """One cell and who is timed on it.

    Args:
        cell: the input and the way to time it.
        contestants: by name.
        rounds: how many this process is to run.
        reference: who the others are compared with; empty where it is not among them.
    """

    cell: Cell
    contestants: Mapping[str, Contestant]
    rounds: int
    reference: str = ""


@dataclass(frozen=True)
class Samples:
    """What one process measured of one implementation in one cell.

    Args:
        heat: position of the heat.
        implementation: its name.
        status: ``measured``; ``skipped`` for want of time; ``failed`` where it raised.
        reason: why not.
        calls_per_block: calls in each block.
        seconds_per_call: one per round, in the order of the rounds.
        loss: the largest element of the loss, so that another process can tell that it timed the same function.
        repeated: how many blocks were run again, because another process had the core during them.
        violations: code of a rule, and what was seen of it.
        build_seconds: of its constructor, which is in no call's time.
        first_seconds: of its first call here, likewise; ``None`` of one so slow that every call counts.
        blocks: number of each block by the process that holds the clock, and its seconds inside.
        outside: what that process saw of them; ``None`` without one.
    """

    heat: int
    implementation: str
    status: Literal["measured", "skipped", "failed"]
    reason: str = ""
    calls_per_block: int = 0
    seconds_per_call: tuple[float, ...] = field(default=())
    loss: float | None = None
    repeated: int = 0
    violations: tuple[Violation, ...] = ()
    build_seconds: float = 0.0
    first_seconds: float | None = None
    blocks: tuple[tuple[int, float], ...] = ()
    outside: Outside | None = None


def calibrate(clock: Clock, call: Call) -> int:
    """How many calls fill a block of 2 ms, with headroom for calls that get faster; no more than the clock allows."""
    calls = 1
    while True:
        seconds = clock.block(call, calls)
        if seconds >= BLOCK_S or calls >= clock.most_calls:
            return calls
        wanted = BLOCK_HEADROOM * BLOCK_S / max(seconds, 1e-9) * calls
        grown = max(calls + 1, min(math.ceil(wanted), 100 * calls))  # a block of one call says little about many
        calls = min(grown, clock.most_calls)


def calls_to_time(cell: Cell, contestant: Contestant) -> int:
    """Calls until the first round of a slow call is over: on a device one first, and for a graph those of its capture."""
    first = int(cell.device != "cpu" and contestant.seconds >= SLOW_CALL_S)
    return 1 + first + (CAPTURE_WARM_UPS + 1 if cell.clock == "graph" else 0)


def order(names: Sequence[str], generator: random.Random) -> list[str]:
    """The names in random order, so that nobody always runs behind the same one."""
    shuffled = list(names)
    generator.shuffle(shuffled)
    return shuffled


def affordable(block_s: Mapping[str, float], rounds: int, seconds: float) -> dict[str, int]:
    """Rounds for everyone: one each, then equal parts of the time, where what the quick leave over goes to the slow.

    Time is kept for the single rounds of the slow only as far as these take half of it; who does not fit gets what is left
    in the end.  Otherwise one loop on the largest input would leave a single round to everybody.
    """
    ordered = sorted(block_s, key=lambda name: block_s[name])
    fitting = [
        name for position, name in enumerate(ordered) if sum(block_s[n] for n in ordered[: position + 1]) <= seconds / 2
    ]
    seconds -= sum(block_s[name] for name in fitting)
    planned = dict.fromkeys(ordered, 1)
    for position, name in enumerate(fitting):
        part = seconds / (len(fitting) - position)
        more = max(0, min(rounds - 1, int(part / block_s[name])))
        planned[name] += more
        seconds -= more * block_s[name]
    return planned


def measure(
    spec: LossSpec,
    heats: Sequence[Heat],
    *,
    looks: Sequence[int],
    seconds: float,
    seed: int,
    process: int,
    report: Callable[[Samples], None],
    flushes: Mapping[str, Flush] = MappingProxyType({}),
    witness: Witness | None = None,
) -> None:
    """Time every heat in this process, and report each implementation's samples as soon as its heat is over.

    The rounds of a heat are planned with those of the heats behind it in view, so that a slow implementation on a small
    input leaves time for one round on the largest.  An implementation that has fewer rounds runs in the first ones only:
    rounds are paired by position.

    Args:
        spec: the declaration.
        heats: what is timed, the quickest first.
        looks: after each so many rounds, whoever is already far from the reference runs no more.
        seconds: time for all of them.
        seed: of inputs and order.
        process: number of this process; each has the same inputs and an order of its own.
        report: called with each result.
        flushes: by device, what empties its caches; without one, each heat takes memory of its own for it.
        witness: the clock of another process; without one, this process is the caller's.
    """
    witness = witness or Witness()
    is_wall = any(heat.cell.device != "cpu" for heat in heats)
    budget = Budget(seconds, is_wall=is_wall)
    for position, heat in enumerate(heats):
        generator = random.Random(f"{seed} {process} {heat.cell}")
        later = _expected(heats[position + 1 :])
        batches = partial(Batches, spec, heat.cell, seed, process)
        clock = clock_for(heat.cell, witness, flushes.get(heat.cell.device))
        for samples in _Race(spec, position, heat, batches, clock, witness, budget).run(looks, later, generator):
            report(samples)


def _expected(heats: Sequence[Heat]) -> dict[str, float]:
    """Seconds that one block of everyone in later heats is expected to take."""
    return {
        f"{heat.cell} {name}": max(calls_to_time(heat.cell, contestant) * contestant.seconds, SET_UP_S)
        + contestant.compile_s
        for heat in heats
        for name, contestant in heat.contestants.items()
    }


def _read(call: Callable[[], torch.Tensor]) -> torch.Tensor:
    return read(call())


class _Entry:
    """One implementation in one heat: built once, bound to each of the inputs that are timed in turn, and what is known of it.

    Attributes:
        loss: as in `Samples`; ``None`` of a slow one.
        block_s: what its next block will take, to empty caches included.
        returned: by batch, what the last block on it returned.
    """

    def __init__(self, spec: LossSpec, name: str, batches: Batches) -> None:
        self.timed = batches.copies(batches.timed)
        self.works = [Workload(spec, name, self.timed[0])]
        self.works += [self.works[0].on(batch) for batch in self.timed[1:]]
        self.calls: list[Callable[[], torch.Tensor]] = []
        self.calls_per_block = self.repeated = 0
        self.block_s = 0.0
        self.loss: float | None = None
        self.first_s: float | None = None
        self.blocks: list[tuple[int, float]] = []
        self.returned: dict[int, Values] = {}
        self.violations: tuple[Violation, ...] = ()
        self._state = self.works[0].state()
        self._bumped = [] if batches.cell.pass_name == "backward" else list(spec.inputs)

    @property
    def is_slow(self) -> bool:
        """Whether a call is so slow that every one counts."""
        return self.loss is None

    def turn(self, number: int) -> Call:
        """The call of a round, on inputs of a new version, which hold what they held before any call."""
        at = number % len(self.calls)
        for name in self._bumped:
            torch.autograd.graph.increment_version(self.timed[at][name])
        if self._bumped:  # a graph that is kept may hold its gradient there
            self.works[at].restore()
        return self.calls[at]

    def audited(
        self, batches: Batches, wait: Callable[[], None] | None, times: Sequence[float], budget: Budget
    ) -> Audit:
        """See `harness.timing.audit.audited`; what looks remembered, or left to others, is asked again.

        Where that is quick, also beyond the budget: one look is too few to say what is in no time.
        """
        most, is_slow = min(MOST_UNSEEN, self.calls_per_block), self.is_slow
        ask = partial(audited, timed=self.timed, state=self._state, wait=wait, most=most, is_slow=is_slow)
        begin = budget.spent
        audit = ask(self.works[0], batches, batches.unseen)
        took = budget.spent - begin
        for _ in range(ASKED_AGAIN):
            is_suspect = is_remembered(audit, times, batches.cell) or audit.left_s > LEFT_OVER_S
            if not is_suspect or took > max(budget.left, LEAST_PROCESS_S):
                break
            again = ask(self.works[0], batches, batches.further())
            audit = replace(
                audit,
                seconds=[*audit.seconds, *again.seconds],
                left_s=min(audit.left_s, again.left_s),
                given=[*audit.given, *again.given],
            )
        return audit

    def expected(self, batches: Batches, audit: Audit) -> tuple[list[Values], list[float]]:
        """Loss and gradients of the reference on the unseen inputs, and the size that rounding is relative to there."""
        values, chosen = list(audit.values), batches.unseen[: len(audit.values)]
        if batches.cell.pass_name == "forward":
            works = [self.works[0].on(batch) for batch in batches.copies(chosen, self.timed[0])]
            values = [values_of(work.full(), work.leaves) for work in works]
        leaves = [[batch[name] for name in batches.spec.differentiable] for batch in chosen]
        return values, [condition(found[1:], mine) for found, mine in zip(values, leaves, strict=True)]


class _Race:
    """One heat in one process."""

    def __init__(
        self,
        spec: LossSpec,
        position: int,
        heat: Heat,
        make_batches: Callable[[int], Batches],
        clock: Clock,
        witness: Witness,
        budget: Budget,
    ) -> None:
        self.spec, self.position, self.heat, self._make_batches = spec, position, heat, make_batches
        self.clock, self._witness, self.budget = clock, witness, budget
        self._wait = waiting_for(torch.device(heat.cell.device))
        self.lost: str | None = None
        self.entries: dict[str, _Entry] = {}
        self.quiet = Quiet()
        self.dropped: list[Samples] = []
        self._bandwidth = cache(witness.bandwidth)  # measured once in a heat
        self.others_s: dict[str, float] = {}

    def run(self, looks: Sequence[int], later: Mapping[str, float], generator: random.Random) -> list[Samples]:
        """Prepare everyone, then time them in rounds."""
        is_compiled = any(eager_name(self.spec.implementations, name) for name in self.heat.contestants)
        with current(self.heat.cell.device), compiling(self.heat.cell.pass_name) if is_compiled else nullcontext():
            return self._run(looks, later, generator)

    def _run(self, looks: Sequence[int], later: Mapping[str, float], generator: random.Random) -> list[Samples]:
        self.lost = lost(self.heat.cell.device)
        for name, contestant in self.heat.contestants.items():
            left = self.budget.left
            if self.lost:
                self._drop(name, "skipped", self.lost)
                continue
            calls = calls_to_time(self.heat.cell, contestant)
            if calls * contestant.seconds + contestant.compile_s > left:
                several = f" and its clock needs {calls}" if calls > 1 else ""
                reason = f"one call takes about {contestant.seconds:.2g} s{several}, but {max(left, 0):.2g} s of the budget were left for it; slower calls had the rest"
                self._drop(name, "skipped", reason)
                continue
            try:
                self._prepare(name, contestant)
            except RAISED as error:  # whatever a user's loss raises
                self._drop_for(name, error)
            if name not in self.entries and not self.lost:
                release(self.heat.cell.device)  # here, where no traceback holds the tensors any more
        if not self.entries:
            return self.dropped
        left = self.budget.left
        kept = min(sum(self._audit_s(name) for name in self.entries), AUDIT_SHARE * max(left, 0.0))
        block_s = {name: entry.block_s for name, entry in self.entries.items()}
        planned = affordable({**block_s, **later}, self.heat.rounds, left - kept)
        times = self._rounds({name: planned[name] for name in self.entries}, looks, kept, generator)
        self._audit(times)
        return self.dropped + [self._samples(name, entry, times[name]) for name, entry in self.entries.items()]

    def _drop_for(self, name: str, error: BaseException) -> None:
        """Drop who raised, with the status that fits."""
        cause = error.error if isinstance(error, LossRaised) else error
        if self.lost:  # by who was before
            self._drop(name, "skipped", self.lost)
        elif isinstance(cause, NotTimeable):
            self._drop(name, "skipped", str(cause))
            self.lost = lost(self.heat.cell.device)
        elif is_out_of_memory(cause):
            self._drop(name, "skipped", out_of_memory(self.heat.cell))
        else:
            self._drop(name, "failed", told(cause), self._left_working(name, cause))
            self.lost = lost(self.heat.cell.device)

    def _left_working(self, name: str, cause: BaseException) -> tuple[Violation, ...]:
        """What says that other threads worked on what a call had returned; autograd raises where it sees them write."""
        worked_s = others_s() - self.others_s.get(name, 0.0)
        is_unknown = self._wait is not None or self._witness.is_crowded
        if is_unknown or worked_s < OTHERS_WORKED_S or WRITTEN_TO not in str(cause):
            return ()
        text = f"{told(cause)}; other threads worked on it for {worked_s:.2g} s, expected results that nobody writes to any more"
        return (("M04", f"a call at {self.heat.cell} returned what was not done: {text}"),)

    def _prepare(self, name: str, contestant: Contestant) -> None:
        cell = self.heat.cell
        self.others_s[name] = others_s()
        entry = _Entry(self.spec, name, self.batches)  # own tensors: one may write into them
        entry.calls = [self.clock.prepare(partial(work.call, cell.pass_name)) for work in entry.works]
        entry.turn(0)  # preparing a clock may have called it
        call = entry.calls[0]
        seconds = contestant.seconds
        if seconds >= SLOW_CALL_S and (contestant.compile_s or cell.device != "cpu"):
            seconds = min(self._first(call)[1], seconds)  # its trial may have compiled what is compiled once
        if seconds >= SLOW_CALL_S:
            entry.calls_per_block, entry.block_s = 1, seconds
        else:
            loss, entry.first_s = self._first(call)
            entry.loss = float(loss.detach().double().abs().max())
            if type(loss) is not torch.Tensor:
                entry.calls = [partial(_read, call) for call in entry.calls]
                call = entry.calls[0]
            self.clock.warm_up(call)
            entry.calls_per_block = contestant.calls_per_block or calibrate(self.clock, call)
            self._witness.taken()  # what calibrates is not what is timed
            self._block(entry, call)
        self.entries[name] = entry

    @cached_property
    def batches(self) -> Batches:
        """Inputs of the heat, made for the first who needs them: values, addresses and versions change from block to block.

        A graph is captured with its addresses, and a graph of autograd that is kept for its backward pass holds memory.
        """
        is_kept = self.heat.cell.clock == "graph" or self.heat.cell.pass_name == "backward"
        return self._make_batches(1 if is_kept else TIMED_BATCHES)

    def _audit_s(self, name: str) -> float:
        """About how long the audit of an implementation takes; the values of the reference are asked for once more."""
        entry = self.entries[name]
        each = entry.block_s / entry.calls_per_block
        unseen = min(MOST_UNSEEN, entry.calls_per_block)
        fulls = unseen if name == self.heat.reference and self.heat.cell.pass_name == "forward" else 0
        around = 0 if entry.is_slow else 2
        kept = self.heat.cell.pass_name == "backward"  # a graph that is kept is made by a forward pass first
        return each * ((unseen + around) * (1 + kept) + FULL_PASS * fulls)

    def _audit(self, times: Mapping[str, Sequence[float]]) -> None:
        """Call everyone on inputs that nobody has seen; the reference comes last, so that its results lie nowhere before."""
        base, audits, leaves = self.heat.reference, {}, False
        for name in sorted(self.entries, key=lambda name: name == base):
            if self._audit_s(name) > self.budget.left or self.lost or not times[name]:
                continue
            if not self._witness.is_crowded:
                settle()  # what others have left to threads is not its own
            try:
                audit = self.entries[name].audited(self.batches, self._wait, times[name], self.budget)
                audits[name] = replace(audit, seconds=(), left_s=0.0) if self._witness.is_crowded else audit
                leaves |= audit.left_s > LEFT_OVER_S
            except RAISED as error:  # a loss may raise on its first new input
                self._drop_for(name, error)
                del self.entries[name]
        self._witness.is_crowded |= leaves
        expected: Sequence[Values] = ()
        sizes: list[float] = []
        if base in audits and not audits[base].is_running:
            expected, sizes = self.entries[base].expected(self.batches, audits[base])
        for name, audit in audits.items():
            held = [] if name == base else expected
            cell, entry = self.heat.cell, self.entries[name]
            found = judged(audit, held, sizes, times[name], cell, self.spec.differentiable, base, entry.loss)
            if not found and not audit.is_running and sizes:
                found += self._untrue(name, max(sizes))
            known = expected[0] if expected else audit.values[0]
            found += impossible(cell, least_bytes(self.spec, cell, known), self._bandwidth, times[name])
            entry.violations = tuple(found)

    def _first(self, call: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, float]:
        """What a call returns, and the seconds that it takes, those of the device included."""
        begin = time.perf_counter()
        loss = call()
        if self._wait is not None:
            self._wait()
        return loss, time.perf_counter() - begin

    def _block(self, entry: _Entry, call: Call) -> float:
        """Seconds of a block by the clock; what it took in all, to empty caches included, is what the next will take."""
        begin = self.budget.spent
        before = self.quiet.repeated
        calls = entry.calls_per_block
        seconds = self.quiet.run(lambda: self.clock.block(call, calls), call, lambda: self.clock.idle_s)
        entry.repeated += self.quiet.repeated - before
        entry.blocks += self._witness.taken()
        entry.block_s = self.budget.spent - begin
        return seconds

    def _rounds(
        self, planned: Mapping[str, int], looks: Sequence[int], kept_s: float, generator: random.Random
    ) -> dict[str, list[float]]:
        times: dict[str, list[float]] = {name: [] for name in self.entries}
        running = dict(planned)
        for number in range(max(planned.values())):
            for name in order([name for name in self.entries if number < running[name]], generator):
                if number and self.entries[name].block_s + kept_s > self.budget.left:
                    running[name] = number  # for good: a gap would pair its later rounds with the wrong ones
                    continue
                try:
                    seconds = self._round(self.entries[name], number)
                except RAISED as error:  # a loss may raise in its thousandth call
                    self._drop_for(name, error)
                    del self.entries[name]
                else:
                    times[name].append(seconds)
                    self._note_values(self.entries[name], number)
                if name not in self.entries and not self.lost:
                    release(self.heat.cell.device)  # here, where no traceback holds the tensors any more
            if number + 1 in looks:
                running.update(dict.fromkeys(self._decided(times, running, number + 1), number + 1))
        return times

    def _round(self, entry: _Entry, number: int) -> float:
        """Seconds of a call in one round."""
        call = entry.turn(number)
        if entry.calls_per_block > 1:
            call()  # whoever ran before has filled the caches with its own data
        return self._block(entry, call) / entry.calls_per_block

    def _note_values(self, entry: _Entry, number: int) -> None:
        """Keep what the last call of a block returned: what looks whether it is timed or audited was right in the audit alone."""
        at, returned = number % len(entry.calls), getattr(self.clock, "returned", None)
        if self._wait is not None or not isinstance(returned, torch.Tensor) or self.spec.writes_gradient_into:
            return  # the second call of a block finds the gradient of the first in its input
        if at in entry.returned and elements(self.spec, self.heat.cell.sizes) > UNSEEN_ELEMENTS:
            return  # a copy would take longer than a block
        leaves = [] if self.heat.cell.pass_name == "forward" else entry.works[at].leaves
        entry.returned[at] = values_of(returned, leaves)

    def _untrue(self, name: str, condition: float) -> list[Violation]:
        """What says that calls in blocks returned something else than those of the reference."""
        cell, base = self.heat.cell, self.heat.reference
        if name == base or getattr(torch, cell.dtype) not in AGREEMENT:
            return []
        theirs, differentiable = self.entries[base].returned, self.spec.differentiable
        for at, values in self.entries[name].returned.items():
            problem = not_finite(values, differentiable)
            if problem is None and at in theirs:
                problem = difference(values, theirs[at], differentiable, condition, cell.dtype)
            if problem is not None:
                told = problem.replace("on the timed input", "in a block that was timed")
                return [("M02", f"at {cell}, {told}; it is held to {base}")]
        return []

    def _decided(self, times: Mapping[str, Sequence[float]], running: Mapping[str, int], rounds: int) -> list[str]:
        """Who is far from all that it is compared with; the reference too, once nobody is left to run beside it."""
        base = self.heat.reference
        if base not in self.entries or len(times[base]) < rounds:
            return []
        others = [name for name in self.entries if name != base and running[name] > rounds]
        far = [
            name
            for name in others
            if all(
                paired_ratio(times[rival][:rounds], times[name], [0] * rounds).is_far(2 * rounds)  # in two processes
                for rival in (base, *variants_of(self.spec.implementations, name, list(self.entries)))
                if len(times[rival]) >= rounds
            )
        ]
        return [*far, base] if far and far == others else far

    def _drop(
        self,
        name: str,
        status: Literal["skipped", "failed"],
        reason: str,
        violations: tuple[Violation, ...] = (),
    ) -> None:
        self.dropped.append(Samples(self.position, name, status, reason, violations=violations))

    def _samples(self, name: str, entry: _Entry, times: Sequence[float]) -> Samples:
        return Samples(
            self.position,
            name,
            "measured",
            "",
            entry.calls_per_block,
            tuple(times),
            entry.loss,
            entry.repeated,
            entry.violations,
            entry.works[0].build_seconds,
            entry.first_s,
            tuple(entry.blocks),
        )
