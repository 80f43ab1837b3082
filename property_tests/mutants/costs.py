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


def classes_from_the_labels(logits, labels):
    hot = torch.nn.functional.one_hot(labels)
    return (logits[:, : hot.shape[1]] * hot).sum()


def classes_from_the_logits(logits, labels):
    """On the CPU alone `one_hot` reads the labels, to check them."""
    return (logits * torch.nn.functional.one_hot(labels, num_classes=logits.shape[1])).sum()


CLASSES = {"inputs": {"logits": TensorSpec("B C"), "labels": TensorSpec("B", domains.index("C"))}}
GRAPH = {
    "inputs": {"embeddings": TensorSpec("N D")},
    "context": {"adjacency": TensorSpec("N N", domains.adjacency(), torch.bool)},
}
MASKED = {
    "inputs": {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
    "context": {"mask": TensorSpec("B C", domains.boolean())},
}

PAIRS = (
    pair("P02", "one read per edge", reads_every_edge, multiplies_by_the_graph, GRAPH, severity="warning"),
    pair("P02", "classes are counted", classes_from_the_labels, classes_from_the_logits, CLASSES, severity="warning"),
    pair(
        "P02", "boolean indexing", selects_by_a_mask, multiplies_by_a_mask, MASKED, severity="warning", says="boolean"
    ),
)
