"""The other side of a law in plain PyTorch, so that a reproduction shows both numbers.

Each function returns the lines that define ``other(tensors)``, in which ``loss(**tensors)`` is the loss under test.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import PathFinder
from typing import Any

import torch
from torch import Tensor

from harness.rules.rule import Mismatch
from harness.rules.tools.symbols import order_of, permuted, symbol_axes
from harness.rules.trial import Trial


def compared(other: str, mismatch: Mismatch, names: list[str], ndim: int) -> str:
    """Lines that print the two values, or the two gradients, that a mismatch is about: what came first.

    Args:
        other: lines that define ``other(tensors)``; without any there is nothing to show.
        mismatch: what differs; its aspect is ``value`` or ``gradient``.
        names: the tensors to differentiate with respect to.
        ndim: axes of the output.
    """
    if not other:
        return ""
    if mismatch.aspect == "gradient":
        lines = [f"names = {names!r}", "wrt = [tensors[name] for name in names]"]
        for text, call in (("came:", "other(tensors)"), ("should be:", "loss(**tensors)")):
            lines.append(f"print({text!r}, dict(zip(names, torch.autograd.grad({call}, wrt, allow_unused=True))))")
    else:
        read = ".shape" if mismatch.where == "loss.shape" else ".tolist()" if ndim else ".item()"
        lines = [f"print('came:', other(tensors){read})", f"print('should be:', loss(**tensors){read})"]
    return "\n".join([other, "", "", *lines])


def _define(*lines: str) -> str:
    return "\n".join(["def other(tensors):", *(f"    {line}" for line in lines)])


def replaced(values: Mapping[str, str]) -> str:
    """The loss with some tensors replaced by expressions of ``tensors``."""
    changes = ", ".join(f"{name!r}: {value}" for name, value in values.items())
    return _define(f"return loss(**{{**tensors, {changes}}})")


def slices(trial: Trial, symbol: str, count: int, *, mean: bool) -> str:
    """The mean or the sum of the losses of the slices along a symbol."""
    axes = {name: along[0] for name, along in symbol_axes(trial.spec, trial.case, symbol).items()}
    part = "{**tensors, **{name: tensors[name].narrow(axis, i, 1) for name, axis in axes.items()}}"
    return _define(
        f"axes = {axes!r}  # where {symbol} is",
        f"parts = [loss(**{part}) for i in range({count})]",
        f"return sum(parts){' / len(parts)' if mean else ''}",
    )


def permutation(trial: Trial, tensors: Mapping[str, Tensor], symbol: str) -> str:
    """The loss of the tensors permuted along a symbol; values that are positions along it stand there renamed.

    Raises:
        NotApplicable: the symbol has fewer than two positions, or a size is computed from it.
    """
    lines = ["moved = dict(tensors)"]
    moved = permuted(trial, tensors, symbol)
    axes = symbol_axes(trial.spec, trial.case, symbol)
    renamed = [name for name, tensor in trial.spec.tensors.items() if tensor.domain.symbol == symbol]
    if axes:
        lines.append(f"order = torch.tensor({order_of(trial.case, symbol)})")
    for name, along in axes.items():
        if name not in renamed:
            lines.append(
                f"moved[{name!r}] = tensors[{name!r}]" + "".join(f".index_select({axis}, order)" for axis in along)
            )
    for name in renamed:
        lines.append(f"moved[{name!r}] = {literal(moved[name])}  # the positions along {symbol}, renamed")
    return _define(*lines, "return loss(**moved)")


def combination(name: str, value: Tensor, a: float, b: float) -> str:
    """a L(u) + b L(v), where the tensor is a u + b v."""
    return _define(
        f"v = {literal(value)}",
        f"u = (tensors[{name!r}] - {b} * v) / {a}",
        f"return {a} * loss(**{{**tensors, {name!r}: u}}) + {b} * loss(**{{**tensors, {name!r}: v}})",
    )


def split(name: str, first: Tensor) -> str:
    """L(u) + L(v), where u and v hold the elements of a tensor that stand in its first part, and the others."""
    return _define(
        f"first = {literal(first)}",
        f"u, v = tensors[{name!r}] * first, tensors[{name!r}] * ~first",
        f"return loss(**{{**tensors, {name!r}: u}}) + loss(**{{**tensors, {name!r}: v}})",
    )


def negated(name: str) -> str:
    """-L(-w)."""
    return _define(f"return -loss(**{{**tensors, {name!r}: -tensors[{name!r}]}})")


def repeated(trial: Trial, name: str, symbol: str, index: Sequence[int]) -> str:
    """The loss of the slices at ``index`` along a symbol, each of weight one."""
    lines = [f"index = torch.tensor({list(index)})", "copies = dict(tensors)"]
    for each, along in symbol_axes(trial.spec, trial.case, symbol).items():
        lines.append(
            f"copies[{each!r}] = tensors[{each!r}]" + "".join(f".index_select({axis}, index)" for axis in along)
        )
    return _define(*lines, f"copies[{name!r}] = torch.ones_like(copies[{name!r}])", "return loss(**copies)")


def known(function: Callable[..., Any], constant: set[str]) -> str:
    """The known loss of the remaining tensors; imported where its module can be."""
    given = f"{{name: tensor for name, tensor in tensors.items() if name not in {sorted(constant)!r}}}"
    return f"{_import(function)}\n\n\n{_define(f'return known(**{given})')}"


def _import(function: Callable[..., Any]) -> str:
    module, name = getattr(function, "__module__", None) or "", getattr(function, "__name__", "")
    if getattr(torch.nn.functional, name, None) is function:  # some are builtins, whose module is a private one
        module = "torch.nn.functional"
    top = module.partition(".")[0]
    fresh = PathFinder.find_spec(top) if top and top != "__main__" else None
    loaded = sys.modules.get(top)
    importable = fresh is not None and fresh.origin == getattr(loaded, "__file__", None)
    if importable and getattr(sys.modules.get(module), name, None) is function:
        return f"from {module} import {name} as known"
    return f"known = ...  # the function {name!r} that laws.reduces_to(...) declares"


def literal(tensor: Tensor) -> str:
    """A tensor as an expression; the reproduction imports `math`."""
    if not tensor.numel():
        return f"torch.empty({list(tensor.shape)}, dtype={tensor.dtype})"
    text = str(tensor.detach().cpu().tolist()).replace("inf", "math.inf").replace("nan", "math.nan")
    return f"torch.tensor({text}, dtype={tensor.dtype})"
