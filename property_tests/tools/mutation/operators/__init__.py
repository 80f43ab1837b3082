"""Every mutation operator, as a readable tuple."""

from . import arithmetic, autograd, axes, masks, precision_and_state
from .operator import Operator, Site

OPERATORS: tuple[Operator, ...] = (
    *arithmetic.OPERATORS,
    *axes.OPERATORS,
    *masks.OPERATORS,
    *autograd.OPERATORS,
    *precision_and_state.OPERATORS,
)

__all__ = ["OPERATORS", "Operator", "Site"]
