"""Triton's interpreter, in which kernels run on the CPU: when they do, and what it says nothing about.

Triton decides when it is imported whether kernels are compiled or interpreted, so that it has to be told before.

Source: https://triton-lang.org/main/programming-guide/chapter-3/debugging.html
"""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

VARIABLE = "TRITON_INTERPRET"

BFLOAT16 = "bfloat16 is not asked, with which Triton's interpreter computes bit by bit; ask on a GPU"


def turn_on() -> None:
    """Have kernels interpreted, in this process and in those that it starts, if none of them has imported Triton yet."""
    os.environ[VARIABLE] = "1"


def is_on() -> bool:
    """Whether kernels of this process are interpreted."""
    return is_wanted() and "triton" in sys.modules


def is_wanted() -> bool:
    """Whether kernels are to be interpreted wherever Triton is imported."""
    return os.environ.get(VARIABLE, "").lower() in ("1", "true", "on", "yes", "y")


def cannot_run(error: BaseException) -> str | None:
    """Why the interpreter cannot run a kernel that a GPU can; ``None`` for an error of the kernel itself.

    The interpreter passes a Python number to a kernel as it is, which has no ``.to()``; compiled, it is a tensor.
    """
    if type(error).__name__ != "InterpreterError" or "object has no attribute 'to'" not in str(error):
        return None
    return "Triton's interpreter cannot run a kernel that calls .to() of a number, which a GPU can; ask on a GPU"


def is_imported_by(target: str) -> bool:
    """Whether a target is a file that imports Triton itself.

    Args:
        target: as on the command line.
    """
    file = Path(target if target.endswith(".py") else target.rpartition(":")[0])
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return False
    found = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    found += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    return any(name.partition(".")[0] == "triton" for name in found)
