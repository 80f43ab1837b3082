"""Rules about how a context may be given: in another dtype or layout, sharing storage with an input, larger than the batch: C09 to C11."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from harness.calls import tolerance
from harness.calls.evaluation import LossRaised
from harness.declare import dims
from harness.declare.spec import LossSpec
from harness.drawing.case import Recipe
from harness.errors import NotApplicable, told_in_a_line
from harness.rules.dtypes.kept import short
from harness.rules.laws.declared import declared
from harness.rules.rule import ENDS_A_DEVICE, Mismatch, Rule
from harness.rules.tools.compare import relation, same_gradients, same_output
from harness.rules.tools.made import counted, positions
from harness.rules.tools.symbols import permuted, selected
from harness.rules.trial import Trial, describe

DTYPES = (torch.bool, torch.uint8, torch.int64, torch.float64)


def dtype_and_layout_do_not_matter(trial: Trial) -> Iterator[Mismatch]:
    """A mask or graph of zeros and ones gives the same number in every dtype, and a sparse context the same as a dense one.

        L(x; c as bool) = L(x; c as uint8) = L(x; c as int64) = L(x; c as float64)
        L(x; c sparse) = L(x; c dense), in value and gradient

    A refusal is no finding, and what no graph is as a sparse matrix is a note.
    """
    if not trial.base.finite:
        raise NotApplicable("value or gradient is not finite; see G08")
    tensors = trial.tensors()
    for name in _zero_or_one(trial.spec):
        found = _other_dtype(trial, tensors, name)
        if found is not None:
            yield found
    for name in _matrices(trial.spec):
        found = _sparse(trial, tensors, name)
        if found is not None:
            yield found if _is_graph(trial.spec, name) else replace(found, severity="note")


def _zero_or_one(spec: LossSpec) -> list[str]:
    """Masks and graphs: boolean tensors, and whole numbers between 0 and 1 in the context."""
    masks = [n for n, t in spec.tensors.items() if t.domain.kind == "boolean"]
    numbers = [n for n, t in spec.context.items() if t.domain.whole and (t.domain.low, t.domain.high) == (0.0, 1.0)]
    return list(dict.fromkeys((*masks, *numbers)))


def _matrices(spec: LossSpec) -> list[str]:
    axes = {n: dims.parse(t.dims) for n, t in spec.context.items() if t.domain.kind != "integer"}
    return [n for n, parsed in axes.items() if len(parsed) == 2 and not any(dim.variadic for dim in parsed)]


def _is_graph(spec: LossSpec, name: str) -> bool:
    """Whether both axes are of the same things, as graphs have it, which people keep sparse; masks of samples are dense."""
    rows, columns = dims.parse(spec.context[name].dims)
    return rows.token == columns.token


def _other_dtype(trial: Trial, tensors: Mapping[str, Tensor], name: str) -> Mismatch | None:
    own = tensors[name].dtype
    for dtype in DTYPES:
        if dtype == own:
            continue
        try:
            output = trial.run({**tensors, name: tensors[name].to(dtype)}, wrt=()).output
        except LossRaised:
            continue
        if not _another_number(trial, output):
            continue
        base = trial.base.output
        return Mismatch(
            f"loss with {name} as {short(dtype)}",
            describe(float(output)) if output.ndim == 0 else f"{output.tolist()}",
            f"{describe(float(base)) if base.ndim == 0 else base.tolist()}, as with {short(own)}",
            aspect=f"{name} dtype",
            kind="value",
            tensors=tensors,
            code=_given_code(name, f".to({dtype})"),
            hint=f"make it a mask first, `{name} = {name} != 0`: ~1 is 254 in uint8, and an integer mask picks positions",
        )
    return None


def _another_number(trial: Trial, output: Tensor) -> bool:
    """Whether it differs by more than a division in the default dtype, which integers make, explains."""
    base = trial.base.output
    if output.shape != base.shape:
        return True
    largest = float(base.abs().max()) if base.numel() else 0.0
    allowed = tolerance.forward_error(torch.finfo(torch.float32).eps, largest, trial.scale.condition)
    return not bool(((output.double() - base.double()).abs() <= allowed).all())


def _sparse(trial: Trial, tensors: Mapping[str, Tensor], name: str) -> Mismatch | None:
    for layout, sparse in (("COO", Tensor.to_sparse), ("CSR", Tensor.to_sparse_csr)):
        try:
            run = trial.run({**tensors, name: sparse(tensors[name])})
        except LossRaised:
            continue
        gradients = {
            n: g.to_dense() if g is not None and g.layout != torch.strided else g for n, g in run.gradients.items()
        }
        base, scale = trial.base, trial.scale
        mismatch = same_output(run.output, base.output, scale) or same_gradients(
            gradients, base.gradients, tensors, trial, scale
        )
        if mismatch is not None:
            return replace(
                mismatch,
                where=f"{mismatch.where} with {name} as a sparse {layout} matrix",
                aspect=f"{name} sparse",
                tensors=tensors,
                code=_given_code(name, f".{sparse.__name__}()"),
                hint=f"refuse sparse tensors, or bring them to the dense formula: {name} = {name}.to_dense()",
            )
    return None


def _given_code(name: str, call: str) -> str:
    return f"""
        print(loss(**tensors))
        print(loss(**{{**tensors, {name!r}: tensors[{name!r}].detach(){call}}}))
    """


def sharing_storage_does_not_matter(trial: Trial) -> Iterator[Mismatch]:
    """A context or target that shares its storage with an input gives the number of a copy, and its partial gradients.

    L(x, c) = L(x, c'),  dL/dx (x, c) = dL/dx (x, c')   for c an alias and c' a copy of x
    """
    for first, second in _alike(trial.spec):
        shared, copied = trial.tensors(), trial.tensors()
        shared[second], copied[second] = shared[first], copied[first].clone()
        should = trial.run(copied)
        try:
            came = trial.run(shared)
        except LossRaised as raised:
            mismatch: Mismatch | None = Mismatch(
                "loss", told_in_a_line(raised.error), describe(should.scalar), error=raised.error
            )
        else:
            scale = trial.measure_scale(copied)
            mismatch = same_output(came.output, should.output, scale) or same_gradients(
                came.gradients, should.gradients, copied, trial, scale
            )
        if mismatch is not None:
            yield replace(
                mismatch,
                where=f"{mismatch.where} with {second} sharing storage with {first}",
                should=f"{mismatch.should}, as with a copy",
                aspect=f"{second} is {first}",
                tensors={**trial.tensors(), second: trial.tensors()[first]},
                code=f"""
                    print("copy: ", total(loss(**tensors)))
                    print("alias:", total(loss(**{{**tensors, {second!r}: tensors[{first!r}].detach()}})))
                """,
                hint=f"write to nothing that the caller gave; keep a copy: self.{second} = {second}.clone()",
            )


def _alike(spec: LossSpec) -> list[tuple[str, str]]:
    """(differentiable input, another tensor of the same dims and domain)."""
    found = []
    for first in spec.differentiable:
        one = spec.tensors[first]
        for second, other in spec.tensors.items():
            same = (one.dims, one.domain.text, one.dtype) == (other.dims, other.domain.text, other.dtype)
            if second != first and same and (second, first) not in found:
                found.append((first, second))
    return found


def padding_changes_nothing(trial: Trial) -> Iterator[Mismatch]:
    """A context that is larger than the batch is read by position only, and what is appended with zero weight changes nothing.

        L(x; P c, P[i]) = L(x; c, i)            for positions i that a permutation P renames, in value and gradient
        L(x ++ x'; w ++ 0) = L(x; w)            where w is declared to remove, and to be summed or normalised

    That positions are only names is learned where every position is in use; it must then hold where some are not.
    """
    asked, reasons = 0, []
    for name, symbol in _padded_weights(trial.spec):
        try:
            yield from _appended(trial, name, symbol)
            asked += 1
        except NotApplicable as reason:
            reasons.append(str(reason))
    if not asked:
        raise NotApplicable("; ".join(reasons) or _NO_PADDING)


def _appended(trial: Trial, name: str, symbol: str) -> Iterator[Mismatch]:
    found = relation(
        trial,
        lambda leaves: trial.output(_padded(trial, leaves, name, symbol)),
        trial.tensors(),
        f"after appending two slices along {symbol} whose {name} is zero",
    )
    for mismatch in found:
        hint = f"divide by the sum of {name}, not by a count"
        yield replace(mismatch, aspect=f"{name} padding {mismatch.aspect}", hint=hint)


_NO_PADDING = "no laws.zero_weight_removes(...) with laws.scale_invariant(...) or laws.sum_over(...) is declared"


def _padded_weights(spec: LossSpec) -> list[tuple[str, str]]:
    """(weight, symbol): the weight has that axis alone and is scale invariant, or the loss is a sum over the symbol.

    With a second axis the normaliser may be one of each row, and a mean over rows rightly counts the empty ones.
    """
    summed = {law.symbols[0] for law in spec.laws if law.code == "L02"}
    invariant = {law.names[0] for law in spec.laws if law.code == "L05"}
    found = []
    for law in declared(spec, "L11"):
        name = law.names[0]
        own = [d.symbol for d in dims.parse(spec.tensors[name].dims) if d.size != 1]
        for symbol in own:
            fits = symbol in summed or (name in invariant and len(own) == 1)
            if fits and symbol in spec.symbols and symbol not in spec.fixed_sizes and own.count(symbol) == 1:
                found.append((name, symbol))
    return found


def _padded(trial: Trial, leaves: Mapping[str, Tensor], name: str, symbol: str) -> dict[str, Tensor]:
    for other, tensor in trial.spec.tensors.items():
        labels = dims.axes(tensor.dims, trial.case.sizes)
        if tensor.domain.axis is not None and labels[tensor.domain.axis] == symbol:
            raise NotApplicable(f"{other} is tied together along {symbol}, so that nothing can be appended")
    size = trial.case.sizes[symbol]
    assert isinstance(size, int)
    result = selected(trial, leaves, symbol, [*range(size), 0, size - 1])
    axis = dims.axes(trial.spec.tensors[name].dims, trial.case.sizes).index(symbol)
    result[name] = result[name].index_fill(axis, positions([size, size + 1], result[name]), 0)
    return result


def positions_are_only_names(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """The second half of the statement: see `padding_changes_nothing`."""
    learned = False
    for symbol in _looked_up(trials[0].spec):
        covering = [moved for trial in trials if (moved := _covering(trial, symbol)) is not None]
        try:
            held = [_renamed(trial, tensors, symbol) is None for trial, tensors in covering]
            if len(held) < 2 or not all(held):
                continue  # an order has a meaning here: a schedule, or a distance between positions
            learned = True
            found = [_renamed(trial, _without_last(trial, tensors, symbol), symbol) for trial, tensors in covering]
        except (LossRaised, NotApplicable):
            continue
        for mismatch in [m for m in found if m is not None][:1]:
            yield replace(mismatch, aspect=f"{symbol} {mismatch.aspect}")
    if not learned:
        raise NotApplicable("no context is looked up by positions that are only names")


def _looked_up(spec: LossSpec) -> list[str]:
    """Symbols that only context tensors run along, and of which some tensor holds positions."""
    pointed = dict.fromkeys(t.domain.symbol for t in spec.tensors.values() if t.domain.symbol is not None)
    in_inputs = {symbol for t in spec.inputs.values() for d in dims.parse(t.dims) for symbol in d.symbols}
    in_context = {d.symbol for t in spec.context.values() for d in dims.parse(t.dims)}
    return [symbol for symbol in pointed if symbol in in_context and symbol not in in_inputs]


def _covering(trial: Trial, symbol: str) -> tuple[Trial, dict[str, Tensor]] | None:
    """The trial with as many positions as its indices can all use, and tensors in which they do."""
    spec, sizes = trial.spec, dict(trial.case.sizes)
    pointing = [name for name, t in spec.tensors.items() if t.domain.symbol == symbol]
    most = max(torch.Size(trial.case.shape(spec, name)).numel() for name in pointing)
    if symbol not in spec.fixed_sizes:
        sizes[symbol] = min(int(sizes[symbol]), most)  # type: ignore[arg-type]
    count = int(sizes[symbol])  # type: ignore[arg-type]
    if count < 2 or count > most:
        return None
    recipes = {name: Recipe(seed=zlib.crc32(name.encode()) ^ int(trial.case.digest, 16)) for name in spec.tensors}
    moved = trial.at(replace(trial.case, sizes=sizes, tensors=recipes, layouts={}))
    tensors = moved.tensors()
    for name in pointing:
        flat = counted(tensors[name].numel(), tensors[name]) % count
        tensors[name] = flat.reshape(tensors[name].shape).to(tensors[name].dtype)
    return moved, tensors


def _without_last(trial: Trial, tensors: Mapping[str, Tensor], symbol: str) -> dict[str, Tensor]:
    last = int(trial.case.sizes[symbol]) - 1  # type: ignore[arg-type]
    changed = {
        name: torch.where(tensors[name] == last, torch.zeros_like(tensors[name]), tensors[name])
        for name, t in trial.spec.tensors.items()
        if t.domain.symbol == symbol
    }
    return {**tensors, **changed}


def _renamed(trial: Trial, tensors: Mapping[str, Tensor], symbol: str) -> Mismatch | None:
    found = relation(
        trial,
        lambda leaves: trial.output(permuted(trial, leaves, symbol)),
        tensors,
        f"after renaming the positions along {symbol}, of which one is not in use",
    )
    return next((replace(m, code=_renaming_code(trial, tensors, symbol), hint=_RENAMING_HINT) for m in found), None)


_RENAMING_HINT = "take the number of positions from the context's shape, not from the largest index of the batch"


def _renaming_code(trial: Trial, tensors: Mapping[str, Tensor], symbol: str) -> str:
    lines = ["print(loss(**tensors))"]
    for name, moved in permuted(trial, tensors, symbol).items():
        if moved is not tensors[name]:
            lines.append(f"tensors[{name!r}] = torch.tensor({moved.tolist()}, dtype={moved.dtype})")
    return "\n".join([*lines, "print(loss(**tensors))"])


def _has_zero_or_one(spec: LossSpec, implementation: str) -> str | None:
    fits = _zero_or_one(spec) or _matrices(spec)
    return None if fits else "no context is a mask, a graph or a matrix"


def _has_alike(spec: LossSpec, implementation: str) -> str | None:
    return None if _alike(spec) else "no tensor has the dims and the domain of a differentiable input"


def _is_larger(spec: LossSpec, implementation: str) -> str | None:
    if _looked_up(spec) or _padded_weights(spec):
        return None
    return f"no context is looked up by position, and {_NO_PADDING}"


RULES = (
    Rule(
        code="C09",
        title="dtype and layout of the context do not matter",
        draws_anew="another dtype draws other numbers",
        group="sharing",
        severity="warning",
        check=dtype_and_layout_do_not_matter,
        applies=_has_zero_or_one,
        regimes={"distinct": 2},
        smooth=True,
        on_the_cpu=ENDS_A_DEVICE,
        why="A loader gives the mask as uint8 or int64, and the loss keeps what it should drop.",
        example="error[mask]      # with an int64 mask these are rows 0 and 1; ~mask of a uint8 one is 254 or 255",
        mend="`mask = mask != 0` first, or refuse other dtypes with a TypeError.",
        source="PyTorch, 'Tensor views and indexing' (uint8 masks are deprecated) and 'torch.sparse'.",
    ),
    Rule(
        code="C10",
        title="a context that shares storage with an input = a copy",
        group="sharing",
        severity="error",
        check=sharing_storage_does_not_matter,
        applies=_has_alike,
        regimes={"distinct": 2},
        smooth=True,
        why="An autoencoder's target is its input; a running centre starts as the first batch.",
        example="self.centre = centre; ... self.centre.mul_(0.9)      # the batch shrinks too",
        mend="Clone what is kept, and edit nothing in place.",
        source="NumPy's ufunc overlap rule; PyTorch autograd mechanics, 'In-place operations with autograd'.",
    ),
    Rule(
        code="C11",
        title="a larger context is read by position; padding changes nothing",
        draws_anew="a tensor of another shape draws other numbers",
        group="sharing",
        severity="warning",
        check=padding_changes_nothing,
        check_all=positions_are_only_names,
        applies=_is_larger,
        regimes={"distinct": 3},
        smooth=True,
        why="The batch in which the last group does not occur is normalised by another number.",
        example="groups = int(index.max()) + 1      # trailing groups without a member are dropped",
        mend="Take sizes from the context's shape, and divide by the sum of the weights.",
        source="torch_geometric, `num_nodes` against `index.max() + 1`.",
    ),
)
