"""Every tolerance and step of the verification, with the line of algebra that it comes from; all go by the eps of a dtype."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import NormalDist

import torch

EPS64 = torch.finfo(torch.float64).eps
FLOAT64_DIGITS = 17  # that tell any two numbers apart

# gradcheck's central difference: truncation h^2 L'''/6 ~ 1e-13 L''', rounding eps |L| / h ~ 2e-10 |L|.
GRADCHECK_STEP = 1e-6

# gradcheck compares with |a - n| <= atol + rtol |n|.  The loss is rescaled first so that its largest slope is 1, hence
# atol is relative to that slope and small weights cannot hide in it.
GRADCHECK_ABSOLUTE = 1e-5
GRADCHECK_RELATIVE = 1e-3

# A slope that disagrees by less than this part of itself is rounding and truncation of the difference quotient.
SLOPE_RELATIVE = 1e-4
# ... and by less than this part of the largest slope: the quotient's error does not shrink with the single slope.
SLOPE_FLOOR = 1e-6
# A slope is measured at h and at two steps that are this many times longer and shorter: they tell truncation and kinks,
# which shrink with the step, from rounding, which grows.
STEP_RATIO = 4.0
# What is off by a tenth of the largest slope must show.  Where the quotient itself may be off by more, nothing is measured.
MEASURABLE = 0.1

# A central difference along a direction v of +-1: truncation h^2 D^3 L[v, v, v] / 6 ~ 1e-12 of the slope, which is sqrt(N)
# times the typical element for N elements.  Over 28 correct losses the difference at h = 1e-6 was off by at most 2e-5 of
# that element and mostly 1e-6; rounding comes on top (`slope_noise`).  A hundredth of a typical element is 1e-2 of it.
DIRECTION_RELATIVE = 2e-5

# Difference quotients of the gradient: truncation ~ h D^3 L / 2 on one side and h^2 in their mean, rounding eps |g| / h.
CURVATURE_STEPS = (1e-5, 2e-6)

# Two correct float64 evaluations of one number differ by a few hundred eps times the condition number; an algorithm that
# loses half of its digits at a singular point (sqrt of a cancelled square: sqrt(eps) ~ 1.5e-8) is less accurate, not
# wrong.  What differs by more is another function.
SAME_RELATIVE = 1e-7

# Forward error in a precision eps: |error| <= c eps (|L| + sum |x dL/dx|).  Over 117 correct losses the ratio stayed
# below 1.2, with one outlier (temperature-scaled logits) at 12.
LOW_PRECISION_FACTOR = 16.0
# A rewrite may be this many times less accurate than the reference: two sums in another order differ by as much.
LESS_ACCURATE = 4.0
# A sum of squares may pass the largest number that was met by this much.
RANGE_MARGIN = 16.0

# How often a mean over random draws may be reported as biased that is not, on one case, over all numbers that are compared.
FALSE_ALARM = 1e-6

PRECISIONS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # the finest first
# Rounding that is seen in values, as a part of the largest number met, belongs to the precision whose eps is nearest: the
# limits are the geometric means of neighbours (eps is 2e-16, 1e-7 and 8e-3).  A few values do not tell float16 from bfloat16.
TOLD_APART = (torch.float64, torch.float32, torch.bfloat16)


def chance(draws: int, numbers: int) -> float:
    """How far the statistic of a mean over ``draws`` may be from zero by chance, where ``numbers`` of them are looked at.

    The quantile of Student's t at FALSE_ALARM / numbers on both sides together (Bonferroni), by the first term of its
    expansion at many degrees of freedom.  Source: Abramowitz & Stegun 26.7.5.
    """
    z = -NormalDist().inv_cdf(FALSE_ALARM / (2 * numbers))
    return z + (z**3 + z) / (4 * (draws - 1))


def eps_of(dtype: torch.dtype) -> float:
    """The distance from 1 to the next number of a dtype."""
    return float(torch.finfo(dtype).eps)


def precision_of(roundoff: float) -> torch.dtype:
    """The precision in which numbers are rounded by this part of themselves."""
    for finer, coarser in pairwise(TOLD_APART):
        if roundoff <= math.sqrt(eps_of(finer) * eps_of(coarser)):
            return finer
    return TOLD_APART[-1]


def slope_step(eps: float) -> float:
    """Step of a difference quotient of values that are rounded at ``eps``.

    Truncation h^2 L''' / 6 and rounding eps |L| / h balance at h = eps^(1/3): 6e-6 in float64, 5e-3 in float32, 0.2 in
    bfloat16.  Source: Nocedal & Wright, Numerical Optimization, section 8.1.
    """
    return float(eps ** (1 / 3))


def direction_steps(eps: float) -> tuple[float, float, float]:
    """Steps along a direction through all elements, each of which crosses a kink with probability ~ h.

    In float64 they may be short, so that truncation and kinks have gone at the last one while rounding, ~ 1 / h, has
    grown; in a coarser precision rounding allows none that is much shorter than `slope_step`.
    """
    step = slope_step(eps)
    return (1e-6, 3e-7, 1e-7) if eps <= EPS64 else (step, 2 * step, step / 2)


def value_rounding(magnitude: float, eps: float = EPS64) -> float:
    """By how much a difference of two values may be off, where ``magnitude`` is the largest number met on the way.

    Two roundings of it, and what is lost to numbers that no operation returns, such as those inside a kernel.
    """
    return 20 * eps * magnitude


def slope_noise(step: float, magnitude: float, eps: float = EPS64) -> float:
    """Rounding error of a difference quotient: two values of ``magnitude``, each off by eps of it, divided by ``step``."""
    return 4 * eps * magnitude / step


def same_relative(eps: float) -> float:
    """The part of a number by which two correct evaluations in a precision may differ: half of its digits, or 16 eps."""
    return max(SAME_RELATIVE, math.sqrt(eps), LOW_PRECISION_FACTOR * eps)


def same_gradient(eps: float) -> float:
    """The part of the largest gradient element by which two correct gradients may differ: 1e-6, 1e-3 in float32, a quarter
    in bfloat16.  Each is a derivative of something that has lost up to half of its digits.
    """
    return max(10 * SAME_RELATIVE, 3 * math.sqrt(eps))


def same_intermediate(eps: float) -> float:
    """Rounding of the largest intermediate value, as a part of it, which the condition number of the formula does not see."""
    return max(1e3 * EPS64, 4 * eps)


def same(value: float, condition: float, intermediate: float = 0.0, eps: float = EPS64) -> float:
    """How far two correct evaluations of one number in a precision may be apart.

    Args:
        value: the number.
        condition: sum |x dL/dx|, the first-order effect of a relative change of all inputs.
        intermediate: the largest absolute value met on the way.
        eps: of the precision in which the values are computed.
    """
    return same_relative(eps) * (abs(value) + condition) + same_intermediate(eps) * intermediate


def forward_error(eps: float, value: float, condition: float) -> float:
    """Forward error that a backward-stable evaluation in precision ``eps`` may have.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, section 1.6.
    """
    return LOW_PRECISION_FACTOR * eps * (abs(value) + condition)


def told_apart(off: float, allowed: float, digits: int = 1) -> tuple[str, str]:
    """How far two numbers are apart and may be, for messages: what is more than allowed reads as more.

    Args:
        off: the difference; it has two digits at least.
        allowed: how large it may be.
        digits: of what is allowed, and of both as many more as it takes.
    """
    shown = f"{off:.{max(digits, 2)}g}", f"{allowed:.{digits}g}"
    while off > allowed and float(shown[0]) <= float(shown[1]) and digits < FLOAT64_DIGITS:
        digits += 1
        shown = f"{off:.{max(digits, 2)}g}", f"{allowed:.{digits}g}"
    return shown
