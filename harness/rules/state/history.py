"""A rule about history: S03."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.calls.evaluation import RNG_SEED, LossRaised, begin_draws
from harness.declare import dims
from harness.declare.dims import Size
from harness.declare.spec import LossSpec
from harness.drawing.case import Case, Recipe
from harness.errors import NotApplicable, told_in_a_line
from harness.private_names import buffers as buffers_of
from harness.rules.context.following import loose_tensors
from harness.rules.dtypes.kept import asked, short
from harness.rules.rule import Mismatch, Rule
from harness.rules.state.caches import Cache, caches, emptied
from harness.rules.tools.compare import same_gradients, same_output
from harness.rules.tools.sizes import growable, one, resized
from harness.rules.trial import Run, Scale, Trial, describe

OTHER_VALUES = "other values"
BOTH = "the forwards of two inputs"
PAIRS = 2  # of the first call with another, with other values and with another size
STEPS = 3  # of one instance in train(): what is kept may overflow, or hang on an earlier graph, in a later one
SIZES_CHANGED = 3  # symbols of which a second call has one position more, one at a time

Buffers = list[tuple[nn.Module, dict[str, Tensor | None]]]


def history_does_not_matter(trial: Trial) -> Iterator[Mismatch]:
    """A call depends on no earlier call: not of another batch, another shape or another instance.

        L(B) after L(A) = L(B),   L(A) after L(A), L(B) = L(A)      in value and gradient
        L(A), L(B), then dL(A), dL(B)                               as each alone

    B has other values, or one position more along one symbol; another instance has another context, and one of what all
    instances share is called in float32 too.  Two forwards may come before their backwards, as in L(A) + L(B).  Whatever modules, classes and functions keep in dicts and lists is emptied
    first, so that both sides begin alike.  What a registered buffer carries is a note, as is a difference between train()
    and eval() that comes of draws or of what an instance carries; `LossSpec(stateful=True)` and `stochastic=True` say that
    they are meant.  Any other difference of the value is a warning, where the reference has it not: in eval() another function
    is checked than the one that trains.  Another gradient of the same value is an error.  Three steps in train() run where a call in eval() does, each symbol being the largest
    in turn.
    """
    kept = caches(trial)
    fresh: list[tuple[_Call, Run]] = []
    for call in _calls(trial):
        with emptied(kept):
            try:
                fresh.append((call, call.trial.run(call.tensors())))
            except LossRaised:
                continue  # B01 says so
    with emptied(kept):
        yield from _after_each_other(trial, fresh, kept)
    yield from _training(trial)


@dataclass(frozen=True)
class _Call:
    """One call in a row, and how it differs from the first."""

    text: str
    trial: Trial
    held: list[Mapping[str, Tensor]] = field(default_factory=list)

    def tensors(self) -> Mapping[str, Tensor]:
        """Fresh tensors that stay alive, so that no later one gets their address by chance."""
        self.held.append(self.trial.tensors())
        return self.held[-1]


def _calls(trial: Trial) -> Iterator[_Call]:
    """The case itself, the same sizes with other values, and one position more along each of a few symbols."""
    yield _Call("the same input", trial)
    kept = set(trial.candidate.constructed)
    yield _Call(OTHER_VALUES, trial.at(_redrawn(trial.case, trial.case.sizes, kept)))
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
    return own | set(tensor.domain.symbols)


def _one_more(size: Size) -> Size:
    return size + 1 if isinstance(size, int) else (*(extent + 1 for extent in size[:1]), *size[1:])


def _redrawn(case: Case, sizes: Mapping[str, Size], kept: set[str]) -> Case:
    drawn = {
        name: recipe if name in kept else Recipe(seed=zlib.crc32(f"{name} {sorted(sizes.items())}".encode()))
        for name, recipe in case.tensors.items()
    }
    return replace(case, sizes=sizes, tensors=drawn, layouts={})


def _after_each_other(trial: Trial, fresh: Sequence[tuple[_Call, Run]], kept: Sequence[Cache]) -> Iterator[Mismatch]:
    if not fresh or fresh[0][0].trial is not trial:
        return
    built = trial.candidate.build(trial.tensors())
    buffers = _buffers(built)
    for position, (call, should) in enumerate((*fresh, fresh[0])):
        found = _compared(call, built, should)
        if found is None:
            continue
        carried = bool(buffers) and _agrees_with(buffers, call, built, should)
        if position and not (carried and trial.spec.stateful):
            last = call if call.trial is not trial else fresh[min(1, len(fresh) - 1)][0]
            how = "an earlier call" if call.trial is not trial else call.text
            shared = _compared(call, call.trial.candidate.build(call.tensors()), should) is not None
            yield _reported(trial, call, found, how, last.trial, carried, shared)
        return
    yield from _both_before_backward(trial, built, fresh)
    yield from _overwritten(trial, built, fresh)
    found = None
    if trial.candidate.constructed:
        found = _another_instance(trial, built, fresh[0][1], kept)
    if found is None and kept:
        found = _another_dtype(trial, kept)
    if found is not None:
        yield found


def _both_before_backward(
    trial: Trial, built: Callable[..., Any], fresh: Sequence[tuple[_Call, Run]]
) -> Iterator[Mismatch]:
    """Two forwards, then the backward of each: what a call keeps for its backward is its own."""
    if trial.spec.stateful:
        return
    (call, should), *others = fresh
    for other, theirs in others[:PAIRS]:
        calls = (call, other)
        try:
            leaves = [each.trial.leaves(each.tensors()) for each in calls]
            outputs = [each.trial.output(given, built=built) for each, given in zip(calls, leaves, strict=True)]
            made = zip(calls, leaves, outputs, strict=True)
            runs = [each.trial.backward(given, output) for each, given, output in made]
        except LossRaised as raised:
            refused = Mismatch(
                "gradient", told_in_a_line(raised.error), "a gradient", error=raised.error, kind="gradient"
            )
            yield _reported(trial, call, refused, BOTH, other.trial)
            return
        for each, came, alone in zip(calls, runs, (should, theirs), strict=True):
            if (found := _differs(each.trial, came, alone, each.tensors())) is not None:
                yield _reported(trial, each, found, BOTH, other.trial)
                return


def _overwritten(trial: Trial, built: Callable[..., Any], fresh: Sequence[tuple[_Call, Run]]) -> Iterator[Mismatch]:
    """Other values written into the same tensors, as loaders with buffers do: what is kept by address is stale."""
    for call, should in fresh:
        if call.text != OTHER_VALUES:
            continue
        tensors, others = dict(fresh[0][0].tensors()), call.tensors()
        trial.run(tensors, built=built)
        if any(tensors[name].shape != others[name].shape for name in tensors):
            return  # the loss has resized what it was given; C02 says so
        for name in trial.candidate.called:
            tensors[name].copy_(others[name])
        found = _compared(call, built, should, tensors)
        if found is not None:
            yield _reported(trial, call, found, "the same tensors", call.trial)


def _another_instance(trial: Trial, built: Callable[..., Any], should: Run, kept: Sequence[Cache]) -> Mismatch | None:
    """A second instance with another context leaves the first alone, and is left alone by it."""
    other = trial.at(_redrawn(trial.case, trial.case.sizes, set()))
    call, theirs = _Call("the same input", trial), _Call("another context", other)
    try:
        with emptied(kept):
            alone = other.run(theirs.tensors())
        found = _compared(theirs, other.candidate.build(theirs.tensors()), alone)
    except LossRaised:
        return None
    if found is not None:
        return _reported(other, theirs, found, "the first instance", trial, shared=True)
    found = _compared(call, built, should)
    return None if found is None else _reported(trial, call, found, "another instance", other, shared=True)


def _another_dtype(trial: Trial, kept: Sequence[Cache]) -> Mismatch | None:
    """What all instances share, kept from a call in the widest dtype, is none of a call in float32."""
    if torch.float32 not in asked(trial) or trial.precision.takes == torch.float32:
        return None
    tensors = trial.tensors(torch.float32)
    try:
        with emptied(kept):
            should = trial.run(tensors, wrt=()).output.dtype
        came = trial.run(tensors, wrt=()).output.dtype
    except LossRaised:
        return None
    if came == should:
        return None
    found = Mismatch("loss.dtype", short(came), short(should))
    wide = {name: f"tensors[{name!r}].double()" for name, tensor in tensors.items() if tensor.is_floating_point()}
    other = ", ".join(f"{name!r}: {value}" for name, value in wide.items())
    return replace(
        _reported(trial, _Call("float32", trial), found, "an earlier call", trial, shared=True),
        where="loss.dtype with float32 after a call with float64",
        tensors=tensors,
        code=f"loss(**{{**tensors, {other}}})\nprint(loss(**tensors).dtype)",
    )


def _compared(
    call: _Call, built: Callable[..., Any], should: Run, tensors: Mapping[str, Tensor] | None = None
) -> Mismatch | None:
    """What a used instance gives against what a fresh one gave."""
    trial, tensors = call.trial, call.tensors() if tensors is None else tensors
    try:
        came = trial.run(tensors, built=built)
    except LossRaised as raised:
        return Mismatch("loss", told_in_a_line(raised.error), describe(should.scalar), error=raised.error)
    return _differs(trial, came, should, tensors)


def _differs(trial: Trial, came: Run, should: Run, tensors: Mapping[str, Tensor]) -> Mismatch | None:
    scale = trial.scale if not _identical(came, should) else Scale(lambda: (0.0, 0.0))
    mismatch = same_output(came.output, should.output, scale)
    if mismatch is not None or not should.finite or _identical(came, should):
        return mismatch
    return same_gradients(came.gradients, should.gradients, tensors, trial, scale)


def _identical(came: Run, should: Run) -> bool:
    def same(a: Tensor | None, b: Tensor | None) -> bool:
        return a is b if a is None or b is None else a.shape == b.shape and torch.equal(a, b)

    return same(came.output, should.output) and all(same(g, should.gradients[n]) for n, g in came.gradients.items())


_CODE = {
    "the same input": "print({first})\n{second}\nprint({first})",
    "an earlier call": "{first}\nprint({second})",
    "the same tensors": "{first}\nfor name, values in other.items():\n    tensors[name].detach().copy_(values)\nprint({first})",
    "another instance": "print({first})\nloss(**other)\nprint({first})",
    BOTH: """def gradients(value, given):
    print(torch.autograd.grad(total(value), [t for t in given.values() if t.requires_grad], allow_unused=True))

first, second = {first}, {second}
gradients(first, tensors)
gradients(second, other)""",
    "the first instance": "loss(**other)\nprint({first})",
}
OF_ALL = "history of all instances"  # the aspect of what is kept outside of the instance, and reaches every other rule


def _reported(
    trial: Trial,
    call: _Call,
    found: Mismatch,
    how: str,
    other: Trial,
    carried: bool = False,
    shared: bool = False,
) -> Mismatch:
    given = other.leaves(other.tensors())
    literals = ", ".join(f"{n!r}: {_literal(t)}" for n, t in given.items())
    calls = "call(built, **{})" if trial.candidate.is_class else "loss(**{})"
    code = _CODE[how].format(first=calls.format("tensors"), second=calls.format("other"))
    built = "built = build(**tensors)\n" if trial.candidate.is_class else ""
    after = "an earlier call" if how == "the same input" else how
    if how.endswith("instance"):
        after = "another instance was built and called"
    between = "in" if how == "the same tensors" else "after"
    hint = "compute it anew, or key what is kept by everything that it depends on: shape, dtype, device and values"
    if carried:
        hint = f"if a registered buffer is meant to carry it, declare {trial.spec.line_that_says('stateful')}"
    elif how == BOTH:
        hint = (
            "keep what backward needs on ctx, by ctx.save_for_backward, not in memory that the next forward writes to"
        )
    return replace(
        found,
        where=f"{found.where} with {call.text} {between} {after}",
        should=f"{found.should}, as on a first call",
        aspect="buffers" if carried else OF_ALL if shared else "history",
        severity="note" if carried else None,
        tensors=trial.tensors(),
        code=f"from math import inf, nan\nother = {{{literals}}}\n{built}{code}",
        hint=hint,
        note="a class, module or function keeps it: every new instance begins with it"
        if shared and not carried
        else "",
    )


def _literal(tensor: Tensor) -> str:
    grad = ", requires_grad=True" if tensor.requires_grad else ""
    return f"torch.tensor({tensor.tolist()}, dtype={tensor.dtype}{grad})"


def _training(trial: Trial) -> Iterator[Mismatch]:
    """Steps in train() run where eval() does, and give what it gives."""
    if not trial.candidate.is_module:
        return
    first: Run | None = None
    for at in (trial, *_largest_in_turn(trial)):
        try:
            should = at.base if at is trial else at.run(at.tensors(), wrt=())
        except LossRaised:
            continue  # in eval() too: B01 says so
        runs: list[Run] = []
        try:
            built = at.candidate.build(at.tensors(), train=True)
            runs.extend(at.run(at.tensors(), built=built) for _ in range(STEPS))
        except LossRaised as raised:
            yield _raised_in_training(at, len(runs) + 1, raised, should)
            return
        first = first or runs[0]
    if first is not None and not trial.spec.stateful and not trial.spec.stochastic:
        mismatch = _differs(trial, first, trial.base, trial.tensors())
        if mismatch is not None and not _trains_alike(trial, first):
            yield _another_function(trial, mismatch)


def _another_function(trial: Trial, mismatch: Mismatch) -> Mismatch:
    """Dropout and running statistics may well act in training only: a note."""
    hint = "what acts in training alone is checked by no other rule: make it an option, LossSpec(options=...)"
    draws, carries = _draws(trial), _carries(trial)
    if draws or carries:
        what, flag = ("draws", "stochastic") if draws else ("running statistics", "stateful")
        hint = f"where {what} are meant, declare {trial.spec.line_that_says(flag)}"
    return replace(
        mismatch,
        where=f"{mismatch.where} in train() mode",
        should=f"{mismatch.should}, as in eval()",
        aspect="train",
        severity="note" if draws or carries else "error" if mismatch.kind == "gradient" else "warning",
        tensors=trial.tensors(),
        code="""
        for built in (build(**tensors).eval(), build(**tensors).train()):
            value = total(call(built, **tensors))
            print(value, torch.autograd.grad(value, [t for t in tensors.values() if t.requires_grad], allow_unused=True))
        """
        if mismatch.kind == "gradient"
        else "print(loss(**tensors))\nprint(call(build(**tensors).train(), **tensors))",
        hint=hint,
    )


def _trains_alike(trial: Trial, first: Run) -> bool:
    """Whether the reference gives the same in train()."""
    if trial.is_reference or len(trial.spec.implementations) < 2:
        return False
    reference = trial.of(trial.spec.reference)
    try:
        should = reference.run(trial.tensors(), train=True)
    except LossRaised:
        return False
    return _differs(trial, first, should, trial.tensors()) is None


def _carries(trial: Trial) -> bool:
    """Whether a step in train() changes what an instance keeps: buffers, parameters, plain tensors and numbers."""
    built: Any = trial.candidate.build(trial.tensors(), train=True)
    before = _carried(built)
    trial.run(trial.tensors(), built=built)
    after = _carried(built)
    return before.keys() != after.keys() or not all(
        torch.equal(after[n], b) if isinstance(b, Tensor) and isinstance(after[n], Tensor) else after[n] == b
        for n, b in before.items()
    )


def _carried(built: nn.Module) -> dict[str, Any]:
    """Copies of all that an instance may carry from call to call."""
    numbers = {
        f"{name}.{key}": value
        for name, part in built.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, (bool, int, float))
    }
    tensors = {**loose_tensors(built), **dict(built.named_buffers()), **dict(built.named_parameters())}
    return {**numbers, **{name: tensor.detach().clone() for name, tensor in tensors.items()}}


def _draws(trial: Trial) -> bool:
    """Whether torch's global generator is elsewhere after a call in train(), each of which begins at this state."""
    begin_draws(RNG_SEED)
    before = torch.default_generator.get_state()
    trial.run(trial.tensors(), train=True)
    return not torch.equal(before, torch.default_generator.get_state())


def _largest_in_turn(trial: Trial) -> Iterator[Trial]:
    """Each symbol larger than all others: a batch that is longer than the queue that it is written into, say."""
    extents = [extent for size in trial.case.sizes.values() for extent in ((size,) if isinstance(size, int) else size)]
    for symbol in growable(trial.spec) if trial.exhaustive else ():
        try:
            yield trial.at(resized(trial.spec, trial.case, one(trial.spec, symbol, max(extents, default=0) + 1)))
        except NotApplicable:
            continue


def _raised_in_training(trial: Trial, step: int, raised: LossRaised, should: Run) -> Mismatch:
    return Mismatch(
        f"loss in train() mode{f', step {step} of one instance' if step > 1 else ''}",
        told_in_a_line(raised.error),
        f"{describe(should.scalar)}, as in eval()",
        aspect="train raises",
        error=raised.error,
        tensors=trial.tensors(),
        sizes=trial.case.sizes,
        code=f"""
        built = build(**tensors).train()
        for step in range({step}):
            value = total(call(built, **tensors))
            value.backward() if value.requires_grad else None
        """,
        hint="write what is kept so that it fits batches of any size, and detach it",
    )


def _buffers(built: Callable[..., Any]) -> Buffers:
    if not isinstance(built, nn.Module):
        return []
    saved = [
        (part, {n: None if b is None else b.clone() for n, b in buffers_of(part).items()}) for part in built.modules()
    ]
    return [(part, buffers) for part, buffers in saved if buffers]


def _agrees_with(buffers: Buffers, call: _Call, built: Callable[..., Any], should: Run) -> bool:
    """Whether the instance agrees again once its buffers are as they were."""
    for part, saved in buffers:
        buffers_of(part).update({n: None if b is None else b.clone() for n, b in saved.items()})
    return _compared(call, built, should) is None


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
