"""Mutants of the rules about gradients: G01, G06, G08."""

from __future__ import annotations

import torch

from harness import TensorSpec, domains
from mutants.pair import PAIRWISE, pair


def mean_squared(predictions, labels):
    return ((predictions - labels) ** 2).mean()


class _Squares(torch.autograd.Function):
    """sum(weights (p - y)^2) with a backward written by hand; ``factor`` says how wrong it is."""

    @staticmethod
    def forward(ctx, predictions, labels, weights, factor):
        ctx.save_for_backward(predictions, labels, weights, factor)
        return (weights * (predictions - labels) ** 2).sum()

    @staticmethod
    def backward(ctx, upstream):
        predictions, labels, weights, factor = ctx.saved_tensors
        return upstream * 2 * factor * weights * (predictions - labels), None, None, None


def _squares(predictions, labels, weight, factor):
    weights = torch.full_like(predictions, weight)
    return _Squares.apply(predictions, labels, weights, factor)


def batch_size_forgotten_in_backward(predictions, labels):
    count = predictions.numel()
    return _squares(predictions, labels, 1 / count, torch.full_like(predictions, count))


def squares_by_row(predictions, labels):
    return (predictions - labels).square().sum(-1)


def half_a_gradient_by_row(predictions, labels):
    value = squares_by_row(predictions, labels)
    return (value + value.detach()) / 2


class _Rows(torch.autograd.Function):
    """table[index], with a backward that adds to the table or writes into it."""

    @staticmethod
    def forward(ctx, table, index, adds):
        ctx.save_for_backward(index)
        ctx.rows, ctx.adds = len(table), adds
        return table[index]

    @staticmethod
    def backward(ctx, upstream):
        (index,) = ctx.saved_tensors
        gradient = upstream.new_zeros(ctx.rows, upstream.shape[1])
        if ctx.adds:
            return gradient.index_add(0, index, upstream), None, None
        gradient[index] += upstream
        return gradient, None, None


def by_an_assignment_to_rows(table, index):
    return _Rows.apply(table, index, False).square().mean()


def by_an_addition_to_rows(table, index):
    return _Rows.apply(table, index, True).square().mean()


def groups_by_assignment(scores, groups, weights):
    total = torch.zeros_like(weights)
    total[groups] += scores
    return (weights * total**2).sum()


def groups_by_addition(scores, groups, weights):
    return (weights * torch.zeros_like(weights).index_add(0, groups, scores) ** 2).sum()


def one_percent_off_in_one_element(predictions, labels):
    factor = torch.ones_like(predictions)
    factor[-1, -1] = 1.01
    return _squares(predictions, labels, 1.0, factor)


def tiny_weights_of_the_wrong_sign(predictions, labels):
    return _squares(predictions, labels, 1e-6, -torch.ones_like(predictions))


def tiny_weights(predictions, labels):
    return _squares(predictions, labels, 1e-6, torch.ones_like(predictions))


def sum_of_squares(predictions, labels):
    return _squares(predictions, labels, 1.0, torch.ones_like(predictions))


def focal_with_a_constant_weight(logits, labels):
    likelihood = logits.log_softmax(-1).gather(-1, labels[:, None])
    weight = (1 - likelihood.exp().detach()) ** 2
    return -(weight * likelihood).mean()


def focal(logits, labels):
    likelihood = logits.log_softmax(-1).gather(-1, labels[:, None])
    return -((1 - likelihood.exp()) ** 2 * likelihood).mean()


def contrast_without_a_gradient_for_the_scale(predictions, labels):
    with torch.no_grad():
        scale = predictions.square().sum().add(1).sqrt()
    return (predictions * labels).sum() / scale


def contrast(predictions, labels):
    return (predictions * labels).sum() / predictions.square().sum().add(1).sqrt()


def scaled_by_an_item(predictions, labels):
    return ((predictions - labels) ** 2).sum() / (1 + predictions.square().sum().item())


def scaled_by_a_tensor(predictions, labels):
    return ((predictions - labels) ** 2).sum() / (1 + predictions.square().sum())


def rows_edited_through_data(predictions, labels):
    """Edits what autograd has saved for the backward pass, past its version counter."""
    error = predictions - labels
    value = (error**2).mean()
    error.data.clamp_(-0.5, 0.5)
    return value


class _InSingle(torch.autograd.Function):
    """The mean squared error in float32, as a fused kernel computes it; ``factor`` says how wrong the backward is."""

    @staticmethod
    def forward(ctx, predictions, labels, factor):
        ctx.save_for_backward(predictions, labels, factor)
        return (predictions.float() - labels.float()).square().mean().to(predictions.dtype)

    @staticmethod
    def backward(ctx, upstream):
        predictions, labels, factor = ctx.saved_tensors
        error = 2 * (predictions.float() - labels.float()) / predictions.numel()
        return (factor.float() * error * upstream.float()).to(predictions.dtype), None, None


def kernel(predictions, labels):
    return _InSingle.apply(predictions, labels, torch.ones_like(predictions))


def kernel_of_the_wrong_sign(predictions, labels):
    return _InSingle.apply(predictions, labels, -torch.ones_like(predictions))


def kernel_two_percent_off(predictions, labels):
    return _InSingle.apply(predictions, labels, 1.02 * torch.ones_like(predictions))


def kernel_without_the_last_column(predictions, labels):
    factor = torch.ones_like(predictions)
    factor[:, -1] = 0
    return _InSingle.apply(predictions, labels, factor)


class _Largest(torch.autograd.Function):
    """The largest of each row; every element that ties with it gets the whole gradient."""

    @staticmethod
    def forward(ctx, values):
        largest = values.amax(1, keepdim=True)
        ctx.save_for_backward(values == largest)
        return largest.squeeze(1)

    @staticmethod
    def backward(ctx, upstream):
        (ties,) = ctx.saved_tensors
        return ties * upstream.unsqueeze(1)


def worst_error_of_every_tie(predictions, labels):
    return _Largest.apply((predictions - labels).square()).mean()


def worst_error(predictions, labels):
    return (predictions - labels).square().amax(1).mean()


def worst_error_and_the_zeros_before(predictions, labels):
    """torch counts the zeros that are there before as a tie, though ``include_self=False``: half of the gradient at zero."""
    rows = torch.arange(len(predictions)).unsqueeze(1).expand_as(predictions).flatten()
    before = predictions.new_zeros(len(predictions))
    return before.scatter_reduce(0, rows, predictions.flatten(), "amax", include_self=False).mean()


def largest_prediction(predictions, labels):
    return predictions.amax(1).mean()


def collected_as_numbers(predictions, labels):
    total = 0.0
    for row, label in zip(predictions.unbind(), labels.unbind(), strict=True):
        total += ((row - label) ** 2).mean().item()
    return torch.tensor(total / len(predictions), dtype=predictions.dtype, requires_grad=True)


def argmax_as_prediction(predictions, labels):
    """Hard predictions have no gradient; the term that is left has none for the predictions either."""
    return (predictions.argmax(-1) - labels.mean(-1)).square().mean() + 0 * predictions.sum()


def softmax_as_prediction(predictions, labels):
    positions = torch.arange(predictions.shape[-1], dtype=predictions.dtype)
    return (predictions.softmax(-1) @ positions - labels.mean(-1)).square().mean()


def spread_of_shares(predictions, labels):
    """The shares of a row sum to 1, whatever the predictions are: a constant, whose gradient is rounding."""
    return (labels.softmax(-1).mean() * predictions.softmax(-1)).sum(-1).mean()


def balance_of_shares(predictions, labels):
    return (labels.softmax(-1) * predictions.softmax(-1)).sum(-1).mean()


def whole_blocks_of_rows(predictions, labels):
    """Above 64 rows in whole blocks of 64: the rows that are left have no influence, in value and gradient alike."""
    rows = len(labels) - len(labels) % 64 if len(labels) > 64 else len(labels)
    return ((predictions - labels)[:rows] ** 2).mean()


def whole_blocks_of_elements(predictions, labels):
    count = len(labels) - len(labels) % 64 if len(labels) > 64 else len(labels)
    return ((predictions - labels)[:count] ** 2).mean()


def last_row_of_a_full_block(predictions, labels):
    """Where the rows are just as many as whole blocks of 128, the last one is left out."""
    rows = len(labels) - 1 if len(labels) % 128 == 0 else len(labels)
    return ((predictions - labels)[:rows] ** 2).mean()


def whole_blocks_of_the_longest(predictions, labels):
    """At the longest length that is asked what a limit leaves out and what a block does are one row."""
    rows = len(labels) - len(labels) % 1024 if len(labels) > 1024 else len(labels)
    return ((predictions - labels)[:rows] ** 2).mean()


def first_element_after_a_block(predictions, labels):
    counts = torch.ones_like(predictions)
    counts[64:65, :1] = 0
    return (counts * (predictions - labels) ** 2).mean()


def blocks_of_padded_rows(predictions, labels, lengths):
    steps = labels.shape[1] - labels.shape[1] % 64 if labels.shape[1] > 64 else labels.shape[1]
    return padded_rows(predictions[:, :steps], labels[:, :steps], lengths)


def padded_rows(predictions, labels, lengths):
    """Where a row ends depends on the values of ``lengths``, wherever the predictions are."""
    kept = torch.arange(labels.shape[1]) < lengths.unsqueeze(-1)
    return (kept * (predictions - labels) ** 2).sum() / lengths.sum()


def squares_of_77(predictions, labels):
    return ((predictions - labels)[:, :77] ** 2).mean()


def squares_up_to(predictions, labels, most=77):
    return ((predictions - labels)[:, :most] ** 2).mean()


def squares(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def largest_rows(predictions, labels):
    """The hardest 32 rows, wherever they are."""
    each = ((predictions - labels) ** 2).mean(-1)
    return each.topk(min(32, len(each))).values.mean()


def second_input_detached(predictions, labels):
    return ((predictions - labels.detach()) ** 2).mean()


def sum_from_a_leaf(embeddings, adjacency):
    total = torch.zeros((), dtype=embeddings.dtype, requires_grad=True)
    for i, j in adjacency.nonzero().tolist():
        total = total - embeddings[i] @ embeddings[j]
    return total


def sum_from_the_embeddings(embeddings, adjacency):
    total = (embeddings * 0).sum()
    for i, j in adjacency.nonzero().tolist():
        total = total - embeddings[i] @ embeddings[j]
    return total


def entropy(probabilities):
    return -(probabilities * probabilities.log()).sum(-1).mean()


def entropy_by_xlogy(probabilities):
    """x log x with the limit 0 at 0, and the argument kept off 0 for the sake of the gradient."""
    safe = torch.where(probabilities > 0, probabilities, 1)
    return -(safe * safe.log()).sum(-1).mean()


def distance_by_root(predictions, labels):
    return ((predictions - labels) ** 2).sum(-1).sqrt().mean()


def distance_by_guarded_root(predictions, labels):
    squared = ((predictions - labels) ** 2).sum(-1)
    safe = torch.where(squared > 0, squared, 1)
    return torch.where(squared > 0, safe.sqrt(), 0).mean()


def softmax_by_hand(scores, hidden):
    """Where all of a row is hidden, -inf - (-inf) is NaN; that -inf is written down is no defect."""
    kept = scores.masked_fill(hidden, -torch.inf)
    powers = (kept - kept.amax(-1, keepdim=True)).exp()
    return (powers / powers.sum(-1, keepdim=True)).square().sum(-1).mean()


def softmax_of_some(scores, hidden):
    kept = scores.masked_fill(hidden & ~hidden.all(-1, keepdim=True), -torch.inf)
    return kept.softmax(-1).square().sum(-1).mean()


def angles(features, classes):
    """Where a row of features points where a class does, the arc cosine has an infinite slope."""
    cosines = torch.nn.functional.normalize(features) @ torch.nn.functional.normalize(classes).T
    return cosines.clamp(-1, 1).acos().mean()


def guarded_angles(features, classes):
    cosines = torch.nn.functional.normalize(features) @ torch.nn.functional.normalize(classes).T
    return cosines.clamp(-1 + 1e-7, 1 - 1e-7).acos().mean()


def over_their_length(predictions, labels):
    lengths = predictions.square().sum(-1, keepdim=True)
    return (predictions * lengths**-0.5 - labels).square().mean()


def over_their_length_and_more(predictions, labels):
    lengths = predictions.square().sum(-1, keepdim=True) + 1
    return (predictions * lengths**-0.5 - labels).square().mean()


def where_after_the_root(predictions, labels):
    """The value is guarded, the gradient is not: 0 * inf in the branch that was not taken."""
    squared = ((predictions - labels) ** 2).sum(-1)
    return torch.where(squared > 0, squared.sqrt(), 0).mean()


def exponentials_overflow(logits):
    return logits.mul(10).exp().sum(-1).log().mean()


def exponentials_by_logsumexp(logits):
    return logits.mul(10).logsumexp(-1).mean()


def mean_by_weights(predictions, labels, weights):
    return (weights.unsqueeze(-1) * (predictions - labels) ** 2).sum() / weights.sum()


def mean_by_weights_or_zero(predictions, labels, weights):
    total = weights.sum()
    return (weights.unsqueeze(-1) * (predictions - labels) ** 2).sum() / torch.where(total > 0, total, 1)


def every_sample_by_its_weight(predictions, labels, weights):
    """0/0 in one sample, whose weight is zero, is NaN for the whole batch."""
    errors = (predictions - labels).square().mean(-1)
    return (weights * errors / weights).mean()


def mean_of_each_class(logits, labels, weights):
    """Divided by the weight of each class, also of one that weighs nothing."""
    picked = logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return -(picked * weights[labels] / weights[labels]).mean()


def mean_by_true_class(logits, labels, weights):
    picked = logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return -(picked * weights[labels]).sum() / weights[labels].sum().clamp(min=1e-6)


CLASSES = {
    "inputs": {"logits": TensorSpec("B C", domains.logits()), "labels": TensorSpec("B", domains.index("C"))},
}
LOGITS = {"inputs": {"logits": TensorSpec("B C", domains.logits())}}
PROBABILITIES = {"inputs": {"probabilities": TensorSpec("B C", domains.simplex(axis=-1))}}
GRAPH = {
    "inputs": {"embeddings": TensorSpec("N D")},
    "context": {"adjacency": TensorSpec("N N", domains.adjacency())},
}
WEIGHTED = {**PAIRWISE, "context": {"weights": TensorSpec("B", domains.nonnegative())}}
CLASS_WEIGHTS = {**CLASSES, "context": {"weights": TensorSpec("C", domains.nonnegative())}}
BOTH = {**PAIRWISE, "differentiable": ("predictions", "labels")}

PADDED = {"inputs": {**PAIRWISE["inputs"], "lengths": TensorSpec("B", domains.lengths("C"))}}
HIDDEN = {"inputs": {"scores": TensorSpec("B C"), "hidden": TensorSpec("B C", domains.boolean())}}
CENTERS = {"inputs": {"features": TensorSpec("B D"), "classes": TensorSpec("K D")}}
VECTORS = {"inputs": {"predictions": TensorSpec("N"), "labels": TensorSpec("N")}}
BY_ROW = {**PAIRWISE, "output": TensorSpec("B")}
LOOKED_UP = {"inputs": {"table": TensorSpec("N D"), "index": TensorSpec("B", domains.index("N"))}}
GROUPED = {
    "inputs": {"scores": TensorSpec("B"), "groups": TensorSpec("B", domains.index("G"))},
    "context": {"weights": TensorSpec("G")},
}

PAIRS = (
    pair("G06", "elements after the last block", whole_blocks_of_elements, squares, VECTORS, aspect="N is long"),
    pair("G06", "rows after the last whole block", whole_blocks_of_rows, largest_rows, aspect="B is long"),
    pair("G06", "last row of a full block", last_row_of_a_full_block, largest_rows, aspect="B is long"),
    pair("G06", "rows after the longest block", whole_blocks_of_the_longest, largest_rows, aspect="B is long"),
    pair("G06", "one element after a block", first_element_after_a_block, squares, aspect="B is long"),
    pair("G06", "steps after the last block", blocks_of_padded_rows, padded_rows, PADDED, aspect="C is long"),
    pair("G06", "a limit that nobody says", squares_of_77, squares, severity="warning", says="a limit of 77 on C"),
    pair("G06", "a limit that a default says", squares_up_to, squares, severity="note", aspect="C is limited"),
    pair("G06", "gradient of a constant", spread_of_shares, balance_of_shares, says="rounding"),
    pair("G01", "batch size forgotten in backward", batch_size_forgotten_in_backward, sum_of_squares),
    pair(
        "G01",
        "one number a row, and half of its gradient",
        half_a_gradient_by_row,
        squares_by_row,
        BY_ROW,
        says="w_i L_i",
    ),
    pair(
        "G01",
        "rows that come twice keep one gradient",
        by_an_assignment_to_rows,
        by_an_addition_to_rows,
        LOOKED_UP,
        says="index_put at gradients.py",
    ),
    pair("G01", "groups that keep one value", groups_by_assignment, groups_by_addition, GROUPED, says="index_add"),
    pair("G01", "one percent in one element", one_percent_off_in_one_element, sum_of_squares),
    pair("G01", "wrong sign under tiny weights", tiny_weights_of_the_wrong_sign, tiny_weights),
    pair("G01", "undeclared detach", focal_with_a_constant_weight, focal, CLASSES, says="detach() at gradients.py:"),
    pair(
        "G01",
        "undeclared no_grad",
        contrast_without_a_gradient_for_the_scale,
        contrast,
        says="no_grad() at gradients.py:",
    ),
    pair("G01", "undeclared item", scaled_by_an_item, scaled_by_a_tensor, says="item() at gradients.py:"),
    pair(
        "G01",
        "detach that is not declared",
        focal_with_a_constant_weight,
        focal_with_a_constant_weight,
        CLASSES,
        says="declare LossSpec(detaches=True)",
        twin_declares={"detaches": True},
    ),
    pair(
        "G01",
        "wrong scale beside a declared detach",
        lambda predictions, labels: batch_size_forgotten_in_backward(predictions, labels) / predictions.detach().norm(),
        lambda predictions, labels: sum_of_squares(predictions, labels) / predictions.detach().norm().clamp(min=1e-3),
        {**PAIRWISE, "detaches": True},
    ),
    pair("G01", "kernel of the wrong sign", kernel_of_the_wrong_sign, kernel),
    pair("G01", "kernel without the last column", kernel_without_the_last_column, kernel),
    pair("G01", "kernel two percent off", kernel_two_percent_off, kernel),
    pair(
        "G01",
        "every tie gets the whole gradient",
        worst_error_of_every_tie,
        worst_error,
        severity="warning",
        aspect="at a tie only",
        says="d loss / d (predictions[",
    ),
    pair(
        "G01",
        "half of the gradient at zero",
        worst_error_and_the_zeros_before,
        largest_prediction,
        severity="warning",
        aspect="at a tie only",
        says="the loss shows no kink",
    ),
    pair("G01", "saved tensor edited", rows_edited_through_data, mean_squared),
    pair("G06", "numbers instead of tensors", collected_as_numbers, mean_squared, aspect="predictions cut off"),
    pair("G06", "argmax", argmax_as_prediction, softmax_as_prediction, aspect="predictions cut off"),
    pair(
        "G06",
        "second input detached",
        second_input_detached,
        mean_squared,
        BOTH,
        aspect="labels cut off",
        says="detach()",
    ),
    pair(
        "G06", "no gradient without edges", sum_from_a_leaf, sum_from_the_embeddings, GRAPH, aspect="embeddings missing"
    ),
    pair("G08", "logarithm of zero", entropy, entropy_by_xlogy, PROBABILITIES, aspect="value"),
    pair("G08", "overflow of an exponential", exponentials_overflow, exponentials_by_logsumexp, LOGITS, aspect="value"),
    pair(
        "G08",
        "root of zero",
        distance_by_root,
        distance_by_guarded_root,
        aspect="gradient",
        says="sqrt() at gradients.py",
    ),
    pair("G08", "nothing but hidden", softmax_by_hand, softmax_of_some, HIDDEN, says="makes NaN of infinities"),
    pair(
        "G08", "sample along a class", angles, guarded_angles, CENTERS, aspect="gradient", says="acos() at gradients.py"
    ),
    pair(
        "G08",
        "negative power of zero",
        over_their_length,
        over_their_length_and_more,
        aspect="value",
        says="keep the argument of sqrt, log, pow or /",
    ),
    pair("G08", "where after the root", where_after_the_root, distance_by_guarded_root, aspect="gradient"),
    pair(
        "G08",
        "nothing weighed",
        mean_by_weights,
        mean_by_weights_or_zero,
        WEIGHTED,
        severity="warning",
        aspect="nothing counted",
    ),
    pair("G08", "one weight of zero", every_sample_by_its_weight, mean_by_weights_or_zero, WEIGHTED, aspect="value"),
    pair("G08", "class of weight zero", mean_of_each_class, mean_by_true_class, CLASS_WEIGHTS, aspect="value"),
)
