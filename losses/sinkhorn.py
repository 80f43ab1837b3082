"""Cost of the entropic transport plan between two histograms, after a fixed number of Sinkhorn iterations.

    L = 1/B Σ_b Σ_ij P_ij C_ij,     P_ij = a_i b_j exp((f_i + g_j - C_ij) / ε)

    from g = 0, K times:     f_i = -ε log Σ_j b_j exp((g_j - C_ij) / ε),     g_j = -ε log Σ_i a_i exp((f_i - C_ij) / ε)

Shapes: histograms a (source) ``B N`` and b (target) ``B M``, each row from zero up with sum 1; costs C ``N M``.
The regularisation ε > 0, in the units of the costs, and the number of iterations K >= 1 are numbers.
The columns of P sum to b; its rows sum to a in the limit of many iterations.

The gradient is that of these K iterations, unrolled, and so exact for the L above at every K.  That of the limit by the
envelope theorem is another one as long as the iterations have not converged.
Where a histogram is zero nothing is sent or arrives; the gradient there is what the first bit of mass would change.
A row whose source is all zero costs 0, and so does one whose target is all zero.

Source: Cuturi, Sinkhorn Distances: Lightspeed Computation of Optimal Transport, NeurIPS 2013, algorithm 1, in the
potentials of Peyré & Cuturi, Computational Optimal Transport, 2019, section 4.4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness import domains, laws
from harness.declare.declared import ErrorInput
from harness.declare.dims import Size, shape
from harness.declare.spec import LossSpec
from harness.declare.tensor_spec import TensorSpec

from ._checks import check_floating, check_reduction, check_tensor, check_values
from ._reduction import SAMPLE_REDUCTIONS, SampleReduction, naive_reduce, nothing_of, reduce_samples

# Potentials differ by no more than the costs do, so that a sum of mass * exp(potential) * exp(-cost), both exponents
# measured from their largest, is at least exp(-2 SPAN): in float64 a normal number, and what underflows beside it is less
# than its rounding.
SPAN = 300.0


def naive_sinkhorn(
    source: Tensor,
    target: Tensor,
    costs: Tensor,
    epsilon: float = 0.1,
    iterations: int = 20,
    reduction: SampleReduction = "mean",
) -> Tensor:
    """The formula of this module as loops over pairs and bins, in float64, so that rounding does not show."""
    check_reduction(reduction, SAMPLE_REDUCTIONS)
    _check_context(costs, epsilon, iterations)
    _check_call(source, target, costs)
    rows, columns = costs.detach().double(), costs.detach().double().T
    losses = []
    for a, b in zip(source.double(), target.double(), strict=True):
        losses.append(nothing_of(a) + nothing_of(b))
        if not (a.detach().any() and b.detach().any()):
            continue
        g = torch.zeros_like(b)
        for _ in range(iterations):
            f = torch.stack([_potential(b, g, row, epsilon) for row in rows])
            g = torch.stack([_potential(a, f, column, epsilon) for column in columns])
        for i, row in enumerate(rows):
            losses[-1] = losses[-1] + (a[i] * b * ((f[i] + g - row) / epsilon).exp() * row).sum()
    return naive_reduce(losses, [1.0] * len(losses), source[:, 0], reduction)


def _potential(mass: Tensor, potentials: Tensor, costs: Tensor, epsilon: float) -> Tensor:
    """-ε log Σ_k mass_k exp((potential_k - cost_k) / ε)."""
    exponents = (potentials - costs) / epsilon
    largest = exponents.detach()[mass > 0].max()  # so that no exponential overflows
    return -epsilon * (largest + (mass * (exponents - largest).exp()).sum().log())


class SinkhornLoss(nn.Module):
    """The same number as `naive_sinkhorn`, from two matrix products an iteration; computed in float64.

    Args:
        costs: ``N M``, finite.  Copied.
        epsilon: ε, at least 1/300 of the difference between the largest and the smallest cost.
        iterations: K, at least 1.
        reduction: ``"mean"`` over the pairs of histograms, ``"sum"``, or ``"none"`` for one cost for each pair.

    Raises:
        TypeError: costs that are not a tensor.
        ValueError: an unknown reduction, costs that are not [N, M] or span more than 300 ε or are not finite, or numbers that
            are not allowed.

    Conventions:
        No value is looked at in a call, where the host would have to wait for the device: that the rows are histograms is
        the caller's to see to, by ``histograms / histograms.sum(-1, keepdim=True)`` of numbers from zero up.  Of rows with
        another sum, a source counts as if it were divided by it, and a target multiplies the cost by it.  Elements below
        zero give NaN, or a number that is the cost of no plan.  Costs that `load_state_dict` brings or that are written
        into the buffer are not refused: where they span more than 300 ε or are not finite, every loss is NaN, but 0 for an
        empty row.
    """

    costs: Tensor

    def __init__(
        self,
        costs: Tensor,
        epsilon: float = 0.1,
        iterations: int = 20,
        reduction: SampleReduction = "mean",
    ) -> None:
        super().__init__()
        check_reduction(reduction, SAMPLE_REDUCTIONS)
        _check_context(costs, epsilon, iterations)
        self._check_span(costs, epsilon)
        self.epsilon = epsilon
        self.iterations = iterations
        self.reduction = reduction
        self.register_buffer("costs", costs.detach().clone())  # load_state_dict writes into it

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """The loss, in the source's dtype.

        Args:
            source: ``B N``, each row a histogram.
            target: ``B M``, each row a histogram.

        Raises:
            ValueError: shapes that do not belong together; the message names both.
            TypeError: histograms that are not floating.
        """
        _check_call(source, target, self.costs)
        return reduce_samples(self._per_pair(source, target), self.reduction).to(source.dtype)

    def _per_pair(self, source: Tensor, target: Tensor) -> Tensor:
        # Σ_j b_j exp(g_j / ε) exp(-C_ij / ε) is a product of the histograms with one kernel for all pairs: no B x N x M
        # exponents are made, and what autograd keeps of an iteration has the histograms' size.
        a, b, costs = source.double(), target.double(), self.costs.double()
        empty = ((a.sum(-1) == 0) | (b.sum(-1) == 0)).unsqueeze(-1)
        exponents = (costs.amin() - costs) / self.epsilon  # one constant on all costs changes no plan
        kernel = exponents.exp().masked_fill(~(exponents.amin() >= -SPAN), math.nan)  # loaded costs may span more
        g = torch.zeros_like(b)
        for _ in range(self.iterations):
            largest, total = _sums(b, g, kernel.T)
            f = -largest - total.masked_fill(empty, 1).log()
            largest, total = _sums(a, f, kernel)
            g = -largest - total.masked_fill(empty, 1).log()
        # The last g makes the columns of P sum to b, so that each b_j pays the mean cost of what it gets.
        _, paid = _sums(a, f, kernel * costs)
        return (b * paid / total.masked_fill(empty, 1)).sum(-1).masked_fill(empty.squeeze(-1), 0)

    @staticmethod
    def _check_span(costs: Tensor, epsilon: float) -> None:
        if costs.is_meta or type(costs.detach()) is not Tensor or not costs.numel():
            return  # fake tensors have no values to look at
        span = (costs.detach().double().amax() - costs.detach().double().amin()).item() / epsilon
        if not span <= SPAN:
            raise ValueError(
                f"costs span {span:g} times epsilon={epsilon:g}, expected finite and span at most {SPAN:g} times it, as "
                f"matrix products of their exponentials underflow; raise epsilon, or use harness.losses.LogDomainSinkhornLoss"
            )

    def extra_repr(self) -> str:
        """Shape and numbers, for printing."""
        numbers = f"epsilon={self.epsilon:g}, iterations={self.iterations}"
        return f"costs={list(self.costs.shape)}, {numbers}, reduction={self.reduction!r}"


class LogDomainSinkhornLoss(SinkhornLoss):
    """The usual way of writing it: log-sum-exps over B x N x M exponents, kept for each iteration; any span of costs.

    The histograms are weights of the exponentials, as the logarithm of an empty bin has no gradient.

    Raises:
        ValueError: as `SinkhornLoss`, but costs may span anything finite.
    """

    def _per_pair(self, source: Tensor, target: Tensor) -> Tensor:
        costs = self.costs.to(source.dtype)
        target = target.to(source.dtype)
        empty = ((source.sum(-1) == 0) | (target.sum(-1) == 0)).unsqueeze(-1)
        g = torch.zeros_like(target)
        for _ in range(self.iterations):
            f = -self.epsilon * _log_sum_exp(target.unsqueeze(1), (g.unsqueeze(1) - costs) / self.epsilon, 2, empty)
            g = -self.epsilon * _log_sum_exp(source.unsqueeze(2), (f.unsqueeze(2) - costs) / self.epsilon, 1, empty)
        plan = source.unsqueeze(2) * target.unsqueeze(1)
        plan = plan * torch.exp((f.unsqueeze(2) + g.unsqueeze(1) - costs) / self.epsilon)
        return (plan * costs).sum((1, 2)).masked_fill(empty.squeeze(-1), 0)

    @staticmethod
    def _check_span(costs: Tensor, epsilon: float) -> None:
        del epsilon
        check_values("costs", costs)


def _sums(mass: Tensor, potentials: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """The largest potential, ``B 1``, and Σ_k mass_k exp(potential_k - largest) kernel_k."""
    largest = potentials.detach().amax(-1, keepdim=True)  # a constant: it cancels
    return largest, (mass * (potentials - largest).exp()) @ kernel


def _log_sum_exp(mass: Tensor, exponents: Tensor, axis: int, empty: Tensor) -> Tensor:
    largest = exponents.detach().amax(axis, keepdim=True)
    total = (mass * (exponents - largest).exp()).sum(axis)
    return largest.squeeze(axis) + total.masked_fill(empty, 1).log()


def _check_context(costs: Tensor, epsilon: float, iterations: int) -> None:
    check_tensor("costs", costs)
    if costs.ndim != 2 or 0 in costs.shape:
        raise ValueError(
            f"costs has shape {list(costs.shape)}, expected [N, M] with N and M >= 1: one for each pair of bins"
        )
    if not 0 < epsilon < math.inf:
        raise ValueError(f"epsilon={epsilon!r}, expected above zero, such as 0.1 for costs from 0 to 1")
    if not isinstance(iterations, int) or iterations < 1:
        raise ValueError(f"iterations={iterations!r}, expected a whole number from 1 up, such as 20")


def _check_call(source: Tensor, target: Tensor, costs: Tensor) -> None:
    for name, histograms, bins in (("source", source, "N"), ("target", target, "M")):
        check_floating(name, histograms)
        if histograms.ndim != 2 or histograms.shape[1] != costs.shape[0 if bins == "N" else 1]:
            raise ValueError(
                f"{name} has shape {list(histograms.shape)}, but costs has shape {list(costs.shape)}, and {name} should be "
                f"[B, {bins}] where costs is [N, M]"
            )
    if source.shape[0] != target.shape[0]:
        raise ValueError(
            f"source has shape {list(source.shape)}, but target has shape {list(target.shape)}; each pair of histograms "
            f"needs a row in both"
        )


def least_bytes(sizes: Mapping[str, Size], dtype: torch.dtype) -> int:
    """Both histograms and the costs are read once each."""
    return dtype.itemsize * sum(math.prod(shape(dims, sizes)) for dims in ("B N", "B M", "N M"))


_IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "naive": naive_sinkhorn,
    "vectorized": SinkhornLoss,
    "log_domain": LogDomainSinkhornLoss,
}

SPEC = LossSpec(
    name="sinkhorn",
    implementations=_IMPLEMENTATIONS,
    inputs={"source": TensorSpec("B N", domains.simplex(-1)), "target": TensorSpec("B M", domains.simplex(-1))},
    context={"costs": TensorSpec("N M", domains.interval(0.0, 1.0))},
    output=TensorSpec(""),
    differentiable=("source", "target"),
    options={"iterations": 2},  # the second starts from potentials that the first made; more repeat it
    laws=(
        laws.nonnegative(),
        laws.mean_over("B"),
        laws.permutation("B"),
        laws.permutation("N"),
        laws.permutation("M"),
    ),
    bench_sizes=(
        {"B": 4, "N": 8, "M": 8},
        {"B": 64, "N": 64, "M": 64},
        {"B": 64, "N": 256, "M": 256},
    ),
    bytes_bound=least_bytes,
    error_inputs=(
        ErrorInput(
            "sources of more bins",
            lambda t: {"source": torch.cat([t["source"], t["source"]], dim=1)},
            match="source has shape .* costs has shape",
        ),
        ErrorInput(
            "targets of a larger batch",
            lambda t: {"target": torch.cat([t["target"], t["target"]])},
            match="source has shape .* target has shape",
        ),
        ErrorInput("costs as a row", lambda t: {"costs": t["costs"].reshape(-1)}, match=r"costs has shape .* \[N, M\]"),
    ),
)
