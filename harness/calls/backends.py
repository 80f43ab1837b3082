"""Settings of torch's backends that decide how float32 is computed and by which kernel: read, put back, and TF32 off.

Torch has two ways to say the same of TF32, and refuses to tell by the older one what was set by the newer one.  So each is
read by itself, what is not told is ``None``, and what is put back goes from the older to the newer one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import torch

from harness.calls.devices import is_cpu

PRODUCTS, CONVOLUTIONS = "the precision of float32 products", "the precision of float32 convolutions"
_TF32, _FULL, _UNSET = "tf32", "ieee", "none"


@dataclass(frozen=True)
class Setting:
    """One setting, as a program writes it.

    Args:
        name: an expression that gives it, such as ``torch.backends.cudnn.benchmark``.
        about: what it decides; settings that decide one thing change together.
    """

    name: str
    about: str = ""

    def read(self) -> Any:
        """Its value; ``None`` where torch does not tell, since it was last set in the newer way."""
        owner, name = self._place
        try:
            return getattr(owner, name) if self._is_plain else getattr(owner, name)()
        except RuntimeError:
            return None

    def write(self, value: Any) -> None:
        """Give it a value that `read` gave."""
        owner, name = self._place
        if self._is_plain:
            setattr(owner, name, value)
        else:
            getattr(owner, name.replace("get_", "set_", 1))(value)

    @cached_property
    def _is_plain(self) -> bool:
        return not self.name.endswith("()")

    @cached_property
    def _place(self) -> tuple[Any, str]:
        *path, name = self.name.removesuffix("()").split(".")
        return reduce(getattr, path[1:], torch), name


# The older way first, and what others inherit from before what inherits it: so they are put back.
SETTINGS = (
    Setting("torch.get_float32_matmul_precision()", PRODUCTS),
    Setting("torch.backends.cuda.matmul.allow_tf32", PRODUCTS),
    Setting("torch.backends.cudnn.allow_tf32", CONVOLUTIONS),
    Setting("torch.backends.fp32_precision", PRODUCTS),
    Setting("torch.backends.cuda.matmul.fp32_precision", PRODUCTS),
    Setting("torch.backends.mkldnn.matmul.fp32_precision", PRODUCTS),
    Setting("torch.backends.cudnn.conv.fp32_precision", CONVOLUTIONS),
    Setting("torch.backends.cudnn.rnn.fp32_precision", CONVOLUTIONS),
    Setting("torch.backends.cudnn.enabled"),
    Setting("torch.backends.cudnn.benchmark"),
    Setting("torch.backends.cudnn.deterministic"),
)
_OF_CUDA = tuple(s for s in SETTINGS if s.name.startswith("torch.backends.cud") and s.name.endswith("fp32_precision"))


def read() -> dict[Setting, Any]:
    """All settings as they are."""
    return {setting: setting.read() for setting in SETTINGS}


def changed(before: Mapping[Setting, Any], after: Mapping[Setting, Any]) -> Iterator[tuple[Setting, Any, Any]]:
    """(setting, what it is, what it was) of everything that has another effect, the first of those that decide one thing."""
    told: set[str] = set()
    for setting, was in before.items():
        came = after[setting]
        if None not in (came, was) and _effect(came) != _effect(was) and setting.about not in told:
            told |= {setting.about} - {""}
            yield setting, came, was


def _effect(value: Any) -> Any:
    """Unset is full precision: what is set by the older way and set back is never unset again."""
    return _FULL if value == _UNSET else value


def restore(before: Mapping[Setting, Any]) -> None:
    """Put everything back that has changed."""
    for setting, was in before.items():
        if was is not None and setting.read() != was:
            setting.write(was)


@contextmanager
def full_float32(device: str) -> Iterator[None]:
    """Compute float32 on CUDA in float32 inside the block: by default cuDNN takes TF32, with 10 bits, for convolutions.

    What a rule says of a loss in float32 is held against the rounding of float32.  TF32 is a choice of whoever trains, and the
    harness would report it as noise of every loss that has a convolution; a loss that makes the choice itself is S02's.
    """
    if is_cpu(device):
        yield
        return
    before = read()
    try:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        for setting in _OF_CUDA:  # what was set in the newer way is still there
            if setting.read() == _TF32:
                setting.write(_FULL)
        yield
    finally:
        restore(before)
