"""Every tolerance and step of the verification, with the line of algebra that it comes from."""

from __future__ import annotations

import torch

EPS64 = torch.finfo(torch.float64).eps

# One-sided differences at h and h/10, extrapolated: (10 s(h/10) - s(h)) / 9 has truncation O(h^2 L''') ~ 1e-9 L''' and
# rounding ~ 20 eps |L| / h ~ 4e-11 |L|; both stay under the relative error that SLOPE_RELATIVE allows.
SLOPE_STEPS = (1e-4, 1e-5, 1e-6)

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

# A central difference along a direction v of +-1, h = 1e-6: truncation h^2 D^3 L[v, v, v] / 6 ~ 1e-12 of the slope, which
# is sqrt(N) times the typical element for N elements.  Over 28 correct losses the difference was off by at most 2e-5 of
# that element and mostly 1e-6; rounding comes on top (`slope_noise`).  A hundredth of a typical element is 1e-2 of it.
DIRECTION_RELATIVE = 2e-5
# Each element crosses a kink with probability ~ h, so the steps are small; a disagreement is confirmed at smaller ones,
# where truncation and kinks have gone and rounding, ~ 1 / h, has grown.
DIRECTION_STEPS = (1e-6, 3e-7, 1e-7)

# Difference quotients of the gradient: truncation ~ h D^3 L / 2 on one side and h^2 in their mean, rounding eps |g| / h.
CURVATURE_STEPS = (1e-5, 2e-6)

# Two correct float64 evaluations of one number differ by a few hundred eps times the condition number; an algorithm that
# loses half of its digits at a singular point (sqrt of a cancelled square: sqrt(eps) ~ 1.5e-8) is less accurate, not
# wrong.  What differs by more is another function.
SAME_RELATIVE = 1e-7
# Rounding of the largest intermediate value, which the condition number of the formula does not see.
SAME_INTERMEDIATE = 1e3 * EPS64

# Forward error in a precision eps: |error| <= c eps (|L| + sum |x dL/dx|).  Over 117 correct losses the ratio stayed
# below 1.2, with one outlier (temperature-scaled logits) at 12.
LOW_PRECISION_FACTOR = 16.0
# A rewrite may be this many times less accurate than the reference: two sums in another order differ by as much.
LESS_ACCURATE = 4.0


def slope_noise(step: float, magnitude: float) -> float:
    """Rounding error of a difference quotient: two values of ``magnitude``, each off by eps of it, divided by ``step``."""
    return 4 * EPS64 * magnitude / step


def same(value: float, condition: float, intermediate: float = 0.0) -> float:
    """How far two correct float64 evaluations of one number may be apart.

    Args:
        value: the number.
        condition: sum |x dL/dx|, the first-order effect of a relative change of all inputs.
        intermediate: the largest absolute value met on the way.
    """
    return SAME_RELATIVE * (abs(value) + condition) + SAME_INTERMEDIATE * intermediate


def forward_error(eps: float, value: float, condition: float) -> float:
    """Forward error that a backward-stable evaluation in precision ``eps`` may have.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, section 1.6.
    """
    return LOW_PRECISION_FACTOR * eps * (abs(value) + condition)
