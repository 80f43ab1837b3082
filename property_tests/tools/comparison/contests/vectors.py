"""The Mahalanobis distance against the ways in which torch writes it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from losses import mahalanobis
from losses.mahalanobis import MahalanobisLoss, MahalanobisProductLoss
from property_tests.tools.comparison.contest import OURS, Contestant, ahead, contest


def product(vectors: Tensor, means: Tensor, precision: Tensor) -> Tensor:
    d = vectors - means
    return ((d @ precision) * d).sum(-1).mean() / 2


def einsum(vectors: Tensor, means: Tensor, precision: Tensor) -> Tensor:
    d = vectors - means
    return torch.einsum("bi,ij,bj->b", d, precision, d).mean() / 2


class NormalLikelihood(nn.Module):
    """The likelihood of torch's own normal distribution, without its constant; its Cholesky factor is prepared once."""

    def __init__(self, precision: Tensor) -> None:
        super().__init__()
        wide = precision.double()
        self.factor = torch.linalg.cholesky(torch.linalg.inv(wide)).to(precision.dtype)
        constant = len(wide) * math.log(2 * math.pi) - torch.logdet(wide)
        self.constant = constant.item() / 2

    def forward(self, vectors: Tensor, means: Tensor) -> Tensor:
        normal = torch.distributions.MultivariateNormal(means, scale_tril=self.factor, validate_args=False)
        return -normal.log_prob(vectors).mean() - self.constant


_PLAIN = [
    Contestant("product", product, "d = x - mu; ((d @ P) * d).sum(-1).mean() / 2"),
    Contestant("einsum", einsum, 'd = x - mu; torch.einsum("bi,ij,bj->b", d, P, d).mean() / 2'),
    Contestant(
        "MultivariateNormal",
        NormalLikelihood,
        "-MultivariateNormal(mu, scale_tril=L).log_prob(x).mean() - constant",
        convention="the likelihood has a constant, which is subtracted",
    ),
]
_OTHERS = tuple(contestant.name for contestant in _PLAIN)
_TWO_PRODUCTS = (
    "value and gradient by a factor take two products, as autograd's do, and keep the digits of an ill-conditioned matrix; "
    "MahalanobisProductLoss takes one"
)
_SIZES = [{"batch": (16_384,), "D": 64}, {"batch": (4_096,), "D": 256}]

CONTESTS = (
    contest(
        "mahalanobis by a Cholesky factor",
        mahalanobis.SPEC,
        [Contestant(OURS, MahalanobisLoss, "MahalanobisLoss(P)(x, mu)"), *_PLAIN],
        module=__name__,
        name="mahalanobis",
        small={"batch": (4,), "D": 3},
        sizes=_SIZES,
        claims=[claim for other in _OTHERS for claim in ahead(other, why_slower=_TWO_PRODUCTS)],
    ),
    contest(
        "mahalanobis by one product",
        mahalanobis.SPEC,
        [Contestant(OURS, MahalanobisProductLoss, "MahalanobisProductLoss(P)(x, mu)"), *_PLAIN],
        module=__name__,
        name="mahalanobis_product",
        small={"batch": (4,), "D": 3},
        sizes=_SIZES,
        claims=[claim for other in _OTHERS for claim in ahead(other)],
    ),
)
SPECS = [each.spec for each in CONTESTS]
