"""The base of modes that watch every ATen operation."""

from __future__ import annotations

from typing import Any, Self

from torch.utils._python_dispatch import TorchDispatchMode


class Watch(TorchDispatchMode):
    """A dispatch mode that does not load the compiler.

    By default torch wraps `__torch_dispatch__` so that the compiler skips it, and that wrapper imports the whole compiler
    (seconds) on its first call.  Nothing is compiled while a mode of ours is on, so the wrapper is declined.
    """

    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
