"""Mutants of the rules about the context: C01, C02, C03."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from harness import TensorSpec, domains
from mutants.pair import PAIRWISE, pair


def weighted(weights, predictions, labels):
    return (weights.unsqueeze(-1) * (predictions - labels) ** 2).mean()


class Registered(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, predictions, labels):
        return weighted(self.weights, predictions, labels)


class PlainAttribute(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, predictions, labels):
        return weighted(self.weights, predictions, labels)


class RegisteredUnderAnotherName(nn.Module):
    """The buffer is used; the attribute is only kept."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights
        self.register_buffer("kept_weights", weights)

    def forward(self, predictions, labels):
        return weighted(self.kept_weights, predictions, labels)


class ReadsTheAttribute(RegisteredUnderAnotherName):
    """The buffer is kept; the attribute is used."""

    def forward(self, predictions, labels):
        return weighted(self.weights, predictions, labels)


class ConstantMovedAtUse(Registered):
    """A constant of the constructor is no context: no checkpoint need carry it."""

    def __init__(self, weights):
        super().__init__(weights)
        self.scale = torch.tensor([0.5])

    def forward(self, predictions, labels):
        return self.scale.to(predictions) * super().forward(predictions, labels)


class RegisteredConstant(Registered):
    def __init__(self, weights):
        super().__init__(weights)
        self.register_buffer("scale", torch.tensor([0.5]), persistent=False)

    def forward(self, predictions, labels):
        return self.scale * super().forward(predictions, labels)


class ScaleOfTheContext(Registered):
    def __init__(self, weights):
        super().__init__(weights)
        self.scale = weights[:1] + 1

    def forward(self, predictions, labels):
        return self.scale.to(predictions) * super().forward(predictions, labels)


class TensorInADictionary(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.context = {"weights": weights}

    def forward(self, predictions, labels):
        return weighted(self.context["weights"], predictions, labels)


class NumpyAttribute(nn.Module):
    """Built in float32, it meets float64 predictions in a product that does not promote."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights.numpy()

    def forward(self, predictions, labels):
        return (torch.from_numpy(self.weights) @ (predictions - labels) ** 2).mean()


class RegisteredProduct(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, predictions, labels):
        return (self.weights @ (predictions - labels) ** 2).mean()


class DerivedNumbers(nn.Module):
    """The buffer is loaded, the numbers that were derived from it in the constructor are not."""

    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)
        self.shares = np.cumsum(weights.double().numpy()).tolist()

    def forward(self, predictions, labels):
        return weighted(predictions.new_tensor(self.shares), predictions, labels)


class DerivedAtUse(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, predictions, labels):
        return weighted(self.weights.cumsum(0), predictions, labels)


class ExpandedBuffer(nn.Module):
    """Nothing can be loaded into a buffer whose elements share their memory."""

    copied = False

    def __init__(self, weights):
        super().__init__()
        table = weights[:, None].expand(-1, 2)
        self.register_buffer("table", table.clone() if self.copied else table)

    def forward(self, predictions, labels):
        return weighted(self.table[:, 0], predictions, labels)


class CopiedBuffer(ExpandedBuffer):
    copied = True


class ScaleOfTheFirstCall(Registered):
    """A checkpoint that is written after a call has a key that no fresh module has."""

    def forward(self, predictions, labels):
        if not hasattr(self, "scale"):
            self.register_buffer("scale", self.weights / self.weights.sum())
        return weighted(self.scale, predictions, labels)


class ScaleKeptAside(Registered):
    """Derived in the first call, and not again once other weights are loaded."""

    scale = None

    def forward(self, predictions, labels):
        if self.scale is None:
            self.scale = (self.weights / self.weights.sum()).tolist()
        return weighted(predictions.new_tensor(self.scale), predictions, labels)


class ScaleOfTheConstructor(Registered):
    """Saved are the weights alone, of which the scale was made."""

    def __init__(self, weights):
        super().__init__(weights)
        self.register_buffer("scale", weights / weights.sum(), persistent=False)

    def forward(self, predictions, labels):
        return weighted(self.scale, predictions, labels)


class NeitherIsSaved(nn.Module):
    """The weights come from elsewhere, and so does what is made of them: a choice."""

    def __init__(self, weights):
        super().__init__()
        self.register_buffer("scale", weights / weights.sum(), persistent=False)

    def forward(self, predictions, labels):
        return weighted(self.scale, predictions, labels)


class ScaleAtUse(Registered):
    def forward(self, predictions, labels):
        return weighted(self.weights / self.weights.sum(), predictions, labels)


class RunningNumber(Registered):
    """A running mean that no checkpoint carries: training goes on with another loss."""

    def __init__(self, weights):
        super().__init__(weights)
        self.running = 1.0

    def forward(self, predictions, labels):
        value = super().forward(predictions, labels)
        if self.training:
            self.running = 0.9 * self.running + 0.1 * value.item()
        return value / self.running


class RunningBuffer(Registered):
    def __init__(self, weights):
        super().__init__(weights)
        self.register_buffer("running", weights.new_ones(()))

    def forward(self, predictions, labels):
        value = super().forward(predictions, labels)
        if self.training:
            self.running.mul_(0.9).add_(0.1 * value.detach())
        return value / self.running.clone()


class QueueOfTheCaller(nn.Module):
    """The buffer is the caller's tensor, the newest first: what it holds is saved all the same."""

    def __init__(self, queue):
        super().__init__()
        self.register_buffer("queue", queue)

    def forward(self, rows):
        kept = self.queue.clone().to(rows.dtype)
        if self.training:
            with torch.no_grad():
                self.enqueue(rows.detach().to(self.queue.dtype))
        return (rows @ kept.T).logsumexp(1).mean()

    def enqueue(self, rows):
        self.queue.copy_(torch.cat([rows, self.queue])[: len(self.queue)])


class PointerAsABuffer(QueueOfTheCaller):
    def __init__(self, queue):
        super().__init__(queue)
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def enqueue(self, rows):
        self.queue[self.place % len(self.queue)] = rows[0]
        self.place += 1


class PointerAsANumber(QueueOfTheCaller):
    """No checkpoint carries it, and what it points at is met by the step after the next."""

    def __init__(self, queue):
        super().__init__(queue)
        self.place = 0

    def enqueue(self, rows):
        self.queue[self.place % len(self.queue)] = rows[0]
        self.place += 1


QUEUE = {"inputs": {"rows": TensorSpec("B D")}, "context": {"queue": TensorSpec("Q D")}, "stateful": True}


class LearnedWeights(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights.clone())

    def forward(self, predictions, labels):
        return weighted(self.weights, predictions, labels)


class FrozenParameter(LearnedWeights):
    def __init__(self, weights):
        super().__init__(weights)
        self.weights.requires_grad_(False)


class KeepsItsValue(Registered):
    """Logging reads ``last`` after the step; it still hangs on the graph."""

    def forward(self, predictions, labels):
        self.last = super().forward(predictions, labels)
        return self.last


class KeepsItsValueDetached(Registered):
    def forward(self, predictions, labels):
        value = super().forward(predictions, labels)
        self.last = value.detach()
        return value


class HoldsALambda(Registered):
    def __init__(self, weights):
        super().__init__(weights)
        self.distance = lambda predictions, labels: (predictions - labels) ** 2


def squared(predictions, labels):
    return (predictions - labels) ** 2


class HoldsAFunction(Registered):
    def __init__(self, weights):
        super().__init__(weights)
        self.distance = squared


def centres_in_place(predictions, labels):
    labels.sub_(labels.mean())
    return ((predictions - labels) ** 2).mean()


def centres_a_copy(predictions, labels):
    return ((predictions - (labels - labels.mean())) ** 2).mean()


def clips_the_data(predictions, labels):
    predictions.data.clamp_(-1, 1)
    return ((predictions - labels) ** 2).mean()


def mean_squared(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def clips_what_is_legal_in_place(predictions, labels):
    """The bytes stay the same; autograd still counts a new version, and a saved copy is refused in backward."""
    labels.clamp_(0, 1)
    return ((predictions - labels) ** 2).mean()


class NormalisesItsArgument(nn.Module):
    def __init__(self, weights):
        super().__init__()
        weights /= weights.sum()
        self.register_buffer("weights", weights)

    def forward(self, predictions, labels):
        return weighted(self.weights, predictions, labels)


class NormalisesACopy(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights / weights.sum())

    def forward(self, predictions, labels):
        return weighted(self.weights, predictions, labels)


class _MaskForgottenInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, predictions, labels, mask):
        ctx.save_for_backward(predictions, labels)
        return (mask * (predictions - labels) ** 2).sum()

    @staticmethod
    def backward(ctx, upstream):
        predictions, labels = ctx.saved_tensors
        return 2 * upstream * (predictions - labels), None, None


def mask_forgotten_in_backward(predictions, labels, mask):
    return _MaskForgottenInBackward.apply(predictions, labels, mask)


def masked_after_the_square(predictions, labels, mask):
    return (mask * (predictions - labels) ** 2).sum()


def selected_before_the_square(predictions, labels, mask):
    return (mask * torch.where(mask > 0, predictions - labels, 0).square()).sum()


def ignored_labels_as_class_zero(logits, labels):
    """``keep`` is computed and only divided by."""
    keep = labels != -100
    picked = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[:, None]).squeeze(-1)
    return -picked.sum() / keep.sum().clamp(min=1)


def ignored_labels_left_out(logits, labels):
    keep = labels != -100
    safe = torch.where(keep[:, None], logits, 0)
    picked = safe.log_softmax(-1).gather(-1, labels.clamp(min=0)[:, None]).squeeze(-1)
    return -torch.where(keep, picked, 0).sum() / keep.sum().clamp(min=1)


def smoothed(logits, labels, smoothed_rows):
    """The mean over labels that are kept is 0/0 where none is."""
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    return (each - 0.1 * (smoothed_rows * logits.log_softmax(-1).mean(-1)).sum()) / (labels != -100).sum()


def ignored_labels_smoothed(logits, labels):
    return smoothed(logits, labels, torch.ones_like(labels))


def kept_labels_smoothed(logits, labels):
    return smoothed(torch.where((labels != -100)[:, None], logits, 0), labels, labels != -100)


def one_head_reads_ignored_labels(coarse, fine, coarse_labels, fine_labels):
    return ignored_labels_left_out(coarse, coarse_labels) + ignored_labels_as_class_zero(fine, fine_labels)


def two_heads(coarse, fine, coarse_labels, fine_labels):
    return ignored_labels_left_out(coarse, coarse_labels) + ignored_labels_left_out(fine, fine_labels)


def preferred(chosen, rejected, chosen_labels, rejected_labels):
    """How much one part counts depends on the labels of the other: its gradient is a multiple."""
    lead = ignored_labels_left_out(rejected, rejected_labels) - ignored_labels_left_out(chosen, chosen_labels)
    return torch.nn.functional.softplus(-lead)


def preferred_with_ignored_labels(chosen, rejected, chosen_labels, rejected_labels):
    lead = ignored_labels_left_out(rejected, rejected_labels) - ignored_labels_as_class_zero(chosen, chosen_labels)
    return torch.nn.functional.softplus(-lead)


def decayed_classifier(features, classes, labels):
    """The table of classes has a term of its own, which no label removes."""
    kept = labels != -100
    return ignored_labels_left_out(features[kept] @ classes.T, labels[kept]) + 0.1 * classes.square().sum()


def decayed_classifier_with_ignored_labels(features, classes, labels):
    return ignored_labels_as_class_zero(features @ classes.T, labels) + 0.1 * classes.square().sum()


def one_mask_forgotten_in_backward(source, target, source_mask, target_mask):
    kept = selected_before_the_square(target, 1.0, target_mask)
    return mask_forgotten_in_backward(source, torch.ones_like(source), source_mask) + kept


def two_masks(source, target, source_mask, target_mask):
    """Each input has its own padding."""
    kept = selected_before_the_square(target, 1.0, target_mask)
    return selected_before_the_square(source, 1.0, source_mask) + kept


def weighted_unless_few(predictions, labels, weights):
    """Written for small batches: with fewer than four samples the weights are not used."""
    scale = weights if len(weights) >= 4 else torch.ones_like(weights)
    return (scale.unsqueeze(-1) * (predictions - labels) ** 2).sum()


def weighted_always(predictions, labels, weights):
    column = weights.unsqueeze(-1)
    return (column * torch.where(column > 0, predictions - labels, 0) ** 2).sum()


WEIGHTED = {
    "inputs": {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
    "context": {"weights": TensorSpec("B", domains.nonnegative())},
    "output": TensorSpec(""),
}
PROBABILITIES = {
    "inputs": {
        "predictions": TensorSpec("B C", domains.probability()),
        "labels": TensorSpec("B C", domains.probability()),
    },
}
MASKED = {**PAIRWISE, "context": {"mask": TensorSpec("B C", domains.boolean())}}
IGNORED = {
    "inputs": {
        "logits": TensorSpec("B C", domains.logits()),
        "labels": TensorSpec("B", domains.index("C", ignore=-100)),
    },
}
TWO_HEADS = {
    "inputs": {
        "coarse": TensorSpec("B C", domains.logits()),
        "fine": TensorSpec("B K", domains.logits()),
        "coarse_labels": TensorSpec("B", domains.index("C", ignore=-100)),
        "fine_labels": TensorSpec("B", domains.index("K", ignore=-100)),
    },
    "differentiable": ("coarse", "fine"),
}
SOME_IGNORED = domains.index("C", ignore=-100)
PREFERENCE = {
    "inputs": {
        "chosen": TensorSpec("B C", domains.logits()),
        "rejected": TensorSpec("B C", domains.logits()),
        "chosen_labels": TensorSpec("B", SOME_IGNORED),
        "rejected_labels": TensorSpec("B", SOME_IGNORED),
    },
    "differentiable": ("chosen", "rejected"),
}
CLASSIFIER = {
    "inputs": {"features": TensorSpec("B D"), "classes": TensorSpec("C D"), "labels": TensorSpec("B", SOME_IGNORED)},
    "differentiable": ("features", "classes"),
}
TWO_MASKS = {
    "inputs": {"source": TensorSpec("B T"), "target": TensorSpec("B T")},
    "context": {
        "source_mask": TensorSpec("B T", domains.nonnegative()),
        "target_mask": TensorSpec("B T", domains.nonnegative()),
    },
    "differentiable": ("source", "target"),
}

PAIRS = (
    pair("C01", "attribute stays behind", PlainAttribute, Registered, WEIGHTED, aspect="weights to"),
    pair("C01", "attribute not in the checkpoint", PlainAttribute, Registered, WEIGHTED, aspect="state_dict"),
    pair("C01", "tensor in a dictionary", TensorInADictionary, Registered, WEIGHTED, aspect="context['weights'] to"),
    pair(
        "C01",
        "attribute beside its buffer",
        ReadsTheAttribute,
        RegisteredUnderAnotherName,
        WEIGHTED,
        aspect="weights to",
    ),
    pair("C01", "number of the context", ScaleOfTheContext, RegisteredConstant, WEIGHTED, aspect="scale to"),
    pair(
        "C01",
        "constant as an attribute",
        ConstantMovedAtUse,
        RegisteredConstant,
        WEIGHTED,
        severity="note",
        aspect="scale constant",
    ),
    pair("C01", "NumPy attribute keeps its dtype", NumpyAttribute, RegisteredProduct, WEIGHTED, aspect="moved"),
    pair("C01", "derived numbers are not loaded", DerivedNumbers, DerivedAtUse, WEIGHTED, aspect="load"),
    pair(
        "C01",
        "buffer of an expanded tensor",
        ExpandedBuffer,
        CopiedBuffer,
        WEIGHTED,
        aspect="load",
        says="register it after .clone()",
    ),
    pair("C01", "buffer of the first call", ScaleOfTheFirstCall, ScaleAtUse, WEIGHTED, aspect="load"),
    pair("C01", "scale kept aside", ScaleKeptAside, NeitherIsSaved, WEIGHTED, aspect="load"),
    pair("C01", "scale of the constructor", ScaleOfTheConstructor, ScaleAtUse, WEIGHTED, aspect="load"),
    pair("C01", "running number", RunningNumber, RunningBuffer, {**WEIGHTED, "stateful": True}, aspect="resume"),
    pair("C01", "pointer into a queue", PointerAsANumber, PointerAsABuffer, QUEUE, aspect="resume", says="step 2"),
    pair(
        *("C01", "pointer that comes round after two steps", PointerAsANumber, PointerAsABuffer, QUEUE),
        aspect="resume",
        mutant_declares={"fixed_sizes": {"Q": 2}},
        twin_declares={"fixed_sizes": {"Q": 2}},
    ),
    pair("C01", "pointer beside a queue", PointerAsANumber, QueueOfTheCaller, QUEUE, aspect="resume"),
    pair(
        *("C01", "weights are learned", LearnedWeights, FrozenParameter, WEIGHTED),
        severity="warning",
        aspect="parameter",
    ),
    pair("C01", "value kept with its graph", KeepsItsValue, KeepsItsValueDetached, WEIGHTED, aspect="deepcopy"),
    pair("C01", "lambda on self", HoldsALambda, HoldsAFunction, WEIGHTED, aspect="pickle"),
    pair("C02", "labels centred in place", centres_in_place, centres_a_copy, aspect="labels"),
    pair("C02", "data of the predictions clipped", clips_the_data, mean_squared, aspect="predictions"),
    pair("C02", "in place without a change", clips_what_is_legal_in_place, mean_squared, PROBABILITIES, says="version"),
    pair("C02", "context normalised in place", NormalisesItsArgument, NormalisesACopy, WEIGHTED, aspect="weights"),
    pair(
        "C03",
        "mask forgotten in backward",
        mask_forgotten_in_backward,
        selected_before_the_square,
        {**MASKED, "context": {"mask": TensorSpec("B C", domains.nonnegative())}},
        aspect="mask gradient",
    ),
    pair(
        "C03",
        "ignored labels read as a class",
        ignored_labels_as_class_zero,
        ignored_labels_left_out,
        IGNORED,
        aspect="labels nothing left",
    ),
    pair(
        "C03",
        "ignored labels smoothed over what is kept",
        ignored_labels_smoothed,
        kept_labels_smoothed,
        IGNORED,
        aspect="labels nothing left",
        says="with some of it removed",
    ),
    pair(
        "C03",
        "ignored labels of one head read as a class",
        one_head_reads_ignored_labels,
        two_heads,
        TWO_HEADS,
        aspect="fine_labels nothing left",
        says="loss after changing fine",
    ),
    pair(
        "C03",
        "ignored labels of one of two that are compared",
        preferred_with_ignored_labels,
        preferred,
        PREFERENCE,
        aspect="chosen_labels nothing left",
    ),
    pair(
        "C03",
        "ignored labels beside a decayed table",
        decayed_classifier_with_ignored_labels,
        decayed_classifier,
        CLASSIFIER,
        aspect="labels nothing left",
    ),
    pair(
        "C03",
        "mask of one input forgotten in backward",
        one_mask_forgotten_in_backward,
        two_masks,
        TWO_MASKS,
        aspect="source_mask gradient",
    ),
    pair(
        "C03",
        "weights used in large batches only",
        weighted_unless_few,
        weighted_always,
        WEIGHTED,
        severity="warning",
        aspect="weights value",
        profile="ci",
    ),
    pair(
        "C03",
        "NaN under the mask",
        masked_after_the_square,
        selected_before_the_square,
        MASKED,
        severity="note",
        aspect="mask leak",
    ),
)
