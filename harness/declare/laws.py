"""Laws: metamorphic relations that a loss promises, declared in its spec and checked in value and gradient.

A law here is data; `harness.rules.laws.declared` holds the check of each.  Notation: L is the loss, X the inputs, C the context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import DeclarationError, shown


@dataclass(frozen=True)
class Law:
    """One declared relation.

    Args:
        code: the public rule code that checks it (L01 to L15); of a weight in the context C04, C05 or C06 checks it.
        text: the call that makes it, shown in messages.
        symbols: sizes that the law speaks of.
        names: tensors that the law speaks of.
        function: for `reduces_to`, the loss that it reduces to.
        values: for `reduces_to`, the constant that each named tensor is set to.
        worlds: for `data_parallel`, how many processes there are, each in turn.
        draws: for `unbiased`, how many the mean is taken over.
    """

    code: str
    text: str
    symbols: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    function: Callable[..., Any] | None = None
    values: tuple[tuple[str, float], ...] = ()
    worlds: tuple[int, ...] = ()
    draws: int = 0

    def __post_init__(self) -> None:
        for names, example in ((self.symbols, "B"), (self.names, "weights")):
            if not all(isinstance(name, str) for name in names):
                call = self.text.partition("(")[0]
                raise DeclarationError(f"laws.{self.text}: needs names, such as {call}({shown(example)})")

    def __repr__(self) -> str:
        return f"laws.{self.text}"


def mean_over(symbol: str) -> Law:
    """L of the whole is the mean of L over the slices of ``symbol``: L(X) = 1/n Σ_i L(X_i)."""
    return Law("L01", f"mean_over({shown(symbol)})", symbols=(symbol,))


def sum_over(symbol: str) -> Law:
    """L of the whole is the sum of L over the slices of ``symbol``: L(X) = Σ_i L(X_i)."""
    return Law("L02", f"sum_over({shown(symbol)})", symbols=(symbol,))


def permutation(symbol: str) -> Law:
    """L does not depend on the order along ``symbol``, when inputs and context are permuted together (P A Pᵀ for N x N)."""
    return Law("L03", f"permutation({shown(symbol)})", symbols=(symbol,))


def linear_in(name: str) -> Law:
    """L is linear in the tensor ``name``: L(a u + b v) = a L(u) + b L(v)."""
    return Law("L04", f"linear_in({shown(name)})", names=(name,))


def scale_invariant(name: str) -> Law:
    """L does not change when the tensor ``name`` is multiplied by a positive number; its gradient is divided by it."""
    return Law("L05", f"scale_invariant({shown(name)})", names=(name,))


def translation_invariant(*names: str) -> Law:
    """L does not change when one constant is added to all elements of the tensors ``names``."""
    if not names:
        raise DeclarationError(
            "translation_invariant() needs at least one tensor name, e.g. translation_invariant('logits')"
        )
    return Law("L06", f"translation_invariant({', '.join(map(shown, names))})", names=names)


def symmetric(a: str, b: str) -> Law:
    """L does not change when the tensors ``a`` and ``b`` change places."""
    return Law("L07", f"symmetric({shown(a)}, {shown(b)})", names=(a, b))


def nonnegative() -> Law:
    """L >= 0."""
    return Law("L08", "nonnegative()")


def zero_when_equal(a: str, b: str) -> Law:
    """L = 0 where the tensors ``a`` and ``b`` are equal."""
    return Law("L09", f"zero_when_equal({shown(a)}, {shown(b)})", names=(a, b))


def reduces_to(function: Callable[..., Any], **values: float) -> Law:
    """With each named tensor filled with its value, L equals ``function`` of the other tensors (by keyword)."""
    if not callable(function):
        raise DeclarationError(f"reduces_to({shown(function)}): needs a function of the remaining tensors")
    if not values:
        raise DeclarationError("reduces_to(function): needs the constant, e.g. reduces_to(F.mse_loss, weights=1.0)")
    for name, value in values.items():
        if not isinstance(value, int | float):
            raise DeclarationError(
                f"reduces_to(function, {name}={shown(value)}): {name}={shown(value)}, expected a number"
            )
    text = ", ".join(f"{name}={value:g}" for name, value in values.items())
    label = getattr(function, "__name__", type(function).__name__)
    return Law(
        "L10", f"reduces_to({label}, {text})", names=tuple(values), function=function, values=tuple(values.items())
    )


def zero_weight_removes(name: str) -> Law:
    """Where the weight ``name`` is zero, what it weighs influences neither the value nor any gradient."""
    return Law("L11", f"zero_weight_removes({shown(name)})", names=(name,))


def repeats(name: str) -> Law:
    """A sample with integer weight k counts as k copies of weight one."""
    return Law("L12", f"repeats({shown(name)})", names=(name,))


def inert(name: str) -> Law:
    """The tensor ``name`` does not influence the value; declared so that C07 stays silent, and checked."""
    return Law("L13", f"inert({shown(name)})", names=(name,))


MOST_RANKS = 8
LEAST_DRAWS = 100


def data_parallel(symbol: str, worlds: Sequence[int] | int = (1, 2, 4)) -> Law:
    """Trained on W processes, each with its part of ``symbol``, L has the gradient of the whole: 1/W Σ_r ∇L_r = ∇L, as DDP averages.

    Args:
        symbol: the size that is cut into equal parts, one for each process.
        worlds: how many processes there are, each in turn.

    Raises:
        DeclarationError: ``worlds`` are no numbers of processes from 1 to 8.
    """
    chosen = (worlds,) if isinstance(worlds, int) else tuple(worlds)
    if not chosen or not all(type(world) is int and 1 <= world <= MOST_RANKS for world in chosen):
        raise DeclarationError(
            f"data_parallel({shown(symbol)}, worlds={shown(worlds)}): worlds={shown(worlds)}, expected numbers of "
            f"processes from 1 to {MOST_RANKS}, such as worlds=(1, 2, 4)"
        )
    text = shown(symbol) if chosen == (1, 2, 4) else f"{shown(symbol)}, worlds={chosen}"
    return Law("L14", f"data_parallel({text})", symbols=(symbol,), worlds=chosen)


def unbiased(draws: int = 1000) -> Law:
    """The mean of L over its random draws ω is the reference, which draws nothing or has the same mean: E_ω L(X; ω) = L_ref(X).

    Args:
        draws: how many the mean is taken over, on each case.  A correct loss is reported with probability 1e-6 for each case;
            a bias of 6 / √draws standard deviations of a draw is seen in half of the cases, one of 8 / √draws nearly always.

    Raises:
        DeclarationError: ``draws`` is no whole number of at least 100.
    """
    if type(draws) is not int or draws < LEAST_DRAWS:
        raise DeclarationError(
            f"unbiased({shown(draws)}): draws={shown(draws)}, expected a whole number of at least {LEAST_DRAWS}, such as "
            f"unbiased(10000)"
        )
    return Law("L15", f"unbiased({'' if draws == 1000 else draws})", draws=draws)
