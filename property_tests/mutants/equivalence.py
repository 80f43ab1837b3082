"""Mutants of the rules that hold a candidate to its reference, and a formula to its loops: E01, E02, E03, E04, E06."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from harness import TensorSpec, domains
from harness.declare.formulas import Formula
from harness.declare.formulas.vectors import Vectors
from mutants.pair import PAIRWISE, pair


def weighted_mean(predictions, labels, weights):
    total = predictions.new_zeros(())
    for weight, row, label in zip(weights.unbind(), predictions.unbind(), labels.unbind(), strict=True):
        total = total + weight * ((row - label) ** 2).mean()
    return total / weights.sum()


def plain_mean(predictions, labels, weights):
    return (weights.unsqueeze(-1) * (predictions - labels) ** 2).mean()


def weighted_mean_at_once(predictions, labels, weights):
    return (weights @ ((predictions - labels) ** 2).mean(-1)) / weights.sum()


def per_sample(predictions, labels, weights):
    total = predictions.new_zeros(())
    for weight, row, label in zip(weights.unbind(), predictions.unbind(), labels.unbind(), strict=True):
        total = total + weight * ((row - label) ** 2).mean()
    return total / max(len(weights), 1)


def weights_as_a_column(predictions, labels, weights):
    return (weights.view(-1, 1) * (predictions - labels) ** 2).mean()


def weights_with_every_axis(predictions, labels, weights):
    return (weights.view(-1, *[1] * (predictions.ndim - 1)) * (predictions - labels) ** 2).mean()


def cosine_by_pairs(predictions, labels):
    rows = zip(predictions.unbind(), labels.unbind(), strict=True)
    return sum(1 - a @ b / (a.norm() * b.norm() + 1e-3) for a, b in rows) / len(predictions)


def cosine_with_constant_lengths(predictions, labels):
    lengths = predictions.norm(dim=-1) * labels.norm(dim=-1) + 1e-3
    return (1 - (predictions * labels).sum(-1) / lengths.detach()).mean()


def cosine_by_pairs_of_constant_lengths(predictions, labels):
    rows = zip(predictions.unbind(), labels.unbind(), strict=True)
    return sum(1 - a @ b / (a.norm() * b.norm() + 1e-3).detach() for a, b in rows) / len(predictions)


def cosine_with_constant_predictions(predictions, labels):
    lengths = predictions.norm(dim=-1) * labels.norm(dim=-1) + 1e-3
    return (1 - (predictions.detach() * labels).sum(-1) / lengths).mean()


def cosine_of_rows(predictions, labels):
    lengths = predictions.norm(dim=-1) * labels.norm(dim=-1) + 1e-3
    return (1 - (predictions * labels).sum(-1) / lengths).mean()


def huber_by_elements(predictions, labels):
    errors = (predictions - labels).reshape(-1).unbind()
    return sum(0.5 * e**2 if abs(float(e)) <= 1 else abs(e) - 0.5 for e in errors) / len(errors)


def huber_without_the_half(predictions, labels):
    error = (predictions - labels).abs()
    return torch.where(error <= 1, 0.5 * error**2, error - 0.51).mean()


def huber(predictions, labels):
    error = (predictions - labels).abs()
    return torch.where(error <= 1, 0.5 * error**2, error - 0.5).mean()


class _ClampedBackward(torch.autograd.Function):
    """Clips the gradient "for stability"."""

    @staticmethod
    def forward(ctx, error):
        ctx.save_for_backward(error)
        return error**2

    @staticmethod
    def backward(ctx, upstream):
        (error,) = ctx.saved_tensors
        return upstream * (2 * error).clamp(-3, 3)


def mean_of_squares(predictions, labels):
    errors = (predictions - labels).reshape(-1).unbind()
    return sum(e**2 for e in errors) / len(errors)


def with_a_clipped_backward(predictions, labels):
    return _ClampedBackward.apply(predictions - labels).mean()


def sum_over_columns(predictions, labels):
    return ((predictions - labels) ** 2).sum(-1).mean()


def large_errors_clipped(predictions, labels):
    return ((predictions - labels).clamp(-8, 8) ** 2).mean()


def mean_squared(predictions, labels):
    return ((predictions - labels) ** 2).mean()


class _StoredGradient(torch.autograd.Function):
    """Computes the gradient in forward, where there is no graph."""

    @staticmethod
    def forward(ctx, predictions, labels):
        ctx.save_for_backward(2 * (predictions - labels) / predictions.numel())
        return ((predictions - labels) ** 2).mean()

    @staticmethod
    def backward(ctx, upstream):
        return upstream * ctx.saved_tensors[0], None


def with_a_stored_gradient(predictions, labels):
    return _StoredGradient.apply(predictions, labels)


def distances_by_differences(predictions, labels):
    rows = zip(predictions.unbind(), labels.unbind(), strict=True)
    return sum(((a - b) ** 2).sum() for a, b in rows) / len(predictions)


def distances_by_inner_products(predictions, labels):
    squares = predictions.square().sum(-1) + labels.square().sum(-1)
    return (squares - 2 * (predictions * labels).sum(-1)).mean()


def distances_of_rows(predictions, labels):
    return (predictions - labels).square().sum(-1).mean()


DETACHED = {**PAIRWISE, "detaches": True, "differentiable": ("predictions",)}
OF_A_NORMAL = {
    "inputs": {
        "observed": TensorSpec("B"),
        "mean": TensorSpec("B"),
        "scale": TensorSpec("B", domains.interval(0.5, 5.0)),
    }
}
ROOT = 2.5066282746310002  # of 2 pi


def log_score_by_elements(observed, mean, scale):
    elements = zip(observed.unbind(), mean.unbind(), scale.unbind(), strict=True)
    return sum(((y - m) / s).square() / 2 + (s * ROOT).log() for y, m, s in elements) / len(observed)


def log_of_the_density(observed, mean, scale):
    return -(torch.exp(-(((observed - mean) / scale).square()) / 2) / (scale * ROOT)).log().mean()


def log_score(observed, mean, scale):
    return (((observed - mean) / scale).square() / 2 + (scale * ROOT).log()).mean()


SQUARES = "mean((predictions[b, c] - labels[b, c])**2 for b in B for c in C)"
DIMS = {"predictions": "B C", "labels": "B C"}


def next_token(logits, tokens):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def same_token(logits, tokens):
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def next_token_of_the_transposed(logits, tokens):
    return F.cross_entropy(logits.mT[..., :-1], tokens[:, 1:])


def classes(logits, labels):
    return F.cross_entropy(logits, labels)


def classes_counted_from_one(logits, labels):
    return F.cross_entropy(logits, (labels + 1) % logits.shape[1])


def classes_by_logsumexp(logits, labels):
    return (logits.logsumexp(-1) - logits.gather(-1, labels[:, None])[:, 0]).mean()


def weighted_columns(costs, weights):
    return (weights * costs**2).sum()


def weighted_rows(costs, weights):
    return (weights[:, None] * costs**2).sum()


def weighted_columns_at_once(costs, weights):
    return (costs**2).sum(0) @ weights


def weighted_matches(one, other, weights):
    return (torch.nn.functional.softplus(-(one @ other.mT)) * weights[:, None]).mean()


def weighted_matches_of_columns(one, other, weights):
    return (torch.nn.functional.softplus(-(one @ other.mT)) * weights).mean()


def weighted_matches_turned(one, other, weights):
    return (torch.nn.functional.softplus(-(other @ one.mT)) * weights).mean()


def mean_of_each_row(predictions, labels, kept):
    rows = [((p - y) ** 2 * k).sum() / k.sum().clamp(min=1) for p, y, k in zip(predictions, labels, kept, strict=True)]
    return torch.stack(rows).mean()


def mean_of_all_rows(predictions, labels, kept):
    return ((predictions - labels) ** 2 * kept).sum() / kept.sum().clamp(min=1)


def mean_of_each_row_at_once(predictions, labels, kept):
    return (((predictions - labels) ** 2 * kept).sum(1) / kept.sum(1).clamp(min=1)).mean()


def weighted_samples(predictions, labels, weights):
    return (weights * (predictions - labels).square().mean(-1)).mean()


def weighted_pairs(predictions, labels, weights):
    return (weights.view(-1, 1) * (predictions - labels).square().mean(-1)).mean()


def weighted_samples_at_once(predictions, labels, weights):
    return (weights[:, None] * (predictions - labels).square()).mean()


def divergence(predictions, labels):
    return (labels * (labels / predictions).log()).sum(-1).mean()


def divergence_turned(predictions, labels):
    return (predictions * (predictions / labels).log()).sum(-1).mean()


def divergence_of_logarithms(predictions, labels):
    return (labels * (labels.log() - predictions.log())).sum(-1).mean()


class _OtherVectors(Formula):
    """Its vectorized form forgets a half."""

    def evaluated(self, given, how):
        return super().evaluated(given, how) * (0.5 if how is Vectors else 1)


WEIGHTED = {**PAIRWISE, "context": {"weights": TensorSpec("B", domains.positive())}}
WEIGHTED_SAMPLES = {
    "inputs": {"predictions": TensorSpec("B *rest"), "labels": TensorSpec("B *rest")},
    "context": {"weights": TensorSpec("B", domains.positive())},
}

TOKENS = {"inputs": {"logits": TensorSpec("B T V", domains.logits()), "tokens": TensorSpec("B T", domains.index("V"))}}
CLASSES = {"inputs": {"logits": TensorSpec("B C", domains.logits()), "labels": TensorSpec("B", domains.index("C"))}}
SQUARE = {"inputs": {"costs": TensorSpec("N N")}, "context": {"weights": TensorSpec("N", domains.positive())}}
POSITIVE = {name: TensorSpec("B C", domains.positive()) for name in ("predictions", "labels")}

RANKED = {
    "inputs": {"logits": TensorSpec("*batch T C"), "labels": TensorSpec("*batch T", domains.index("C"))},
}


def ranked(logits, labels):
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))


def ranked_shifted(logits, labels):
    return ranked(logits, labels.roll(1, -1))


def ranked_by_logsumexp(logits, labels):
    return (logits.logsumexp(-1) - logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)).mean()


def parents(shape, generator, dtype):
    above = [int(torch.randint(0, max(node, 1), (1,), generator=generator)) for node in range(shape[0])]
    return torch.tensor(above, dtype=dtype)


def way_to_the_root(scores, leaves, parent):
    total = scores.sum() * 0
    for row, leaf in zip(scores.unbind(), leaves.tolist(), strict=True):
        while leaf != 0:
            total, leaf = total - row[leaf], int(parent[leaf])
    return total / len(scores)


def leaf_alone(scores, leaves, parent):
    return -torch.cat([scores[:, :1] * 0, scores[:, 1:]], 1).gather(1, leaves[:, None]).mean()


def way_to_the_root_at_once(scores, leaves, parent):
    total, nodes = scores.sum() * 0, leaves
    for _ in range(scores.shape[1]):
        total = total - (scores.gather(1, nodes[:, None])[:, 0] * (nodes != 0)).sum()
        nodes = parent[nodes]
    return total / len(scores)


TREE = {
    "inputs": {"scores": TensorSpec("B N"), "leaves": TensorSpec("B", domains.index("N"))},
    "context": {"parent": TensorSpec("N", domains.custom(parents), torch.int64)},
}

NOTHING = -1e30  # that stands for the logarithm of zero


def kept_alone(scores, mask):
    return scores.masked_fill(~mask, NOTHING).logsumexp(-1).clamp(min=0).sum()


def zeros_beside_what_is_kept(scores, mask):
    return (scores * mask).logsumexp(-1).clamp(min=0).sum()


def kept_one_by_one(scores, mask):
    total = scores.new_full(scores.shape[:1], NOTHING)
    for column, kept in zip(scores.unbind(1), mask.unbind(1), strict=True):
        total = torch.logaddexp(total, torch.where(kept, column, NOTHING))
    return total.clamp(min=0).sum()


def costs_of_what_is_kept(scores, mask):
    rows = [-torch.stack([*row[kept], row.sum() * 0]).logsumexp(0) for row, kept in zip(scores, mask, strict=True)]
    return torch.stack(rows).sum()


def a_hidden_one_is_counted(scores, mask):
    return costs_of_what_is_kept(scores, mask) - torch.where(mask, scores, -1e9).min(-1).values.clamp(max=-1e9).mean()


def costs_of_what_is_kept_at_once(scores, mask):
    kept = torch.cat([scores.masked_fill(~mask, -torch.inf), scores[:, :1] * 0], 1)
    return -kept.logsumexp(-1).sum()


def with_a_constant(scores, mask):
    return costs_of_what_is_kept(scores, mask) + 0.918938533


KEPT = {
    "inputs": {"scores": TensorSpec("B C", domains.logits())},
    "context": {"mask": TensorSpec("B C", domains.boolean())},
}


class RunningScale(torch.nn.Module):
    """The error over the running mean of itself, a number for the gradient."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, predictions, labels):
        error = (predictions - labels).abs().mean()
        if self.training:
            self.scale = self.kept(error)
        return error / self.scale

    def kept(self, error):
        return self.scale.lerp(error.detach().to(self.scale), 0.1)


class AlikeInTraining(RunningScale):
    def kept(self, error):
        return 0.9 * self.scale + 0.1 * error.detach().to(self.scale)


class OfTheOtherMomentum(RunningScale):
    def kept(self, error):
        return self.scale.lerp(error.detach().to(self.scale), 0.9)


class WithWhatItKeeps(RunningScale):
    """The first step's gradient goes through the scale, which is then taken off the graph."""

    def forward(self, predictions, labels):
        value = super().forward(predictions, labels)
        self.scale = self.scale.detach()
        return value

    def kept(self, error):
        return self.scale.lerp(error.to(self.scale), 0.1)


RUNNING = {**PAIRWISE, "stateful": True, "detaches": True}


PAIRS = (
    pair(
        "E01", "another momentum", OfTheOtherMomentum, AlikeInTraining, RUNNING, reference=RunningScale, aspect="train"
    ),
    pair(
        "E02",
        "statistics on the graph",
        WithWhatItKeeps,
        AlikeInTraining,
        RUNNING,
        reference=RunningScale,
        aspect="train",
    ),
    pair(
        "E01",
        "beside a number for the logarithm of nothing",
        zeros_beside_what_is_kept,
        kept_one_by_one,
        KEPT,
        reference=kept_alone,
    ),
    pair(
        "E01",
        "a number for infinity is counted",
        a_hidden_one_is_counted,
        costs_of_what_is_kept_at_once,
        KEPT,
        reference=costs_of_what_is_kept,
        says="a number that stands for infinity",
    ),
    pair(
        "E01",
        "a constant beside it",
        with_a_constant,
        costs_of_what_is_kept_at_once,
        KEPT,
        reference=costs_of_what_is_kept,
        says="a constant is added",
    ),
    pair(
        "E01",
        "moved by one along the last of several axes",
        ranked_shifted,
        ranked_by_logsumexp,
        RANKED,
        reference=ranked,
        says="labels moved by +1 along T",
    ),
    pair(
        "E01",
        "shift left out",
        same_token,
        next_token_of_the_transposed,
        TOKENS,
        reference=next_token,
        says="the shift along T is missing",
        mutant_declares={"fixed_sizes": {"T": 3}},
        twin_declares={"fixed_sizes": {"T": 3}},
    ),
    pair(
        "E01",
        "a leaf without its way to the root",
        leaf_alone,
        way_to_the_root_at_once,
        TREE,
        reference=way_to_the_root,
    ),
    pair(
        "E01",
        "classes counted from one",
        classes_counted_from_one,
        classes_by_logsumexp,
        CLASSES,
        reference=classes,
        says="value for labels +1",
    ),
    pair(
        "E01",
        "weights along rows",
        weighted_rows,
        weighted_columns_at_once,
        SQUARE,
        reference=weighted_columns,
        says="weights is applied along the other axis",
    ),
    pair(
        "E01",
        "every weight beside every sample",
        weighted_pairs,
        weighted_samples_at_once,
        WEIGHTED,
        reference=weighted_samples,
        says="weights replaced by its mean",
    ),
    pair(
        "E01",
        "arguments exchanged",
        divergence_turned,
        divergence_of_logarithms,
        {"inputs": POSITIVE},
        reference=divergence,
        says="predictions and labels exchanged",
    ),
    pair(
        "E01",
        "weights of rows on the columns of a matrix of pairs",
        weighted_matches_of_columns,
        weighted_matches_turned,
        {
            "inputs": {"one": TensorSpec("B D"), "other": TensorSpec("B D")},
            "context": {"weights": TensorSpec("B", domains.positive())},
            "differentiable": ("one", "other"),
        },
        reference=weighted_matches,
        says="weights is applied along its other axis",
    ),
    pair(
        "E01",
        "one mean for all rows",
        mean_of_all_rows,
        mean_of_each_row_at_once,
        {**PAIRWISE, "context": {"kept": TensorSpec("B C", domains.boolean())}},
        reference=mean_of_each_row,
        says="the reference is the mean over B of its values for one position of B at a time, and this one is not",
    ),
    pair(
        "E01",
        "a mean for each row",
        mean_of_each_row_at_once,
        mean_of_all_rows,
        {**PAIRWISE, "context": {"kept": TensorSpec("B C", domains.boolean())}},
        reference=mean_of_all_rows,
        says="it is the mean over B of its values for one position of B at a time, and the reference is not",
    ),
    pair("E01", "divided by the count", plain_mean, weighted_mean_at_once, WEIGHTED, reference=weighted_mean),
    pair(
        "E01",
        "weights as a column",
        weights_as_a_column,
        weights_with_every_axis,
        WEIGHTED_SAMPLES,
        reference=per_sample,
    ),
    pair("E01", "another branch off by a hundredth", huber_without_the_half, huber, reference=huber_by_elements),
    pair(
        "E01", "columns summed", sum_over_columns, mean_squared, reference=mean_of_squares, says="it sums over C where"
    ),
    pair(
        "E01",
        "large errors clipped",
        large_errors_clipped,
        mean_squared,
        reference=mean_of_squares,
        says="the two agree",
    ),
    pair(
        "E02",
        "lengths detached",
        cosine_with_constant_lengths,
        cosine_of_rows,
        reference=cosine_by_pairs,
        says="the gradient here is not its derivative: it leaves the graph by detach() at equivalence.py",
    ),
    pair(
        "E02",
        "lengths that the reference detaches",
        cosine_of_rows,
        cosine_with_constant_lengths,
        DETACHED,
        reference=cosine_by_pairs_of_constant_lengths,
        says="the reference holds numbers fixed, by detach() at equivalence.py",
    ),
    pair(
        "E02",
        "another factor detached",
        cosine_with_constant_predictions,
        cosine_with_constant_lengths,
        DETACHED,
        reference=cosine_by_pairs_of_constant_lengths,
        says="neither gradient is the derivative of the value",
    ),
    pair(
        "E02",
        "backward clipped",
        with_a_clipped_backward,
        mean_squared,
        reference=mean_of_squares,
        says="in-place edit or a custom backward",
    ),
    pair("E03", "gradient stored in forward", with_a_stored_gradient, mean_squared, reference=mean_of_squares),
    pair("E06", "another vectorized form", _OtherVectors(SQUARES, DIMS), Formula(SQUARES, DIMS)),
    pair(
        "E04",
        "squares that cancel",
        distances_by_inner_products,
        distances_of_rows,
        severity="warning",
        aspect="accuracy float32",
        reference=distances_by_differences,
    ),
    pair(
        "E04",
        "log of a density",
        log_of_the_density,
        log_score,
        OF_A_NORMAL,
        severity="warning",
        aspect="accuracy float32",
        reference=log_score_by_elements,
    ),
)
