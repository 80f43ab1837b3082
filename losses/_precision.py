"""The precision that a loss is computed in, whatever autocast would choose."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A context in which products keep the dtype of their factors; nothing where autocast is off or, on meta, unknown."""
    # Older compilers cannot trace torch.amp.is_autocast_available, which would ask this of any device.
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
