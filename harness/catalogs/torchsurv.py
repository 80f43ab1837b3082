"""Likelihoods of TorchSurv, declared as its documentation says, beside their formulas.

Source: https://github.com/Novartis/torchsurv
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require

cox = require("torchsurv.loss.cox")
weibull = require("torchsurv.loss.weibull")

EVENT = {"event": TensorSpec("B", domains.label(torch.bool))}
RISK = "logsumexp(log_hz[j] for j in B if time[j] >= time[i]{}) - log_hz[i]"
# Without ties, which the package treats by one of two methods.
TIMES = {"time": TensorSpec("B", domains.sorted_along(0, low=0.1, high=5.0, strict=True))}


def some_event(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """At least one event, without which the loss raises."""
    events = torch.rand(shape, generator=generator) < 0.5
    events[:1] = True
    return events.to(dtype)


def spec(name: str, loss: Any, inputs: dict[str, TensorSpec], formula: str, **more: Any) -> LossSpec:
    """One mean of B samples; the first input is what the model predicts."""
    return LossSpec(
        f"torchsurv.{name}",
        {"torchsurv": loss},
        inputs=inputs,
        context={},
        output=TensorSpec(""),
        differentiable=(next(iter(inputs)),),
        formula=formula,
        **more,
    )


def partial_likelihood(variant: str = "", condition: str = "", **strata: TensorSpec) -> LossSpec:
    """Cox's partial likelihood, of each event beside those who are still at risk."""
    each = f"({RISK.format(condition)}) for i in B if event[i] > 0"
    return spec(
        f"neg_partial_log_likelihood{variant}",
        cox.neg_partial_log_likelihood,
        {"log_hz": TensorSpec("B"), **EVENT, **TIMES, **strata},
        f"sum({each}) / max(sum(1 for i in B if event[i] > 0), 1)",
        laws=(laws.nonnegative(), laws.translation_invariant("log_hz")),
    )


SPECS = (
    partial_likelihood(),
    partial_likelihood("-strata", " and strata[j] == strata[i]", strata=TensorSpec("B", domains.index(2))),
    spec(
        "neg_log_likelihood_weibull",
        weibull.neg_log_likelihood_weibull,
        {
            "log_params": TensorSpec("B 2", domains.interval(-2.0, 2.0)),
            "event": TensorSpec("B", domains.custom(some_event), torch.bool),
            "time": TensorSpec("B", domains.interval(0.1, 5.0)),
        },
        "mean(exp(exp(k) * u) - (k - s + (exp(k) - 1) * u if event[b] > 0 else 0) for b in B "
        "for s in [log_params[b, 0]] for k in [log_params[b, 1]] for u in [log(time[b]) - s])",
        laws=(laws.mean_over("B"),),
    ),
)
