"""Losses that learn: their parameters are the same in every instance, and in the dtype of the inputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness import LossSpec, TensorSpec, domains, verify
from harness.calls.evaluation import Candidate


class Proxies(nn.Module):
    """Cross-entropy of the products with one learned vector for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.proxies = nn.Parameter(torch.randn(5, 4))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(embeddings, self.proxies), labels)


class Weighted(nn.Module):
    """A mean, weighted by what the constructor is given and learns on."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, predictions: Tensor) -> Tensor:
        return (self.weights * predictions).mean()


PROXIES = LossSpec(
    "proxies",
    {"proxies": Proxies},
    inputs={"embeddings": TensorSpec("B D"), "labels": TensorSpec("B", domains.index("C"))},
    fixed_sizes={"C": 5, "D": 4},
)


def test_a_loss_that_learns_has_no_error() -> None:
    found = verify(PROXIES, profile="quick", ignore=["T"])
    assert [finding.message for finding in found.findings if finding.severity == "error"] == []
    assert found.outcomes


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_what_a_module_learns_is_in_the_dtype_of_its_inputs(dtype: torch.dtype) -> None:
    given = {"embeddings": torch.ones(2, 4, dtype=dtype), "labels": torch.zeros(2, dtype=torch.int64)}
    for loss in (Proxies, Proxies()):
        candidate = Candidate(PROXIES.replace(implementations={"proxies": loss}), "proxies")
        assert candidate(given).dtype == dtype


def test_what_a_constructor_draws_is_the_same_in_every_instance_and_leaves_the_generator_unmoved() -> None:
    candidate = Candidate(PROXIES, "proxies")
    before = torch.get_rng_state()
    one, another = candidate.build({}), candidate.build({})
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.proxies, another.proxies)
    assert one.proxies.std() > 0


def test_what_a_module_was_given_keeps_its_dtype() -> None:
    spec = LossSpec(
        "weighted",
        {"weighted": Weighted},
        inputs={"predictions": TensorSpec("B")},
        context={"weights": TensorSpec("B", domains.nonnegative())},
    )
    given = {"predictions": torch.ones(3, dtype=torch.float64), "weights": torch.ones(3)}
    assert Candidate(spec, "weighted").build(given).weights.dtype == torch.float32


class ScaledByKeyword(nn.Module):
    """mean of s w_c (p - y)^2; the scale, and in `WeightedByKeyword` the weights too, come by ``**kwargs``."""

    def __init__(self, weight, **kwargs):
        super().__init__()
        self.register_buffer("weight", weight.detach().clone())
        self.scale = kwargs.get("scale", 1.0)

    def forward(self, predictions, labels):
        return (self.scale * self.weight.to(predictions.dtype) * (predictions - labels) ** 2).mean()


class WeightedByKeyword(ScaledByKeyword):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)


@pytest.mark.parametrize("loss", [ScaledByKeyword, WeightedByKeyword])
def test_a_constructor_is_given_what_it_takes_by_any_keyword(loss):
    spec = LossSpec(
        "by keyword",
        {"loss": loss},
        inputs={"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
        context={"weight": TensorSpec("C")},
        options={"scale": 2.0},
    )
    tensors = {"predictions": torch.full((2, 2), 3.0), "labels": torch.zeros(2, 2), "weight": torch.ones(2)}
    assert float(Candidate(spec, "loss")(tensors)) == 18
