"""A loss that draws, against what it is to be on average: L15."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from harness.calls import tolerance
from harness.declare.laws import Law
from harness.declare.spec import LossSpec
from harness.errors import NotApplicable
from harness.rules.laws.declared import applies, declared
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools import slopes
from harness.rules.trial import Run, Trial, describe

_LOOKS = 3  # of the reference, which draws where two of them differ


def mean_over_draws_is_the_reference(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """The mean of a loss over its random draws is the reference, in value and gradient.

        E L(x; w) = L_ref(x),   E dL/dx (x; w) = dL_ref/dx (x)

    With n draws of mean m, deviation s and skewness g, each number is compared by Hall's statistic, from which the skewness of
    the draws is taken:

        T = sqrt(n) (t + g t^2 / 3 + g^2 t^3 / 27 + g / 6n),   t = (m - L_ref) / s

    A finding is |T| beyond the quantile of Student's t at 1e-6 / k for k numbers, so that a correct loss is reported once in a
    million cases.  A bias of 6 s / sqrt(n) is seen every second time, one of 8 s / sqrt(n) nearly always.  Modules
    are asked in train() where they draw there, else in eval().  What happens less often than once in n / 14 draws is not seen.
    Source: Hall, On the Removal of Skewness by Transformation, JRSS B 54, 1992.
    """
    law, reasons = declared(trials[0].spec, "L15")[0], []
    for trial in trials:
        try:
            found = _bias(trial, law)
        except NotApplicable as reason:
            reasons.append(str(reason))
            continue
        if found is not None:
            yield found
            return
    if len(reasons) == len(trials):
        raise NotApplicable("; ".join(dict.fromkeys(reasons)))


def _bias(trial: Trial, law: Law) -> Mismatch | None:
    """What is farthest beyond chance on one case."""
    train = _draws(trial, train=True)
    drawn = _numbers(trial, law.draws if train or _draws(trial, train=False) else 2, train=train)
    reference = trial.of(trial.spec.reference)
    expected = _numbers(reference, law.draws if _draws(reference, train=False) else 1, train=False)
    limit = tolerance.chance(law.draws, sum(values.shape[1] for values in drawn.values()))
    size = max((float(v.abs().max()) for n, v in expected.items() if n and v.numel()), default=0.0)
    for name, values in drawn.items():
        wanted = expected[name]
        rounded = tolerance.same_gradient(trial.eps) * size if name else trial.scale.same(float(wanted.abs().max()))
        found = _farthest(values, wanted, limit, rounded)
        if found is not None:
            return _reported(trial, law, name, found, train=train)
    return None


def _numbers(trial: Trial, count: int, *, train: bool) -> dict[str, Tensor]:
    """The value (under no name) and the gradient of each input, flat, one row for each draw."""
    runs = [_drawn(trial, number, train=train) for number in range(count)]
    rows = {"": [run.output.reshape(-1) for run in runs]}
    for name in runs[0].gradients if trial.case.numel(trial.spec) else ():
        none = torch.zeros_like(trial.tensors()[name])
        gradients = [run.gradients[name] for run in runs]
        rows[name] = [(none if gradient is None else gradient).reshape(-1) for gradient in gradients]
    return {name: torch.stack(each).double() for name, each in rows.items()}


def _state(trial: Trial, number: int) -> int:
    """From which state a draw begins: another one for each case and each draw, the same on every machine."""
    return (int(trial.case.digest, 16) + number) % 2**32


def _drawn(trial: Trial, number: int, *, train: bool) -> Run:
    with trial.candidate.beginning(_state(trial, number)):
        return trial.run(trial.tensors(), train=train)


def _draws(trial: Trial, *, train: bool) -> bool:
    """Whether a number depends on the state of the generators; a draw of few values is often the same twice."""
    first, *others = (_drawn(trial, number, train=train).output for number in range(4 * _LOOKS))
    return any(not torch.equal(first, other) for other in others)


def _farthest(values: Tensor, wanted: Tensor, limit: float, rounded: float) -> tuple[int, float, float, float] | None:
    """(position, mean, what it should be, how far it may be off) of the number that is farthest beyond chance."""
    count = len(values)
    mean, centred = values.mean(0), values - values.mean(0)
    deviation = centred.square().sum(0).div(count - 1).sqrt()
    if len(wanted) > 1:  # the reference draws, too, by draws of its own
        deviation = (deviation.square() + wanted.var(0)).sqrt()
    off = mean - wanted.mean(0)
    skewness, ratio = (centred / deviation).pow(3).mean(0), off / deviation
    statistic = math.sqrt(count) * (
        ratio + skewness * ratio**2 / 3 + skewness**2 * ratio**3 / 27 + skewness / (6 * count)
    )
    certain = (deviation == 0) | ~mean.isfinite()  # no draw is another, or one is no number
    beyond = torch.where(certain, math.inf, statistic.abs())
    beyond = torch.where(off.abs() <= rounded, 0.0, beyond)
    worst = int(beyond.argmax()) if beyond.numel() else -1
    if worst < 0 or not float(beyond[worst]) > limit:
        return None
    by_chance = limit * float(deviation[worst]) / math.sqrt(count)
    return worst, float(mean[worst]), float(wanted.mean(0)[worst]), max(rounded, by_chance)


def _reported(trial: Trial, law: Law, name: str, found: tuple[int, float, float, float], *, train: bool) -> Mismatch:
    worst, mean, wanted, allowed = found
    shape = trial.tensors()[name].shape if name else trial.base.output.shape
    index = list(slopes.element_index(worst, shape))
    where = f"d loss / d {name}{index or ''}" if name else f"loss{index or ''}"
    return Mismatch(
        f"{where}, the mean of {law.draws} draws{' in train()' if train and trial.candidate.is_module else ''}",
        describe(mean),
        describe(wanted),
        abs(mean - wanted) if math.isfinite(mean) else None,
        allowed if math.isfinite(mean) else None,
        aspect=f"{law!r} {'gradient' if name else 'value'}",
        kind="gradient" if name else "value",
        tensor=name,
        finite=math.isfinite(mean),
        tensors=trial.tensors(),
        code=_code(trial, law, name, worst, train=train),
        note="a correct loss is reported once in a million cases",
        hint=(
            "divide what is drawn by the probability with which it is drawn: a dropout by 1 - p, the sum over k samples of C by "
            f"k / C; or take {law!r} out of its laws"
        ),
    )


def _code(trial: Trial, law: Law, name: str, worst: int, *, train: bool) -> str:
    modules = trial.candidate.is_module and train
    call = "call(build(**tensors).train(), **tensors)" if modules else "loss(**tensors)"
    given = f"torch.autograd.grad(total({{}}), tensors[{name!r}])[0]" if name else "{}"
    return f"""
values = []
for number in range({law.draws}):
    torch.manual_seed({_state(trial, 0)} + number)
    values.append({given.format(call)}.detach().reshape(-1)[{worst}])
print("came:", torch.stack(values).double().mean().item())
print("should be:", {given.format("reference(**tensors)")}.reshape(-1)[{worst}].item())
"""


def _says_nothing(spec: LossSpec, implementation: str) -> str | None:
    of_reference = "it is the reference" if spec.role(implementation) == "reference" else None
    return applies("L15", "unbiased")(spec, implementation) or of_reference


RULES = (
    Rule(
        code="L15",
        title="unbiased",
        group="unbiased",
        severity="error",
        check_all=mean_over_draws_is_the_reference,
        applies=_says_nothing,
        regimes={"distinct": 2},
        smooth=True,
        why="A loss that samples trains to what it is on average; a factor that is forgotten trains to something else.",
        example="(torch.rand_like(x) < 0.9) * x      # a tenth too small on average: divide by 0.9",
        mend="Divide what is drawn by the probability with which it is drawn.",
        source="Hall, On the Removal of Skewness by Transformation, JRSS B 54, 1992; Horvitz & Thompson, JASA 47, 1952.",
    ),
)
