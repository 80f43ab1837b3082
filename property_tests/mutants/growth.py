"""Mutants of the rules about what grows faster than the data: P01, P03."""

from __future__ import annotations

import torch

from harness import TensorSpec
from mutants.pair import pair


def one_step_per_sample(predictions, labels):
    total = predictions.new_zeros(())
    for prediction, label in zip(predictions.unbind(), labels.unbind(), strict=True):
        total = total + ((prediction - label) ** 2).sum()
    return total / max(predictions.numel(), 1)


def all_samples_at_once(predictions, labels):
    return ((predictions - labels) ** 2).sum() / max(predictions.numel(), 1)


def mean_by_halves(predictions, labels):
    """A tree of sums: one step more when the data double, which is no loop over them."""
    errors = ((predictions - labels) ** 2).flatten()
    count = errors.numel()
    while errors.numel() > 1:
        odd = errors[-1:] if errors.numel() % 2 else errors[:0]
        half = errors.numel() // 2
        errors = torch.cat([errors[:half] + errors[half : 2 * half], odd])
    return errors.sum() / max(count, 1)


def another_path_for_larger_batches(predictions, labels):
    """A step more above one size, many more above the next, and then always as many."""
    errors = predictions - labels
    if len(predictions) > 2:
        errors = errors.flatten()
    if len(predictions) > 4:
        largest = errors.detach().abs().amax().clamp(min=1e-6)
        errors = (errors / largest).square().sum(0, keepdim=True).sqrt() * largest
    return errors.square().sum() / max(predictions.numel(), 1)


def squares_of_differences(embeddings):
    return ((embeddings[:, None, :] - embeddings[None, :, :]) ** 2).sum(-1).mean()


def squares_of_differences_in_pieces(embeddings):
    pieces = [(embeddings - row).square() for row in embeddings]
    return sum(piece.sum() for piece in pieces)


def differences_by_products(embeddings):
    squares = embeddings.square().sum(-1)
    return (squares[:, None] + squares[None, :] - 2 * embeddings @ embeddings.mT).mean()


def differences_by_absolute_values(embeddings):
    return (embeddings[:, None, :] - embeddings[None, :, :]).abs().sum(-1).mean()


def ensemble_score(members, labels):
    """The continuous ranked probability score: every pair of members, in every place."""
    spread = (members[:, None] - members[None]).abs().mean((0, 1)) / 2
    return ((members - labels).abs().mean(0) - spread).mean()


def differences_to_prototypes(embeddings, prototypes):
    return (embeddings[:, None, :] - prototypes[None, :, :]).square().sum(-1).amin(1).mean()


def response_of_filters(images, filters):
    return torch.nn.functional.conv2d(images[:, None], filters[:, None]).square().mean()


def products_of_features(embeddings):
    return embeddings[:, :, None] * embeddings[:, None, :]


def spread_by_all_pairs(values):
    return (values[:, None] - values[None, :]).square().sum() / (2 * len(values) ** 2)


def spread_around_the_mean(values):
    return (values - values.mean()).square().mean()


def spread_by_a_loop(values):
    mean = values.mean()
    return torch.stack([(value - mean) ** 2 for value in values.unbind()]).mean()


def squares_by_all_pairs(embeddings):
    """sum |z_i - mean|^2, by one product of all pairs."""
    products = embeddings @ embeddings.mT
    return products.diagonal().sum() - products.mean(0).sum()


def squares_around_the_mean(embeddings):
    return (embeddings - embeddings.mean(0)).square().sum()


def squares_by_a_loop(embeddings):
    mean = embeddings.mean(0)
    return torch.stack([((row - mean) ** 2).sum() for row in embeddings.unbind()]).sum()


EMBEDDINGS = {"inputs": {"embeddings": TensorSpec("N D")}}
PROTOTYPES = {"inputs": {"embeddings": TensorSpec("N D"), "prototypes": TensorSpec("K D")}}
ENSEMBLE = {"inputs": {"members": TensorSpec("M B"), "labels": TensorSpec("B")}}
FILTERS = {"inputs": {"images": TensorSpec("B H+2 W+2"), "filters": TensorSpec("K 3 3")}}
VALUES = {"inputs": {"values": TensorSpec("N")}}

PAIRS = (
    pair("P01", "loop over samples", one_step_per_sample, all_samples_at_once, severity="warning", says="as B doubles"),
    pair("P01", "loop where halves would do", one_step_per_sample, mean_by_halves, severity="warning"),
    pair("P01", "loop where a jump would do", one_step_per_sample, another_path_for_larger_batches, severity="warning"),
    pair(
        "P01",
        "the reference is a loop",
        one_step_per_sample,
        all_samples_at_once,
        severity="warning",
        reference=one_step_per_sample,
    ),
    pair(
        "P03",
        "differences of all pairs",
        squares_of_differences,
        differences_by_products,
        EMBEDDINGS,
        severity="warning",
        aspect="degree",
    ),
    pair(
        "P03",
        "differences of all pairs in pieces",
        squares_of_differences_in_pieces,
        differences_by_products,
        EMBEDDINGS,
        severity="warning",
        aspect="degree",
    ),
    pair(
        "P03",
        "pairs that are a distance",
        differences_by_absolute_values,
        ensemble_score,
        EMBEDDINGS,
        severity="warning",
        says="[N, N, D], the result of sub",
        twin_declares=ENSEMBLE,
    ),
    pair(
        "P03",
        "pairs with prototypes",
        differences_to_prototypes,
        response_of_filters,
        PROTOTYPES,
        severity="warning",
        says="[N, K, D], the result of sub",
        twin_declares=FILTERS,
    ),
    pair(
        "P03",
        "pairs that are not declared",
        squares_of_differences,
        products_of_features,
        EMBEDDINGS,
        severity="warning",
        twin_declares={"output": TensorSpec("N D D")},
    ),
    pair(
        "P03",
        "pairs where the reference has none",
        spread_by_all_pairs,
        spread_around_the_mean,
        VALUES,
        severity="warning",
        aspect="grows with N",
        reference=spread_by_a_loop,
    ),
    pair(
        *("P03", "pairs of few rows of many columns", squares_by_all_pairs, squares_around_the_mean, EMBEDDINGS),
        severity="warning",
        says="the largest tensor is [N, N], the result of mm",
        reference=squares_by_a_loop,
    ),
)
