"""What to write where a loss declares nothing: the whole command line, with the names and the proposals filled in."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from harness.errors import DeclarationError, TargetError
from harness.isolation.sandbox import Isolation
from harness.proposing.process import proposals

LIMIT_S = 30.0
MOST_SHOWN = 4


def with_advice(
    error: DeclarationError, targets: Sequence[str], command: str, box: Isolation | None
) -> DeclarationError:
    """The same error, with the command lines that would have worked.

    Args:
        error: why the targets declare nothing.
        targets: what was asked for.
        command: such as ``verify``.
        box: where the losses are called; one of its own where it is ``None``.
    """
    lines = [line for target in targets for line in _lines(target, command, box)]
    files = "".join(f"\n    loss-harness init {shlex.quote(target)}" for target in targets)
    ready = "".join(f"\n    {line}" for line in lines[:MOST_SHOWN])
    said = (
        f"\n\nIt runs with what trial calls found, in one line (check the shapes and values):{ready}" if ready else ""
    )
    return DeclarationError(f"{error}{said}\n\nTo write that to a file that you can edit:{files}")


def _lines(target: str, command: str, box: Isolation | None) -> list[str]:
    """One command line for each loss of a target that can be declared in one."""
    try:
        answer = proposals(target, with_laws=False, limit_s=LIMIT_S, most=MOST_SHOWN, box=box)
    except TargetError:
        return []  # the error itself says what is the matter with the target
    place = target.rpartition(":")[0] if target.rpartition(":")[2].isidentifier() else target
    made = [proposal.command(command, f"{place or target}:{name}") for name, proposal in answer.found.items()]
    return [line for line in made if line]
