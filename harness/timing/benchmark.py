"""`benchmark`: spec x sizes x devices -> measurements, exact costs and paired comparisons."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from statistics import median

import torch

from harness.declare.dims import Size
from harness.declare.spec import LossSpec
from harness.errors import DeclarationError, HarnessError
from harness.results.findings import Finding
from harness.results.measured import Cache, Cell, ClockName, Comparison, Measurement, Pass
from harness.results.observer import bar_in_a_notebook
from harness.results.variants import compiled_names, eager_name
from harness.rules import find
from harness.timing import arguments
from harness.timing.compiled import own_cache
from harness.timing.constants import MOST_TIMES_ROUNDS, ROUNDS, ROUNDS_BUDGET_S
from harness.timing.costs.counting import Costs
from harness.timing.measurement import Benchmark, rounds_in_common
from harness.timing.scaling import extrapolated
from harness.timing.session import Course
from harness.timing.statistics import paired_ratio
from harness.timing.worker import MARK
from harness.timing.workload import bound_bytes, elements

__all__ = ["Benchmark", "Comparison", "Costs", "Measurement", "benchmark"]


def benchmark(
    spec: LossSpec,
    *,
    sizes: Sequence[Mapping[str, Size]] | Mapping[str, Size] | None = None,
    devices: Sequence[str] | str = ("cpu",),
    dtypes: Sequence[torch.dtype] | torch.dtype = (torch.float32,),
    passes: Sequence[Pass] | Pass = ("forward", "full"),
    implementations: Sequence[str] | str | None = None,
    budget_s: float = 30,
    seed: int = 0,
    caches: Sequence[Cache] | Cache | None = None,
    clocks: Sequence[ClockName] | ClockName | None = None,
    densities: Sequence[Mapping[str, float]] | Mapping[str, float] = ({},),
    timed: bool = True,
    rounds: int | None = None,
    compiled: bool = False,
) -> Benchmark:
    """Time implementations against the reference, and take their exact costs.

    Each implementation first runs once on the input that will be timed and is held to the reference; what raises, is not
    finite or differs is ``failed``, never timed and never ranked.  The others are timed in up to 24 rounds of blocks of at least
    2 ms, in random order within each round, in three to six fresh processes with one thread and a quiet allocator.  What is
    settled is timed no longer: by an interval beyond 2, or below 1 / 2, of six rounds in two processes (beyond 10, of fewer),
    or by one of 98 % confidence from three processes on.

    Where there may be several of an argument, a single one needs no list around it.  In a notebook a bar shows how far it is.

    Args:
        spec: the declaration.
        sizes: symbol -> size, one mapping for each input; by default the declared ``bench_sizes``, else a ladder.
        devices: some of ``cpu``, ``cuda`` and ``cuda:N``; one that is missing is ``skipped`` with the reason.
        dtypes: floating dtypes of the inputs.
        passes: some of ``forward``, ``backward`` and ``full`` (forward and backward).
        implementations: names; by default all.  The reference is always measured beside them.
        budget_s: seconds for everything, up to three times as many where others keep the machine busy.  Slow implementations get fewer rounds, or are ``skipped``, and say so.  Not
            interrupted are a single kernel that runs, Python between two ATen calls, and loading the compiler: by their time
            a run can take longer, and the others still have up to 5 s for their trials and 5 s for their rounds.
        seed: of inputs, order and resampling.
        caches: ``warm``, ``cold`` or both; by default warm on the CPU, both on CUDA.
        clocks: ``wall``, ``events``, ``graph``; by default the wall clock on the CPU and all of them on CUDA.  Cold caches
            go with one clock of each device: ``wall`` on the CPU, ``events`` on CUDA.
        densities: for each entry, the part of the elements of some tensors that is not zero.
        rounds: of every implementation on every input, in all processes together; by default 24, and in proportion more, up to
            96, for a budget beyond 30 s.
        compiled: also time each under `torch.compile`, as ``<implementation> (compiled)``, compared with the reference and with
            its own eager form.  The time to compile, with an empty cache, stands apart; loading the compiler, once in a
            process, is no part of the budget.
        timed: ``False`` takes exact costs only, which needs one or two calls each; every row is then ``skipped``.

    Raises:
        DeclarationError: no single spec, an unknown implementation, size, device, dtype, pass, cache, clock or tensor to thin,
            nothing of one of them, or a budget that is no positive number.
        HarnessError: called while a timing process loads the file that calls it.
    """
    if MARK in os.environ:
        raise HarnessError(
            "benchmark() was called while a timing process loads the file that calls it; put the call under "
            "`if __name__ == '__main__':`, or move the spec to a file of its own"
        )
    arguments.check_spec(spec)
    arguments.check_budget(budget_s)
    names = arguments.checked_names(spec, implementations)
    asked = itertools.product(
        arguments.checked_inputs(spec, sizes),
        arguments.checked_densities(spec, densities),
        arguments.checked_devices(devices),
        arguments.checked_dtypes(dtypes),
        arguments.checked_passes(passes),
    )
    cells = [
        Cell(chosen, device, dtype, pass_name, cache, clock, thinned)
        for chosen, thinned, device, dtype, pass_name in asked
        for cache, clock in arguments.ways(device, caches, clocks)
    ]
    if rounds is None:
        rounds = int(ROUNDS * min(max(budget_s / ROUNDS_BUDGET_S, 1.0), MOST_TIMES_ROUNDS))
    if rounds < 2:
        raise DeclarationError(f"rounds={rounds!r} came, but an interval needs at least 2")
    if compiled:
        names += compiled_names(names)
    session = Course(spec, names, cells, budget_s=budget_s, seed=seed, rounds=rounds, is_timed=timed)
    untimed = f"no time was left of the budget of {budget_s:g} s" if timed else "only exact costs were asked for"
    with own_cache() if compiled else nullcontext(), bar_in_a_notebook(session.steps) as session.observer:
        session.admit_all()
        if timed:
            session.time_all()
    session.refuse_violators()
    measurements = tuple(_measurement(session, at, name, untimed) for at in range(len(cells)) for name in names)
    measurements = tuple(_estimated(session, measurements, position) for position in range(len(measurements)))
    measurements = tuple(_not_below_its_parts(measurement, measurements) for measurement in measurements)
    comparisons = _comparisons(session, measurements)
    return Benchmark(
        spec.name, seed, session.environment, measurements, comparisons, tuple(session.notes), _findings(session)
    )


def _findings(session: Course) -> tuple[Finding, ...]:
    """One of each rule and implementation; a compiled variant is only not ranked."""
    found: dict[tuple[str, str], Finding] = {}
    for (at, name), (code, text) in sorted(session.violations.items()):
        rule, cell = find(code), session.cells[at]
        if (name, code) in found or name not in session.spec.implementations:
            continue
        message = f"{session.spec.name} / {name} / {code} {rule.title} / {cell.dtype} / {cell.device}\n  {text}"
        where, _, more = text.partition(" = ")
        evidence = {"where": where, "came": more, "aspect": cell.pass_name, "device": cell.device}
        what = (name, code, rule.title, rule.severity, cell.device, message)
        found[name, code] = Finding(*what, evidence, hint=f"fix: {rule.mend}")
    return tuple(found.values())


def _measurement(session: Course, at: int, name: str, untimed: str) -> Measurement:
    cell, trial = session.cells[at], session.trials[at, name]
    taken = session.samples.get((at, name), []) if trial.status == "measured" else []
    timed = [(process, samples) for process, samples in taken if samples.status == "measured"]
    times = tuple(seconds for _, samples in timed for seconds in samples.seconds_per_call)
    status, reason = trial.status, trial.reason
    if status == "measured" and not times:
        status, reason = "skipped", taken[-1][1].reason if taken else untimed
    elif times and len(times) < session.rounds:
        reason = "; ".join(filter(None, [reason, _fewer_rounds(session, at, name, times)]))
    return Measurement(
        **vars(cell),
        implementation=name,
        status=status,
        reason=reason,
        seconds_per_call=times,
        process=tuple(process for process, samples in timed for _ in samples.seconds_per_call),
        calls_per_block=timed[0][1].calls_per_block if timed else 0,
        costs={} if trial.costs is None else asdict(trial.costs),
        compile_seconds=trial.compile_seconds,
        build_seconds=min((samples.build_seconds for _, samples in timed), default=None),
        first_seconds=min((s.first_seconds for _, s in timed if s.first_seconds is not None), default=None),
        elements=elements(session.spec, cell.sizes),
        bound_bytes=bound_bytes(session.spec, cell),
    )


def _estimated(session: Course, measurements: Sequence[Measurement], position: int) -> Measurement:
    """The same measurement; with an estimate where it was skipped because it is slow, and smaller sizes were measured."""
    wanted = measurements[position]
    cell, trial = wanted.cell, session.trials[position // len(session.names), wanted.implementation]
    if wanted.status != "skipped" or not trial.seconds or not trial.fits:
        return wanted
    largest = wanted.elements or 0
    smaller = {
        size: m
        for m in measurements
        if m.implementation == wanted.implementation
        and (size := m.elements or 0) < largest
        and replace(m.cell, sizes=cell.sizes) == cell
    }
    seconds = {size: m.median_seconds for size, m in smaller.items() if m.median_seconds is not None}
    estimate = extrapolated(seconds, largest)
    if estimate is None:
        return wanted
    far = max(seconds)
    used = [smaller[max(size for size in seconds if 2 * size <= far)], smaller[far]]
    symbols = [s for s in cell.sizes if len({str(m.sizes[s]) for m in (wanted, *used)}) > 1]
    sizes = ", ".join(f"{s}={' and '.join(dict.fromkeys(str(m.sizes[s]) for m in used))}" for s in symbols)
    reason = f"{wanted.reason}; estimated from {sizes}: about {estimate:.2g} s"
    return replace(wanted, estimated_seconds=estimate, reason=reason)


def _not_below_its_parts(wanted: Measurement, measurements: Sequence[Measurement]) -> Measurement:
    """The same measurement; where a full pass is estimated, no less than the forward or backward pass within it takes."""
    if wanted.pass_name != "full" or wanted.estimated_seconds is None:
        return wanted
    input_of = replace(wanted.cell, pass_name="")
    mine = [m for m in measurements if m.implementation == wanted.implementation]
    parts = [m.estimated_seconds or m.median_seconds or 0.0 for m in mine if replace(m.cell, pass_name="") == input_of]
    least = max(parts)
    if least <= wanted.estimated_seconds:
        return wanted
    reason = wanted.reason.rpartition("; estimated from")[0]
    reason += f"; estimated by the pass within it: about {least:.2g} s"
    return replace(wanted, estimated_seconds=least, reason=reason)


def _fewer_rounds(session: Course, at: int, name: str, times: Sequence[float]) -> str:
    done = f"{len(times)} of {session.rounds} rounds"
    if name not in session.unsettled(at):
        return f"{done}: they settled {'every comparison with it' if name == session.names[0] else 'its comparison'}"
    each = f"one call takes {median(times):.2g} s"
    each += " and emptying the caches before it more" if session.cells[at].cache == "cold" else ""
    return f"{done}: {each}, and the budget of {session.budget_s:g} s has no time for more"


def _comparisons(session: Course, measurements: Sequence[Measurement]) -> tuple[Comparison, ...]:
    width = len(session.names)
    rows = [(at, measurements[at * width : (at + 1) * width]) for at in range(len(session.cells))]
    others = [(at, m, row) for at, row in rows for m in row[1:]]  # the reference stands first in each cell
    pairs = [(at, m, base) for at, m, row in others for base in _bases(session.spec, m, row)]
    compared = [_compare(session, m, base, session.is_settled(at, m.implementation)) for at, m, base in pairs]
    return tuple(filter(None, compared))


def _bases(spec: LossSpec, measurement: Measurement, row: Sequence[Measurement]) -> list[Measurement]:
    """Who an implementation is compared with: the reference, and a compiled variant with its eager form too.

    Where the reference is too slow to be measured, the first of the others that was takes its place.
    """
    eager = [m for m in row if eager_name(spec.implementations, m.implementation) is None]
    measured = [m for m in eager if m.status == "measured" and m is not measurement]
    own = eager_name(spec.implementations, measurement.implementation)
    chosen = measured[:1] + [m for m in measured if m.implementation == own]
    return list({m.implementation: m for m in chosen}.values())


def _compare(session: Course, measurement: Measurement, base: Measurement, is_settled: bool) -> Comparison | None:
    theirs, ours, process = rounds_in_common(base, measurement)
    if len(process) < 2:
        return None
    ratio = paired_ratio(theirs, ours, process, session.seed)
    reason = f"{len(process)} rounds in {len(set(process))} process{'es' if len(set(process)) > 1 else ''}"
    if is_settled and len(process) < session.rounds:
        reason = f"settled after {reason}"
    elif len(process) < session.rounds:
        reason += f", fewer than the {session.rounds} that were planned"
    return Comparison(
        **vars(measurement.cell),
        implementation=measurement.implementation,
        reference=base.implementation,
        speedup=_finite(ratio.speedup),
        low=_finite(ratio.low),
        high=_finite(ratio.high),
        verdict=ratio.verdict,
        rounds=len(process),
        reason=reason,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
