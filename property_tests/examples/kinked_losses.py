"""Correct losses with kinks, each beside a loop: on exact values (0, ties, the margin itself) they have no one slope."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F

from harness import LossSpec, TensorSpec, domains, laws


def _numbers(tensor):
    return tensor.reshape(-1).unbind()


def _mean(values, like):
    return sum(values, like.sum() * 0) / max(len(values), 1)


def absolute_by_elements(predictions, labels):
    return _mean([abs(p - y) for p, y in zip(_numbers(predictions), _numbers(labels), strict=True)], predictions)


def absolute(predictions, labels):
    return (predictions - labels).abs().mean()


def absolute_as_two_relus(predictions, labels):
    error = predictions - labels
    return (F.relu(error) + F.relu(-error)).mean()


def huber_by_elements(predictions, labels):
    def huber(error):
        return 0.5 * error**2 if abs(float(error)) <= 1 else abs(error) - 0.5

    return _mean([huber(p - y) for p, y in zip(_numbers(predictions), _numbers(labels), strict=True)], predictions)


def huber(predictions, labels):
    return F.huber_loss(predictions, labels) if predictions.shape == labels.shape else _refuse(predictions, labels)


def _refuse(predictions, labels):
    raise ValueError(f"predictions {list(predictions.shape)} and labels {list(labels.shape)} should have one shape")


def quantile_by_elements(predictions, labels):
    def pinball(error):
        return 0.75 * error if float(error) >= 0 else -0.25 * error

    return _mean([pinball(y - p) for p, y in zip(_numbers(predictions), _numbers(labels), strict=True)], predictions)


def quantile(predictions, labels):
    error = labels - predictions
    return torch.maximum(0.75 * error, -0.25 * error).mean()


def clipped_by_elements(predictions, labels):
    def clipped(error):
        return error**2 if abs(float(error)) < 1 else 0 * error + 1

    return _mean([clipped(p - y) for p, y in zip(_numbers(predictions), _numbers(labels), strict=True)], predictions)


def clipped(predictions, labels):
    return (predictions - labels).clamp(-1, 1).square().mean()


def largest_by_rows(predictions, labels):
    rows = zip(predictions.unbind(), labels.unbind(), strict=True)
    worst = [max(_numbers((row - label).abs()), key=float) for row, label in rows]
    return _mean(worst, predictions)


def largest_by_amax(predictions, labels):
    """`amax` shares the gradient between ties, `max` gives it to one: both are subgradients."""
    return (predictions - labels).abs().amax(-1).mean()


def hinge_by_elements(scores, signs):
    return _mean(
        [max(1 - s * y, s * 0, key=float) for s, y in zip(_numbers(scores), _numbers(signs), strict=True)], scores
    )


def hinge(scores, signs):
    return F.relu(1 - scores * signs).mean()


def squared_hinge_by_elements(scores, signs):
    return _mean(
        [max(1 - s * y, s * 0, key=float) ** 2 for s, y in zip(_numbers(scores), _numbers(signs), strict=True)], scores
    )


def squared_hinge(scores, signs):
    return (1 - scores * signs).clamp(min=0).square().mean()


def margin_by_classes(logits, labels):
    terms = []
    for row, label in zip(logits.unbind(), labels.tolist(), strict=True):
        others = [F.relu(1 + row[c] - row[label]) for c in range(len(row)) if c != label]
        terms.append(sum(others, row.sum() * 0) / len(row))
    return _mean(terms, logits)


def margin(logits, labels):
    return F.multi_margin_loss(logits, labels)


def triplet_by_rows(anchors, positives, negatives):
    terms = []
    for a, p, n in zip(anchors.unbind(), positives.unbind(), negatives.unbind(), strict=True):
        terms.append(max((a - p).abs().sum() - (a - n).abs().sum() + 1, a.sum() * 0, key=float))
    return _mean(terms, anchors)


def triplet(anchors, positives, negatives):
    near, far = (anchors - positives).abs().sum(-1), (anchors - negatives).abs().sum(-1)
    return F.relu(near - far + 1).mean()


def ranking_by_pairs(scores, targets):
    terms = []
    for i, s in enumerate(scores.unbind()):
        for j, t in enumerate(scores.unbind()):
            if targets[i] > targets[j]:
                terms.append(F.relu(1 - (s - t)))
    return sum(terms, scores.sum() * 0)


def ranking(scores, targets):
    above = (targets.unsqueeze(1) > targets.unsqueeze(0)).to(scores)
    return (above * F.relu(1 - (scores.unsqueeze(1) - scores.unsqueeze(0)))).sum()


def two_largest_by_sorting(predictions, labels):
    errors = sorted(_numbers((predictions - labels).abs()), key=float)[-2:]
    return _mean(errors, predictions)


def two_largest(predictions, labels):
    errors = (predictions - labels).abs().reshape(-1)
    return errors.topk(min(2, len(errors))).values.mean()


def variation_by_pairs(predictions, labels):
    total = (predictions - labels).abs().sum()
    for row in predictions.unbind():
        values = row.unbind()
        for a, b in itertools.pairwise(values):
            total = total + abs(a - b)
    return total


def variation(predictions, labels):
    return (predictions - labels).abs().sum() + predictions.diff(dim=-1).abs().sum()


REGRESSION = {
    "inputs": {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
    "output": TensorSpec(""),
}
SIGNED = {"inputs": {"scores": TensorSpec("B"), "signs": TensorSpec("B", domains.sign())}, "output": TensorSpec("")}
CLASSES = {
    "inputs": {"logits": TensorSpec("B C"), "labels": TensorSpec("B", domains.index("C"))},
    "output": TensorSpec(""),
}
TRIPLETS = {"inputs": dict.fromkeys(("anchors", "positives", "negatives"), TensorSpec("B D")), "output": TensorSpec("")}
RANKED = {"inputs": {"scores": TensorSpec("N"), "targets": TensorSpec("N")}, "output": TensorSpec("")}
ERROR_LAWS = (laws.nonnegative(), laws.permutation("B"), laws.translation_invariant("predictions", "labels"))
MEAN_LAWS = (*ERROR_LAWS, laws.mean_over("B"), laws.zero_when_equal("predictions", "labels"))


def _spec(name, naive, fast, declared, *declared_laws):
    return LossSpec(f"kinked_{name}", {"naive": naive, "fast": fast}, **declared, laws=declared_laws)


SPECS = (
    _spec("absolute", absolute_by_elements, absolute, REGRESSION, *MEAN_LAWS, laws.symmetric("predictions", "labels")),
    _spec("absolute_as_two_relus", absolute_by_elements, absolute_as_two_relus, REGRESSION, *MEAN_LAWS),
    _spec("huber", huber_by_elements, huber, REGRESSION, *MEAN_LAWS, laws.symmetric("predictions", "labels")),
    _spec("quantile", quantile_by_elements, quantile, REGRESSION, *MEAN_LAWS),
    _spec("clipped", clipped_by_elements, clipped, REGRESSION, *MEAN_LAWS, laws.permutation("C")),
    _spec("largest", largest_by_rows, largest_by_amax, REGRESSION, *MEAN_LAWS, laws.permutation("C")),
    _spec("two_largest", two_largest_by_sorting, two_largest, REGRESSION, *ERROR_LAWS),
    _spec("variation", variation_by_pairs, variation, REGRESSION, *ERROR_LAWS, laws.sum_over("B")),
    _spec("hinge", hinge_by_elements, hinge, SIGNED, laws.nonnegative(), laws.permutation("B"), laws.mean_over("B")),
    _spec("squared_hinge", squared_hinge_by_elements, squared_hinge, SIGNED, laws.nonnegative(), laws.mean_over("B")),
    _spec("margin", margin_by_classes, margin, CLASSES, laws.permutation("C"), laws.translation_invariant("logits")),
    _spec("triplet", triplet_by_rows, triplet, TRIPLETS, laws.mean_over("B"), laws.permutation("D")),
    _spec("ranking", ranking_by_pairs, ranking, RANKED, laws.permutation("N"), laws.translation_invariant("scores")),
)


class _Absolute(torch.autograd.Function):
    """|x|, with a gradient that is ``factor`` times the right one, and ``at_zero`` at the kink."""

    @staticmethod
    def forward(ctx, x, factor, at_zero):
        ctx.save_for_backward(x)
        ctx.factor, ctx.at_zero = factor, at_zero
        return x.abs()

    @staticmethod
    def backward(ctx, upstream):
        (x,) = ctx.saved_tensors
        return upstream * torch.where(x == 0, ctx.at_zero, ctx.factor * x.sign()), None, None


def absolute_with_backward(factor=1.0, at_zero=0.0):
    """Mean absolute error with a backward of its own; right are ``factor=1`` and any ``at_zero`` in [-1, 1]."""

    def loss(predictions, labels):
        return _Absolute.apply(predictions - labels, factor, at_zero).mean()

    return LossSpec("absolute_with_backward", {"candidate": loss}, **REGRESSION)
