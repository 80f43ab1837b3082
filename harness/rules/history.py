"""A rule about history: S03."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from harness import dims
from harness.case import Case, Recipe
from harness.dims import Size
from harness.evaluation import LossRaised
from harness.rules.broadcasting import first_line
from harness.rules.caches import caches, emptied
from harness.rules.compare import same_gradients, same_output
from harness.rules.rule import Mismatch, Rule
from harness.rules.trial import Run, Trial, describe
from harness.spec import LossSpec

SIZES_CHANGED = 3  # symbols of which a second call has one position more, one at a time

Buffers = list[tuple[nn.Module, dict[str, Tensor | None]]]


def history_does_not_matter(trial: Trial) -> Iterator[Mismatch]:
    """A call depends on no earlier call: not of another batch, another shape or another instance.

        L(B) after L(A) = L(B),   L(A) after L(A), L(B) = L(A)      in value and gradient

    B has other values, or one position more along one symbol.  Whatever modules, classes and functions keep in dicts and
    lists is emptied first, so that both sides begin alike.  What a registered buffer carries is a note, as is a
    difference between train() and eval(); `LossSpec(stateful=True)` says that both are meant.
    """
    kept = caches(trial)
    fresh: list[tuple[_Call, Run]] = []
    for call in _calls(trial):
        with emptied(kept):
            try:
                fresh.append((call, call.trial.run(call.trial.tensors())))
            except LossRaised:
                continue  # B01 says so
    with emptied(kept):
        yield from _after_each_other(trial, fresh)
    yield from _training(trial)


@dataclass(frozen=True)
class _Call:
    """One call in a row, and how it differs from the first."""

    text: str
    trial: Trial


def _calls(trial: Trial) -> Iterator[_Call]:
    """The case itself, the same sizes with other values, and one position more along each of a few symbols."""
    yield _Call("the same input", trial)
    kept = set(trial.candidate.constructed)
    yield _Call("other values", trial.at(_redrawn(trial.case, trial.case.sizes, kept)))
    pinned = {symbol for name in kept for symbol in _symbols(trial.spec, name)} | set(trial.spec.fixed_sizes)
    longer = [(symbol, one_more) for symbol, size in trial.case.sizes.items() if (one_more := _one_more(size)) != size]
    for symbol, size in [pair for pair in longer if pair[0] not in pinned][:SIZES_CHANGED]:
        text = f"{symbol} = {size if isinstance(size, int) else list(size)}"
        yield _Call(text, trial.at(_redrawn(trial.case, {**trial.case.sizes, symbol: size}, kept)))


def _symbols(spec: LossSpec, name: str) -> set[str]:
    tensor = spec.tensors[name]
    own = {
        str(symbol) for dim in dims.parse(tensor.dims) for symbol in (*dim.symbols, dim.symbol) if symbol is not None
    }
    return own | ({tensor.domain.symbol} if tensor.domain.symbol is not None else set())


def _one_more(size: Size) -> Size:
    return size + 1 if isinstance(size, int) else (*(extent + 1 for extent in size[:1]), *size[1:])


def _redrawn(case: Case, sizes: Mapping[str, Size], kept: set[str]) -> Case:
    drawn = {
        name: recipe if name in kept else Recipe(seed=zlib.crc32(f"{name} {sorted(sizes.items())}".encode()))
        for name, recipe in case.tensors.items()
    }
    return replace(case, sizes=sizes, tensors=drawn, layouts={})


def _after_each_other(trial: Trial, fresh: Sequence[tuple[_Call, Run]]) -> Iterator[Mismatch]:
    if not fresh or fresh[0][0].trial is not trial:
        return
    built = trial.candidate.build(trial.tensors())
    buffers = _buffers(built)
    for position, (call, should) in enumerate((*fresh, fresh[0])):
        found = _compared(call.trial, built, should)
        if found is None:
            continue
        carried = bool(buffers) and _agrees_with(buffers, call.trial, built, should)
        if position and not (carried and trial.spec.stateful):
            yield _reported(trial, call, found, "an earlier call", carried)
        return
    if trial.candidate.constructed:
        yield from _another_instance(trial, built, fresh[0][1])


def _another_instance(trial: Trial, built: Callable[..., Any], should: Run) -> Iterator[Mismatch]:
    """A second instance with another context leaves the first alone."""
    other = trial.at(_redrawn(trial.case, trial.case.sizes, set()))
    try:
        other.run(other.tensors())
    except LossRaised:
        return
    found = _compared(trial, built, should)
    if found is not None:
        yield _reported(trial, _Call("other values", other), found, "another instance was built and called", False)


def _compared(trial: Trial, built: Callable[..., Any], should: Run) -> Mismatch | None:
    """What a used instance gives against what a fresh one gave."""
    tensors = trial.tensors()
    try:
        came = trial.run(tensors, built=built)
    except LossRaised as raised:
        return Mismatch("loss", first_line(raised.error), describe(should.scalar))
    scale = trial.scale if not _identical(came, should) else (0.0, 0.0)
    mismatch = same_output(came.output, should.output, *scale)
    if mismatch is not None or not should.finite or _identical(came, should):
        return mismatch
    return same_gradients(trial, came.gradients, should.gradients, tensors, trial.function(tensors), scale[1])


def _identical(came: Run, should: Run) -> bool:
    def same(a: Tensor | None, b: Tensor | None) -> bool:
        return a is b if a is None or b is None else a.shape == b.shape and torch.equal(a, b)

    return same(came.output, should.output) and all(same(g, should.gradients[n]) for n, g in came.gradients.items())


def _reported(trial: Trial, call: _Call, found: Mismatch, after: str, carried: bool) -> Mismatch:
    second = call.trial.tensors()
    literals = ", ".join(f"{n!r}: torch.tensor({t.tolist()}, dtype={t.dtype})" for n, t in second.items())
    run = "loss(**tensors)\n" if call.trial is not trial else "loss(**other)\nloss(**tensors)\n"
    shown = "other" if call.trial is not trial else "tensors"
    code = f"from math import inf, nan\nother = {{{literals}}}\n{run}print(loss(**{shown}))"
    if trial.candidate.is_class:
        calls = "call(built, **tensors)\nprint('used: ', call(built, **other))\nprint('fresh:', loss(**{**tensors, **other}))"
        if call.trial is trial:
            calls = "for _ in range(2):\n    print(call(built, **tensors))"
        elif after != "an earlier call":
            calls = "print(call(built, **tensors))\nloss(**other)\nprint(call(built, **tensors))"
        code = f"from math import inf, nan\nother = {{{literals}}}\nbuilt = build(**tensors)\n{calls}"
    return replace(
        found,
        where=f"{found.where} with {call.text} after {after}",
        should=f"{found.should}, as on a first call",
        aspect="buffers" if carried else "history",
        severity="note" if carried else None,
        tensors=trial.tensors(),
        code=code,
        hint=(
            "if a registered buffer is meant to carry it, declare LossSpec(stateful=True)"
            if carried
            else "compute it anew, or key what is kept by everything that it depends on: shape, dtype, device and values"
        ),
    )


def _training(trial: Trial) -> Iterator[Mismatch]:
    """Dropout and running statistics may well act in training only: a note."""
    if not trial.candidate.is_module or trial.spec.stateful:
        return
    try:
        run = trial.run(trial.tensors(), train=True)
    except LossRaised as raised:
        mismatch: Mismatch | None = Mismatch("loss", first_line(raised.error), describe(trial.base.scalar))
    else:
        mismatch = same_output(run.output, trial.base.output, *trial.scale)
    if mismatch is not None:
        yield replace(
            mismatch,
            where=f"{mismatch.where} in train() mode",
            should=f"{mismatch.should}, as in eval()",
            aspect="train",
            severity="note",
            tensors=trial.tensors(),
            code="print(loss(**tensors))\nprint(call(build(**tensors).train(), **tensors))",
            hint="where running statistics are meant, declare LossSpec(stateful=True)",
        )


def _buffers(built: Callable[..., Any]) -> Buffers:
    if not isinstance(built, nn.Module):
        return []
    saved = [
        (part, {n: None if b is None else b.clone() for n, b in part._buffers.items()}) for part in built.modules()
    ]
    return [(part, buffers) for part, buffers in saved if buffers]


def _agrees_with(buffers: Buffers, trial: Trial, built: Callable[..., Any], should: Run) -> bool:
    """Whether the instance agrees again once its buffers are as they were."""
    for part, saved in buffers:
        part._buffers.update({n: None if b is None else b.clone() for n, b in saved.items()})
    return _compared(trial, built, should) is None


RULES = (
    Rule(
        code="S03",
        title="independent of earlier calls and other instances",
        group="history",
        severity="error",
        check=history_does_not_matter,
        regimes={"distinct": 2},
        smooth=True,
        why="A mask made for the first batch is used for all later ones, and validation changes the training loss.",
        example="if self.mask is None: self.mask = labels != 0      # the first batch's mask, for ever",
        mend="Compute what depends on the batch in each call; key a cache by all that it depends on.",
        source="PyTorch, 'Reproducibility'; property-based testing of stateful systems, Claessen & Hughes, ICFP 2000.",
    ),
)
