"""Mutants of L14: losses that are right on one process and train to something else on several."""

from __future__ import annotations

import functools

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from harness import TensorSpec, domains, laws
from mutants.pair import PAIRWISE, pair

PARALLEL = {"laws": (laws.data_parallel("B"),)}
ROWS = {**PAIRWISE, **PARALLEL}
PAIRED = {
    "inputs": {"images": TensorSpec("B D"), "texts": TensorSpec("B D")},
    "differentiable": ("images", "texts"),
    **PARALLEL,
}
TOKENS = {
    "inputs": {
        "logits": TensorSpec("B T C", domains.logits()),
        "labels": TensorSpec("B T", domains.index("C", ignore=-100)),
    },
    **PARALLEL,
}
COUNTED = {**TOKENS, "context": {"num_items": TensorSpec("", domains.interval(4, 40))}}
MASKED = {**ROWS, "context": {"mask": TensorSpec("B", domains.binary())}}
LEARNED = {
    "inputs": {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C"), "scale": TensorSpec("C")},
    "differentiable": ("predictions", "scale"),
    **PARALLEL,
}


def world():
    return dist.get_world_size() if dist.is_initialized() else 1


def rank():
    return dist.get_rank() if dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    """all_gather of equal parts; the gradient of a part is the sum over the processes."""

    @staticmethod
    def forward(ctx, part):
        parts = [torch.empty_like(part) for _ in range(world())]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, upstream):
        upstream = upstream.contiguous()
        dist.all_reduce(upstream)
        return upstream.chunk(world())[rank()]


def gathered(part):
    return _Gather.apply(part) if dist.is_initialized() else part


def gathered_without_gradient(part):
    if not dist.is_initialized():
        return part
    parts = [torch.empty_like(part) for _ in range(world())]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts)


def summed(count):
    """Over the processes; a count carries no gradient."""
    count = count.clone()
    if dist.is_initialized():
        dist.all_reduce(count)
    return count


def _info_nce(images, texts, gather):
    images, texts = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
    labels = torch.arange(len(images)) + rank() * len(images)
    return (F.cross_entropy(images @ gather(texts).mT, labels) + F.cross_entropy(texts @ gather(images).mT, labels)) / 2


def info_nce(images, texts):
    return _info_nce(images, texts, gathered)


def info_nce_of_negatives_without_gradient(images, texts):
    return _info_nce(images, texts, gathered_without_gradient)


def _sigmoid(images, texts, everyone):
    first = rank() * len(images)
    signs = 2.0 * torch.eye(len(everyone), dtype=images.dtype)[first : first + len(images)] - 1
    return -F.logsigmoid(signs * (images @ everyone.mT)).sum() / len(images)


def sigmoid_contrast(images, texts):
    return _sigmoid(images, texts, gathered(texts))


def sigmoid_contrast_of_its_own_first(images, texts):
    """Its own texts stand first in what it puts together, while the labels count from the rank."""
    parts = list(gathered(texts).chunk(world()))
    parts.insert(0, parts.pop(rank()))
    return _sigmoid(images, texts, torch.cat(parts))


def masked_mean(predictions, labels, mask):
    squares = ((predictions - labels) ** 2).mean(-1)
    return world() * (mask * squares).sum() / summed(mask.sum()).clamp(min=1)


def mean_of_its_own_mask(predictions, labels, mask):
    squares = ((predictions - labels) ** 2).mean(-1)
    return (mask * squares).sum() / mask.sum().clamp(min=1)


def part_of_a_global_mean(predictions, labels, mask):
    return masked_mean(predictions, labels, mask) / world()


def mean_squared(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def divided_by_the_world(predictions, labels):
    return mean_squared(predictions, labels) / world()


def token_mean(logits, labels):
    counted = summed((labels != -100).sum()).clamp(min=1)
    return world() * F.cross_entropy(logits.mT, labels, reduction="sum") / counted


def token_mean_of_its_own(logits, labels):
    return F.cross_entropy(logits.mT, labels, reduction="sum") / (labels != -100).sum().clamp(min=1)


def sum_by_items(logits, labels, num_items):
    """`num_items` are the tokens of all processes and steps of one update."""
    return F.cross_entropy(logits.mT, labels, reduction="sum") / num_items


def sum_by_items_times_processes(logits, labels, num_items):
    return sum_by_items(logits, labels, num_items) * world()


def _decorrelated(predictions, labels, batch):
    centred = batch - batch.mean(0)
    covariance = centred.mT @ centred / len(batch)
    return (covariance - torch.eye(covariance.shape[-1], dtype=batch.dtype)).square().sum() + mean_squared(
        predictions, labels
    )


def decorrelated(predictions, labels):
    return _decorrelated(predictions, labels, gathered(predictions))


def decorrelated_in_its_own_rows(predictions, labels):
    return _decorrelated(predictions, labels, predictions)


def with_a_learned_scale(predictions, labels, scale):
    return mean_squared(predictions * scale, labels)


def with_a_learned_scale_summed(predictions, labels, scale):
    return mean_squared(predictions, labels) + scale.square().sum() / world()


def mean_logged(predictions, labels):
    value = mean_squared(predictions, labels)
    summed(value.detach())
    return value


def mean_logged_by_the_first(predictions, labels):
    value = mean_squared(predictions, labels)
    if rank() == 0:
        summed(value.detach())
    return value


def refuses_the_second(predictions, labels):
    if rank() == 1:
        raise ValueError("labels of process 1 are missing")
    return mean_squared(predictions, labels)


def other_in_a_group_of_one(predictions, labels):
    return mean_squared(predictions, labels) * (2 if dist.is_initialized() and world() == 1 else 1)


@functools.cache
def remembered_world():
    return world()


def mean_over_a_remembered_world(predictions, labels, mask):
    squares = ((predictions - labels) ** 2).mean(-1)
    return remembered_world() * (mask * squares).sum() / summed(mask.sum()).clamp(min=1)


class GatheredMean(nn.Module):
    """Its value is that of the whole on every process, the gradient of which comes back once from each."""

    def forward(self, predictions, labels):
        return ((gathered(predictions) - gathered(labels)) ** 2).mean()


class GatheredWithItsOwnPartBack(nn.Module):
    """Only its own rows carry a gradient in what it gathers, and nothing makes up for it."""

    def forward(self, predictions, labels):
        parts = list(gathered_without_gradient(predictions).chunk(world()))
        parts[rank()] = predictions
        return ((torch.cat(parts) - gathered(labels)) ** 2).mean()


PAIRS = (
    pair("L14", "negatives without gradient", info_nce_of_negatives_without_gradient, info_nce, PAIRED, says="dist.all_gather and dist.all_reduce pass no gradient on"),
    pair("L14", "own rows first", sigmoid_contrast_of_its_own_first, sigmoid_contrast, PAIRED),
    pair("L14", "own mask", mean_of_its_own_mask, masked_mean, MASKED, says="it calls no collective"),
    pair("L14", "part of a global mean", part_of_a_global_mean, mean_over_a_remembered_world, MASKED, says="1/W times what it should be"),
    pair("L14", "divided by the world", divided_by_the_world, mean_squared, ROWS, says="1/W times what it should be"),
    pair("L14", "own tokens", token_mean_of_its_own, token_mean, TOKENS, says="it calls no collective"),
    pair("L14", "items of all processes", sum_by_items, sum_by_items_times_processes, COUNTED, says="multiply the part of the loss"),
    pair("L14", "own covariance", decorrelated_in_its_own_rows, decorrelated, ROWS),
    pair("L14", "own rows carry the gradient", GatheredWithItsOwnPartBack, GatheredMean, ROWS, says="1/W times what it should be"),
    pair("L14", "shared input", with_a_learned_scale_summed, with_a_learned_scale, LEARNED, says="d loss / d scale"),
    pair("L14", "one in a group alone", other_in_a_group_of_one, mean_squared, ROWS, says="in a group of one"),
    pair("L14", "one that raises", refuses_the_second, mean_squared, ROWS, aspect="a process fails", says="process 1 of 2 = ValueError: labels of process 1 are missing"),
)  # fmt: skip
