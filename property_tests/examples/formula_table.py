"""Losses of torch and of this repository, each with its formula in one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PAIR = "input: B C; target: B C"
CLASSES = "input: B C logits; target: B index(C)"
TERM = "logsumexp(input[b]) - input[b, target[b]]"


@dataclass(frozen=True)
class Written:
    """A loss, its tensors as on the command line, its constants, and its formula."""

    loss: Callable[..., Tensor]
    tensors: str
    formula: str
    context: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def _cosine(input1: Tensor, input2: Tensor, target: Tensor, margin: float) -> Tensor:
    return F.cosine_embedding_loss(input1, input2, target, margin)


def _dice(input: Tensor, target: Tensor) -> Tensor:
    chance = input.sigmoid()
    return 1 - ((2 * (chance * target).sum(1) + 1) / (chance.sum(1) + target.sum(1) + 1)).mean()


def _masked(input: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return (mask * (input - target).square()).sum() / mask.sum().clamp(min=1)


def _focal(input: Tensor, target: Tensor) -> Tensor:
    logp = F.log_softmax(input, 1).gather(1, target[:, None])[:, 0]
    return (-((1 - logp.exp()) ** 2) * logp).mean()


def _total_variation(input: Tensor) -> Tensor:
    return input.diff(dim=1).abs().sum() + input.diff(dim=2).abs().sum()


def _siglip(first: Tensor, second: Tensor) -> Tensor:
    signs = 2 * torch.eye(len(first), dtype=first.dtype, device=first.device) - 1
    return -F.logsigmoid(signs * (first @ second.T)).sum() / len(first)


def _clip(first: Tensor, second: Tensor) -> Tensor:
    logits, places = first @ second.T, torch.arange(len(first), device=first.device)
    return (F.cross_entropy(logits, places) + F.cross_entropy(logits.T, places)) / 2


def _ranks(input: Tensor, target: Tensor) -> Tensor:
    over = (1 - (input[:, None] - input)).clamp(min=0)
    return (over * (target[:, None] > target)).sum() / len(input)


def _cox(risk: Tensor, time: Tensor, event: Tensor) -> Tensor:
    at_risk = torch.where(time[:, None] <= time, risk, -torch.inf).logsumexp(1)
    return (event * (at_risk - risk)).mean()


def _padded(input: Tensor, lengths: Tensor) -> Tensor:
    inside = torch.arange(input.shape[1], device=input.device) < lengths[:, None]
    return (input.square() * inside).sum() / len(input)


TORCH = {
    "mse": Written(F.mse_loss, PAIR, "mean((input[b, c] - target[b, c])**2 for b in B for c in C)"),
    "mse sum": Written(
        F.mse_loss, PAIR, "sum((input[b, c] - target[b, c])**2 for b in B for c in C)", options={"reduction": "sum"}
    ),
    "mse none": Written(
        F.mse_loss, PAIR, "((input[b, c] - target[b, c])**2 for b in B for c in C)", options={"reduction": "none"}
    ),
    "l1": Written(F.l1_loss, PAIR, "mean(abs(input[b, c] - target[b, c]) for b in B for c in C)"),
    "smooth l1": Written(
        F.smooth_l1_loss,
        PAIR,
        "mean(d**2 / (2 * beta) if d < beta else d - beta / 2 for b in B for c in C for d in [abs(input[b, c] - target[b, c])])",
        options={"beta": 0.7},
    ),
    "huber": Written(
        F.huber_loss,
        PAIR,
        "mean(d**2 / 2 if d < delta else delta * (d - delta / 2) for b in B for c in C for d in [abs(input[b, c] - target[b, c])])",
        options={"delta": 0.6},
    ),
    "binary cross entropy": Written(
        F.binary_cross_entropy,
        "input: B C interval(0.05, 0.95); target: B C probability",
        "-mean(target[b, c] * log(input[b, c]) + (1 - target[b, c]) * log(1 - input[b, c]) for b in B for c in C)",
    ),
    "binary cross entropy with logits": Written(
        F.binary_cross_entropy_with_logits,
        "input: B C logits; target: B C probability",
        "mean(softplus(input[b, c]) - target[b, c] * input[b, c] for b in B for c in C)",
    ),
    "weighted binary cross entropy": Written(
        F.binary_cross_entropy_with_logits,
        "input: B C logits; target: B C probability",
        "mean(pos_weight[c] * target[b, c] * softplus(-input[b, c]) + (1 - target[b, c]) * softplus(input[b, c]) "
        "for b in B for c in C)",
        "pos_weight: C positive",
    ),
    "cross entropy": Written(F.cross_entropy, CLASSES, f"mean({TERM} for b in B)"),
    "cross entropy sum": Written(F.cross_entropy, CLASSES, f"sum({TERM} for b in B)", options={"reduction": "sum"}),
    "cross entropy weighted": Written(
        F.cross_entropy,
        CLASSES,
        f"sum(weight[target[b]] * ({TERM}) for b in B) / sum(weight[target[b]] for b in B)",
        "weight: C positive",
    ),
    "cross entropy ignored": Written(
        F.cross_entropy,
        "input: B C logits; target: B index(C, ignore=-100)",
        f"mean({TERM} for b in B if target[b] != -100)",
    ),
    "cross entropy smoothed": Written(
        F.cross_entropy,
        CLASSES,
        "mean(logsumexp(input[b]) - (1 - e) * input[b, target[b]] - e * mean(input[b]) for b in B for e in [label_smoothing])",
        options={"label_smoothing": 0.2},
    ),
    "cross entropy of probabilities": Written(
        F.cross_entropy,
        "input: B C logits; target: B C simplex(-1)",
        "-sum(target[b, c] * log_softmax(input[b])[c] for b in B for c in C) / B",
    ),
    "cross entropy over positions": Written(
        F.cross_entropy,
        "input: B C T logits; target: B T index(C, ignore=-100)",
        "mean(logsumexp(input[b, c, t] for c in C) - input[b, target[b, t], t] for b in B for t in T if target[b, t] >= 0)",
    ),
    "nll": Written(F.nll_loss, "input: B C; target: B index(C)", "-mean(input[b, target[b]] for b in B)"),
    "nll weighted": Written(
        F.nll_loss,
        "input: B C; target: B index(C)",
        "-sum(weight[target[b]] * input[b, target[b]] for b in B) / sum(weight[target[b]] for b in B)",
        "weight: C positive",
    ),
    "kl of logarithms": Written(
        F.kl_div,
        "input: B C; target: B C",
        "sum(exp(target[b, c]) * (target[b, c] - input[b, c]) for b in B for c in C) / B",
        options={"reduction": "batchmean", "log_target": True},
    ),
    "poisson": Written(
        F.poisson_nll_loss,
        "input: B C; target: B C nonnegative",
        "mean(exp(input[b, c]) - target[b, c] * input[b, c] for b in B for c in C)",
    ),
    "gaussian": Written(
        F.gaussian_nll_loss,
        "input: B C; target: B C; var: B C positive",
        "mean((log(v) + (input[b, c] - target[b, c])**2 / v) / 2 for b in B for c in C for v in [max(var[b, c], 1e-6)])",
    ),
    "hinge embedding": Written(
        F.hinge_embedding_loss,
        "input: B C; target: B C sign",
        "mean(input[b, c] if target[b, c] == 1 else max(margin - input[b, c], 0) for b in B for c in C)",
        options={"margin": 0.9},
    ),
    "soft margin": Written(
        F.soft_margin_loss,
        "input: B C; target: B C sign",
        "mean(softplus(-target[b, c] * input[b, c]) for b in B for c in C)",
    ),
    "margin ranking": Written(
        F.margin_ranking_loss,
        "input1: B; input2: B; target: B sign",
        "mean(max(0, margin - target[b] * (input1[b] - input2[b])) for b in B)",
        options={"margin": 0.3},
    ),
    "multi margin": Written(
        F.multi_margin_loss,
        CLASSES,
        "sum(max(0, 1 - input[b, target[b]] + input[b, c]) for b in B for c in C if c != target[b]) / (B * C)",
    ),
    "multilabel soft margin": Written(
        F.multilabel_soft_margin_loss,
        "input: B C; target: B C binary",
        "mean(target[b, c] * softplus(-input[b, c]) + (1 - target[b, c]) * softplus(input[b, c]) for b in B for c in C)",
    ),
    "cosine embedding": Written(
        _cosine,
        "input1: B D; input2: B D; target: B sign",
        "mean(1 - k if target[b] == 1 else max(0, k - margin) for b in B "
        "for k in [dot(input1[b], input2[b]) / (norm(input1[b]) * norm(input2[b]))])",
        options={"margin": 0.1},
    ),
    "triplet": Written(
        F.triplet_margin_loss,
        "anchor: B D; positive: B D; negative: B D",
        "mean(max(norm(anchor[b] - positive[b] + eps) - norm(anchor[b] - negative[b] + eps) + margin, 0) for b in B)",
        options={"margin": 0.8, "eps": 1e-6},
    ),
    "triplet with p = 1 and a swap": Written(
        F.triplet_margin_loss,
        "anchor: B D; positive: B D; negative: B D",
        "mean(max(0, sum(abs(anchor[b, d] - positive[b, d] + eps) for d in D) - min(sum(abs(anchor[b, d] - negative[b, d] + eps) "
        "for d in D), sum(abs(positive[b, d] - negative[b, d] + eps) for d in D)) + margin) for b in B)",
        options={"margin": 0.8, "eps": 1e-6, "p": 1, "swap": True},
    ),
    "kl": Written(
        F.kl_div,
        "input: B C; target: B C simplex(-1)",
        "mean(t * (log(t) - input[b, c]) if t > 0 else 0 for b in B for c in C for t in [target[b, c]])",
    ),
    "poisson of rates": Written(
        F.poisson_nll_loss,
        "input: B C positive; target: B C nonnegative",
        "sum(input[b, c] - target[b, c] * log(input[b, c] + eps) for b in B for c in C)",
        options={"log_input": False, "eps": 1e-8, "reduction": "sum"},
    ),
    "multi margin squared": Written(
        F.multi_margin_loss,
        CLASSES,
        "sum(max(0, margin - input[b, target[b]] + input[b, c])**2 for b in B for c in C if c != target[b]) / (B * C)",
        options={"p": 2, "margin": 0.4},
    ),
    "cosine similarity": Written(
        F.cosine_similarity,
        "x1: B D; x2: B D",
        "(dot(x1[b], x2[b]) / (max(norm(x1[b]), 1e-8) * max(norm(x2[b]), 1e-8)) for b in B)",
    ),
    "pairwise distance": Written(
        F.pairwise_distance, "x1: B D; x2: B D", "(norm(x1[b] - x2[b] + eps) for b in B)", options={"eps": 1e-6}
    ),
    "nll over positions": Written(
        F.nll_loss,
        "input: B C T; target: B T index(C)",
        "(-input[b, target[b, t], t] for b in B for t in T)",
        options={"reduction": "none"},
    ),
    "dice": Written(
        _dice,
        "input: B C; target: B C binary",
        "1 - mean((2 * sum(sigmoid(input[b, c]) * target[b, c] for c in C) + 1) / "
        "(sum(sigmoid(input[b, c]) + target[b, c] for c in C) + 1) for b in B)",
    ),
    "masked mean": Written(
        _masked,
        "input: B T; target: B T",
        "sum(mask[b, t] * (input[b, t] - target[b, t])**2 for b in B for t in T) / max(sum(mask), 1)",
        "mask: B T binary",
    ),
    "focal": Written(
        _focal, CLASSES, "mean(-(1 - exp(l))**2 * l for b in B for l in [log_softmax(input[b])[target[b]]])"
    ),
    "total variation": Written(
        _total_variation,
        "input: B H W",
        "sum(abs(input[b, h + 1, w] - input[b, h, w]) for b in B for h in range(H - 1) for w in W) + "
        "sum(abs(input[b, h, w + 1] - input[b, h, w]) for b in B for h in H for w in range(W - 1))",
    ),
    "siglip": Written(
        _siglip,
        "first: N D; second: N D",
        "-sum(logsigmoid((1 if i == j else -1) * dot(first[i], second[j])) for i in N for j in N) / N",
    ),
    "clip": Written(
        _clip,
        "first: N D; second: N D",
        "mean((logsumexp(dot(first[i], second[j]) for j in N) + logsumexp(dot(first[j], second[i]) for j in N)) / 2 "
        "- dot(first[i], second[i]) for i in N)",
    ),
    "pairs": Written(
        _ranks,
        "input: N; target: N",
        "sum(max(0, 1 - (input[i] - input[j])) for i in N for j in N if target[i] > target[j]) / N",
    ),
    "cox": Written(
        _cox,
        "risk: N; time: N positive",
        "mean(event[i] * (logsumexp(risk[j] for j in N if time[j] >= time[i]) - risk[i]) for i in N)",
        "event: N binary",
    ),
    "lengths": Written(
        _padded, "input: B T; lengths: B index(T)", "sum(input[b, t]**2 for b in B for t in range(lengths[b])) / B"
    ),
}

_WEIGHTED = "(predictions[i, h, w] - labels[i, h, w])**2 for i in batch for h in H for w in W"
_ADJUSTED = "logits[b, c] + log(priors[c])"
_SQUARED = "sum((embeddings[i, d] - embeddings[j, d])**2 for d in D)"

OWN = {
    "weighted_mse": f"sum(mask[h, w] * {_WEIGHTED}) / (batch * H * W)",
    "weighted_mse_cropped": "sum(mask[corner[0] + h, corner[1] + w] * " + _WEIGHTED + ") / (batch * H * W)",
    "weighted_mse_series": "mean(mask[t] * (predictions[i, t] - labels[i, t])**2 for i in batch for t in T)",
    "weighted_mse_broadcast": "mean(mask[c, h, w] * (predictions[i, c, h, w] - labels[i, c, h, w])**2 "
    "for i in batch for c in C for h in H for w in W)",
    "graph_distance": "-sum(dot(embeddings[i], embeddings[j]) / (norm(embeddings[i]) * norm(embeddings[j])) for i in N for j in N "
    "if adjacency[i, j] and norm(embeddings[i]) > 0 and norm(embeddings[j]) > 0)",
    "dynamic_weighted": "mean(weights[b] * (predictions[b, r] - labels[b, r])**2 for b in B for r in rest)",
    "dynamic_weighted_indexed": "mean(weights[indices[b]] * (predictions[b, r] - labels[b, r])**2 for b in B for r in rest)",
    "laplacian_smoothness": f"sum(adjacency[i, j] * {_SQUARED} for i in N for j in N) / 2",
    "cost_matrix_cross_entropy": "mean(-log_softmax(logits[b])[labels[b]] + sum(costs[labels[b], c] * p[c] for c in C) "
    "for b in B for p in [softmax(logits[b])])",
    "logit_adjustment": f"sum(logsumexp({_ADJUSTED} for c in C if priors[c] > 0) - logits[b, labels[b]] - log(priors[labels[b]]) "
    "for b in B if priors[labels[b]] > 0) / B",
    "mahalanobis": "mean(sum((vectors[i, d] - means[i, d]) * precision[d, e] * (vectors[i, e] - means[i, e]) "
    "for d in D for e in range(D)) / 2 for i in batch)",
    "memory_bank_contrastive": "mean(logsumexp(dot(queries[b], bank[i]) / t for i in N) - dot(queries[b], bank[positives[b]]) / t "
    "for b in B for t in [0.07])",
    "distillation": "sum(p[c] * (log_softmax(teacher_logits[indices[b]] / 2)[c] - log_softmax(logits[b] / 2)[c]) "
    "for b in B for p in [softmax(teacher_logits[indices[b]] / 2)] for c in C) * 4 / B",
    "focal": "mean(-alpha[labels[b]] * (1 - exp(l))**2 * l for b in B for l in [log_softmax(logits[b])[labels[b]]])",
    "sinkhorn": "sum(source[b, i] * target[b, j] * exp((u[i] + v[j] - costs[i, j]) / e) * costs[i, j] for b in B for e in [0.1] "
    "for f in [[-e * logsumexp(log(target[b, j]) - costs[i, j] / e for j in M if target[b, j] > 0) for i in N]] "
    "for g in [[-e * logsumexp(log(source[b, i]) + (f[i] - costs[i, j]) / e for i in N if source[b, i] > 0) for j in M]] "
    "for u in [[-e * logsumexp(log(target[b, j]) + (g[j] - costs[i, j]) / e for j in M if target[b, j] > 0) for i in N]] "
    "for v in [[-e * logsumexp(log(source[b, i]) + (u[i] - costs[i, j]) / e for i in N if source[b, i] > 0) for j in M]] "
    "for i in N for j in M) / B",
}
