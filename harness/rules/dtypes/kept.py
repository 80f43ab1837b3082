"""Rules about dtypes that are kept: D01, D05."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness.calls import tolerance, triton_interpreter
from harness.calls.evaluation import LossRaised
from harness.declare.spec import LossSpec
from harness.errors import NotApplicable, told_in_a_line
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools.detach import listed, placed
from harness.rules.tools.made import signs
from harness.rules.trial import Trial, contract, is_finite

HALF = (torch.float16, torch.bfloat16)


def short(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def asked(trial: Trial) -> tuple[torch.dtype, ...]:
    """The dtypes that the loss is held to: those that it declares, else all that are no wider than it takes."""
    widest = tolerance.eps_of(trial.precision.takes)
    found = trial.spec.dtypes or tuple(d for d in tolerance.PRECISIONS if tolerance.eps_of(d) >= widest)
    return tuple(d for d in found if d != torch.bfloat16) if triton_interpreter.is_on() else found


def usual(trial: Trial) -> torch.dtype:
    """The dtype of training: float32 where the loss is held to it, else the widest that it takes."""
    return torch.float32 if torch.float32 in asked(trial) else trial.precision.takes


def output_has_the_inputs_dtype(trial: Trial) -> Iterator[Mismatch]:
    """The output has the dtype of the inputs, and each gradient that of its input.

        dtype(L(x)) = dtype(x)   and   dtype(dL/dx) = dtype(x)   for float64, float32; float16, bfloat16

    Where dtypes are declared, by `LossSpec(dtypes=...)` or `Float32[Tensor, "B"]`, it is asked in those alone; an output
    of a declared dtype has that one, and one of a loss that computes in a dtype on purpose may have that.
    """
    trial.base  # noqa: B018 - a loss that raises in its widest dtype says nothing about dtypes
    declared = None if trial.spec.output is None else trial.spec.output.dtype
    for dtype in asked(trial):
        tensors = trial.tensors(dtype)
        half = dtype in HALF
        try:
            run = trial.run(tensors)
        except LossRaised as raised:
            yield Mismatch(
                f"loss in {short(dtype)}",
                told_in_a_line(raised.error),
                "a number",
                error=raised.error,
                aspect="half" if half else "raises",
                severity="note" if half and dtype not in trial.spec.dtypes else None,
                tensors=tensors,
                code="print(loss(**tensors))",
                hint="create constants and buffers with the inputs' dtype and device",
            )
            continue
        should = declared or dtype
        if run.output.dtype not in (should, trial.spec.computes_in):
            wider = tolerance.eps_of(run.output.dtype) < tolerance.eps_of(should)
            narrows = not wider and dtype == torch.float64
            places = _narrowed_at(trial) if narrows else ""
            meant = f"; {_on_purpose(trial)}" if narrows else ""
            mend = f"and cast the context to it at use, not in the constructor{meant}"
            if wider:
                mend = _widened(trial, run.output.dtype)
            yield Mismatch(
                f"loss.dtype in {short(dtype)}",
                short(run.output.dtype),
                short(should),
                aspect="half" if half else "output",
                kind="" if half or wider else "narrowed",
                severity="note" if half and wider else None,
                tensors=tensors,
                code="print(loss(**tensors).dtype)",
                hint=f"create accumulators with dtype=predictions.dtype, {mend}",
                note=f"digits are lost by {places}" if places else "",
            )


def _widened(trial: Trial, returned: torch.dtype) -> str:
    """What else mends a result that is too wide, and what to write where it is meant; that loosens no tolerance."""
    as_fine = tolerance.eps_of(returned) <= trial.precision.eps
    declares = f"then declare {declaration(trial.spec, 'computes_in', [returned])}"
    return (
        f"or cast the result back to it, unless the wider one is meant: {declares if as_fine else 'the note may stay'}"
    )


def float64_stays_float64(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """A float64 evaluation uses all 53 bits of its inputs, of its result and of its gradient.

        L(x) != L(round32(x)),      L(x) != round32(L(x))      and      dL/dx != round32(dL/dx)

    A tensor whose rounding to float32 never changes a single bit of the result was cast to float32 on the way.  Where
    only a summand was, the functions of torch are named that return fewer digits than they were given, on the graph of
    the loss, and the casts without which the value is another one, in a custom `torch.autograd.Function` too.  A kernel
    that computes in float32 on purpose declares it; every other rule is measured in the precision that is found.
    """
    for trial in trials[:1]:
        precision, spec = trial.precision, trial.spec
        if precision.refusal:
            yield _refused(trial)
        elif precision.takes != torch.float64:
            raise NotApplicable(f"float64 is not declared: the loss takes {', '.join(map(short, spec.dtypes))}")
        elif spec.computes_in is not None:
            yield from _coarser_than_declared(trial, spec.computes_in)
        else:
            found = _narrowed_result(trials) or _narrowed_inputs(trials) or _narrowed_on_the_way(trial)
            found = found or _narrowed_gradient(trials)
            if found is not None:
                yield found


def _refused(trial: Trial) -> Mismatch:
    taken = [dtype for dtype in asked(trial) if _runs_in(trial, dtype)]
    return Mismatch(
        "loss in float64",
        trial.precision.refusal,
        "a number",
        aspect="refused",
        tensors=trial.tensors(torch.float64),
        code="print(loss(**tensors))",
        hint=f"take float64 too, or declare the dtypes: {declaration(trial.spec, 'dtypes', taken)}",
        note=f"every other rule is checked in {short(trial.precision.takes)}",
    )


def _runs_in(trial: Trial, dtype: torch.dtype) -> bool:
    try:
        trial.run(trial.tensors(dtype))
    except LossRaised:
        return False
    return True


def declaration(spec: LossSpec, argument: str, dtypes: Sequence[torch.dtype]) -> str:
    """The line that declares dtypes, in a file or on the command line."""
    if spec.is_inline:
        return f"--{argument.replace('_', '-')} {','.join(map(short, dtypes))}"
    written = ", ".join(map(str, dtypes))
    several = f"({written}{',' if len(dtypes) == 1 else ''})"
    return f"LossSpec(..., {argument}={written if argument == 'computes_in' else several})"


def _coarser_than_declared(trial: Trial, declared: torch.dtype) -> Iterator[Mismatch]:
    shown = trial.precision.computes_in
    if tolerance.eps_of(shown) <= tolerance.eps_of(declared):
        raise NotApplicable(f"the loss computes in {short(declared)} on purpose, as it declares")
    yield Mismatch(
        "rounding of the loss in float64",
        f"that of {short(shown)}",
        f"that of {short(declared)}, as declared",
        aspect="result",
        kind="narrowed",
        tensors=trial.tensors(),
        code="print(loss(**tensors))",
        hint=f"widen what is computed in {short(shown)}, or declare {declaration(trial.spec, 'computes_in', [shown])}",
    )


def _on_purpose(trial: Trial) -> str:
    shown = trial.precision.computes_in
    meant = torch.float32 if shown == torch.float64 else shown
    return f"if that is meant, declare {declaration(trial.spec, 'computes_in', [meant])}"


def _narrowed_result(trials: Sequence[Trial]) -> Mismatch | None:
    results = [(trial, trial.base.output) for trial in trials]
    rich = [(t, o) for t, o in results if o.dtype == torch.float64 and o.numel() and not _few_bits(o)]
    if len(rich) < 2 or not all(bool((o == o.float().double()).all()) for _, o in rich):
        return None
    trial, output = rich[0]
    places = _narrowed_at(trial)
    return Mismatch(
        "loss in float64",
        f"{float(output.reshape(-1)[0])!r}, a float32 number, in {len(rich)} of {len(rich)} cases",
        "a number with 53 significant bits",
        aspect="result",
        kind="narrowed",
        tensors=trial.tensors(),
        code="value = total(loss(**tensors)).double(); print(value.item(), value.float().double().item())",
        hint=f"keep accumulators and constants in predictions.dtype; no .float() on the way; {_on_purpose(trial)}",
        note=f"{f'digits are lost by {places}; ' if places else ''}values are rounded as in {short(trial.precision.computes_in)}, and gradients are measured in that precision",
    )


def _narrowed_gradient(trials: Sequence[Trial]) -> Mismatch | None:
    """A gradient all of whose elements are float32 numbers, though the value is none: a backward that saved or computed those."""
    floating = [tensor.dtype for tensor in trials[0].tensors().values() if tensor.is_floating_point()]
    if any(dtype != torch.float64 for dtype in floating):
        return None  # what multiplies an input is its gradient
    for name in trials[0].spec.differentiable:
        given = [(trial, trial.base.gradients.get(name)) for trial in trials]
        rich = [(trial, g) for trial, g in given if g is not None and g.numel() and not _few_bits(g, 16)]
        if len(rich) > 1 and all(torch.equal(g, g.float().double()) for _, g in rich):
            trial, gradient = rich[0]
            return Mismatch(
                f"d loss / d {name} in float64",
                f"{float(gradient.reshape(-1)[0])!r}, a float32 number, as all of its elements in {len(rich)} of {len(rich)} cases",
                "numbers with 53 significant bits",
                aspect="gradient",
                kind="narrowed",
                tensor=name,
                tensors=trial.tensors(),
                code=f"""
                (gradient,) = torch.autograd.grad(total(loss(**tensors)), [tensors[{name!r}]])
                print(gradient, gradient.float().double())
                """,
                hint=f"a custom backward saves, or computes in, float32: keep the dtype of the inputs there; {_on_purpose(trial)}",
            )
    return None


def _few_bits(values: Tensor, most: int = 8) -> bool:
    """Whether the values are short numbers anyway: zeros, integers, halves."""
    scaled = torch.frexp(values).mantissa * 2.0**most
    return torch.equal(scaled, scaled.round())


def _narrowed_inputs(trials: Sequence[Trial]) -> Mismatch | None:
    free = [n for n, t in trials[0].spec.tensors.items() if t.domain.kind == "float" and t.dtype is None]
    found = {name: asked for name in free if (asked := _narrowed_input(trials, name)) is not None}
    if not found:
        return None
    name, trial = next(iter(found.items()))
    names, places = " and ".join(found), _narrowed_at(trial)
    cast = f"{names}: cast to float32 (.float(), torch.FloatTensor, a default-dtype constructor)"
    return Mismatch(
        f"loss in float64 with {names} rounded to float32{', one at a time' if len(found) > 1 else ''}",
        "the same number, bit for bit",
        "another number in the eighth digit",
        aspect=name,
        kind="narrowed",
        tensor=name,
        tensors=trial.tensors(),
        code=f"""
        print(total(loss(**tensors)).item())
        print(total(loss(**{{**tensors, {name!r}: tensors[{name!r}].detach().float().double()}})).item())
        """,
        hint=f"{f'digits are lost by {places}' if places else cast}; keep the dtype, and cast at use; {_on_purpose(trial)}",
    )


def _narrowed_input(trials: Sequence[Trial], name: str) -> Trial | None:
    """A case that depends on a tensor and whose value its rounding to float32 leaves alone, if there is no other kind."""
    asked: Trial | None = None
    for trial in trials:
        tensors = trial.tensors()
        rounded = tensors[name].float().double()
        if bool((rounded == tensors[name]).all()) or not is_finite(trial.base.output):
            continue
        nudged = {**tensors, name: tensors[name] * (1 + 1e-3 * signs(tensors[name]))}
        try:
            change = (trial.run(nudged, wrt=()).output - trial.base.output).abs()
            if not bool((change > 1e-9 * trial.base.output.abs()).any()):
                continue  # the value does not depend on it here: a weight that is divided by itself leaves the rounding of both
            same = torch.equal(trial.run({**tensors, name: rounded}, wrt=()).output, trial.base.output)
        except LossRaised:
            continue
        if not same:
            return None
        asked = asked or trial
    return asked


class _Narrowing(TorchFunctionMode):
    """Records where a function returns a tensor of fewer digits than one that it was given, on the graph of the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[Tensor, str]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "a function")
        made = args[0] if name == "__setitem__" else returned
        wide = [a for a in args if isinstance(a, Tensor) and a.dtype == torch.float64 and a.requires_grad]
        narrow = isinstance(made, Tensor) and made.requires_grad and made.dtype in (torch.float32, *HALF)
        if wide and narrow:
            self.made.append((made, placed(f"{name}()")))
        return returned

    def reached_by(self, trial: Trial, output: Tensor) -> tuple[str, bool]:
        """(up to three places on the graph of the output, whether one has 16 bits); not those of a log or a mask beside it."""
        if not output.requires_grad or not self.made:
            return "", False
        gradients = trial.differentiated(contract(output), [made for made, _ in self.made])
        reached = [pair for pair, gradient in zip(self.made, gradients, strict=True) if gradient is not None]
        return listed(place for _, place in reached), any(made.dtype in HALF for made, _ in reached)


class _WithoutCasts(TorchFunctionMode):
    """Leaves float64 tensors what they are where a function would cast them to fewer digits; whether on the graph or not."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name not in _CASTS or not isinstance(returned, Tensor) or args[0].dtype != torch.float64:
            return returned
        if returned.dtype not in (torch.float32, *HALF):
            return returned
        self.places.append(placed(f"{name}()"))
        return args[0]


_CASTS = ("to", "type", "type_as", "float", "half", "bfloat16")


def _cast_on_the_way(trial: Trial) -> str:
    """Where a cast to fewer digits changes the float64 value, of whatever tensor, in a custom Function too; else empty."""
    seen = _WithoutCasts()
    try:
        without = trial.run(trial.tensors(), wrt=(), mode=seen).output
    except LossRaised:  # a dtype that it relies on
        return ""
    same = without.shape == trial.base.output.shape and torch.equal(without, trial.base.output)
    return "" if same or not is_finite(without) else listed(seen.places)


def _narrowed_at(trial: Trial) -> str:
    """Where digits of any floating tensor are lost in the float64 evaluation; empty where no function of torch says so."""
    seen, tensors = _Narrowing(), trial.tensors()
    floating = tuple(name for name, tensor in tensors.items() if tensor.is_floating_point())
    try:
        return seen.reached_by(trial, trial.output(trial.leaves(tensors, floating), mode=seen))[0]
    except (LossRaised, RuntimeError):  # some losses refuse targets that require grad
        return ""


def _narrowed_on_the_way(trial: Trial) -> Mismatch | None:
    seen = _Narrowing()
    tensors = trial.tensors()
    output = trial.output(trial.leaves(tensors), mode=seen)
    if output.dtype != torch.float64:
        return None  # what is no float64 in the end is D01's
    places, coarse = seen.reached_by(trial, output)
    places = places or _cast_on_the_way(trial)
    if not places:
        return None
    return Mismatch(
        "a part of the loss in float64",
        f"computed in fewer digits, by {places}",
        "in float64 from the first operation to the last",
        aspect="on the way, in 16 bits" if coarse else "on the way",
        kind="narrowed",
        severity="error" if coarse else None,  # no slope of it can be measured: G01 finds another gradient
        tensors=tensors,
        code="value = total(loss(**tensors))\nprint(value.item(), value.grad_fn)",
        hint="keep the dtype of the inputs; where float16 needs a wider accumulator, widen only: torch.promote_types(x.dtype, "
        f"torch.float32); {_on_purpose(trial)}",
    )


def has_float(spec: LossSpec, name: str) -> str | None:
    """Why a rule about floating dtypes does not apply to a loss."""
    return None if any(t.is_floating for t in spec.tensors.values()) else "the loss has no floating tensor"


RULES = (
    Rule(
        code="D01",
        title="output and gradient keep the inputs' dtype",
        group="dtypes",
        severity="error",
        check=output_has_the_inputs_dtype,
        applies=has_float,
        regimes={"distinct": 2},
        smooth=True,
        why="A loss that returns another dtype breaks mixed precision, torch.compile and every comparison in float64.",
        example="total = torch.zeros(())            # the default dtype, whatever the inputs have",
        mend="`predictions.new_zeros(())`, or cast the result back with `.to(predictions.dtype)`.",
        source="array API standard, type promotion; kornia's test base class.",
    ),
    Rule(
        code="D05",
        title="float64 stays float64",
        group="dtypes",
        severity="warning",
        check_all=float64_stays_float64,
        applies=has_float,
        regimes={"distinct": 4},
        smooth=True,
        why=(
            "A hidden float32 in a float64 computation makes gradcheck fail, or pass with a tolerance that hides real errors. "
            "The gradient is measured in the precision that the values show; what that cannot show is not passed."
        ),
        example="self.weights = weights.float()      # eight digits are gone before the first batch",
        mend=(
            "Store the context in the dtype that came; cast to the predictions' dtype where it is used. A kernel for float32 "
            "declares `LossSpec(computes_in=torch.float32)`, one that refuses float64 `LossSpec(dtypes=(torch.float32,))`."
        ),
        source="pytorch/pytorch#5351.",
    ),
)
