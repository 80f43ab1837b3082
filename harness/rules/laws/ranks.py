"""A loss on several processes, each of which has its part of the batch: L14.

The processes ("ranks") are forks of this one, over gloo on the loopback, one set for each size of the group.  Where this
process has a device's threads, after which no fork can differentiate, they are forks of a fresh process that loads the loss.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import sys
import tempfile
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.calls.evaluation import LossRaised, Precision
from harness.calls.watch import Watch
from harness.declare.laws import Law
from harness.declare.spec import LossSpec
from harness.declare.targets import load_specs
from harness.drawing.case import Case
from harness.errors import NotApplicable, told, told_in_a_line
from harness.isolation.events import Ended
from harness.isolation.limits import Limits
from harness.isolation.sandbox import Forks, Sandbox
from harness.rules.laws.declared import applies, declared, hint, scalar
from harness.rules.rule import Mismatch, Rule
from harness.rules.state.caches import caches, emptied
from harness.rules.tools.compare import same_gradients, same_output
from harness.rules.tools.made import received
from harness.rules.tools.sizes import one, resized
from harness.rules.tools.symbols import sliced, symbol_axes
from harness.rules.trial import Run, Trial

ROWS = 4  # of each rank in the largest group: batches of one or two are another matter
DRAWS = 8  # of a batch, until its parts hold different counts
PATIENCE_S = 20.0  # that one rank waits for another; a call at these sizes takes milliseconds
_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
_NO_FORK = "autograd's threading in combination with fork"

_LENT: ContextVar[LossSpec] = ContextVar("lent")  # what forks of this process find without loading it


def data_parallel(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """On W processes that each have an equal part of a batch, the mean of their gradients is the gradient of the whole batch.

        1/W sum_r dL_r/dx = dL/dx,   L_r the loss that process r computes of its part,   W = 1, 2, 4

    This is what DistributedDataParallel makes of them.  Inputs and context that run along the symbol are cut, in order;
    others are the same on each process.  dL_r/dx goes back through collectives that pass gradients on, so that of an input
    that is cut the process that has it holds the sum over r.  The value of each process is its own and is compared only
    where there is one.  A process that raises, hangs or ends is a finding that says which and what it said.
    Source: Li et al., PyTorch Distributed, VLDB 2020, section 3.2.
    """
    laws, reasons = declared(trials[0].spec, "L14"), []
    for law in laws:
        for trial in trials:
            try:
                whole = _Whole.of(trial, law)
                found = next((first for world in law.worlds if (first := whole.compared(world))), None)
            except NotApplicable as reason:
                reasons.append(str(reason))
                continue
            if found is not None:
                yield replace(found, aspect=f"{law!r} {found.aspect}", hint=found.hint or hint(law))
                break
    if len(reasons) == len(laws) * len(trials):
        raise NotApplicable("; ".join(dict.fromkeys(reasons)))


@dataclass(frozen=True)
class _Whole:
    """The whole batch in this process, to which the parts are held."""

    trial: Trial
    symbol: str
    tensors: Mapping[str, Tensor]
    run: Run
    axes: Mapping[str, int]

    @staticmethod
    def of(trial: Trial, law: Law) -> _Whole:
        if not hasattr(os, "fork"):
            raise NotApplicable("processes are forked, which this system cannot")
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            raise NotApplicable("this process is in a group of torch.distributed already")
        symbol, most = law.symbols[0], math.lcm(*law.worlds)
        size = trial.spec.fixed_sizes.get(symbol, ROWS * most)
        count = size if isinstance(size, int) else (size[0] if size else 0)
        if not count or count % most:
            raise NotApplicable(f"{symbol} = {count} cannot be cut into {most} equal parts")
        large = _sized(trial, symbol, count, law.worlds)
        tensors = large.tensors()
        sliced(large, tensors, symbol)
        scalar(large)
        run = large.base
        if not run.finite:
            raise NotApplicable("the loss of the whole batch is not finite; see G08")
        axes = {name: along[0] for name, along in symbol_axes(trial.spec, large.case, symbol).items()}
        return _Whole(large, symbol, tensors, run, axes)

    def compared(self, world: int) -> Mismatch | None:
        """What the group of this size gives that the whole batch does not."""
        ranks = _group(self.trial, self.symbol, world)
        self._check_parts(ranks)
        failed = _failed(ranks)
        if failed is not None:
            return replace(failed, tensors=self.tensors, sizes=self.trial.case.sizes, code=_code(self, world))
        came = {name: self._averaged(name, ranks) for name in self.run.gradients}
        scale = self.trial.measure_scale(self.tensors)
        mismatch = None
        if world == 1:
            mismatch = same_output(received(ranks[0].result["value"], self.run.output), self.run.output, scale)
        if mismatch is None:
            mismatch = same_gradients(came, self.run.gradients, self.tensors, self.trial, scale)
        if mismatch is None:
            return None
        note, mend = _told_apart(mismatch, self.run.gradients, came, ranks)
        where = "in a group of one" if world == 1 else f"averaged over {world} processes"
        return replace(
            mismatch,
            where=f"{mismatch.where} {where}",
            aspect="value" if mismatch.kind == "value" else "gradient",
            tensors=self.tensors,
            sizes=self.trial.case.sizes,
            code=_code(self, world),
            note=note,
            hint=mend,
        )

    def _check_parts(self, ranks: Sequence[_Rank]) -> None:
        """Raise `NotApplicable` where a part that a process raises on is refused outside of any group, too."""
        parts = sliced(self.trial, self.tensors, self.symbol, len(ranks))
        for rank, part in zip(ranks, parts, strict=True):
            if "raised" in rank.result:
                try:
                    self.trial.output(self.trial.leaves(part))
                except LossRaised as raised:
                    raise NotApplicable(f"the loss refuses a part of the batch by itself: {raised}") from raised

    def _averaged(self, name: str, ranks: Sequence[_Rank]) -> Tensor | None:
        """1/W sum_r of the gradients of one input; of one that is cut the ranks hold a part each."""
        texts = [rank.result["gradients"][name] for rank in ranks]
        if all(text is None for text in texts):
            return None
        like, axis = self.tensors[name], self.axes.get(name)
        if axis is None:
            return torch.stack([received(text, like) for text in texts]).mean(0)
        parts = [received(text, part) for text, part in zip(texts, like.chunk(len(texts), axis), strict=True)]
        return torch.cat(parts, axis) / len(texts)


def _sized(trial: Trial, symbol: str, count: int, worlds: Sequence[int]) -> Trial:
    """The case with a batch that can be cut, its values drawn anew, and so that its parts hold different counts."""
    case = resized(trial.spec, trial.case, one(trial.spec, symbol, count))
    drawn = []
    for draw in range(DRAWS):
        seed = zlib.crc32(f"{trial.case.digest} {draw}".encode())
        tensors = {name: replace(recipe, seed=recipe.seed ^ seed) for name, recipe in case.tensors.items()}
        drawn.append(trial.at(replace(case, tensors=tensors)))
        if all(_counts_differ(drawn[-1], symbol, world) for world in worlds if world > 1):
            return drawn[-1]
    return drawn[0]


def _counts_differ(trial: Trial, symbol: str, world: int) -> bool:
    """Whether parts differ in how many of their labels count, or in their sums: where none does, a count of its own is right."""
    parts, axes = sliced(trial, trial.tensors(), symbol, world), symbol_axes(trial.spec, trial.case, symbol)
    for name, domain in ((name, trial.spec.tensors[name].domain) for name in axes):
        counted = [part[name] if domain.ignore is None else part[name] == domain.ignore for part in parts]
        if domain.whole and len({float(values.sum()) for values in counted}) == 1:
            return False
    return True


# --- the processes, seen from here


@dataclass
class _Rank:
    """What one process told."""

    number: int
    name: str
    result: dict[str, Any] = field(default_factory=dict)
    ended: Ended | None = None

    @property
    def said(self) -> str:
        """How it failed by itself; empty where it did not."""
        if "raised" in self.result:
            return str(self.result["raised"])
        if not self.result and self.ended is not None:
            return f"{self.ended.how}: {self.ended.reason}"
        return ""


def _group(trial: Trial, symbol: str, world: int) -> list[_Rank]:
    """What each rank of a group told.

    Raises:
        NotApplicable: there can be no such group here, whatever the loss is.
    """
    found = _in_forks(Forks(), trial, symbol, world)
    if any(_NO_FORK in str(rank.result.get("raised", "")) for rank in found):
        if _target(trial.spec) is None:
            raise NotApplicable(
                "autograd has started threads of a device in this process, so that its forks cannot differentiate, and "
                "no other process can load the loss; declare it in a file"
            )
        with Sandbox(["torch", __name__]) as fresh:
            found = _in_forks(fresh, trial, symbol, world)
    unusable = next((str(rank.result["unusable"]) for rank in found if "unusable" in rank.result), None)
    if unusable is not None:
        raise NotApplicable(unusable)
    return found


def _target(spec: LossSpec) -> str | None:
    if spec.target is not None:
        return spec.target
    return spec.source.file if spec.source.file.endswith(".py") and Path(spec.source.file).is_file() else None


def _in_forks(isolation: Sandbox, trial: Trial, symbol: str, world: int) -> list[_Rank]:
    ranks = [_Rank(number, f"process {number} of {world}") for number in range(world)]

    def hear(position: int, kind: str, data: Any) -> None:
        if kind == "result":
            ranks[position].result = data

    with tempfile.TemporaryDirectory() as folder:
        shared = {
            "forked": isinstance(isolation, Forks),
            "target": _target(trial.spec),
            "loss": trial.spec.name,
            "tensors": repr(trial.spec.tensors),
            "implementation": trial.implementation,
            "case": trial.case.to_json(),
            "takes": str(trial.precision.takes).removeprefix("torch."),
            "backward_only": trial.backward_only,
            "symbol": symbol,
            "world": world,
            "store": str(Path(folder) / "store"),
        }
        before = _LENT.set(trial.spec)
        try:
            payloads = [shared | {"rank": number} for number in range(world)]
            ends = isolation.run_together(f"{__name__}:work", payloads, Limits(step_s=1.5 * PATIENCE_S), hear)
        finally:
            _LENT.reset(before)
            if isinstance(isolation, Forks):
                isolation.close()
    for rank, ended in zip(ranks, ends, strict=True):
        rank.ended = ended
    return ranks


def _failed(ranks: Sequence[_Rank]) -> Mismatch | None:
    """The rank that failed by itself; where none did, one that waits for others in vain."""
    failed = next((rank for rank in ranks if rank.said), None)
    if failed is not None:
        return Mismatch(failed.name, failed.said, "a loss and its gradient", aspect="a process fails", kind="raises")
    waiting = next((rank for rank in ranks if "waits" in rank.result), None)
    if waiting is None:
        return None
    left = [str(rank.number) for rank in ranks if "value" in rank.result]
    without = f", which process {' and '.join(left)} left without" if left else ""
    return Mismatch(
        waiting.name,
        f"waits for the others at {waiting.result['waits']}{without}",
        "a loss and its gradient",
        aspect="a process waits",
        hint="let every process call the same collectives in the same order, in forward and in backward",
    )


def _told_apart(
    mismatch: Mismatch, whole: Mapping[str, Tensor | None], came: Mapping[str, Tensor | None], ranks: Sequence[_Rank]
) -> tuple[str, str]:
    """(what there is to see, what to do about it): a constant factor, nothing that is shared, or gradients that are lost."""
    name, world = mismatch.tensor, len(ranks)
    if world > 1 and _is_times(came.get(name), whole.get(name), 1 / world):
        is_all = all(_is_times(came.get(each), should, 1 / world) for each, should in whole.items())
        what = "all of it" if is_all else f"all of d loss / d {name}"
        return f"{what} is 1/W times what it should be, W = {world}", _MULTIPLY
    if world > 1 and _is_times(came.get(name), whole.get(name), world):
        return f"all of d loss / d {name} is W times what it should be, W = {world}", _DIVIDE
    if any(rank.result["collectives"] for rank in ranks):
        return "", _GATHER
    return ("it calls no collective: each process sees its own part alone", _COUNT) if world > 1 else ("", "")


def _is_times(came: Tensor | None, should: Tensor | None, factor: float) -> bool:
    if came is None or should is None:
        return came is should
    return torch.allclose(came, factor * should, 1e-6, 1e-9)


_MULTIPLY = "multiply the part of the loss that it comes from by dist.get_world_size(): DDP divides the sum over the processes by it"
_DIVIDE = (
    "divide the part of the loss that it comes from by dist.get_world_size(): DDP averages, and what is summed over the "
    "processes counts W times"
)
_COUNT = (
    "what is divided by a count, or computed of a statistic of the batch, needs that of all processes: dist.all_reduce "
    "the count, and multiply by dist.get_world_size()"
)
_GATHER = (
    "dist.all_gather and dist.all_reduce pass no gradient on, those of torch.distributed.nn.functional do; rows stand in "
    "the order of the processes"
)


def _code(whole: _Whole, world: int) -> str:
    names = list(whole.run.gradients)
    return f'''
import os
import tempfile
import torch.distributed as dist
import torch.multiprocessing as mp

axes = {dict(whole.axes)!r}  # where {whole.symbol} is
names, world = {names!r}, {world}


def work(rank, folder):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "{_LOOPBACK}")
    torch.set_num_threads(1)
    part = {{name: tensors[name].detach().chunk(world, axis)[rank] for name, axis in axes.items()}}
    part = {{name: part.get(name, tensors[name].detach()).requires_grad_(name in names) for name in tensors}}
    dist.init_process_group("gloo", store=dist.FileStore(folder + "/store", world), rank=rank, world_size=world)
    value = loss(**part)
    wrt = [part[name] for name in names]
    gradients = torch.autograd.grad(value, wrt, allow_unused=True, materialize_grads=True)
    torch.save([value.detach(), *gradients], f"{{folder}}/{{rank}}")
    dist.barrier()


with tempfile.TemporaryDirectory() as folder:
    mp.start_processes(work, (folder,), world, start_method="fork")
    told = [torch.load(f"{{folder}}/{{rank}}") for rank in range(world)]
value = loss(**tensors)
whole = torch.autograd.grad(value, [tensors[n] for n in names], allow_unused=True)
print("values of the processes:", [each.item() for each, *_ in told], "of the whole:", value.item())
for position, name in enumerate(names):
    parts = [each[1 + position] for each in told]
    averaged = (torch.cat(parts, axes[name]) if name in axes else sum(parts)) / world
    print("came:", name, averaged)
    print("should be:", name, whole[position])
'''


# --- one process


def work(payload: Mapping[str, Any], tell: Callable[[str, Any], None]) -> None:
    """One rank: its part of the case, forward and backward, told as bytes; a loss that raises or waits is told, too."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_gloo_available():
        tell("result", {"unusable": "this torch has no gloo"})
        return
    tell("step", "starting")
    torch.set_num_threads(1)
    torch.autograd.set_multithreading_enabled(False)
    rank, world = payload["rank"], payload["world"]
    try:
        trial = _loaded(payload)
    except Exception as error:  # of the user's file, which another process can load, or not
        tell("result", {"unusable": f"another process cannot load the loss: {told_in_a_line(error)}"})
        return
    part = sliced(trial, trial.tensors(), payload["symbol"], world)[rank]
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ.update({name: str(number) for name, number in numbers.items()}, GLOO_SOCKET_IFNAME=_LOOPBACK)
    waits = datetime.timedelta(seconds=PATIENCE_S)
    with emptied(caches(trial)):  # such as the number of processes, which was another one
        try:
            store = dist.FileStore(payload["store"], world)  # type: ignore[attr-defined]
            dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=waits)
        except RuntimeError as error:
            tell("result", {"unusable": f"no group of {world} processes came to be: {told_in_a_line(error)}"})
            return
        tell("step", "loss")
        tell("result", _result(trial, part))
        store.set(f"done {rank}", "")
        with contextlib.suppress(RuntimeError):  # whoever waits for this one is told so when it leaves
            store.wait([f"done {other}" for other in range(world)], waits)


def _result(trial: Trial, part: Mapping[str, Tensor]) -> dict[str, Any]:
    leaves = trial.leaves(part)
    names = [name for name in leaves if leaves[name].requires_grad]
    watch = _Collectives()
    gradients: dict[str, Tensor | None] = dict.fromkeys(names)
    try:
        output = trial.output(leaves, mode=watch)
        if output.requires_grad and names:
            found = trial.differentiated(output, [leaves[name] for name in names])
            gradients = dict(zip(names, found, strict=True))
    except LossRaised as raised:
        place = _place(raised.error)
        text = told(raised.error)
        if "gloo" in text or "onnection closed" in text:
            return {"waits": place}
        return {"raised": f"{text}{f' (at {place})' if place else ''}"}
    return {
        "value": _hex(output),
        "gradients": {name: None if each is None else _hex(each) for name, each in gradients.items()},
        "collectives": watch.seen,
    }


class _Collectives(Watch):
    """Whether any collective is called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def _see(self, func: Any, args: Any, kwargs: Any) -> Any:
        self.seen = self.seen or "c10d" in str(getattr(func, "namespace", ""))
        return func(*args, **kwargs)


def _hex(values: Tensor) -> str:
    return bytes(values.detach().double().contiguous().cpu().numpy().tobytes()).hex()


def _place(error: BaseException) -> str:
    """file:line where the user's code was."""
    ours = (str(Path(__file__).parents[1]), str(Path(torch.__file__).parent))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _loaded(payload: Mapping[str, Any]) -> Trial:
    if payload["forked"]:
        spec = _LENT.get()
    else:
        (spec,) = (spec for spec in load_specs([payload["target"]]) if spec.name == payload["loss"])
        if repr(spec.tensors) != payload["tensors"]:
            raise LookupError(f"{spec.name!r} in {payload['target']} has other tensors")
    name = payload["implementation"]
    takes = getattr(torch, payload["takes"])
    known: dict[Any, Any] = {("precision", name): Precision(takes, takes)}
    if payload["backward_only"]:
        known["backward", name] = True
    return Trial(spec, name, Case.from_json(payload["case"]), known)


def _says_nothing(spec: LossSpec, implementation: str) -> str | None:
    reason = applies("L14", "data_parallel")(spec, implementation)
    if reason is None and spec.role(implementation) == "reference":
        return "it is the reference, which says what is right of a whole batch"
    return "the draws of several processes are not those of one" if reason is None and spec.stochastic else reason


RULES = (
    Rule(
        code="L14",
        title="processes together = the whole batch",
        group="ranks",
        severity="error",
        check_all=data_parallel,
        applies=_says_nothing,
        regimes={"distinct": 2},
        smooth=True,
        on_the_cpu="processes that work together over gloo are those of the CPU",
        why=(
            "A loss that is right on one GPU trains to something else on eight: negatives that carry no gradient, a mean of "
            "means over unequal counts, a gradient W times too small."
        ),
        example="dist.all_gather(parts, embeddings); everything = torch.cat(parts)      # no gradient comes back from it",
        mend=(
            "Gather with torch.distributed.nn.functional.all_gather.  Divide by counts that are all_reduced, and multiply by "
            "dist.get_world_size() what is then a part of the whole, since DDP averages."
        ),
        source="Li et al., PyTorch Distributed: Experiences on Accelerating Data Parallel Training, VLDB 2020, section 3.2.",
    ),
)
