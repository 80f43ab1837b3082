"""What is asked of an implementation after its rounds: calls on inputs that it has never seen, held to the reference."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from harness.declare.spec import LossSpec
from harness.results.measured import Cell
from harness.timing import timers as time
from harness.timing.agreement import Values, difference, not_finite, values_of
from harness.timing.constants import (
    AGREEMENT,
    ASKED_AGAIN,
    FASTER_THAN_A_SUM,
    LEAST_READ_BYTES,
    LEFT_OVER_S,
    MOST_UNSEEN,
    MOST_WAITS,
    SAME_FUNCTION,
    SEEN_BEFORE,
    SEEN_BEFORE_S,
    SETTLE_S,
    UNSEEN_ELEMENTS,
)
from harness.timing.workload import Workload, bound_bytes, elements, inputs

Batch = Mapping[str, Tensor]
# Why the times of an implementation are not those of the loss: the code of a rule, see `harness.rules.measurement`, and what was
# seen, what should have been.
Violation = tuple[str, str]


@dataclass(frozen=True)
class Audit:
    """What calls on unseen inputs showed.

    Args:
        seconds: of each call.
        values: loss and gradients of each, in float64 on the CPU.
        left_s: processor seconds that other threads of the process worked on after the calls had returned.
        edited: inputs that do not hold any more what they held before the timing.
        again: the largest element of the loss on the first of the inputs that were timed; ``None`` of a slow one.
        given: the copies that it was called on, whose addresses nobody else has while they are held.
        changed: whether a loss or a gradient became another one after its call had returned, by another thread.
        is_running: whether registered buffers changed, as running statistics do: then values depend on the number of calls.
    """

    seconds: Sequence[float]
    values: Sequence[Values]
    left_s: float
    edited: Sequence[str]
    again: float | None
    given: Sequence[Batch]
    changed: bool
    is_running: bool


class Batches:
    """Inputs of one heat beside the same context: those that are timed, and those that nobody sees before the audit.

    Args:
        spec: the declaration.
        cell: sizes and dtype.
        seed: of their values.
        process: number of this process; each has unseen inputs of its own.
        timed: how many are timed in turn.
    """

    def __init__(self, spec: LossSpec, cell: Cell, seed: int, process: int, timed: int) -> None:
        self.spec, self.cell = spec, cell
        size = max(elements(spec, cell.sizes), 1)
        self._count = max(1, min(MOST_UNSEEN, UNSEEN_ELEMENTS // size))
        timed = timed if size <= MOST_UNSEEN * UNSEEN_ELEMENTS else 1
        self.timed = [_plain(inputs(spec, cell, seed, batch=f"batch {i} " if i else "")) for i in range(timed)]
        self._process, self._seed, self._made = process, seed, 0
        self.unseen = self.further()

    def further(self) -> list[dict[str, Tensor]]:
        """Inputs that nobody has seen."""
        self._made += 1
        names = [f"unseen {self._process} {self._made} {number} " for number in range(self._count)]
        return [_plain(inputs(self.spec, self.cell, self._seed, batch=name)) for name in names]

    def copies(self, batches: Sequence[Batch], context: Batch | None = None) -> list[dict[str, Tensor]]:
        """Copies at addresses of their own, but for the context, which all of them share; leaves require grad."""
        made: list[dict[str, Tensor]] = []
        for batch in batches:
            kept = context if context is not None else (made[0] if made else {})
            place = self.cell.device
            own = {
                n: kept[n] if n in kept and n in self.spec.context else t.to(place, copy=True) for n, t in batch.items()
            }
            for name in self.spec.differentiable:
                own[name].requires_grad_()
            made.append(own)
        return made


def _plain(tensors: Batch) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in tensors.items()}


def audited(
    workload: Workload,
    batches: Batches,
    unseen: Sequence[Batch],
    timed: Sequence[Batch],
    state: Sequence[str],
    wait: Callable[[], None] | None,
    *,
    most: int,
    is_slow: bool = False,
) -> Audit:
    """Call a loss on unseen inputs, one by one, and look at what the timing has left.

    The calls are quick to tell apart from those of the rounds: nothing but the values is new.  On the CPU their processor time
    counts, which no other process disturbs.

    Args:
        workload: what was timed.
        batches: the inputs of the heat.
        unseen: those to call it on.
        timed: the copies that it was timed on.
        state: of its buffers before the timing.
        wait: waits for a device that works beside the host.
        most: how many calls, at most.
        is_slow: whether every call counts: then none comes before, and none after on what was timed.
    """
    clock = time.thread_time if wait is None else time.perf_counter
    chosen = batches.copies(unseen[:most], timed[0])
    works = [workload.on(batch) for batch in chosen]
    calls = [work.call(batches.cell.pass_name) for work in works]
    if not is_slow:
        workload.call(batches.cell.pass_name)()  # what making the inputs has cost the caches of the code
    _spoil_freed([tensor for batch in chosen for tensor in batch.values()])
    is_forward = batches.cell.pass_name == "forward"
    leaves = [[] if is_forward else work.leaves for work in works]
    seconds, losses, at_once = [], [], []
    for call, mine in zip(calls, leaves, strict=True):
        if wait is not None:
            wait()
        begin = clock()
        loss = read(call())
        if wait is not None:
            wait()
        seconds.append(clock() - begin)
        losses.append(loss)
        if wait is None:
            at_once.append(values_of(loss, mine))
    left_s = left_over_s()  # waits, which between two calls would cost the next what a block keeps in the caches
    values = [values_of(loss, mine) for loss, mine in zip(losses, leaves, strict=True)]
    changed = any(
        not _same(*pair) for now, was in zip(values, at_once, strict=False) for pair in zip(now, was, strict=True)
    )
    edited = [
        name
        for name in batches.spec.inputs
        if name != batches.spec.writes_gradient_into
        and not all(
            _same(now[name], was[name]) for now, was in zip((*timed, *chosen), (*batches.timed, *unseen), strict=False)
        )
    ]
    workload.restore()
    again = None if is_slow else float(workload.call(batches.cell.pass_name)().detach().double().abs().max())
    return Audit(seconds, values, left_s, edited, again, chosen, changed, workload.state() != state)


def read(loss: Tensor) -> Tensor:
    """The loss; one of a type of its own is read, for it may put off its work until then."""
    if type(loss) is not Tensor:
        float(loss.detach().double().sum())
    return loss


def _same(now: Tensor, was: Tensor) -> bool:
    now = now.detach().cpu()
    return bool(((now == was) | ((now != now) & (was != was))).all())


def _spoil_freed(tensors: Iterable[Tensor]) -> None:
    """Leave NaN in the memory that is given out next, where the results of others may lie.

    So much of it that gradients of all calls find some: memory that the system has yet to give costs a page at a time, and a
    call on new inputs would take several times as long for that alone.
    """
    floating = [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
    spoilt = [torch.full_like(tensor, torch.nan) for tensor in floating]
    spoilt += [tensor.new_full((), torch.nan) for tensor in floating for _ in range(4)]


def left_over_s() -> float:
    """Processor seconds that threads other than this one take while it only waits.

    It waits on for those that are at work and had no processor yet, which on a busy machine are not idle for that.
    """
    begin = others_s()
    for _ in range(MOST_WAITS if _others() else 0):
        time.sleep(SETTLE_S)
        if others_s() - begin > LEFT_OVER_S or not any(map(_is_at_work, _others())):
            break
    return others_s() - begin


def others_s() -> float:
    """Processor seconds of all threads of this process but this one."""
    return time.process_time() - time.thread_time()


def is_crowded() -> bool:
    """Whether threads are at work here before anything of a loss was called, as in a notebook or a test: they are not its own."""
    return any(left_over_s() > LEFT_OVER_S for _ in range(1 + ASKED_AGAIN))


def settle() -> None:
    """Wait until the other threads are done, as far as they get done."""
    for _ in range(MOST_WAITS):
        if left_over_s() <= LEFT_OVER_S:
            return


def _others() -> list[str]:
    """The threads of this process but this one; one that nobody knows where the system does not list them."""
    try:
        return [thread for thread in os.listdir("/proc/self/task") if int(thread) != threading.get_native_id()]
    except OSError:
        return ["unknown"]


def _is_at_work(thread: str) -> bool:
    """Whether a thread has a processor or waits for one; of one that is gone or unknown, not."""
    try:
        with open(f"/proc/self/task/{thread}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "R"
    except OSError:
        return False


def is_remembered(audit: Audit, times: Sequence[float], cell: Cell) -> bool:
    """Whether every call on unseen inputs took far longer than those on inputs that were timed."""
    if not times or not audit.seconds or cell.clock == "graph":  # whose replay is without the host's part
        return False
    single_s = SEEN_BEFORE_S["cpu" if cell.device == "cpu" else "cuda"]
    return min(audit.seconds) > SEEN_BEFORE * min(times) + single_s  # a busy machine makes some of both longer


def judged(
    audit: Audit,
    expected: Sequence[Values],
    conditions: Sequence[float],
    times: Sequence[float],
    cell: Cell,
    differentiable: Sequence[str],
    reference: str,
    first: float | None,
) -> list[Violation]:
    """What an audit says against an implementation.

    Args:
        audit: of the implementation.
        expected: values of the reference on the same unseen inputs, as far as there are any.
        conditions: of the reference there.
        times: seconds per call in each round.
        cell: what was timed.
        differentiable: inputs whose gradients the values hold.
        reference: its name.
        first: the largest element of the loss before the timing, on the first of the inputs that were timed.
    """
    found: list[Violation] = []
    again = None if audit.is_running else audit.again
    if first is not None and again is not None and not abs(again - first) <= SAME_FUNCTION * abs(first):
        found.append(("M02", f"the loss at {cell} = {again:.6g} after the timing, expected {first:.6g}, as before it"))
    for values, wanted, size in () if found else zip(audit.values, expected, conditions, strict=False):
        if audit.is_running or getattr(torch, cell.dtype) not in AGREEMENT:
            break  # running statistics differ by the number of calls; low precision, by rounding alone
        problem = not_finite(values, differentiable)
        problem = problem or difference(values, wanted[: len(values)], differentiable, size, cell.dtype)
        if problem is not None:
            told = problem.replace("on the timed input", "on an input that it had not seen")
            found.append(("M02", f"after the timing, at {cell}, {told}; it is held to {reference}"))
            break
    if is_remembered(audit, times, cell):
        usual, unseen = min(times), min(audit.seconds)
        text = f"at {cell} = {unseen:.3g} s, expected about the {usual:.3g} s of those that it has seen"
        found.append(("M03", f"a call on new inputs {text}"))
    if audit.left_s > LEFT_OVER_S:
        text = f"{audit.left_s:.3g} s, expected 0: what a call leaves to them is not in its time"
        found.append(("M04", f"processor time that other threads take after calls at {cell} have returned = {text}"))
    elif audit.changed:
        text = "another one once its call had returned, expected what was returned"
        found.append(("M04", f"the loss or its gradient at {cell} = {text}"))
    if audit.edited:
        names = ", ".join(audit.edited)
        found.append(("M05", f"{names} after the timing at {cell} = other values, expected those it was given"))
    return found


def least_bytes(spec: LossSpec, cell: Cell, values: Values) -> int:
    """Bytes that a forward pass must read: what the spec declares, else those of elements whose gradient is not zero."""
    declared = bound_bytes(spec, cell)
    if declared is not None:
        return declared
    return sum(int(slope.count_nonzero()) for slope in values[1:]) * int(getattr(torch, cell.dtype).itemsize)


def impossible(cell: Cell, least: int, bandwidth: Callable[[int], float], times: Sequence[float]) -> list[Violation]:
    """What is quicker than its bytes can be read, at twice the speed at which a sum reads as many.

    Nothing is said of few bytes, which lie in the nearest cache, of devices other than the CPU and of a backward pass alone.
    """
    if cell.device != "cpu" or cell.pass_name == "backward" or least < LEAST_READ_BYTES or not times:
        return []
    least_s = least / (FASTER_THAN_A_SUM * bandwidth(least))
    if median(times) >= least_s:
        return []
    text = f"{median(times):.3g} s, expected at least the {least_s:.3g} s in which {least} bytes can be read"
    return [("M06", f"a call at {cell} = {text}")]
