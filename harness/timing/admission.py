"""Who may be timed: an implementation runs once, is held to the reference, and has its exact costs taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness.calls.aten.storages import Storages
from harness.calls.evaluation import LossRaised, is_out_of_memory
from harness.calls.tolerance import told_apart
from harness.declare.spec import ONE_BACKWARD, LossSpec
from harness.errors import DeclarationError, told_in_a_line
from harness.results.measured import Cell
from harness.results.variants import eager_name
from harness.timing import timers as time
from harness.timing.agreement import Values, condition, difference, not_finite, values_of
from harness.timing.budget import Budget
from harness.timing.clocks import waiting_for
from harness.timing.compilation import Compilation
from harness.timing.compiled import compiling, first_calls
from harness.timing.constants import (
    AGREEMENT,
    COUNTED_CALL_S,
    COUNTED_PART,
    FEWER_DIGITS,
    LATE,
    LOOP_CALLS,
    SLOW_CALL_S,
)
from harness.timing.costs import counting as costs
from harness.timing.costs.counting import Costs, TookTooLong, observed
from harness.timing.devices import current, out_of_memory, release
from harness.timing.user_code import RAISED, printing_to_stderr
from harness.timing.workload import Workload, inputs

Status = Literal["measured", "skipped", "failed"]


@dataclass(frozen=True)
class Trial:
    """What an untimed run of one pass of an implementation showed.

    Args:
        status: ``measured`` means that it may be timed.
        reason: why not, or what is unknown.
        seconds: about how long one call takes; errs on the long side.
        costs: exact costs, of a second call where calls are quick, for the first one may fill caches; ``None``: unknown.
        values: loss and gradients, in float64 on the CPU, to hold others to.
        fits: false where memory ran out, as it will on a larger input.
        compile_seconds: how much longer the first call of a compiled variant took than the second.
        start_seconds: on a device, how much longer the first call of any other took than the second: it loads kernels, and
            compiles those that are compiled where they are first called, as Triton's are.
        counting: how many times longer a call takes where it is counted; ``None``: unknown.
        narrowest: bytes of an element of the narrowest floating tensor that it made.
        violates: code of the rule that its time would break by the reason; empty where there is none.
    """

    status: Status
    reason: str = ""
    seconds: float = 0.0
    costs: Costs | None = None
    values: Values = ()
    fits: bool = True
    compile_seconds: float | None = None
    start_seconds: float = 0.0
    counting: float | None = None
    narrowest: int = 8
    violates: str = ""


Trials = dict[str, Trial]


class _WrongResult(Exception):
    """What came back cannot be differentiated; the text is the whole reason."""


class _Stopper(TorchFunctionMode):
    """Stops what is inside at its first call of torch after a deadline, for 1 us a call."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self._budget = budget

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._budget.left < 0:
            raise TookTooLong
        return func(*args, **(kwargs or {}))


class _Run:
    """One forward pass and, where it is asked for, the backward pass after it."""

    def __init__(self, workload: Workload, cell: Cell, spec: LossSpec) -> None:
        self.workload, self.cell, self.spec = workload, cell, spec
        self.trials: Trials = {}
        self._waits = waiting_for(torch.device(cell.device))

    def again(self) -> _Run:
        """The same run on a loss that is built anew."""
        return _Run(self.workload.again(), self.cell, self.spec)

    def plain(self, passes: Sequence[str], seconds: float) -> None:
        """Fill `trials` with what was reached of a call that nobody counts, also where the loss raises or is stopped."""
        self._begin()
        budget, begin = self.budget(seconds), self._clocks()
        loss: Tensor | None = None
        reached: dict[str, float] = {}
        try:
            with _Stopper(budget):
                loss = self.workload.forward()
            reached["forward"] = self._since(begin)
            loss = self._checked(loss)
            if "full" in passes or "backward" in passes:
                self._check_graph(loss)
                if budget.left < 0:
                    raise TookTooLong
                between = self._clocks()
                with _Stopper(budget):
                    self.workload.backward(loss)
                reached |= {"backward": self._since(between), "full": self._since(begin)}
        finally:
            for pass_name, taken in reached.items():
                values = self.values(loss, pass_name) if isinstance(loss, Tensor) else ()
                self.trials[pass_name] = Trial("measured", "", taken, values=values)

    def _begin(self) -> None:
        self.trials = {}
        self.workload.restore()
        self.workload.reset()

    def budget(self, seconds: float) -> Budget:
        """So many seconds, by the clock of the device."""
        return Budget(seconds, is_wall=self._waits is not None)

    def _clocks(self) -> tuple[float, float]:
        return self._now(), time.process_time()

    def _since(self, begin: tuple[float, float]) -> float:
        """Seconds since then; on the CPU without those in which others had the core."""
        wall, processor = (after - before for after, before in zip(self._clocks(), begin, strict=True))
        return wall if self._waits is not None else min(wall, processor)

    def run(self, passes: Sequence[str], seconds: float, *, saved: bool = True) -> None:
        """The same for a call that is counted, as `observed` does."""
        self._begin()
        loss: Tensor | None = None
        reached: dict[str, tuple[float, Costs]] = {}
        begin = self._now()
        try:
            with observed(seconds, saved=saved) as counter:
                loss = self._checked(self.workload.forward())
                counter.storages.keep(loss)  # what lives on beside it, also where no graph saves it: as `ctx.x` for one
                reached["forward"] = self._now() - begin, counter.costs
                if "full" in passes or "backward" in passes:
                    self._check_graph(loss)
                    between = time.perf_counter()
                    with observed(seconds - (between - begin)) as second:
                        self.workload.backward(loss)
                    end = self._now()
                    reached["full"] = end - begin, counter.costs
                    reached["backward"] = end - between, second.costs
        finally:
            for pass_name, (taken, found) in reached.items():
                seconds = max(taken - COUNTED_CALL_S * (found.aten_calls or 0), (1 - COUNTED_PART) * taken)
                values = self.values(loss, pass_name) if loss is not None else ()
                self.trials[pass_name] = Trial("measured", "", seconds, found, values, narrowest=counter.narrowest)

    def _now(self) -> float:
        """The time, once a device that works beside the host has done what it was given."""
        if self._waits is not None:
            self._waits()
        return time.perf_counter()

    def _checked(self, loss: object) -> Tensor:
        if isinstance(loss, Tensor) and loss.is_nested:
            raise _WrongResult(f"returned a nested tensor, expected one with one shape that {self._graph()}")
        if isinstance(loss, Tensor):
            return loss
        shown = f"{loss!r}, " if isinstance(loss, int | float) else ""
        select = "" if shown else "; where the loss is a part of what is returned, declare `select`"
        raise _WrongResult(f"returned {shown}{type(loss).__name__}, expected a tensor that {self._graph()}{select}")

    def _check_graph(self, loss: Tensor) -> None:
        if not loss.requires_grad:
            raise _WrongResult(
                f"returned a tensor without a graph, expected one that {self._graph()}; is it detached, made "
                "under no_grad, or made of a number?"
            )

    def _graph(self) -> str:
        return f"has a graph, so that the gradient reaches {' and '.join(self.spec.differentiable)}"

    def values(self, loss: Tensor, pass_name: str) -> Values:
        """Loss and gradients of a pass, to hold others to."""
        leaves = [] if pass_name == "forward" else self.workload.leaves
        return values_of(loss, leaves)


@dataclass(frozen=True)
class Patience:
    """How long an implementation is waited for, and what for.

    Args:
        seconds: a call that takes longer is stopped at its next ATen call.
        counting: how many times longer than a plain one a counted call takes, as far as it is known; what would take too
            long is timed without its costs.
        is_timed: whether how long a call takes is asked for.
    """

    seconds: float
    counting: float | None = None
    is_timed: bool = True


def admit(
    spec: LossSpec,
    name: str,
    cell: Cell,
    passes: Sequence[str],
    reference: Mapping[str, Trial],
    *,
    seed: int,
    patience: Patience,
) -> Trials:
    """Run an implementation on the input that will be timed, and compare it with the reference.

    A loss in bfloat16 or float16 is compared in float32 on the same rounded values, for two results in low precision
    differ without either being wrong; its own value must only be finite.  What the loss prints goes to stderr.

    Args:
        spec: the declaration.
        name: the implementation.
        cell: the input, in any pass.
        passes: which passes will be timed.
        reference: the reference's trials that others may be held to; none for the reference itself.
        seed: of the input.
        patience: how long it is waited for.
    """
    held_to = {} if spec.stochastic else reference  # two draws differ without either being wrong
    with current(cell.device), printing_to_stderr():
        asked = [pass_name for pass_name in passes if not (spec.once and pass_name == "backward")]
        found = _admitted(spec, name, cell, asked, held_to, seed, patience) if asked else {}
        trials = {name: found.get(name, Trial("skipped", ONE_BACKWARD)) for name in passes}
    if not all(trial.fits for trial in trials.values()):
        release(cell.device)
    return trials


def _admitted(
    spec: LossSpec,
    name: str,
    cell: Cell,
    passes: Sequence[str],
    reference: Mapping[str, Trial],
    seed: int,
    patience: Patience,
) -> Trials:
    seconds = patience.seconds
    until = time.perf_counter() + seconds
    low = getattr(torch, cell.dtype) not in AGREEMENT
    try:
        tensors = inputs(spec, cell, seed)
    except DeclarationError as error:  # such sizes are nobody's failure
        return dict.fromkeys(passes, Trial("skipped", f"the inputs cannot be made: {error}"))
    except RAISED as error:  # whatever a domain of the user's own raises
        return dict.fromkeys(passes, _failed(error, cell))
    try:
        run = _Run(Workload(spec, name, tensors), cell, spec)
        in_float32 = run
        if low:
            rounded = inputs(spec, cell, seed, torch.float32)
            in_float32 = _Run(Workload(spec, name, rounded), cell, spec)
    except RAISED as error:  # whatever a user's constructor raises, running out of memory included
        return dict.fromkeys(passes, _failed(error, cell))
    is_compiled = eager_name(spec.implementations, name) is not None
    if is_compiled:
        trials = _compiled(run, passes)
    elif patience.is_timed:
        trials = _tried(run, passes, seconds, patience.counting)
    else:
        trials = _counted(run, passes, seconds)
    compared, left = trials, until - time.perf_counter()
    if low and is_compiled:
        compared = _compiled(in_float32, passes)
    elif low:
        compared = _guarded(in_float32, in_float32.plain, passes, left)
    trials = {name: _judged(run, name, trials[name], compared[name], reference) for name in passes}
    if is_compiled:
        return trials
    return _with_warm_costs(run, trials, until - time.perf_counter(), is_warm=patience.is_timed)


def _compiled(run: _Run, passes: Sequence[str]) -> Trials:
    """The trials of a compiled variant: it is called as it is, for the compiler steps back where calls are counted."""
    trials = {}
    together = [name for name in passes if name != "backward"]  # which is compiled in another way
    for group in (together, [name for name in passes if name == "backward"]):
        trials.update(_compiled_together(run.again(), group) if group else {})
    return {name: trials[name] for name in passes}


def _compiled_together(run: _Run, passes: Sequence[str]) -> Trials:
    try:
        with compiling(passes[-1]):
            found = first_calls(run.workload, passes[-1], waiting_for(torch.device(run.cell.device)))
            values = {name: run.values(found.losses[-1], name) for name in passes}
            return {
                name: Trial(
                    "measured",
                    "",
                    found.seconds[-1][name],
                    _compiled_costs(run, name, found.compilation),
                    values[name],
                    compile_seconds=found.compile_seconds(name),
                )
                for name in passes
            }
    except RAISED as error:  # whatever the compiler or a user's loss raises
        return dict.fromkeys(passes, _failed(error, run.cell))


def _compiled_costs(run: _Run, pass_name: str, did: Compilation) -> Costs:
    """What can be known of compiled code: what it keeps and allocates, and what the compiler did; ATen sees no more of it."""
    storages = Storages()

    def keep(tensor: Tensor) -> Tensor:
        storages.save(tensor)
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run.workload.forward()
    call = run.workload.call(pass_name)
    run.workload.reset()  # old gradients that are freed inside would make room below the baseline
    return Costs(
        aten_calls=None,
        saved_bytes=storages.saved_bytes(),
        peak_bytes=costs.peak_bytes(call, run.cell.device),
        graphs=did.graphs,
        graph_breaks=did.graph_breaks,
        recompilations=did.recompilations,
    )


def _failed(error: BaseException, cell: Cell) -> Trial:
    """The trial of what raised: too large for the memory is no fault of the loss."""
    cause = error.error if isinstance(error, LossRaised) else error
    if is_out_of_memory(cause):
        return Trial("skipped", out_of_memory(cell), fits=False)
    if isinstance(cause, _WrongResult):
        return Trial("failed", str(cause))
    return Trial("failed", told_in_a_line(cause))


def _tried(run: _Run, passes: Sequence[str], seconds: float, counting: float | None) -> Trials:
    """The trials of a plain call, which says how long one takes, and of a counted one as far as there is time for it."""
    budget = run.budget(seconds)
    plain = _guarded(run, run.plain, passes, seconds)
    good = [name for name in passes if plain[name].status == "measured"]
    if not good:
        return plain
    first_s = max(plain[name].seconds for name in good)
    left = budget.left
    if left > 0 and (
        first_s < SLOW_CALL_S or run.cell.device != "cpu"
    ):  # a first call is rarely as quick as those after it
        for name, second in _guarded(run, run.plain, good, left).items():
            start = plain[name].seconds - second.seconds if run.cell.device != "cpu" else 0.0
            quicker = replace(plain[name], seconds=min(plain[name].seconds, second.seconds), start_seconds=start)
            plain[name] = quicker if second.status == "measured" else second
    left = budget.left
    needed = (counting or 0.0) * first_s
    if needed > left:
        return {n: _uncounted(plain[n], f"takes about {needed:.2g} s") for n in passes}
    begin = budget.spent
    counted = _counted(run, good, left)
    took = (budget.spent - begin) / max(first_s, 1e-9)
    for name in good:
        if counted[name].status == "skipped" and counted[name].fits and plain[name].status == "measured":
            plain[name] = _uncounted(plain[name], f"takes longer than the {left:.2g} s that were left for it")
        elif plain[name].status == "measured":
            found, known = counted[name], plain[name]
            as_timed = replace(found, seconds=known.seconds, start_seconds=known.start_seconds)
            plain[name] = as_timed if found.status == "measured" else found
        plain[name] = replace(plain[name], counting=took)
    return plain


def _uncounted(trial: Trial, why: str) -> Trial:
    return replace(trial, reason=f"exact costs unknown: to count them {why}") if trial.status == "measured" else trial


def _counted(run: _Run, passes: Sequence[str], seconds: float) -> Trials:
    """The trials of one counted run."""
    found = _guarded(run, run.run, passes, seconds)
    problem = next((trial for trial in found.values() if trial.status == "failed"), None)
    if problem is None:
        return found
    plain = _guarded(run, partial(run.run, saved=False), passes, seconds)  # the hooks may be what it failed of
    if any(trial.status != "measured" for trial in plain.values()):
        return plain
    return {n: replace(plain[n], reason=f"exact costs unknown: {problem.reason}", costs=None) for n in passes}


def _guarded(run: _Run, call: Callable[[Sequence[str], float], None], passes: Sequence[str], seconds: float) -> Trials:
    """The trials of one run; a pass that is not reached has the status that says why."""
    problem, budget = None, run.budget(seconds)
    try:
        call(passes, seconds)
    except TookTooLong:
        taken = budget.spent
        what = "one call" if run.cell.device == "cpu" else "the first call, which may compile kernels,"
        reason = f"{what} takes longer than the {seconds:.2g} s that the budget had left for it"
        if taken > LATE * seconds:
            reason += f"; it could not be stopped before {taken:.2g} s were over"
        problem = Trial("skipped", reason, taken)
    except RAISED as error:  # whatever a user's loss raises
        problem = _failed(error, run.cell)
    return {name: run.trials[name] if problem is None else run.trials.get(name, problem) for name in passes}


def _judged(run: _Run, pass_name: str, trial: Trial, compared: Trial, reference: Mapping[str, Trial]) -> Trial:
    """The trial of a pass, with the values of the one that is compared, which is held to the reference."""
    if trial.status != "measured" or compared.status != "measured":
        return trial if trial.status != "measured" else compared
    spec, dtype, base = run.spec, run.cell.dtype, reference.get(pass_name)
    narrow = "" if base is None or spec.computes_in else fewer_digits(trial, base, run.cell)
    if narrow:
        return Trial("failed", narrow, violates="M07")
    problem = not_finite(trial.values, spec.differentiable)
    if problem is None and base is not None:
        slopes = next((reference[name].values[1:] for name in ("full", "backward") if name in reference), ())
        size = condition(slopes, [run.workload.given[name] for name in spec.differentiable])
        problem = difference(compared.values, base.values, spec.differentiable, size, dtype)
    return Trial("failed", problem) if problem is not None else replace(trial, values=compared.values)


def fewer_digits(trial: Trial, reference: Trial, cell: Cell) -> str:
    """What says that a loss computes in a narrower dtype than it is given and the reference uses, and loses digits by it."""
    dtype = getattr(torch, cell.dtype)
    if not trial.narrowest < dtype.itemsize <= reference.narrowest or dtype not in AGREEMENT:
        return ""
    pairs = [(v, w) for v, w in zip(trial.values, reference.values, strict=True) if w.numel() and v.shape == w.shape]
    off = max((float((v - w).abs().max()) / (float(w.abs().max()) or 1.0) for v, w in pairs), default=0.0)
    allowed = (
        FEWER_DIGITS * torch.finfo({1: torch.float8_e4m3fn, 2: torch.float16, 4: torch.float32}[trial.narrowest]).eps
    )
    if not off > allowed:
        return ""
    apart = told_apart(off, allowed)
    return (
        f"the narrowest floating tensor that it computes at {cell} = {8 * trial.narrowest} bits, expected the "
        f"{8 * dtype.itemsize} that it is given (off by {apart[0]} of the largest element, allowed {apart[1]})"
    )


def _with_warm_costs(run: _Run, trials: Trials, seconds: float, *, is_warm: bool) -> Trials:
    """Costs of a call that is not the first, and what needs calls of its own.

    A long loop, which costs most, is spared all that, and so is what took all its time already without being stopped.  How
    long it is goes by its calls: how long they took differs from run to run, and costs do not.
    """
    good = [name for name, trial in trials.items() if trial.status == "measured"]
    counted = [trials[name].costs for name in good]
    if good and seconds > 0 and all(found is not None and (found.aten_calls or 0) < LOOP_CALLS for found in counted):
        again = {} if is_warm else _counted(run, good, seconds)
        warm = {n: replace(trials[n], costs=found.costs) for n, found in again.items() if found.status == "measured"}
        return trials | {name: _completed(run, name, warm.get(name, trials[name])) for name in good}
    return trials


def _completed(run: _Run, name: str, trial: Trial) -> Trial:
    """The trial with the costs that take calls of their own, in which a loss may still raise."""
    if trial.costs is None:
        return trial
    try:
        call = run.workload.call(name)
        run.workload.reset()  # old gradients that are freed inside would make room below the baseline
        return replace(trial, costs=costs.completed(trial.costs, call, run.cell.device))
    except RAISED as error:  # whatever a user's loss raises
        return _failed(error, run.cell)
