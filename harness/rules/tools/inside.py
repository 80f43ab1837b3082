"""Other legal values of a tensor that laws compare a loss at: multiples, sums, shifts and copies that stay in its domain."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from harness.declare.domain import Domain
from harness.errors import NotApplicable
from harness.rules.tools import sides
from harness.rules.tools.made import on_the_cpu, scattered
from harness.rules.trial import Trial

FACTOR = 2.5
SHIFT = 0.75
MOST_COPIES = 3


Part = tuple[float, Callable[[Tensor], Tensor]]  # a factor, and the tensor that it stands before, made from the sum


def parts(trial: Trial, name: str, values: Tensor) -> tuple[Tensor, list[Part], str]:
    """(w, parts, code): a legal tensor w = a u + b v with legal u and v, for which a linear loss is a L(u) + b L(v).

    Where the domain allows it a + b is not 1, so that what is only affine, such as a constant, is not taken for linear.
    Zeros and ones are split in two: no other sum of theirs is legal.  ``code`` is the other side in plain PyTorch.

    Raises:
        NotApplicable: no such sums are known to be legal.
    """
    domain = trial.spec.tensors[name].domain
    if domain.symbol is not None or domain.make is not None or not (values.is_floating_point() or domain.whole):
        raise NotApplicable(f"no sum of two values of {name} is known to be in {domain.text}")
    if domain.whole and domain.low == 0:
        first = _half(domain, values)
        split: list[Part] = [(1.0, lambda w: w * first), (1.0, lambda w: w * ~first)]
        return values, split, sides.split(name, first)
    if (domain.whole or domain.structured) and domain.low == -domain.high and math.isfinite(domain.high):
        return values, [(-1.0, lambda w: -w)], sides.negated(name)
    if domain.structured and not (domain.axis is not None and (domain.low, domain.high) == (0, 1)):
        raise NotApplicable(f"no sum of two values of {name} is known to be in {domain.text}")
    a, b = _factors(domain)
    other = _near(domain, trial.another(name, values, salt=2))
    combined = a * _near(domain, values) + b * other
    both: list[Part] = [(a, lambda w: _held(domain, (w - b * other) / a)), (b, lambda w: other)]
    return combined, both, sides.combination(name, other, a, b)


def _factors(domain: Domain) -> tuple[float, float]:
    if domain.structured:  # what sums to one is closed under means only, and there a constant is linear too
        return 0.25, 0.75
    factor = _factor(domain)
    if factor < 1:
        return 0.25, 0.5
    return (factor / 3, 2 * factor / 3) if math.isfinite(_far(domain)) else (FACTOR, SHIFT)


def _held(domain: Domain, values: Tensor) -> Tensor:
    """Values that rounding has led out of the domain are brought back, without a kink for the gradient."""
    return values + (values.clamp(domain.low, domain.high) - values).detach()


def _half(domain: Domain, values: Tensor) -> Tensor:
    """Which elements stand in the first of two parts; of a structured tensor the part has the structure too."""
    chosen = torch.zeros_like(values, dtype=torch.bool).reshape(-1)
    chosen[scattered(values)[: (values.numel() + 1) // 2]] = True
    half = chosen.reshape(values.shape)
    if domain.repair is None:
        return half
    return on_the_cpu(domain.project, (values * half).to(torch.float64)) != 0


def multiple(trial: Trial, name: str, values: Tensor) -> tuple[Tensor, float]:
    """(legal values, c): those of which the multiple by c is legal too.

    Raises:
        NotApplicable: the domain has no such multiples.
    """
    domain = trial.spec.tensors[name].domain
    if domain.whole or domain.structured or not values.is_floating_point():
        raise NotApplicable(f"no multiple of {name} is known to be in {domain.text}")
    return _near(domain, values), _factor(domain)


def _far(domain: Domain) -> float:
    return max(abs(domain.low), abs(domain.high))


def _factor(domain: Domain) -> float:
    """A factor that stays in the domain, once values have been moved by `_near`."""
    if domain.scalable:
        return FACTOR
    if domain.low <= 0 <= domain.high:
        return 1 / FACTOR
    nearest = min(abs(domain.low), abs(domain.high))
    return math.sqrt(_far(domain) / nearest) if math.isfinite(_far(domain)) else FACTOR


def _near(domain: Domain, values: Tensor) -> Tensor:
    """Values so near to zero that `_factor` does not lead out of an interval that does not hold zero."""
    if domain.scalable or domain.low <= 0 <= domain.high or not math.isfinite(_far(domain)):
        return values
    bound = domain.low if domain.low > 0 else domain.high
    width = domain.high - domain.low
    return bound + (values - bound) * ((_far(domain) / _factor(domain) - abs(bound)) / width)


def shifted(trial: Trial, names: Sequence[str], tensors: dict[str, Tensor]) -> float:
    """A number that may be added to each of some tensors, which are first moved away from the bound in its direction.

    Raises:
        NotApplicable: the domain of one of them has no room for it.
    """
    declared = {name: trial.spec.tensors[name].domain for name in names}
    for name, domain in declared.items():
        if domain.whole or domain.structured or not tensors[name].is_floating_point():
            raise NotApplicable(f"no shift of {name} is known to be in {domain.text}")
    shift = min([SHIFT, *((domain.high - domain.low) / 4 for domain in declared.values())])
    for name, domain in declared.items():
        if math.isfinite(domain.high):
            width = domain.high - domain.low
            left = (domain.high - tensors[name]) * (1 - shift / width if math.isfinite(width) else 1.0)
            tensors[name] = domain.high - shift - left
    return shift


def copies(trial: Trial, name: str) -> tuple[int, ...]:
    """The numbers of copies that legal weights can stand for, one of them among them.

    Raises:
        NotApplicable: there are fewer than two.
    """
    domain = trial.spec.tensors[name].domain
    numbers = tuple(k for k in range(MOST_COPIES + 1) if domain.low <= k <= domain.high)
    numbers = numbers[1:] if len(numbers) > 2 and numbers[0] == 0 else numbers  # what is left out L11 asks about
    free = domain.symbol is None and domain.make is None and not domain.structured
    if not free or (domain.whole and domain.low < 0) or 1 not in numbers or len(numbers) < 2:
        raise NotApplicable(f"{domain.text} of {name} holds no two whole numbers from zero up, one of them 1")
    return numbers
