"""What a rule is: a code, a check, what it finds, and the words that explain it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from harness.calls.tolerance import told_apart
from harness.declare.dims import Size
from harness.declare.spec import LossSpec
from harness.errors import refuses_in_place
from harness.results.findings import Severity

if TYPE_CHECKING:
    from harness.rules.trial import Trial

Kind = Literal[
    "",
    "value",
    "gradient",
    "shape",
    "raises",
    "refuses in-place",  # what raises because a tensor was edited
    "cut off",
    "keeps a graph",
    "leak",  # of values that the domain need not hold
    "narrowed",  # computed in fewer digits
    "draws",
    "reads unset memory",
    "not moved",
    "moved",
    "not saved",
]


@dataclass(frozen=True)
class Mismatch:
    """What differs: where, what came, what should have come, by how much.

    Args:
        where: the quantity, such as ``d loss / d embeddings[0, 1]``.
        came: what the loss gave.
        should: what it should have given.
        difference: by how much it is off, where that is a number.
        allowed: how much it may be off.
        aspect: names one of several different things that a rule may find; findings of one aspect are one finding.
        severity: overrides the severity of the rule.
        hint: what to change, or which line narrows the declaration.
        tensors: the tensors that show it, where they are not the case's own.
        sizes: theirs, where the case has others.
        code: plain-PyTorch lines that show it; they may use ``tensors`` and ``loss(**tensors)`` (see `harness.rules.tools.reproduce`).
        note: a further remark, such as the line that cuts a gradient.
        kind: what differs, for `harness.results.causes`.
        tensor: the input, context or attribute that it is about.
        error: what the loss raised instead of a number.
        size: a relative rounding eps of all that is computed changes the quantity by about eps times this.
        finite: whether what came is finite.
        place: the elements of inputs, (name, index) each, of whose gradient it is.
    """

    where: str
    came: str
    should: str
    difference: float | None = None
    allowed: float | None = None
    aspect: str = ""
    severity: Severity | None = None
    hint: str = ""
    tensors: Mapping[str, Tensor] | None = field(default=None, compare=False)
    sizes: Mapping[str, Size] | None = None
    code: str = ""
    note: str = ""
    kind: Kind = ""
    tensor: str = ""
    error: BaseException | None = field(default=None, compare=False)
    size: float | None = field(default=None, compare=False)
    finite: bool = True
    place: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def evidence(self) -> dict[str, Any]:
        """The finding as data: what `harness.results.causes`, reports and replays go by."""
        raised: Kind = "" if self.error is None else "refuses in-place" if refuses_in_place(self.error) else "raises"
        return {
            "where": self.where,
            "came": self.came,
            "should": self.should,
            "difference": self.difference,
            "allowed": self.allowed,
            "aspect": self.aspect,
            "kind": self.kind or raised,
            "tensor": self.tensor,
            "exception": "" if self.error is None else type(self.error).__name__,
            "size": self.size,
            "finite": self.finite,
        }

    @property
    def sentence(self) -> str:
        """One line in the form that all messages have: what came, what should have come."""
        line = f"{self.where} = {self.came}, expected {self.should}"
        if self.difference is not None and self.allowed is not None:
            off, allowed = told_apart(self.difference, self.allowed)
            line += f"   (off by {off}, allowed {allowed})"
        return line


@dataclass(frozen=True)
class Partly:
    """What a check left out of what its rule is about, and why: a rule that passes says so beside it."""

    reason: str


# Why rules that give a loss what it should refuse ask on the CPU.  There an index out of range is an exception, which is the
# refusal that they look for; on CUDA it is an assertion in a kernel, after which the device is lost to the process.  What is
# refused is decided by the code of the loss, which is one on all devices.
ENDS_A_DEVICE = (
    "an index out of range, which is an error there, would end the device for the process, and what a loss refuses does not "
    "depend on the device"
)

Found = Mismatch | Partly | Iterable[Mismatch | Partly] | None
Check = Callable[["Trial"], Found]
CheckAll = Callable[[Sequence["Trial"]], Found]
Remark = Callable[["Trial", Mismatch], Mismatch]


@dataclass(frozen=True, eq=False)
class Rule:
    """One rule of the battery.

    Args:
        code: public and stable.
        title: the law in a few words, as a statement.
        group: what its letter stands for.
        severity: of its findings, where the mismatch says nothing else.
        check: from one trial to what differs; raises `NotApplicable` where the case says nothing.
        check_all: likewise, from all trials together: for what must hold in at least one of them.
        applies: from the spec and the implementation's name to the reason why the rule says nothing about it, or ``None``.
        regimes: which cases it looks at, and how many of each at most.
        smooth: whether it needs generic values, without ties and special points.
        compiles: whether it loads torch's compiler, which takes seconds once in a process; profiles may leave it out.
        draws_anew: why two numbers that it compares may rest on other draws, where a loss draws on purpose.  Then a
            difference between them says nothing; empty where both begin at one state and draw the same.
        not_interpreted: why it is not asked of Triton kernels that run in Triton's interpreter; empty where it is.
        remarks: what one more evaluation adds to a finding, in their order; each takes the trial and the mismatch.
        measures_gradient: whether it holds the gradient to slopes, or to another gradient.
        comes_again: whether a warning of it stands only where other values of the same shapes show it too; what few of
            them do is a note, so that the seed does not decide.
        is_of_the_loss: whether what it finds in the reference is a trait of the loss, which needs no attention of its own.
        on_the_cpu: why it is asked on the CPU, on whatever device the loss is verified; empty where it is asked there.
        why: what goes wrong in practice.
        example: the defect as code.
        mend: how to mend it.
        source: where the rule comes from.
    """

    code: str
    title: str
    group: str
    severity: Severity
    regimes: Mapping[str, int]
    why: str
    example: str
    mend: str
    source: str
    check: Check | None = None
    check_all: CheckAll | None = None
    applies: Callable[[LossSpec, str], str | None] = lambda spec, name: None
    smooth: bool | None = None
    compiles: bool = False
    draws_anew: str = ""
    on_the_cpu: str = ""
    not_interpreted: str = ""
    remarks: tuple[Remark, ...] = ()
    measures_gradient: bool = False
    comes_again: bool = False
    is_of_the_loss: bool = False

    @property
    def statement(self) -> str:
        """The docstring of the check: the law and its formula."""
        function: Any = self.check or self.check_all
        return textwrap.dedent(f"    {function.__doc__ or ''}").strip()

    def explain(self) -> str:
        """What the rule checks, why it matters, an example of the defect, how to mend it, the source."""
        place = f"Asked on the CPU, whatever the device: {self.on_the_cpu}.\n\n" if self.on_the_cpu else ""
        rarely = "; a warning that few other values of the same shapes show is a note" if self.comes_again else ""
        example = textwrap.indent(textwrap.dedent(self.example).strip(), "    ")
        return (
            f"# {self.code} {self.title}\n\n{self.statement}\n\n{place}Severity: {self.severity}{rarely}\n\n"
            f"## Why it matters\n\n{self.why}\n\n## An example of the defect\n\n{example}\n\n"
            f"## How to mend it\n\n{self.mend}\n\n## Source\n\n{self.source}\n"
        )


def mismatches(found: Found, left_out: list[str] | None = None) -> Iterator[Mismatch]:
    """What a check returned, as it finds it; ``left_out`` takes the reasons of what it did not look at."""
    if found is None:
        return
    for one in (found,) if isinstance(found, (Mismatch, Partly)) else found:
        if isinstance(one, Mismatch):
            yield one
        elif left_out is not None:
            left_out.append(one.reason)
