"""Rules about dtypes and precision: D01, D02, D05."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness.calls import tolerance, triton_interpreter
from harness.calls.evaluation import LossRaised
from harness.declare.domains import LARGE, Domain
from harness.declare.spec import LossSpec
from harness.errors import NotApplicable
from harness.rules.rule import Mismatch, Partly, Rule
from harness.rules.shapes.broadcasting import first_line
from harness.rules.tools.compare import differing
from harness.rules.tools.detach import placed
from harness.rules.tools.made import directions, signs
from harness.rules.tools.special import far_cases, near_cases, special_cases
from harness.rules.trial import Run, Scale, Trial, contract

HALF = (torch.float16, torch.bfloat16)
_ROUNDINGS = 8  # a tie that is seen one way in two escapes them one time in 256
_RANGE_MARGIN = 16.0  # a sum of squares may pass the largest number that was met by this much


def short(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def asked(trial: Trial) -> tuple[torch.dtype, ...]:
    """The dtypes that the loss is held to: those that it declares, else all that are no wider than it takes."""
    widest = tolerance.eps_of(trial.precision.takes)
    found = trial.spec.dtypes or tuple(d for d in tolerance.PRECISIONS if tolerance.eps_of(d) >= widest)
    return tuple(d for d in found if d != torch.bfloat16) if triton_interpreter.is_on() else found


def output_has_the_inputs_dtype(trial: Trial) -> Iterator[Mismatch]:
    """The output has the dtype of the inputs, and each gradient that of its input.

        dtype(L(x)) = dtype(x)   and   dtype(dL/dx) = dtype(x)   for float64, float32; float16, bfloat16

    Where dtypes are declared, by `LossSpec(dtypes=...)` or `Float32[Tensor, "B"]`, it is asked in those alone; an output
    of a declared dtype has that one.
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
                first_line(raised.error),
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
        if run.output.dtype != should:
            wider = tolerance.eps_of(run.output.dtype) < tolerance.eps_of(should)
            places = "" if wider or dtype != torch.float64 else _narrowed_at(trial)
            yield Mismatch(
                f"loss.dtype in {short(dtype)}",
                short(run.output.dtype),
                short(should),
                aspect="half" if half else "output",
                kind="" if half or wider else "narrowed",
                severity="note" if half and wider else None,
                tensors=tensors,
                code="print(loss(**tensors).dtype)",
                hint="create accumulators with dtype=predictions.dtype, and cast the context to it at use, not in the constructor",
                note=f"digits are lost by {places}" if places else "",
            )


def low_precision_is_as_accurate_as_the_condition_allows(trial: Trial) -> Iterator[Mismatch | Partly]:
    """In float32, bfloat16 and float16 the value is as near to the float64 run as its condition number allows.

        |L_low(x) - L_64(x)| <= c eps (|L| + sum_i |x_i dL/dx_i|)      x rounded to the low precision first

    A loss that refuses float64 is compared with its widest dtype.  Where the rounding of intermediates, eps
    max|intermediate|, explains the difference, it is a note.  Where all numbers of the wide run fit the low precision, the
    low-precision run must be finite too, and so must its gradient.  Among the points are tensors that nearly coincide, and
    values of one tensor with a large mean and a small spread, where rounding of the values themselves may explain the
    difference, that of their squares not: a spread can be had from differences.  Where the value has its digits, the
    gradient is held to the float64 one, as near as it stays where the inputs and the intermediates are rounded.
    Source: Higham, Accuracy and Stability of Numerical Algorithms, section 1.6.
    """
    trial.base  # noqa: B018
    widest = tolerance.eps_of(trial.precision.takes)
    narrower = [dtype for dtype in asked(trial) if tolerance.eps_of(dtype) > widest]
    if not narrower:
        raise NotApplicable(f"the loss takes {', '.join(map(short, asked(trial)))} alone")
    points = [("generic values", trial.case)]
    if trial.exhaustive:
        points += [*special_cases(trial.spec, trial.case), *near_cases(trial.spec, trial.case)]
    for dtype in narrower:
        worst: dict[str, Mismatch] = {}
        # Numbers of float16 and bfloat16 cannot be far from the origin and that near each other.
        far = far_cases(trial.spec, trial.case) if trial.exhaustive and dtype == torch.float32 else ()
        for (point, case), floor in (*((p, math.inf) for p in points), *((p, LARGE) for p in far)):
            mismatch = _low_precision(trial.at(case), dtype, point, floor)
            if mismatch is not None and (mismatch.aspect not in worst or worst[mismatch.aspect].severity == "note"):
                worst[mismatch.aspect] = mismatch
        yield from worst.values()
    if triton_interpreter.is_on():
        yield Partly(triton_interpreter.BFLOAT16)


def _below_normal(trial: Trial, dtype: torch.dtype) -> bool:
    """Whether an input is so small that the dtype holds it with fewer bits, or not at all."""
    key = ("least", trial.case.key)
    if key not in trial.cache:
        sizes = [t[t != 0].abs() for t in trial.tensors().values() if t.is_floating_point()]
        trial.cache[key] = min((float(size.min()) for size in sizes if size.numel()), default=1.0)
    least: float = trial.cache[key]
    return least < torch.finfo(dtype).smallest_normal


def _moved(trial: Trial, dtype: torch.dtype) -> list[Domain]:
    """The domains of the tensors that stand at a special point, in float32."""
    names = [name for name, recipe in trial.case.tensors.items() if recipe.point is not None]
    return [trial.spec.tensors[name].domain for name in names] if dtype == torch.float32 else []


def _saturated(trial: Trial, dtype: torch.dtype) -> bool:
    """Whether logits are at a special point in float32: they may saturate, and a plain exp of them overflows there only."""
    return any(domain.text == "logits()" for domain in _moved(trial, dtype))


def _bounds_are_declared(trial: Trial, dtype: torch.dtype) -> bool:
    """Whether a tensor is at a special point of an interval that is declared to reach far, in float32."""
    return any(LARGE < max(abs(d.low), abs(d.high)) < math.inf for d in _moved(trial, dtype))


def _low_precision(trial: Trial, dtype: torch.dtype, point: str, floor: float) -> Mismatch | None:
    """What is off in a dtype at a point; ``floor`` is the largest intermediate that may explain it."""
    tensors = trial.tensors(dtype)
    if _below_normal(trial, dtype):
        return None
    widened = trial.widened(tensors)
    # At ties, and where most elements are zero, any element of a gradient may be of the size of rounding.
    generic = all(recipe.point is None for recipe in trial.case.tensors.values())
    try:
        run = trial.run(tensors)
        exact = trial.run(widened, wrt=None if generic or not run.finite else ())
    except LossRaised:
        return None
    if not bool(exact.output.isfinite().all()) or exact.output.shape != run.output.shape or not exact.output.numel():
        return None
    eps, size = max(tolerance.eps_of(dtype), trial.eps), float(exact.output.abs().max())
    if run.finite and float((run.output.double() - exact.output).abs().max()) <= tolerance.forward_error(
        eps, size, 0.0
    ):  # the condition number could only allow more
        if not generic or not exact.finite:
            return None
        return _inaccurate_gradient(trial, run, exact, dtype, f"with {point} in {short(dtype)}", eps, widened)
    if not generic and run.finite:
        exact = trial.run(widened)
    if not exact.finite:
        return None
    scale = trial.measure_scale(widened)
    named = _saturated(trial, dtype) or _bounds_are_declared(trial, dtype)
    if scale.intermediate * _RANGE_MARGIN > torch.finfo(dtype).max and not named:
        return None
    where = f"with {point} in {short(dtype)}"
    found = (
        _not_finite(run, exact, dtype, where, _bounds_are_declared(trial, dtype))
        if not run.finite
        else _inaccurate(run, exact, dtype, where, eps, scale, floor)
    )
    return None if found is None else replace(found, tensors=tensors, code=_PRECISION_CODE)


def _not_finite(run: Run, exact: Run, dtype: torch.dtype, where: str, declared: bool) -> Mismatch | None:
    limit = torch.finfo(dtype)
    bad_value = not bool(run.output.isfinite().all())
    largest = [float(g.abs().max()) for g in exact.gradients.values() if g is not None and g.numel()]
    needed = float(exact.output.abs().max()) if bad_value else max(largest, default=0.0)
    if needed > limit.max and declared:
        return Mismatch(
            f"loss {where}" if bad_value else f"gradient {where}",
            "NaN or infinite",
            f"{needed:.3g}, as in float64, which {short(dtype)} cannot hold",
            aspect=f"range of {short(dtype)}",
            kind="value" if bad_value else "gradient",
            finite=False,
            hint="declare the bounds of what the loss is given in training, or return the logarithm of such numbers",
        )
    if needed * _RANGE_MARGIN > limit.max:
        return None
    return Mismatch(
        f"loss {where}" if bad_value else f"gradient {where}",
        "NaN or infinite",
        "finite, as in float64",
        aspect=f"finite {short(dtype)}",
        kind="value" if bad_value else "gradient",
        finite=False,
        severity="error" if dtype == torch.float32 else "warning",
        hint=f"an epsilon below {limit.eps:.1g} vanishes beside 1 (below {limit.smallest_normal:.1g} it is 0), and differences of large numbers cancel",
    )


def _inaccurate(
    run: Run, exact: Run, dtype: torch.dtype, where: str, eps: float, scale: Scale, floor: float
) -> Mismatch | None:
    value, should = run.output.double().reshape(-1), exact.output.double().reshape(-1)
    off = (value - should).abs()
    largest, least = float(should.abs().max()), torch.finfo(dtype).smallest_normal
    allowed = tolerance.forward_error(eps, largest, scale.condition) + least
    worst = int(off.argmax())
    if float(off[worst]) <= allowed:
        return None
    explained = float(off[worst]) <= tolerance.forward_error(eps, min(scale.intermediate, floor), 0.0)
    return replace(
        differing(f"loss {where}", float(value[worst]), float(should[worst]), float(off[worst]), allowed),
        aspect=f"accuracy {short(dtype)}",
        severity="note" if explained else "warning",
        hint="accumulate in float32, subtract before squaring, and use logsumexp, log1p, softplus where they fit",
    )


def _inaccurate_gradient(
    trial: Trial, run: Run, exact: Run, dtype: torch.dtype, where: str, eps: float, widened: dict[str, Tensor]
) -> Mismatch | None:
    """A gradient that has lost digits where the value has not, by more than it moves where inputs and intermediates are rounded.

    That of a cosine with itself is a difference of equal numbers, and that of exp(z) is off by eps |z| of itself, however
    they are computed; what is lost in the backward alone is a defect.

    Elements are held to the largest one: what is small beside it, as 1 - p of a probability near 1, moves no weight.
    """
    pairs = {n: (run.gradients.get(n), g) for n, g in exact.gradients.items() if g is not None and g.numel()}
    largest = max((float(g.abs().max()) for _, g in pairs.values()), default=0.0)
    off = {n: (g.double() if mine is None else mine.double() - g).abs() for n, (mine, g) in pairs.items()}
    name = max(off, key=lambda n: float(off[n].max()), default="")
    allowed = tolerance.forward_error(eps, largest, 0.0) + torch.finfo(dtype).smallest_normal
    if not name or float(off[name].max()) <= allowed:
        return None
    index = tuple(int(i) for i in torch.unravel_index(off[name].argmax(), off[name].shape))
    moved = 0.0
    for change in _moved_by_rounding(trial, widened, exact, eps):
        moved = max(moved, tolerance.LOW_PRECISION_FACTOR * change)
        if float(off[name][index]) <= allowed + moved:
            return None
    allowed += moved
    mine, theirs = pairs[name]
    came = 0.0 if mine is None else float(mine[index])
    found = differing(
        f"d loss / d {name}{list(index) if index else ''} {where}",
        came,
        float(theirs[index]),
        float(off[name][index]),
        allowed,
    )
    return replace(
        found,
        aspect=f"gradient {short(dtype)}",
        kind="gradient",
        tensor=name,
        tensors=trial.tensors(dtype),
        code=_PRECISION_CODE,
        hint="the value is right: look in the backward for a difference of large numbers, or for a square root or a quotient of "
        "what is nearly 0, and compute it in float32 or without the difference",
    )


def _moved_by_rounding(trial: Trial, tensors: dict[str, Tensor], exact: Run, eps: float) -> Iterator[float]:
    """The most that an element of the gradient moves where inputs and intermediates are rounded, in one way after another."""
    for salt in range(81, 81 + 2 * _ROUNDINGS):
        generator = trial.generator(salt)
        intermediates = _Rounded(eps, generator) if salt >= 81 + _ROUNDINGS else None
        rounded = {
            n: t * (1 + eps * directions(t, generator)) if t.is_floating_point() else t.clone()
            for n, t in tensors.items()
        }
        try:
            gradients = trial.run(rounded, mode=intermediates).gradients
        except LossRaised:
            yield math.inf  # a bound was passed
            return
        pairs = [(gradient, exact.gradients[name]) for name, gradient in gradients.items()]
        moved = [(g - before).abs() for g, before in pairs if g is not None and before is not None and g.numel()]
        yield max((float(torch.nan_to_num(m, math.inf).max()) for m in moved), default=0.0)


class _Rounded(TorchFunctionMode):
    """Rounds what each function of torch returns on the graph of the loss, by eps up or down; no view and no edit in place.

    The gradient goes through the same rounding.  A custom backward and what is inside a kernel are left as they are.
    """

    def __init__(self, eps: float, generator: torch.Generator) -> None:
        super().__init__()
        self.eps, self.generator = eps, generator

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        if not isinstance(returned, Tensor) or not returned.is_floating_point() or not returned.requires_grad:
            return returned
        if returned.is_leaf or returned._is_view() or any(returned is a for a in args):
            return returned
        return returned * (1 + self.eps * directions(returned.detach(), self.generator))


_PRECISION_CODE = """
    exact = {n: t.detach().double().requires_grad_(t.requires_grad) if t.is_floating_point() else t for n, t in tensors.items()}
    for given in (tensors, exact):
        value = total(loss(**given))
        value.backward()
        print(value.dtype, value.item(), [t.grad for t in given.values() if t.requires_grad])
"""


def float64_stays_float64(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """A float64 evaluation uses all 53 bits of its inputs and of its result.

        L(x) != L(round32(x))      and      L(x) != round32(L(x))

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


def _few_bits(values: Tensor) -> bool:
    """Whether the values are short numbers anyway (zeros, integers, halves)."""
    return bool((values == values.to(torch.bfloat16).double()).all())


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
        if bool((rounded == tensors[name]).all()) or not bool(trial.base.output.isfinite().all()):
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
        places = list(dict.fromkeys(place for _, place in reached))[:3]
        return ", ".join(places), any(made.dtype in HALF for made, _ in reached)


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
    return "" if same or not bool(without.isfinite().all()) else ", ".join(list(dict.fromkeys(seen.places))[:3])


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


def _has_float(spec: LossSpec, name: str) -> str | None:
    return None if any(t.domain.kind == "float" for t in spec.tensors.values()) else "the loss has no floating tensor"


RULES = (
    Rule(
        code="D01",
        title="output and gradient keep the inputs' dtype",
        group="dtypes",
        severity="error",
        check=output_has_the_inputs_dtype,
        applies=_has_float,
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
        applies=_has_float,
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
    Rule(
        code="D02",
        title="low precision is as accurate as the condition number allows",
        draws_anew="another dtype draws other numbers",
        group="dtypes",
        severity="warning",
        check=low_precision_is_as_accurate_as_the_condition_allows,
        applies=_has_float,
        regimes={"distinct": 2, "unit": 1},
        smooth=True,
        why="A loss that is right in float64 gives NaN or noise in the dtype in which it is trained.",
        example="d2 = (a * a).sum(-1) + (b * b).sum(-1) - 2 * (a * b).sum(-1)   # cancels, may be negative: sqrt gives NaN",
        mend="Use forms that do not cancel or overflow: (a - b) first, logsumexp, log1p, an epsilon that the dtype can hold.",
        source="Higham, Accuracy and Stability of Numerical Algorithms, chapters 1 to 3.",
    ),
)
