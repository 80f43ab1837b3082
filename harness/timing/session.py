"""One benchmark's course within its budget: trials of everyone, then rounds in fresh processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from harness.calls import environment
from harness.declare.spec import LossSpec
from harness.results.measured import Cell
from harness.results.observer import UNSEEN, Observer, Step
from harness.results.variants import eager_name, variants_of
from harness.timing import processes
from harness.timing.admission import Patience, Trial, admit
from harness.timing.audit import Violation, is_crowded
from harness.timing.budget import Budget
from harness.timing.cold import flushes
from harness.timing.compiled import unavailable_compiler
from harness.timing.constants import (
    AGREEMENT,
    BUSY,
    CLOCKS_APART,
    COMPILE_AGAIN,
    COMPILE_CALL_S,
    COMPILE_S,
    HOPELESS,
    LEAST_PROCESS_S,
    LEAVE_S,
    LOOKS,
    MOST_PROCESSES,
    PROCESSES,
    RESERVE_S,
    ROUNDS,
    SAME_FUNCTION,
    SLOW_CALL_S,
    TRIAL_LIMIT,
    TRIAL_SHARE,
)
from harness.timing.cores import on_one_core
from harness.timing.costs import counting
from harness.timing.design import Contestant, Heat, Samples, measure
from harness.timing.devices import lost, release, unavailable, unusable
from harness.timing.keeper import Witness
from harness.timing.processes import Answer, target_of, time_in_fresh_process, without_folder
from harness.timing.scaling import extrapolated
from harness.timing.statistics import is_settled
from harness.timing.user_code import printing_to_stderr
from harness.timing.workload import elements

Entry = tuple[int, str]  # position of the cell, name of the implementation


def clocks_apart(samples: Samples, cell: Cell) -> list[Violation]:
    """What says that blocks took longer by the clock of another process than by the one inside.

    Processor time beyond the wall time of both clocks is that of further threads.
    """
    seen = samples.outside
    if seen is None:
        return []
    works = min(seen.processor or 0.0, seen.wall or 0.0)
    apart = max(works, seen.rate or 0.0)
    if apart <= CLOCKS_APART:
        return []
    text = f"{apart:.3g} times as long by the clock of another process as by the one inside, expected as long"
    return [("M01", f"{seen.blocks} blocks at {cell} = {text}")]


class Course:
    """Trials and samples of one spec.

    Args:
        spec: the declaration.
        names: implementations, the reference first.
        cells: what they are compared on, in any order.
        budget_s: seconds for all of it.
        seed: of inputs, order and resampling.
        rounds: of everyone in each cell, in all processes together.
        is_timed: whether rounds follow the trials; else these have the whole budget.
    """

    def __init__(
        self,
        spec: LossSpec,
        names: Sequence[str],
        cells: Sequence[Cell],
        *,
        budget_s: float,
        seed: int,
        rounds: int = ROUNDS,
        is_timed: bool = True,
    ) -> None:
        self.spec, self.names, self.cells = spec, tuple(names), tuple(cells)
        self.budget_s, self.seed, self.rounds = budget_s, seed, rounds
        self._processes = MOST_PROCESSES * -(-rounds // ROUNDS)
        self._kept_s = (1 - TRIAL_SHARE) * budget_s if is_timed else 0.0
        self.trials: dict[Entry, Trial] = {}
        self.samples: dict[Entry, list[tuple[int, Samples]]] = {}
        self.notes: list[str] = []
        self.environment: Mapping[str, object] = {}
        self.budget = Budget(budget_s, is_wall=any(cell.device != "cpu" for cell in cells))
        # Cheap before dear: what a slow implementation leaves undone is then the least.
        self._sorted = sorted(
            range(len(cells)), key=lambda at: (elements(spec, cells[at].sizes), cells[at].pass_name == "full")
        )
        self._calls_per_block: dict[Entry, int] = {}
        self._is_alone = False  # whether all rounds run in this process
        self._is_timed = is_timed
        self.observer: Observer = UNSEEN

    @property
    def steps(self) -> int:
        """Number of steps of which the observer is told: trials, and processes that time."""
        return len(self._groups()) * len(self.names) + (PROCESSES if self._is_timed else 0)

    # ---- trials ------------------------------------------------------------------------------------------------------

    def admit_all(self) -> None:
        """Hold every implementation to the reference in every cell, within the trials' part of the budget."""
        if self._is_timed:
            processes.begin()  # beside the trials
        with self.budget.paused():  # to import 800 modules of torch or to wake a device is no loss's time
            counting.count(lambda: torch.zeros(()) + 1)
            missing = {device: unavailable(device) or unusable(device) for device in {c.device for c in self.cells}}
        for device, reason in sorted(missing.items()):
            if reason is not None:
                self.notes.append(f"nothing was measured on {device}: {reason}")
        compiled = [name for name in self.names if eager_name(self.spec.implementations, name)]
        self._admit_these([name for name in self.names if name not in compiled], missing)
        if compiled:  # after all others, for the compiler cannot be stopped
            with self.budget.paused():  # nor is to load the compiler
                lacking = {device: missing[device] or unavailable_compiler(device) for device in missing}
            self._admit_these(compiled, lacking)

    def _admit_these(self, names: Sequence[str], missing: dict[str, str | None]) -> None:
        """Try names in every cell but on devices of which is known why nothing can run there."""
        for group in self._groups():
            for name in names:
                self.observer.begin(Step("trial", f"{self.spec.name} / {name}: one call beside the reference"))
                device = self.cells[group[0]].device
                absent = missing[device]
                known = {
                    at: found
                    for at in group
                    if (found := Trial("skipped", absent) if absent else self._known(at, name)) is not None
                }
                left = [at for at in group if at not in known]
                tried = self._admit(left, name) if left else {}
                self.trials.update({(at, name): trial for at, trial in (known | tried).items()})
                self._note_start(name, tried)
                if any(trial.status == "failed" for trial in tried.values()):
                    missing[device] = self._lost_by(name, self.cells[left[0]])

    def _note_start(self, name: str, tried: Mapping[int, Trial]) -> None:
        """Say what the first calls took more than the second, which is in no figure."""
        seconds, at = max(((trial.start_seconds, -at) for at, trial in tried.items()), default=(0.0, 0))
        if seconds >= SLOW_CALL_S:
            self.notes.append(
                f"{name} at {self.cells[-at]}: its first call took {seconds:.2g} s longer than the second, in which kernels are "
                "loaded and compiled; no time includes that"
            )

    def _known(self, at: int, name: str) -> Trial | None:
        """What is known of an implementation in a cell without trying it there."""
        return (
            self._known_too_large(at, name) or self._expected_too_slow(at, name) or self._known_not_to_compile(at, name)
        )

    def _known_not_to_compile(self, at: int, name: str) -> Trial | None:
        eager = eager_name(self.spec.implementations, name)
        if eager is None:
            return None
        trial, left = self.trials[at, eager], TRIAL_LIMIT * (self.budget.left - self._kept_s)
        if trial.status != "measured":
            return Trial("skipped", f"not compiled, for {eager} was {trial.status} here")
        calls = (trial.costs.aten_calls if trial.costs is not None else None) or 0
        seconds = COMPILE_S + COMPILE_CALL_S * calls
        if seconds > left:
            return Trial(
                "skipped",
                f"to compile its {calls} ATen calls takes about {seconds:.2g} s, but {max(left, 0):.2g} s of the budget were left for it",
            )
        return None

    def _groups(self) -> list[list[int]]:
        """Positions of the cells of one input, whose passes are tried in one run, however they are timed."""
        groups: dict[str, list[int]] = {}
        for at in self._sorted:
            one_input = replace(self.cells[at], pass_name="forward", cache="warm", clock="wall")
            groups.setdefault(str(one_input), []).append(at)
        return list(groups.values())

    def _admit(self, group: Sequence[int], name: str) -> dict[int, Trial]:
        cells = [self.cells[at] for at in group]
        for_trials = self.budget.left - self._kept_s
        seconds = TRIAL_LIMIT * for_trials
        if seconds <= 0:
            return dict.fromkeys(group, Trial("skipped", f"no time was left of the budget of {self.budget_s:g} s"))
        base = self.names[0]
        references = {} if name == base else {self.cells[at].pass_name: self.trials[at, base] for at in group}
        held_to = {pass_name: trial for pass_name, trial in references.items() if trial.status == "measured"}
        passes = list(dict.fromkeys(cell.pass_name for cell in cells))
        trials = admit(
            self.spec,
            name,
            cells[0],
            passes,
            held_to,
            seed=self.seed,
            patience=Patience(
                seconds,
                max((t.counting for (_, who), t in self.trials.items() if who == name and t.counting), default=None),
                self._is_timed,
            ),
        )
        self._keep_reserve(for_trials - seconds)
        return {
            at: self._unchecked(name, trials[pass_name], pass_name, references[pass_name])
            if references and pass_name not in held_to and trials[pass_name].status == "measured"
            else trials[pass_name]
            for at, pass_name in ((at, self.cells[at].pass_name) for at in group)
        }

    def _keep_reserve(self, for_trials: float) -> None:
        """After a trial that could not be stopped in time, the others keep a reserve of what it should have left them.

        The trials' reserve is taken off the time that is kept for rounds, as far as these keep theirs; then the budget grows.
        """
        wanted = min(for_trials, RESERVE_S)
        left = self.budget.left
        if left - self._kept_s < wanted:
            self._kept_s = max(left - wanted, min(self._kept_s, RESERVE_S))
            self.budget.seconds += max(self._kept_s + wanted - left, 0.0)

    def _unchecked(self, name: str, trial: Trial, pass_name: str, reference: Trial) -> Trial:
        """Where there is nothing to be held to, an implementation is as good as it was elsewhere."""
        for (position, who), other in self.trials.items():
            if who == name and other.status == "failed" and self.cells[position].pass_name == pass_name:
                return Trial("failed", f"it could not be compared here, and failed elsewhere: {other.reason}")
        unchecked = f"not compared with {self.names[0]}, which was {reference.status} here"
        return replace(trial, reason="; ".join(filter(None, [trial.reason, unchecked])))

    def _lost_by(self, name: str, cell: Cell) -> str | None:
        """Why a device can be used no more in this process; fresh ones may still time what was admitted."""
        reason = lost(cell.device)
        if reason is None:
            return None
        self.notes.append(f"{reason}; that was {name} at {cell}")
        return f"not tried: {self.notes[-1]}"

    def _known_too_large(self, at: int, name: str) -> Trial | None:
        """A larger input takes no less time and no less memory."""
        cell, size = self.cells[at], elements(self.spec, self.cells[at].sizes)
        for (position, who), trial in self.trials.items():
            other = self.cells[position]
            like = replace(other, sizes=cell.sizes, cache=cell.cache, clock=cell.clock)
            if who != name or like != cell or elements(self.spec, other.sizes) > size:
                continue
            if not trial.fits:
                return Trial("skipped", f"known not to fit: {trial.reason}")
            if trial.status == "skipped" and trial.seconds > 0:
                return Trial("skipped", f"too slow at {other}, which is no larger: {trial.reason}", trial.seconds)
        return None

    def _expected_too_slow(self, at: int, name: str) -> Trial | None:
        """What is far beyond the time that is left by its growth so far is not begun, for it would be stopped."""
        cell, left = self.cells[at], TRIAL_LIMIT * (self.budget.left - self._kept_s)
        points = {
            elements(self.spec, self.cells[position].sizes): trial.seconds
            for (position, who), trial in self.trials.items()
            if who == name and trial.status == "measured" and replace(self.cells[position], sizes=cell.sizes) == cell
        }
        # One disturbed call must not condemn a loss, so that no more than growth with the elements is believed here.
        expected = extrapolated(points, elements(self.spec, cell.sizes), steepest=1.0)
        if expected is None or expected < HOPELESS * max(left, 0.0):
            return None
        reason = (
            f"not begun: by its growth so far, one call takes far longer than the {max(left, 0):.2g} s that were left"
        )
        return Trial("skipped", reason, expected)

    # ---- rounds ------------------------------------------------------------------------------------------------------

    def time_all(self) -> None:
        """Time whoever was admitted: in fresh processes, or in this one where the spec cannot be loaded in another."""
        device = next((c.device for c in self.cells if c.device != "cpu" and not unavailable(c.device)), "cpu")
        self.environment = {**environment.describe(device), "timed_in": "nothing was timed"}
        if not self._heats(0, self._processes)[0]:
            return
        for used in {cell.device for cell in self.cells}:
            if not unavailable(used) and not lost(used):
                release(used)  # what trials have left in this process is memory of the device that fresh ones need
        target, why = target_of(self.spec)
        reason = why if target is None else self._in_fresh_processes(target, device)
        if reason:
            self.notes.append(
                f"timed in this process, without the allocator settings and without the spread between processes: "
                f"{self.spec.name!r} cannot be loaded in a fresh one, because {reason}"
            )
            self._here(device)
        self._note_builds()
        self._note_busy()

    def _note_builds(self) -> None:
        """Say what constructors took, which is in no figure of a call."""
        for name in self.names:
            taken = [
                (s.build_seconds, at) for (at, who), found in self.samples.items() if who == name for _, s in found
            ]
            seconds, at = max(taken, default=(0.0, 0))
            if seconds >= SLOW_CALL_S:
                self.notes.append(
                    f"{name} at {self.cells[at]}: its constructor took {seconds:.2g} s; no time of a call includes that"
                )

    def _note_busy(self) -> None:
        samples = [sample for taken in self.samples.values() for _, sample in taken]
        repeated, kept = sum(s.repeated for s in samples), sum(len(s.seconds_per_call) for s in samples)
        if repeated > BUSY * kept:
            self.notes.append(
                f"the machine was busy: for {kept} rounds, {repeated} blocks were interrupted by other processes and run again"
            )

    def _heats(self, process: int, processes: int) -> tuple[list[int], list[Heat]]:
        """Cells with someone left to time in, and the heats of a process; those behind the planned ones complete rounds."""
        positions, heats = [], []
        for at in self._sorted:
            names = self.unsettled(at)
            done = min((len(self.times(at, name)) for name in names), default=0)
            if names and (process < PROCESSES or 0 < done < self.rounds):
                known = {name: self._contestant(at, name) for name in names}
                rounds = max(1, -(-(self.rounds - done) // max(processes - process, 1)))
                positions.append(at)
                heats.append(Heat(self.cells[at], known, rounds, self._base(at)))
        return positions, heats

    def _contestant(self, at: int, name: str) -> Contestant:
        compile_s = COMPILE_AGAIN * (self.trials[at, name].compile_seconds or 0.0)
        seconds = max(self.times(at, name), default=self.trials[at, name].seconds)  # the longest that was timed
        return Contestant(seconds, self._calls_per_block.get((at, name)), compile_s)

    def _able(self, at: int) -> list[str]:
        return [name for name in self.names if self.trials[at, name].status == "measured"]

    def _base(self, at: int) -> str:
        """Who the others are compared with in a cell: the reference, else the first that can be timed there."""
        return next((n for n in self._able(at) if not eager_name(self.spec.implementations, n)), self.names[0])

    def unsettled(self, at: int) -> list[str]:
        """Who is to be timed in a cell: whoever can be, but for those whose comparison is settled."""
        able, base = self._able(at), self._base(at)
        if able == [base]:  # what is compared with nobody is as well known by half of the rounds
            return [] if len(self.samples.get((at, base), ())) >= PROCESSES else able
        left = {name for name in able if name != base and not self.is_settled(at, name)}
        return [name for name in able if name in left or (left and name == base)]

    def times(self, at: int, name: str) -> list[float]:
        """Seconds per call in each round of every process, in the order in which they ran."""
        return [seconds for _, times in self._by_process(at, name) for seconds in times]

    def is_settled(self, at: int, name: str) -> bool:
        """Whether more rounds would hardly change what an implementation is compared with, and how that ends."""
        variants = variants_of(self.spec.implementations, name, self.names)
        timed = [other for other in variants if self.trials[at, other].status == "measured"]
        return all(self._is_settled(at, base, name) for base in dict.fromkeys([self._base(at), *timed]))

    def _is_settled(self, at: int, base: str, name: str) -> bool:
        theirs, ours = (dict(self._by_process(at, who)) for who in (base, name))
        pairs = [(p, pair) for p in ours for pair in zip(theirs.get(p, ()), ours[p], strict=False)]
        if not pairs:
            return False
        reference, implementation = zip(*(pair for _, pair in pairs), strict=True)
        least = 1 if self._is_alone else 2
        return is_settled(reference, implementation, [process for process, _ in pairs], self.seed, least=least)

    def _by_process(self, at: int, name: str) -> list[tuple[int, tuple[float, ...]]]:
        return [(process, samples.seconds_per_call) for process, samples in self.samples.get((at, name), [])]

    def _in_fresh_processes(self, target: str, device: str) -> str:
        """Returns why the spec could not be loaded there, or nothing."""
        start_s = 0.0
        with self.budget.paused():  # one start serves all losses and is the time of none
            processes.wait()
        for process in range(self._processes):
            positions, heats = self._heats(process, self._processes)
            if not heats:
                return ""
            if process and self.budget.left < start_s + LEAST_PROCESS_S:
                if process < PROCESSES:
                    self.notes.append(
                        f"{process} of {PROCESSES} processes: one takes {start_s:.1f} s to start, and "
                        f"{max(self.budget.left, 0):.1f} s were left of the budget of {self.budget_s:g} s"
                    )
                return ""
            self.observer.begin(Step("timing", f"{self.spec.name}: timing process {process + 1}"))
            left_s = max(self.budget.left - LEAVE_S, 0.0)
            with self.budget.paused():
                answer = time_in_fresh_process(
                    self.spec,
                    target,
                    heats,
                    device=device,
                    left_s=left_s,
                    process=process,
                    processes=max(PROCESSES, process + 1),
                    seed=self.seed,
                )
            self.budget.seconds -= answer.spent_s
            if answer.environment is None:
                return without_folder(answer.unloadable or f"the process failed: {answer.broken}", target)
            start_s = answer.start_s
            self.environment = {**answer.environment, "timed_in": "fresh processes", **on_one_core()}
            for samples in answer.samples:
                self._record(process, positions[samples.heat], samples)
            self._note_unsteady(answer.environment, f"timing process {process + 1}: ")
            if answer.broken:
                self._blame(process, answer, positions, heats)
        return ""

    def _here(self, device: str) -> None:
        self._is_alone = True
        self.observer.begin(Step("timing", f"{self.spec.name}: timing in this process"))
        positions, heats = self._heats(0, processes=1)
        witness = Witness(is_crowded=is_crowded())
        if witness.is_crowded:
            self.notes.append(
                "other threads of the calling process work: not looked at is whether a loss leaves work to threads, or "
                "remembers inputs"
            )
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            self.environment = {**environment.describe(device), "timed_in": "the calling process"}
            devices = [d for d in sorted({heat.cell.device for heat in heats}) if not lost(d)]
            before = environment.gpu_states(devices)
            with self.budget.paused():
                cold = flushes(heat.cell for heat in heats)
            with printing_to_stderr():
                measure(
                    self.spec,
                    heats,
                    looks=LOOKS[1:],
                    seconds=self.budget.left,
                    seed=self.seed,
                    process=0,
                    report=lambda samples: self._record(0, positions[samples.heat], samples),
                    flushes=cold,
                    witness=witness,
                )
            after = environment.gpu_states([d for d in devices if not lost(d)])
            self.environment = {**self.environment, "gpu_states": {"before": before, "after": after}}
            self._note_unsteady(self.environment)
        finally:
            torch.set_num_threads(threads)

    def _note_unsteady(self, taken_under: Mapping[str, Any], where: str = "") -> None:
        states = taken_under.get("gpu_states", {"before": {}, "after": {}})
        self.notes += [where + note for note in environment.unsteady(states["before"], states["after"])]

    def _record(self, process: int, at: int, samples: Samples) -> None:
        entry = (at, samples.implementation)
        if self.trials[entry].status != "measured":
            return
        found = clocks_apart(samples, self.cells[at]) or list(samples.violations)  # others may read the false clock
        if found:
            code, text = found[0]
            self.trials[entry] = Trial("failed", text, violates=code)
        elif samples.status == "failed":
            self.trials[entry] = Trial("failed", f"raised while it was timed: {samples.reason}")
        elif samples.status == "measured" and (text := self._another_function(entry, samples)):
            self.trials[entry] = Trial("failed", text, violates="M02")
        if samples.calls_per_block:
            self._calls_per_block[entry] = samples.calls_per_block
        self.samples.setdefault(entry, []).append((process, self._charged(at, samples)))

    def _charged(self, at: int, samples: Samples) -> Samples:
        """The same samples; of who works on several threads, in the processor time of all of them, for others have one."""
        ratio = samples.outside.processor if samples.outside is not None else None
        if ratio is None or ratio <= CLOCKS_APART:
            return samples
        times = f"{samples.implementation} at {self.cells[at]}: it works on several threads, and its times are processor time"
        self.notes += [times] if times not in self.notes else []
        return replace(samples, seconds_per_call=tuple(ratio * seconds for seconds in samples.seconds_per_call))

    @property
    def violations(self) -> dict[Entry, Violation]:
        """Whose times are not those of the loss: code of the rule, and what was seen."""
        return {entry: (trial.violates, trial.reason) for entry, trial in self.trials.items() if trial.violates}

    def refuse_violators(self) -> None:
        """Rank nobody anywhere whose times are somewhere not those of the loss."""
        for (position, name), (_, text) in self.violations.items():
            for entry, trial in self.trials.items():
                if entry[1] == name and trial.status == "measured":
                    reason = f"not ranked, for what was seen at {self.cells[position]}: {text}"
                    self.trials[entry] = replace(trial, status="failed", reason=reason)

    def _another_function(self, entry: Entry, samples: Samples) -> str:
        """What says that another function was timed than was tried here."""
        if samples.loss is None or getattr(torch, self.cells[entry[0]].dtype) not in AGREEMENT:
            return ""
        here = float(self.trials[entry].values[0].abs().max())
        if abs(samples.loss - here) <= SAME_FUNCTION * here:
            return ""
        return (
            f"in a fresh process its loss was {samples.loss:.6g} on the input on which it is {here:.6g} here; is the loss "
            "random, or declared in another way there?"
        )

    def _blame(self, process: int, answer: Answer, positions: Sequence[int], heats: Sequence[Heat]) -> None:
        """A process that broke did so in its first heat without all results; whoever has none there is not tried again."""
        self.notes.append(f"timing process {process + 1} broke: {answer.broken}")
        for number, heat in enumerate(heats):
            answered = {samples.implementation for samples in answer.samples if samples.heat == number}
            silent = [name for name in heat.contestants if name not in answered]
            for name in silent:
                self.trials[positions[number], name] = Trial("failed", f"its timing process broke: {answer.broken}")
            if silent:
                return
