"""What belongs to the whole process, so that a loss must leave it as it was: read, compared and put back."""

from __future__ import annotations

import logging
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.calls import backends, devices
from harness.errors import shown

_PATCHED = {"torch": torch, "torch.nn.functional": torch.nn.functional, "torch.Tensor": torch.Tensor}
_OF_THE_COMPILER = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")  # torch sets them when it first compiles


@dataclass(frozen=True)
class Surroundings:
    """The process as it was at one moment.

    Args:
        environ: environment variables.
        path: where Python looks for modules.
        streams: ``sys.stdout`` and ``sys.stderr``.
        functions: what `torch`, `torch.nn.functional` and `torch.Tensor` held.
        disabled, handlers: up to which level logging is disabled, and the handlers of the root logger.
    """

    environ: dict[str, str]
    path: list[str]
    streams: tuple[Any, Any]
    functions: dict[str, dict[str, Any]]
    disabled: int
    handlers: list[logging.Handler]


def read() -> Surroundings:
    """The process as it is."""
    functions = {name: vars(owner).copy() for name, owner in _PATCHED.items()}
    streams = (sys.stdout, sys.stderr)
    return Surroundings(
        dict(os.environ), list(sys.path), streams, functions, logging.root.manager.disable, list(logging.root.handlers)
    )


def changed(before: Surroundings, after: Surroundings) -> Iterator[tuple[str, str, str]]:
    """(what, what it is, what it was) of everything that a reader of the program would call changed.

    Names that torch gets by importing a part of it are none, nor what its compiler sets once; logging is put back, but
    changing it harms nobody.
    """
    for name in sorted(before.environ.keys() | after.environ.keys()):
        came, was = after.environ.get(name), before.environ.get(name)
        if came != was and not (was is None and name in _OF_THE_COMPILER):
            yield f"os.environ[{name!r}]", _value(came), _value(was)
    if after.path != before.path:
        added = [path for path in after.path if path not in before.path]
        gone = [path for path in before.path if path not in after.path]
        yield "sys.path", f"changed (added {shown(added)}, removed {shown(gone)})", "unchanged"
    for name, came, was in zip(("sys.stdout", "sys.stderr"), after.streams, before.streams, strict=True):
        if came is not was:
            yield name, "another stream", "the stream"
    for owner, name in _replaced(before, after):
        yield f"{owner}.{name}", "replaced", "the function"


def _value(text: str | None) -> str:
    return "unset" if text is None else shown(text)


def _replaced(before: Surroundings, after: Surroundings) -> Iterator[tuple[str, str]]:
    for owner, held in before.functions.items():
        now = after.functions[owner]
        if now == held:  # as nearly always, and a thousand times as fast
            continue
        for name, function in held.items():
            if now.get(name) is not function and callable(function) and not name.startswith("__"):
                yield owner, name


def restore(before: Surroundings) -> None:
    """Put everything back."""
    after = read()
    if after.environ != before.environ:
        os.environ.clear()
        os.environ.update(before.environ)
    if after.path != before.path:
        sys.path[:] = before.path
    sys.stdout, sys.stderr = before.streams
    for owner, name in list(_replaced(before, after)):
        setattr(_PATCHED[owner], name, before.functions[owner][name])
    if logging.root.manager.disable != before.disabled:
        logging.disable(before.disabled)
    logging.root.handlers[:] = before.handlers


@contextmanager
def preserve() -> Iterator[None]:
    """Put back at the end of the block what a loss may touch: the generators, and what `surrounded` does."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with devices.kept(), surrounded():
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@contextmanager
def surrounded() -> Iterator[None]:
    """Put back at the end of the block all of `Surroundings`, and what `settled` does.

    The states of the generators, of which NumPy's takes longer to read than all the rest, are whoever begins them anew's.
    """
    before = read()
    try:
        with settled():
            yield
    finally:
        restore(before)


@contextmanager
def settled() -> Iterator[None]:
    """Restore grad mode, default dtype and device, threads, determinism, what float32 is computed in, the working directory
    and how deep calls may go.  Generators need no more between calls of a loss, as each begins by seeding them.
    """
    device, directory, depth = torch.get_default_device(), _directory(), sys.getrecursionlimit()
    settings = backends.read()
    grad, dtype, threads = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    deterministic = torch.get_deterministic_debug_mode()
    anomaly = torch.is_anomaly_enabled()
    try:
        yield
    finally:
        if sys.getrecursionlimit() != depth:
            sys.setrecursionlimit(depth)
        if torch.get_default_device() != device:  # first: nothing else works on another one
            torch.set_default_device(None if device.type == "cpu" else device)
        if directory is not None and _directory() != directory:
            os.chdir(directory)
        torch.set_grad_enabled(grad)
        if torch.get_default_dtype() != dtype:
            torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.get_deterministic_debug_mode() != deterministic:  # off, a warning, or an error
            torch.set_deterministic_debug_mode(deterministic)
        if torch.is_anomaly_enabled() != anomaly:
            torch.autograd.set_detect_anomaly(anomaly)
        backends.restore(settings)


def _directory() -> str | None:
    """The working directory; ``None`` where it has been removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None
