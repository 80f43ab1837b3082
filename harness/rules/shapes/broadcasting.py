"""Rules about shapes and layouts: B01, B03, B04, B06."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from harness.calls.evaluation import LossRaised
from harness.declare import dims
from harness.declare.spec import LossSpec
from harness.drawing.case import LAYOUTS, Case, lay_out
from harness.errors import NotApplicable, refuses_in_place, told, told_in_a_line
from harness.rules.rule import ENDS_A_DEVICE, Mismatch, Rule
from harness.rules.tools import sides
from harness.rules.tools.compare import same_gradients, same_output
from harness.rules.tools.symbols import permuted, symbol_axes
from harness.rules.trial import Trial, WrongReturn


def shapes_text(tensors: Mapping[str, Tensor]) -> str:
    """Shapes as they stand in messages."""
    return ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())


def unit_symbols(spec: LossSpec, case: Case) -> list[str]:
    """Symbols of size one in a case that may be larger."""
    ones = [s for s, size in case.sizes.items() if size == 1 or (isinstance(size, tuple) and 1 in size)]
    return [symbol for symbol in ones if symbol not in spec.fixed_sizes]


def declared_shapes_are_accepted(trial: Trial) -> Iterator[Mismatch]:
    """Every declared shape is accepted, and the output has its declared shape.

    L: shapes(inputs) x shapes(context) -> shape(output)
    """
    tensors = trial.tensors()
    try:
        output = trial.base.output
    except LossRaised as raised:
        if unit_symbols(trial.spec, trial.case):
            raise NotApplicable("the loss raises on a size of one; see B05") from raised
        yield _raised(raised.error, tensors)
        return
    spec = trial.spec
    if spec.output is None:
        return
    try:
        should = dims.shape(spec.output.dims, trial.case.sizes)
    except KeyError as missing:
        raise NotApplicable(f"the output's dims name {missing}, which no input binds") from missing
    if tuple(output.shape) != should:
        yield Mismatch(
            "loss.shape",
            str(list(output.shape)),
            str(list(should)),
            aspect="output",
            kind="shape",
            tensors=tensors,
            code="print(loss(**tensors).shape)",
            hint=f"if the loss is meant to return this, declare output=TensorSpec(...) instead of {spec.output.dims!r}",
        )


def _raised(error: BaseException, tensors: Mapping[str, Tensor]) -> Mismatch:
    """What the loss raised on declared shapes, with the hint that fits what it says."""
    came, should, hint = (
        told_in_a_line(error),
        "a number",
        "mend the loss, or narrow the declaration if the input is not legal; `loss-harness explain custom`: tensors that depend on others",
    )
    if isinstance(error, WrongReturn):
        came, should, hint = error.came, error.should, error.mend
    elif refuses_in_place(error):
        hint = "use the out-of-place operation: x = x + y instead of x += y, x.clamp(...) instead of x.clamp_(...)"
    elif isinstance(error, ImportError):
        hint = "install what the loss imports beside the harness, in the same environment"
    elif "backward through the graph a second time" in told(error):
        hint = (
            "an inner torch.autograd.grad frees the graph that it goes through: give it create_graph=True where its result is "
            "differentiated again, else retain_graph=True"
        )
    elif re.search(r"\bout of (bounds|range)\b", told(error)):
        hint = "make room for every position that the domain allows, or narrow the domain if such are not legal, as in 'B index(3)'"
    elif isinstance(error, (RuntimeError, ValueError)) and re.search(r"\b(shapes?|sizes?|dimensions?)\b", told(error)):
        hint = (
            "take sizes from the tensors; if these shapes are not legal, narrow the dims: a number for a size that is fixed, as in 'B 3', "
            "a computed size such as 'N+1', or one symbol for two sizes that must be equal"
        )
    code = "print(loss(**tensors))"
    return Mismatch("loss", came, should, aspect="raises", error=error, tensors=tensors, code=code, hint=hint)


def variants(trial: Trial, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str, Tensor]]:
    """(name, change, tensor) for every tensor with an extra or a missing axis, an axis of size one, or swapped axes."""
    for name, tensor in tensors.items():
        if name in trial.candidate.constructed and not trial.candidate.called:
            continue
        yield name, "an extra trailing axis of size 1", tensor.unsqueeze(-1)
        yield name, "an extra leading axis of size 1", tensor.unsqueeze(0)
        for axis in range(tensor.ndim):
            if tensor.shape[axis] > 1:
                yield name, f"size 1 on axis {axis}", tensor.narrow(axis, 0, 1)
                yield name, f"no axis {axis}", tensor.select(axis, 0)
        for axis in range(tensor.ndim - 1):
            if tensor.shape[axis] != tensor.shape[axis + 1]:
                yield name, f"axes {axis} and {axis + 1} swapped", tensor.transpose(axis, axis + 1)


def _is_declared(trial: Trial, tensors: Mapping[str, Tensor]) -> bool:
    all_dims = {name: tensor.dims for name, tensor in trial.spec.tensors.items()}
    try:
        dims.unify(all_dims, {name: tuple(t.shape) for name, t in tensors.items()}, trial.spec.fixed_sizes)
    except ValueError:
        return False
    return True


def undeclared_shapes_are_refused(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """A shape that is not declared is refused, not silently broadcast to another number.

        L(x) raises for shape(x) outside the declaration

    One tensor of a valid draw is reshaped.  Acceptance with the right number is harmless; with a Python warning, a note.
    What is missing is one check of the shapes: all tensors that need it are one finding.
    """
    accepted: dict[str, _Accepted] = {}
    for trial in sorted(trials, key=lambda trial: trial.case.numel(trial.spec)):
        yield from _error_inputs(trial, trial.tensors())
        for found in _accepted(trial, set(accepted)):
            accepted[found.name] = found
    for warned in (False, True):
        if alike := [found for found in accepted.values() if found.warned == warned]:
            yield _broadcast_silently(alike[0], alike[1:])


@dataclass(frozen=True)
class _Accepted:
    """An undeclared shape that gave another number, with or without a Python warning."""

    trial: Trial
    name: str
    change: str
    tensors: Mapping[str, Tensor]
    output: Tensor
    warned: bool


def _accepted(trial: Trial, known: set[str]) -> Iterator[_Accepted]:
    """The first shape of each tensor that is accepted, those of ``known`` left out."""
    tensors, base, seen = trial.tensors(), trial.base, set(known)
    for name, change, tensor in variants(trial, tensors):
        changed = {**tensors, name: tensor.contiguous()}
        if name in seen or _is_declared(trial, changed):
            continue
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                output = trial.run(changed, wrt=()).output
            except LossRaised:
                continue
        if output.shape == base.output.shape and same_output(output, base.output, trial.scale) is None:
            continue
        seen.add(name)
        yield _Accepted(trial, name, change, changed, output, bool(said))


def _broadcast_silently(first: _Accepted, others: Sequence[_Accepted]) -> Mismatch:
    name, output = first.name, first.output
    also = ", ".join(f"{one.name} with {one.change}" for one in others)
    return Mismatch(
        f"loss for {name} with {first.change} ({shapes_text(first.tensors)})",
        f"a silent result of shape {list(output.shape)}" if output.ndim else f"{float(output):.4g}",
        "a ValueError that names both shapes",
        severity="note" if first.warned else None,
        tensors=first.tensors,
        sizes=first.trial.case.sizes,
        code="print(loss(**tensors))",
        hint=f"check the shapes first; if {name} may broadcast, declare it: '#{_first_symbol(first.trial, name)}' in its dims",
        note=f"accepted too: {also}" if also else "",
    )


def _first_symbol(trial: Trial, name: str) -> str:
    parsed, lists = dims.parse(trial.spec.tensors[name].dims), trial.spec.list_lengths
    return next((dim.symbol for dim in parsed if dim.symbol and dim.symbol not in lists), "B")


def _error_inputs(trial: Trial, tensors: Mapping[str, Tensor]) -> Iterator[Mismatch]:
    for bad in trial.spec.error_inputs:
        changed = {**tensors, **bad.change(dict(tensors))}
        should = f"{bad.exception.__name__} matching {bad.match!r}"
        error: BaseException | None = None
        try:
            came = f"a result of shape {list(trial.run(changed, wrt=()).output.shape)}"
        except LossRaised as raised:
            if isinstance(raised.error, bad.exception) and re.search(bad.match, str(raised.error)):
                continue
            came, error = told_in_a_line(raised.error), raised.error
        yield Mismatch(
            f"loss for the declared bad input {bad.name!r} ({shapes_text(changed)})",
            came,
            should,
            aspect=f"error input {bad.name}",
            error=error,
            severity="error",
            tensors=changed,
            code="print(loss(**tensors))",
            hint="raise it before anything is computed",
        )


def coincident_sizes_follow_the_same_law(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """Sizes that happen to be equal change nothing: a law that holds for distinct sizes holds for equal ones too.

        L(P X) = L(X) at B != C   implies   L(P X) = L(X) at B = C

    Which laws hold is learned from the cases with distinct sizes: the loss keeps its value when one symbol's axis is
    permuted in all tensors together.  A wrong axis that only equal sizes let through breaks it.
    """
    distinct = [trial for trial in trials if trial.case.regime != "coincident"]
    coincident = [trial for trial in trials if trial.case.regime == "coincident"]
    if not any(trial.case.sizes for trial in coincident):
        raise NotApplicable("the loss has no sizes that can coincide")
    learned = [
        symbol for symbol in (*trials[0].spec.symbols, *trials[0].spec.variadic) if _always_holds(distinct, symbol)
    ]
    if not learned:
        raise NotApplicable("no permutation law holds at distinct sizes, so none can be expected at equal ones")
    broken: dict[str, Mismatch] = {}
    for trial in coincident:
        for symbol in learned:
            if symbol not in broken and (mismatch := _permutation_changes(trial, symbol)) is not None:
                broken[symbol] = mismatch
    if broken:
        first, *others = broken
        yield replace(broken[first], note=f"so does permuting {' and '.join(others)}" if others else "")


def _always_holds(trials: Sequence[Trial], symbol: str) -> bool:
    asked = 0
    for trial in trials:
        try:
            if not symbol_axes(trial.spec, trial.case, symbol):
                continue
            changed = _permutation_changes(trial, symbol)
        except (LossRaised, NotApplicable):
            continue
        if changed is not None:
            return False
        asked += 1
    return asked >= 2


def _permutation_changes(trial: Trial, symbol: str) -> Mismatch | None:
    tensors = trial.tensors()
    try:
        moved = permuted(trial, tensors, symbol)
        output = trial.run(moved, wrt=()).output
        base = trial.base
    except (LossRaised, NotApplicable):
        return None
    if output.ndim or not bool(base.output.isfinite().all()):
        return None
    mismatch = same_output(output, base.output, trial.scale)
    if mismatch is None:
        return None
    sizes = ", ".join(f"{k}={v}" for k, v in trial.case.sizes.items())
    return replace(
        mismatch,
        where=f"loss with {symbol} permuted in all tensors, at coincident sizes ({sizes})",
        tensors=tensors,
        code=sides.compared(
            sides.permutation(trial, tensors, symbol), replace(mismatch, aspect="value"), [], base.output.ndim
        ),
        hint="a tensor is applied along the wrong axis where sizes are equal; index its axis explicitly, e.g. w.view(-1, *[1] * (x.ndim - 1))",
    )


def layout_does_not_matter(trial: Trial) -> Iterator[Mismatch]:
    """Strides and offsets do not matter: value and gradient depend on the numbers only.

    L(x) = L(x.contiguous())   for x transposed, strided, offset, expanded or channels_last
    """
    tensors = trial.tensors()
    for name, tensor in tensors.items():
        for layout in LAYOUTS[1:]:
            laid_out = lay_out(tensor, layout)
            if laid_out.is_contiguous() and laid_out.storage_offset() == 0:
                continue
            changed, plain = {**tensors, name: laid_out}, {**tensors, name: laid_out.contiguous()}
            mismatch = _differs(trial, changed, plain)
            if mismatch is not None:
                yield replace(
                    mismatch,
                    where=f"{mismatch.where} with {name} {layout} (strides {list(laid_out.stride())})",
                    aspect=name,
                    tensors=plain,
                    code=_layout_code(name, layout),
                    hint="use reshape instead of view, and no in-place operation on what the caller gave",
                )
                break


def _layout_code(name: str, layout: str) -> str:
    made = {
        "transposed": f"tensors[{name!r}].transpose(0, -1).contiguous().transpose(0, -1)",
        "strided": f"torch.stack([tensors[{name!r}]] * 2, dim=-1).flatten(-2)[..., ::2]",
        "offset": f"torch.cat([tensors[{name!r}].new_zeros(3), tensors[{name!r}].reshape(-1)])[3:].view(tensors[{name!r}].shape)",
        "expanded": f"tensors[{name!r}][..., :1].expand(tensors[{name!r}].shape)",
        "channels_last": f"tensors[{name!r}].movedim(1, -1).contiguous().movedim(-1, 1)",
    }[layout]
    return f"""
        print(loss(**tensors))
        changed = {made}.detach()
        print(loss(**{{**tensors, {name!r}: changed}}))
    """


def _differs(trial: Trial, changed: Mapping[str, Tensor], plain: Mapping[str, Tensor]) -> Mismatch | None:
    base = trial.run(plain)
    try:
        run = trial.run(changed)
    except LossRaised as raised:
        return Mismatch(
            "loss", told_in_a_line(raised.error), f"{base.scalar:.4g}, as for the contiguous tensor", error=raised.error
        )
    mismatch = same_output(run.output, base.output, trial.scale)
    if mismatch is not None or not base.finite:
        return mismatch
    return same_gradients(run.gradients, base.gradients, plain, trial, trial.scale)


RULES = (
    Rule(
        code="B01",
        title="declared shapes are accepted and give the declared output",
        group="broadcasting",
        severity="error",
        check=declared_shapes_are_accepted,
        regimes={"distinct": 8, "coincident": 3, "unit": 4, "large": 2},
        why="A loss that works for one batch size fails on the short last batch of an epoch.",
        example="self.mask = torch.eye(2 * batch_size)      # built for the constructor's batch size",
        mend="Take sizes from the tensors at hand; broadcast explicitly with named axes.",
        source="JAX and NumPy broadcasting rules; jaxtyping's dims.",
    ),
    Rule(
        code="B03",
        title="undeclared shapes are refused, not silently broadcast",
        group="broadcasting",
        severity="warning",
        check_all=undeclared_shapes_are_refused,
        regimes={"distinct": 2},
        smooth=True,
        on_the_cpu=ENDS_A_DEVICE,
        is_of_the_loss=True,
        why="[B, 1] predictions against [B] labels make a [B, B] matrix: the mean of it is a plausible number, and a wrong one.",
        example="return ((predictions - labels) ** 2).mean()      # [B, 1] - [B] is [B, B]",
        mend="Compare shapes first and raise a ValueError that names both.",
        source="pytorch/pytorch#16045; pytorch/pytorch#4938.",
    ),
    Rule(
        code="B04",
        title="coincident sizes follow the same law as distinct ones",
        draws_anew="a tensor of another shape draws other numbers",
        group="broadcasting",
        severity="error",
        check_all=coincident_sizes_follow_the_same_law,
        regimes={"distinct": 5, "coincident": 4},
        smooth=True,
        why="Where two sizes are equal, a weight may run along the wrong axis and nothing raises.",
        example="weights.view(-1, 1) * error      # error [B, C, D] with C = B: the weights run along C",
        mend="Give the weight all axes of what it weighs, with 1 where it does not vary.",
        source="pytorch/pytorch#5157.",
    ),
    Rule(
        code="B06",
        title="memory layout does not matter",
        draws_anew="a tensor of another layout draws the same numbers in another order",
        group="broadcasting",
        severity="error",
        check=layout_does_not_matter,
        regimes={"distinct": 2},
        smooth=True,
        why="A transposed or sliced batch raises in `view`, or is read as if it were contiguous.",
        example="flat = labels.view(-1)      # fails for a transposed tensor",
        mend="Use reshape; in kernels, pass strides or call contiguous().",
        source="PyTorch, 'Tensor Views'.",
    ),
)
