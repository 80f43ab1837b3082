"""Rules about hidden costs: P02."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from harness.calls.watch import ChecksOfTheCpu, Watch, host_read
from harness.rules.rule import Mismatch, Rule
from harness.rules.trial import Trial


class HostReads(Watch):
    """Names the operations whose result the host must wait for: `.item()`, `nonzero`, boolean indexing."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.checks = ChecksOfTheCpu()

    def _see(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = host_read(func, args)
        if name is not None and not self.checks.inside:
            self.names.append(name)
        return func(*args, **kwargs)


def no_hidden_host_reads(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """The forward reads nothing back to the host.

        number of .item(), nonzero() and boolean indexings = 0

    On a GPU each one waits until all earlier work is done; in a compiled graph each one is a break.  What is read on the CPU
    alone, the range of labels by `one_hot` with a number of classes, does not count.
    """
    counted = [(trial, _reads(trial)) for trial in sorted(trials, key=lambda t: t.case.numel(t.spec))]
    reading = [(trial, reads) for trial, reads in counted if reads]
    if not reading:
        return
    smallest, first = reading[0]
    sizes = {trial: ", ".join(f"{name}={size}" for name, size in trial.case.sizes.items()) for trial, _ in reading}
    counts = ", ".join(f"{len(reads)} at {sizes[trial]}" for trial, reads in reading)
    yield Mismatch(
        "host reads in one forward",
        f"{counts} ({', '.join(dict.fromkeys(first))})",
        "0",
        severity="note" if smallest.is_reference else None,
        tensors=smallest.tensors(),
        code=_READS_CODE,
        hint="replace .item() and `if tensor:` by torch.where, and boolean indexing by a multiplication or masked_fill",
    )


_READS_CODE = """
    from torch.profiler import profile
    with profile() as seen:
        loss(**tensors)
    reads = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero")
    print({event.key: event.count for event in seen.key_averages() if event.key in reads})
"""


def _reads(trial: Trial) -> list[str]:
    tensors = trial.leaves(trial.tensors())
    built = trial.candidate.build(tensors)
    reads = HostReads()
    with reads.checks, reads:
        trial.candidate.call(built, tensors)
    return reads.names


RULES = (
    Rule(
        code="P02",
        title="no hidden host reads",
        group="costs",
        severity="warning",
        check_all=no_hidden_host_reads,
        regimes={"distinct": 1, "large": 1},
        smooth=True,
        why="N squared reads of one number each make a loss a thousand times slower on a GPU than its arithmetic.",
        example="if adjacency[i, j] > 0:      # one read per pair",
        mend="Keep conditions on the device: torch.where, masked_fill, multiplication by the mask.",
        source="PyTorch performance tuning guide, 'Avoid unnecessary CPU-GPU synchronization'.",
    ),
)
