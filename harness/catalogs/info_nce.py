"""The InfoNCE loss of info-nce-pytorch in its three modes, declared as its documentation says, beside the formula.

Source: https://github.com/RElbers/info-nce-pytorch
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from harness import LossSpec, TensorSpec, laws
from harness.catalogs import require
from harness.declare.laws import Law

package = require("info_nce")

TEMPERATURE = 0.5


def picks_the_first(logits: Tensor) -> Tensor:
    """Mean of -log softmax(logits)_0."""
    return (logits.logsumexp(1) - logits[:, 0]).mean()


def implicit(query: Tensor, positive_key: Tensor, temperature: float) -> Tensor:
    """The negative keys of a sample are the positive keys of the others."""
    logits = F.normalize(query) @ F.normalize(positive_key).T / temperature
    return (logits.logsumexp(1) - logits.diagonal()).mean()


def unpaired(query: Tensor, positive_key: Tensor, negative_keys: Tensor, temperature: float) -> Tensor:
    """All M negative keys are compared with every query."""
    q, k, others = F.normalize(query), F.normalize(positive_key), F.normalize(negative_keys)
    return picks_the_first(torch.cat([(q * k).sum(1, keepdim=True), q @ others.T], dim=1) / temperature)


def paired(query: Tensor, positive_key: Tensor, negative_keys: Tensor, temperature: float) -> Tensor:
    """Each query has M negative keys of its own."""
    keys = F.normalize(torch.cat([positive_key[:, None], negative_keys], dim=1), dim=2)
    return picks_the_first((F.normalize(query)[:, None] * keys).sum(2) / temperature)


def spec(
    name: str, formula: Callable[..., Tensor], negatives: str | None, *further: Law, **options: object
) -> LossSpec:
    """One mode; the embeddings are real vectors, which the loss normalises itself."""
    inputs = {"query": TensorSpec("N D"), "positive_key": TensorSpec("N D")}
    if negatives is not None:
        inputs["negative_keys"] = TensorSpec(negatives)
    return LossSpec(
        f"info_nce.InfoNCE-{name}",
        {"formula": formula, "info_nce": package.InfoNCE},
        inputs=inputs,
        output=TensorSpec(""),
        differentiable=tuple(inputs),
        options={"temperature": TEMPERATURE, **options},
        laws=(laws.nonnegative(), laws.permutation("N"), laws.permutation("D"), *further),
    )


SPECS = (
    spec("implicit", implicit, None),
    spec("unpaired", unpaired, "M D", laws.permutation("M"), laws.mean_over("N"), negative_mode="unpaired"),
    spec("paired", paired, "N M D", laws.permutation("M"), laws.mean_over("N"), negative_mode="paired"),
)
