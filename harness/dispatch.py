"""The base of modes that watch every ATen operation."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Watch(TorchDispatchMode):
    """A dispatch mode that does not load the compiler.

    By default torch wraps `__torch_dispatch__` so that the compiler skips it, and that wrapper imports the whole compiler
    (seconds) on its first call.  Nothing is compiled while a mode of ours is on, so the wrapper is declined.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
