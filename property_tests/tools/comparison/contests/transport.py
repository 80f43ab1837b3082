"""Entropic optimal transport: log-sum-exps over all pairs, POT and geomloss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from losses import sinkhorn
from losses.sinkhorn import SinkhornLoss
from property_tests.tools.comparison.contest import OURS, Claim, Contestant, ahead, contest

EPSILON = 0.1
FEW, MANY = 3, 50


def _log_domain(source: Tensor, target: Tensor, costs: Tensor, iterations: int) -> Tensor:
    log_a, log_b, exponents = source.log(), target.log(), -costs / EPSILON
    g = torch.zeros_like(target)
    for _ in range(iterations):
        f = -torch.logsumexp(exponents + (g + log_b).unsqueeze(1), 2)
        g = -torch.logsumexp(exponents + (f + log_a).unsqueeze(2), 1)
    log_plan = exponents + (f + log_a).unsqueeze(2) + (g + log_b).unsqueeze(1)
    return (log_plan.exp() * costs).sum((1, 2)).mean()


def log_domain_few(source: Tensor, target: Tensor, costs: Tensor) -> Tensor:
    return _log_domain(source, target, costs, FEW)


def log_domain_many(source: Tensor, target: Tensor, costs: Tensor) -> Tensor:
    return _log_domain(source, target, costs, MANY)


class PotPairs(nn.Module):
    def __init__(self, costs: Tensor) -> None:
        super().__init__()
        from ot.bregman import sinkhorn_log

        self.costs, self._sinkhorn_log = costs, sinkhorn_log

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        totals = []
        for a, b in zip(source, target, strict=True):
            start = (b.log(), torch.zeros_like(a))
            plan = self._sinkhorn_log(
                b, a, self.costs.T, EPSILON, numItermax=MANY, stopThr=0, warn=False, warmstart=start
            )
            totals.append((plan * self.costs.T).sum())
        return torch.stack(totals).mean()


class PotBatch(nn.Module):
    def __init__(self, costs: Tensor) -> None:
        super().__init__()
        from ot.batch import solve_batch

        self.costs, self._solve_batch = costs, solve_batch

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        costs = self.costs.expand(len(source), *self.costs.shape)
        solved = self._solve_batch(
            costs, EPSILON, source, target, max_iter=MANY, tol=0, method="log_sinkhorn", grad="autodiff"
        )
        return solved.value_linear.mean()


class Geomloss(nn.Module):
    def __init__(self, costs: Tensor) -> None:
        super().__init__()
        from geomloss.ot import solve_batch

        self.costs, self._solve_batch = costs, solve_batch

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        costs = self.costs.expand(len(source), *self.costs.shape).contiguous()
        solved = self._solve_batch(costs, reg=EPSILON, a=source, b=target, max_iter=MANY)
        return (solved.plan * costs).sum((1, 2)).mean()


_OURS = Contestant(OURS, SinkhornLoss, "SinkhornLoss(C, iterations=K)(a, b)")
_STATEMENT = "K times f, g by torch.logsumexp; (plan * C).sum((1, 2)).mean()"
_SMALL = {"B": 2, "N": 3, "M": 4}

CONTESTS = (
    contest(
        f"sinkhorn, {FEW} iterations",
        sinkhorn.SPEC,
        [_OURS, Contestant("log_domain", log_domain_few, _STATEMENT)],
        module=__name__,
        name="sinkhorn",
        small=_SMALL,
        sizes=[{"B": 64, "N": 256, "M": 256}],
        claims=ahead("log_domain"),
        options={"iterations": FEW, "epsilon": EPSILON},
    ),
    contest(
        f"sinkhorn, {MANY} iterations",
        sinkhorn.SPEC,
        [
            _OURS,
            Contestant("log_domain", log_domain_many, _STATEMENT),
            Contestant(
                "POT each pair",
                PotPairs,
                "ot.bregman.sinkhorn_log(b, a, C.T, eps, numItermax=K, stopThr=0, warmstart=(log b, 0)) for each pair",
                package="POT",
                convention="its potentials hold the logarithms of the histograms and it begins with the other one, so that both change places",
            ),
            Contestant(
                "POT batch",
                PotBatch,
                'ot.batch.solve_batch(C, eps, a, b, max_iter=K, tol=0, method="log_sinkhorn", grad="autodiff").value_linear',
                package="POT",
                convention="it starts from other potentials: equal where the iterations have converged",
            ),
            Contestant(
                "geomloss",
                Geomloss,
                "plan = geomloss.ot.solve_batch(C, a=a, b=b, reg=eps, max_iter=K).plan; (plan * C).sum((1, 2)).mean()",
                package="geomloss",
                convention="it lowers eps step by step over the iterations and differentiates its dual value: after as many iterations it has another value, and at the limit another gradient",
            ),
        ],
        module=__name__,
        name="sinkhorn_converged",
        small=_SMALL,
        sizes=[{"B": 16, "N": 64, "M": 64}],
        claims=[*ahead("log_domain"), Claim("seconds", ("POT each pair",), 1.0), *ahead("POT batch")],
        options={"iterations": MANY, "epsilon": EPSILON},
    ),
)
SPECS = [each.spec for each in CONTESTS]
