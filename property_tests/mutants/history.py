"""Mutants of the rule about history: S03."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from harness import TensorSpec, domains
from mutants.pair import PAIRWISE, pair


def masked(predictions, labels, kept):
    return (kept * (predictions - labels) ** 2).mean()


class MaskOfTheFirstBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.kept = None

    def forward(self, predictions, labels):
        if self.kept is None or self.kept.shape != labels.shape:
            self.kept = (labels > 0).to(labels.dtype)
        return masked(predictions, labels, self.kept)


class MaskOfEachBatch(nn.Module):
    def forward(self, predictions, labels):
        return masked(predictions, labels, (labels > 0).to(labels.dtype))


class PositionsOfTheFirstBatch(nn.Module):
    """Only the first size is looked at, and the second may differ."""

    def __init__(self):
        super().__init__()
        self.places = {}

    def forward(self, predictions, labels):
        rows, columns = predictions.shape
        if rows not in self.places:
            self.places[rows] = torch.arange(columns, dtype=predictions.dtype)
        return (self.places[rows] * (predictions - labels) ** 2).mean()


class PositionsOfEverySize(PositionsOfTheFirstBatch):
    def forward(self, predictions, labels):
        columns = predictions.shape[1]
        if columns not in self.places:
            self.places[columns] = torch.arange(columns, dtype=predictions.dtype)
        return (self.places[columns] * (predictions - labels) ** 2).mean()


_SCALES = {}
_SCALES_BY_SIZE = {}
_RANGE = None


def scale_of_the_first_labels(predictions, labels):
    """Kept by shape, although it depends on the values."""
    key = tuple(labels.shape)
    if key not in _SCALES:
        _SCALES[key] = labels.detach().abs().mean()
    return ((predictions - labels) ** 2).mean() / _SCALES[key]


def weights_of_the_size(predictions, labels):
    """Kept by size, and dependent on nothing else."""
    rows = len(labels)
    if rows not in _SCALES_BY_SIZE:
        _SCALES_BY_SIZE[rows] = torch.arange(1, rows + 1, dtype=torch.float64)
    return (_SCALES_BY_SIZE[rows].to(predictions).unsqueeze(-1) * (predictions - labels) ** 2).mean()


_SHARES = {}


def shares_by_address(predictions, labels, weights):
    """A buffer that is filled anew keeps its address."""
    key = (weights.data_ptr(), len(weights))
    if key not in _SHARES:
        _SHARES[key] = (weights, weights / weights.sum())
    return masked(predictions, labels, _SHARES[key][1].unsqueeze(-1))


def shares_each_time(predictions, labels, weights):
    return masked(predictions, labels, (weights / weights.sum()).unsqueeze(-1))


def range_of_the_first_labels(predictions, labels):
    global _RANGE
    if _RANGE is None:
        _RANGE = labels.detach().abs().max()
    return ((predictions - labels) ** 2).mean() / _RANGE


class _LazyImport:
    """What libraries put in the place of an optional package that is not there."""

    def __getattr__(self, name):
        raise ImportError("no module named 'optional'")

    def __call__(self):
        raise ImportError("no module named 'optional'")


_OPTIONAL = _LazyImport()


def range_of_these_labels(predictions, labels):
    if len(labels) > 10_000:
        _OPTIONAL()
    return ((predictions - labels) ** 2).mean() / labels.abs().max()


def running_mean(predictions, labels, seen=[]):  # noqa: B006 - the defect
    value = ((predictions - labels) ** 2).mean()
    seen.append(value.item())
    return value * len(seen) / (len(seen) + 1)


def written_down(predictions, labels, seen=[]):  # noqa: B006 - it is only written to
    value = ((predictions - labels) ** 2).mean()
    seen.append(value.item())
    return value


class WeightsOfTheLatestInstance(nn.Module):
    shared = None

    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)
        WeightsOfTheLatestInstance.shared = weights / weights.sum()

    def forward(self, predictions, labels):
        return masked(predictions, labels, self.shared.unsqueeze(-1))


class WeightsOfTheInstance(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, predictions, labels):
        return masked(predictions, labels, (self.weights / self.weights.sum()).unsqueeze(-1))


class MovingScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def forward(self, predictions, labels):
        value = ((predictions - labels) ** 2).mean()
        self.scale.mul_(0.9).add_(0.1 * value.detach())
        return value / self.scale


class FrozenScale(MovingScale):
    def forward(self, predictions, labels):
        return ((predictions - labels) ** 2).mean() / self.scale


class DropoutInTraining(nn.Module):
    def forward(self, predictions, labels):
        return ((F.dropout(predictions, 0.5, self.training) - labels) ** 2).mean()


class _Queue(nn.Module):
    """Squared distance to the mean of a bank, into which training writes the latest predictions."""

    def __init__(self, bank):
        super().__init__()
        self.register_buffer("bank", bank.clone())

    def forward(self, predictions):
        loss = (predictions - self.bank.clone().mean(0)).square().mean()
        if self.training:
            self.write(predictions.detach())
        return loss


class LatestRows(_Queue):
    def write(self, rows):
        self.bank.copy_(torch.cat([rows, self.bank])[: len(self.bank)])


class RowsThatMayNotFit(_Queue):
    def write(self, rows):
        self.bank[: len(rows)] = rows


class PointerThatRunsOver(_Queue):
    start = 0

    def write(self, rows):
        rows = rows[: len(self.bank)]
        end = self.start + len(rows)
        if end > len(self.bank) + 1:
            raise IndexError(f"no place for rows {self.start} to {end}")
        self.bank[self.start : end] = rows[: len(self.bank) - self.start]
        self.start = end


class SharesOfTheFirstInstance(nn.Module):
    """Every instance of one size has the shares of the first one."""

    shares = {}  # noqa: RUF012 - the defect

    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, predictions, labels):
        shares = self.shares.setdefault(len(predictions), self.weights / self.weights.sum())
        return (shares @ (predictions - labels) ** 2).mean()


class SharesOfEach(SharesOfTheFirstInstance):
    def forward(self, predictions, labels):
        return ((self.weights / self.weights.sum()) @ (predictions - labels) ** 2).mean()


_EYES = {}


def eye_of_the_first_dtype(predictions):
    count = len(predictions)
    if count not in _EYES:
        _EYES[count] = torch.eye(count, dtype=predictions.dtype)
    return (predictions @ predictions.mT - _EYES[count]).square().mean()


def eye_of_each_dtype(predictions):
    key = len(predictions), predictions.dtype
    if key not in _EYES:
        _EYES[key] = torch.eye(len(predictions), dtype=predictions.dtype)
    return (predictions @ predictions.mT - _EYES[key]).square().mean()


class LargerInTraining(nn.Module):
    factor = 1.1

    def forward(self, predictions, labels):
        return (predictions - labels).square().mean() * (self.factor if self.training else 1)


class LargestInTraining(LargerInTraining):
    factor = 1.2


class AsInTraining(LargerInTraining):
    factor = 1


class Centred(nn.Module):
    """Without the running mean of the errors, which only steps in training move."""

    def __init__(self):
        super().__init__()
        self.mean = 0.0

    def forward(self, predictions, labels):
        errors = predictions - labels
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * float(errors.detach().mean())
        return (errors - self.mean).square().mean()


class SteeperInTraining(nn.Module):
    """The same value in both modes, and twice the gradient in one."""

    def forward(self, predictions, labels):
        if self.training:
            predictions = 2 * predictions - predictions.detach()
        return (predictions - labels).square().mean()


class _Workspace(torch.autograd.Function):
    """Squared errors, whose gradient lies in memory that a backward finds again by shape, or on what belongs to the call."""

    @staticmethod
    def forward(ctx, predictions, labels, places):
        ctx.places = ctx if places is None else places.setdefault(predictions.shape, SimpleNamespace())
        ctx.places.gradient = 2 * (predictions - labels) / max(predictions.numel(), 1)
        return (predictions - labels).square().mean()

    @staticmethod
    def backward(ctx, upstream):
        gradient = upstream * ctx.places.gradient
        return gradient, -gradient, None


_PLACES = {}
_RESULTS = {}


def gradient_in_a_workspace(predictions, labels):
    return _Workspace.apply(predictions, labels, _PLACES)


def gradient_of_each_call(predictions, labels):
    return _Workspace.apply(predictions, labels, None)


class _ResultKept(torch.autograd.Function):
    """Squared errors, whose value is written to memory that the next call writes to as well."""

    @staticmethod
    def forward(ctx, predictions, labels):
        ctx.save_for_backward(predictions, labels)
        value = (predictions - labels).square().mean()
        kept = _RESULTS.setdefault(value.dtype, torch.empty_like(value))
        return kept.copy_(value).view(kept.shape)

    @staticmethod
    def backward(ctx, upstream):
        predictions, labels = ctx.saved_tensors
        gradient = 2 * upstream * (predictions - labels) / max(predictions.numel(), 1)
        return gradient, -gradient


def value_in_a_workspace(predictions, labels):
    return _ResultKept.apply(predictions, labels)


BANK = {
    "inputs": {"predictions": TensorSpec("B D")},
    "context": {"bank": TensorSpec("K D")},
    "stateful": True,
}
WEIGHTED = {**PAIRWISE, "context": {"weights": TensorSpec("B", domains.positive())}}
STATEFUL = {"stateful": True}

PAIRS = (
    pair("S03", "mask of the first batch", MaskOfTheFirstBatch, MaskOfEachBatch, says="other values"),
    pair("S03", "positions of the first batch", PositionsOfTheFirstBatch, PositionsOfEverySize, says="with C ="),
    pair("S03", "scale of the first labels", scale_of_the_first_labels, weights_of_the_size, says="other values"),
    pair("S03", "range of the first labels", range_of_the_first_labels, range_of_these_labels, says="other values"),
    pair("S03", "shares by address", shares_by_address, shares_each_time, WEIGHTED, says="in the same tensors"),
    pair("S03", "running mean", running_mean, written_down),
    pair(
        "S03",
        "weights of the latest instance",
        WeightsOfTheLatestInstance,
        WeightsOfTheInstance,
        WEIGHTED,
        says="another instance",
    ),
    pair(
        "S03",
        "shares of the first instance",
        SharesOfTheFirstInstance,
        SharesOfEach,
        WEIGHTED,
        aspect="history of all instances",
        says="another context after another instance",
    ),
    pair(
        "S03",
        "eye of the first dtype",
        eye_of_the_first_dtype,
        eye_of_each_dtype,
        {"inputs": {"predictions": TensorSpec("B C")}},
        says="float32 after a call with float64",
    ),
    pair("S03", "larger in training", LargerInTraining, AsInTraining, severity="warning", aspect="train"),
    pair(
        "S03",
        "larger in training than the reference",
        LargestInTraining,
        LargerInTraining,
        severity="warning",
        aspect="train",
        reference=LargerInTraining,
    ),
    pair("S03", "running mean in training", Centred, Centred, severity="note", aspect="train", twin_declares=STATEFUL),
    pair("S03", "buffer moved in eval mode", MovingScale, FrozenScale, severity="note", aspect="buffers"),
    pair(
        "S03",
        "buffer moved, not said",
        MovingScale,
        MovingScale,
        severity="note",
        aspect="buffers",
        twin_declares=STATEFUL,
    ),
    pair("S03", "batch longer than the queue", RowsThatMayNotFit, LatestRows, BANK, aspect="train raises"),
    pair("S03", "pointer that runs over", PointerThatRunsOver, LatestRows, BANK, aspect="train raises", says="step"),
    pair("S03", "gradient in a workspace", gradient_in_a_workspace, gradient_of_each_call, says="of two inputs"),
    pair("S03", "value in a workspace", value_in_a_workspace, gradient_of_each_call, says="of two inputs"),
    pair("S03", "steeper in training", SteeperInTraining, AsInTraining, aspect="train", says="d loss"),
    pair("S03", "dropout in training", DropoutInTraining, MaskOfEachBatch, severity="note", aspect="train"),
)
