"""Rules about dtypes and precision: D01, D02, D05."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness import tolerance
from harness.evaluation import LossRaised
from harness.rules.broadcasting import first_line
from harness.rules.detach import user_line
from harness.rules.rule import Mismatch, Rule
from harness.rules.special import near_cases, special_cases
from harness.rules.trial import Run, Trial, contract
from harness.spec import LossSpec

WIDE = (torch.float32, torch.float64)
HALF = (torch.float16, torch.bfloat16)
_RANGE_MARGIN = 16.0  # a sum of squares may pass the largest number that was met by this much


def short(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def output_has_the_inputs_dtype(trial: Trial) -> Iterator[Mismatch]:
    """The output has the dtype of the inputs, and each gradient that of its input.

    dtype(L(x)) = dtype(x)   and   dtype(dL/dx) = dtype(x)   for float32, float64; bfloat16, float16
    """
    trial.base  # noqa: B018 - a loss that raises in float64 says nothing about dtypes
    for dtype in (*WIDE, *HALF):
        tensors = trial.tensors(dtype)
        half = dtype in HALF
        try:
            run = trial.run(tensors)
        except LossRaised as raised:
            yield Mismatch(
                f"loss in {short(dtype)}",
                first_line(raised.error),
                "a number",
                aspect="half" if half else "raises",
                severity="note" if half else None,
                tensors=tensors,
                code="print(loss(**tensors))",
                hint="create constants and buffers with the inputs' dtype and device",
            )
            continue
        if run.output.dtype != dtype:
            wider = torch.finfo(run.output.dtype).eps < torch.finfo(dtype).eps
            yield Mismatch(
                f"loss.dtype in {short(dtype)}",
                short(run.output.dtype),
                short(dtype),
                aspect="half" if half else "output",
                severity="note" if half and wider else None,
                tensors=tensors,
                code="print(loss(**tensors).dtype)",
                hint="create accumulators with dtype=predictions.dtype, and cast the context to it at use, not in the constructor",
            )


def low_precision_is_as_accurate_as_the_condition_allows(trial: Trial) -> Iterator[Mismatch]:
    """In float32, bfloat16 and float16 the value is as near to the float64 run as its condition number allows.

        |L_low(x) - L_64(x)| <= c eps (|L| + sum_i |x_i dL/dx_i|)      x rounded to the low precision first

    Where the rounding of intermediates, eps max|intermediate|, explains the difference, it is a note.  Where all numbers
    of the float64 run fit the low precision, the low-precision run must be finite too.
    Source: Higham, Accuracy and Stability of Numerical Algorithms, section 1.6.
    """
    trial.base  # noqa: B018
    points = [("generic values", trial.case)]
    if trial.exhaustive:
        points += [*special_cases(trial.spec, trial.case), *near_cases(trial.spec, trial.case)]
    for dtype in (torch.float32, *HALF):
        worst: dict[str, Mismatch] = {}
        for point, case in points:
            mismatch = _low_precision(trial.at(case), dtype, point)
            if mismatch is not None and (mismatch.aspect not in worst or worst[mismatch.aspect].severity == "note"):
                worst[mismatch.aspect] = mismatch
        yield from worst.values()


def _below_normal(trial: Trial, dtype: torch.dtype) -> bool:
    """Whether an input is so small that the dtype holds it with fewer bits, or not at all."""
    floating = [t.abs() for t in trial.tensors().values() if t.is_floating_point()]
    return any(bool(((t > 0) & (t < torch.finfo(dtype).smallest_normal)).any()) for t in floating)


def _saturated(trial: Trial, dtype: torch.dtype) -> bool:
    """Whether logits are at a special point in float32: they may saturate, and a plain exp of them overflows there only."""
    moved = [name for name, recipe in trial.case.tensors.items() if recipe.point is not None]
    return dtype == torch.float32 and any(trial.spec.tensors[name].domain.text == "logits()" for name in moved)


def _low_precision(trial: Trial, dtype: torch.dtype, point: str) -> Mismatch | None:
    tensors = trial.tensors(dtype)
    if _below_normal(trial, dtype):
        return None
    widened = {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}
    try:
        exact, run = trial.run(widened), trial.run(tensors)
    except LossRaised:
        return None
    if not exact.finite or exact.output.shape != run.output.shape or not exact.output.numel():
        return None
    eps, size = torch.finfo(dtype).eps, float(exact.output.abs().max())
    if run.finite and float((run.output.double() - exact.output).abs().max()) <= tolerance.forward_error(
        eps, size, 0.0
    ):
        return None  # the condition number could only allow more
    condition, intermediate = trial.measure_scale(widened)
    if intermediate * _RANGE_MARGIN > torch.finfo(dtype).max and not _saturated(trial, dtype):
        return None
    where = f"with {point} in {short(dtype)}"
    found = (
        _not_finite(run, exact, dtype, where)
        if not run.finite
        else _inaccurate(run, exact, dtype, where, condition, intermediate)
    )
    return None if found is None else replace(found, tensors=tensors, code=_PRECISION_CODE)


def _not_finite(run: Run, exact: Run, dtype: torch.dtype, where: str) -> Mismatch | None:
    limit = torch.finfo(dtype)
    bad_value = not bool(run.output.isfinite().all())
    largest = [float(g.abs().max()) for g in exact.gradients.values() if g is not None and g.numel()]
    needed = float(exact.output.abs().max()) if bad_value else max(largest, default=0.0)
    if needed * _RANGE_MARGIN > limit.max:
        return None
    return Mismatch(
        f"loss {where}" if bad_value else f"gradient {where}",
        "NaN or infinite",
        "finite, as in float64",
        aspect=f"finite {short(dtype)}",
        severity="error" if dtype == torch.float32 else "warning",
        hint=f"an epsilon below {limit.eps:.1g} vanishes beside 1 (below {limit.smallest_normal:.1g} it is 0), and differences of large numbers cancel",
    )


def _inaccurate(
    run: Run, exact: Run, dtype: torch.dtype, where: str, condition: float, intermediate: float
) -> Mismatch | None:
    limit = torch.finfo(dtype)
    value, should = run.output.double().reshape(-1), exact.output.reshape(-1)
    off = (value - should).abs()
    allowed = tolerance.forward_error(limit.eps, float(should.abs().max()), condition) + limit.smallest_normal
    worst = int(off.argmax())
    if float(off[worst]) <= allowed:
        return None
    explained = float(off[worst]) <= tolerance.forward_error(limit.eps, intermediate, 0.0)
    return Mismatch(
        f"loss {where}",
        f"{float(value[worst]):.6g}",
        f"{float(should[worst]):.6g}",
        float(off[worst]),
        allowed,
        aspect=f"accuracy {short(dtype)}",
        severity="note" if explained else "warning",
        hint="accumulate in float32, subtract before squaring, and use logsumexp, log1p, softplus where they fit",
    )


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
    the loss; what a custom `torch.autograd.Function` does inside is not seen.
    """
    found = [*_narrowed_result(trials), *_narrowed_inputs(trials)]
    if not found and trials:
        found = list(_narrowed_on_the_way(trials[0]))
    yield from found


def _narrowed_inputs(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    if not trials:
        return
    for name, tensor in trials[0].spec.tensors.items():
        if tensor.domain.kind == "float" and tensor.dtype is None:
            mismatch = _narrowed_input(trials, name)
            if mismatch is not None:
                yield mismatch


def _narrowed_result(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    results = [(trial, trial.base.output) for trial in trials]
    rich = [(t, o) for t, o in results if o.dtype == torch.float64 and o.numel() and not _few_bits(o)]
    if len(rich) >= 2 and all(bool((o == o.float().double()).all()) for _, o in rich):
        trial, output = rich[0]
        yield Mismatch(
            "loss in float64",
            f"{float(output.reshape(-1)[0])!r}, a float32 number, in {len(rich)} of {len(rich)} cases",
            "a number with 53 significant bits",
            aspect="result",
            tensors=trial.tensors(),
            code="value = total(loss(**tensors)).double(); print(value.item(), value.float().double().item())",
            hint="keep accumulators and constants in predictions.dtype; no .float() on the way",
        )


def _few_bits(values: Tensor) -> bool:
    """Whether the values are short numbers anyway (zeros, integers, halves)."""
    return bool((values == values.to(torch.bfloat16).double()).all())


def _narrowed_input(trials: Sequence[Trial], name: str) -> Mismatch | None:
    asked: Trial | None = None
    for trial in trials:
        tensors = trial.tensors()
        rounded = tensors[name].float().double()
        if bool((rounded == tensors[name]).all()) or not bool(trial.base.output.isfinite().all()):
            continue
        nudged = {**tensors, name: tensors[name] * (1 + 1e-3)}
        try:
            if torch.equal(trial.run(nudged, wrt=()).output, trial.base.output):
                continue  # the value does not depend on it here
            same = torch.equal(trial.run({**tensors, name: rounded}, wrt=()).output, trial.base.output)
        except LossRaised:
            continue
        if not same:
            return None
        asked = asked or trial
    if asked is None:
        return None
    return Mismatch(
        f"loss in float64 with {name} rounded to float32",
        "the same number, bit for bit",
        "another number in the eighth digit",
        aspect=name,
        tensors=asked.tensors(),
        code=f"""
        print(total(loss(**tensors)).item())
        print(total(loss(**{{**tensors, {name!r}: tensors[{name!r}].detach().float().double()}})).item())
        """,
        hint=f"{name} is cast to float32 (.float(), torch.FloatTensor, a default-dtype constructor); keep its dtype and cast at use",
    )


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
            self.made.append((made, f"{name}() at {user_line()}"))
        return returned


def _narrowed_on_the_way(trial: Trial) -> Iterator[Mismatch]:
    seen = _Narrowing()
    tensors = trial.tensors()
    output = trial.output(trial.leaves(tensors), mode=seen)
    if output.dtype != torch.float64 or not output.requires_grad or not seen.made:
        return  # what is no float64 in the end is D01's
    reached = torch.autograd.grad(contract(output), [made for made, _ in seen.made], allow_unused=True)
    places = [place for (_, place), gradient in zip(seen.made, reached, strict=True) if gradient is not None]
    if not places:
        return  # for a log, a mask or a statistic beside the loss
    yield Mismatch(
        "a part of the loss in float64",
        f"computed in fewer digits, by {', '.join(list(dict.fromkeys(places))[:3])}",
        "in float64 from the first operation to the last",
        aspect="on the way",
        tensors=tensors,
        code="value = total(loss(**tensors))\nprint(value.item(), value.grad_fn)",
        hint="keep the dtype of the inputs; where float16 needs a wider accumulator, widen only: torch.promote_types(x.dtype, torch.float32)",
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
        severity="error",
        check_all=float64_stays_float64,
        applies=_has_float,
        regimes={"distinct": 4},
        smooth=True,
        why="A hidden float32 in a float64 computation makes gradcheck fail, or pass with a tolerance that hides real errors.",
        example="self.weights = weights.float()      # eight digits are gone before the first batch",
        mend="Store the context in the dtype that came; cast to the predictions' dtype where it is used.",
        source="pytorch/pytorch#5351.",
    ),
    Rule(
        code="D02",
        title="low precision is as accurate as the condition number allows",
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
