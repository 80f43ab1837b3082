"""Mutants of the rules about costs: P02."""

from __future__ import annotations

import torch

from harness import TensorSpec, domains
from mutants.pair import pair


def reads_every_edge(embeddings, adjacency):
    total = (embeddings * 0).sum()
    for i in range(len(adjacency)):
        for j in range(len(adjacency)):
            if adjacency[i, j]:
                total = total - embeddings[i] @ embeddings[j]
    return total


def multiplies_by_the_graph(embeddings, adjacency):
    return -(embeddings @ embeddings.mT * adjacency).sum()


def selects_by_a_mask(predictions, labels, mask):
    return ((predictions - labels)[mask] ** 2).sum()


def multiplies_by_a_mask(predictions, labels, mask):
    return torch.where(mask, (predictions - labels) ** 2, 0).sum()


def as_many_classes_as_there_are(logits, labels):
    chosen = torch.nn.functional.one_hot(labels)
    return -(logits.log_softmax(-1)[:, : chosen.shape[1]] * chosen).sum(-1).mean()


def as_many_classes_as_declared(logits, labels):
    return -(logits.log_softmax(-1) * torch.nn.functional.one_hot(labels, logits.shape[1])).sum(-1).mean()


GRAPH = {
    "inputs": {"embeddings": TensorSpec("N D")},
    "context": {"adjacency": TensorSpec("N N", domains.adjacency(), torch.bool)},
}
MASKED = {
    "inputs": {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
    "context": {"mask": TensorSpec("B C", domains.boolean())},
}
CLASSES = {"inputs": {"logits": TensorSpec("B C", domains.logits()), "labels": TensorSpec("B", domains.index("C"))}}

PAIRS = (
    pair("P02", "one read per edge", reads_every_edge, multiplies_by_the_graph, GRAPH, severity="warning"),
    pair(
        "P02", "boolean indexing", selects_by_a_mask, multiplies_by_a_mask, MASKED, severity="warning", says="boolean"
    ),
    pair(
        "P02",
        "one_hot that counts the classes",
        as_many_classes_as_there_are,
        as_many_classes_as_declared,
        CLASSES,
        severity="warning",
    ),
)
