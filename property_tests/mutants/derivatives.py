"""Mutants of the rules about derivatives beyond the slope: G02, G03, G04, G05, G07, G10, G11."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from harness import TensorSpec, domains
from mutants.pair import PAIRWISE, pair


def mean_squared(predictions, labels):
    return ((predictions - labels) ** 2).mean()


class _Scale(torch.autograd.Function):
    """The identity, whose backward is multiplied elementwise."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(factor)
        return x.clone()

    @staticmethod
    def backward(ctx, upstream):
        return upstream * ctx.saved_tensors[0], None


def _with_factor(predictions, labels, position, factor):
    factors = torch.ones_like(predictions)
    if factors.numel():
        factors.view(-1)[position % factors.numel()] = factor
    return mean_squared(_Scale.apply(predictions, factors), labels)


def one_percent_of_one_element(predictions, labels):
    return _with_factor(predictions, labels, 1234, 1.01)


def identity_with_a_backward(predictions, labels):
    return _with_factor(predictions, labels, 1234, 1.0)


def last_block_without_gradient(predictions, labels):
    """As a kernel with blocks of 100 elements does that drops the rest."""
    flat = predictions.reshape(-1)
    whole = len(flat) - len(flat) % 100 if len(flat) > 100 else len(flat)
    return mean_squared(torch.cat([flat[:whole], flat[whole:].detach()]), labels.reshape(-1))


class _InBfloat16(torch.autograd.Function):
    """Mean squared error computed in bfloat16, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx, predictions, labels, factor):
        errors = predictions.bfloat16() - labels.bfloat16()
        ctx.save_for_backward(errors)
        ctx.factor = factor
        return errors.square().mean().to(predictions.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        (errors,) = ctx.saved_tensors
        gradient = (ctx.factor * 2 * errors / errors.numel()).to(upstream.dtype) * upstream
        return gradient, -gradient, None


def twice_in_bfloat16(predictions, labels):
    return _InBfloat16.apply(predictions, labels, 2)


def once_in_bfloat16(predictions, labels):
    return _InBfloat16.apply(predictions, labels, 1)


class _LogOfSums(torch.autograd.Function):
    """log sum_c exp(x_c) of each row, by columns up to ``most`` in the forward, and by all of them in the backward."""

    @staticmethod
    def forward(ctx, x, most):
        value = x[:, :most].logsumexp(1)
        ctx.save_for_backward(x, value)
        return value

    @staticmethod
    def backward(ctx, upstream):
        x, value = ctx.saved_tensors
        return upstream[:, None] * (x - value[:, None]).exp(), None


def sum_of_the_first_block(predictions, labels):
    return _LogOfSums.apply(predictions + labels, 1024).sum()


def sum_of_all_blocks(predictions, labels):
    return _LogOfSums.apply(predictions + labels, None).sum()


def hinge(predictions, labels):
    return (1 - predictions * labels.sign()).clamp(min=0).mean()


class _LogCosh(torch.autograd.Function):
    """log cosh x, whose backward uses what the forward computed without a graph."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(torch.tanh(x))
        return x.cosh().log()

    @staticmethod
    def backward(ctx, upstream):
        return upstream * ctx.saved_tensors[0]


class _LogCoshTwice(_LogCosh):
    """The same from saved inputs, so that it can be differentiated again."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.cosh().log()

    @staticmethod
    def backward(ctx, upstream):
        return upstream * ctx.saved_tensors[0].tanh()


class _LogCoshOnce(_LogCosh):
    """The same as `_LogCosh`, and says that it has no second derivative."""

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        return upstream * ctx.saved_tensors[0]


def log_cosh_without_curvature(predictions, labels):
    return _LogCosh.apply(predictions - labels).mean()


def log_cosh_with_curvature(predictions, labels):
    return _LogCoshTwice.apply(predictions - labels).mean()


def log_cosh_once(predictions, labels):
    return _LogCoshOnce.apply(predictions - labels).mean()


def huber(predictions, labels):
    return F.huber_loss(predictions, labels, delta=0.7)


class _Square(torch.autograd.Function):
    """x squared with both modes written by hand."""

    factor = 2

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, upstream):
        return 2 * ctx.saved_tensors[0] * upstream

    @classmethod
    def jvp(cls, ctx, tangent):
        return 2 * ctx.saved_tensors[0] * tangent


class _SquareHalvedForward(_Square):
    @classmethod
    def jvp(cls, ctx, tangent):
        return ctx.saved_tensors[0] * tangent


def squares_with_half_a_jvp(predictions, labels):
    return _SquareHalvedForward.apply(predictions - labels).mean()


def squares_with_a_jvp(predictions, labels):
    return _Square.apply(predictions - labels).mean()


class _Sum(torch.autograd.Function):
    """sum (p - y)^2 / n, with a backward that the mutants change."""

    @staticmethod
    def forward(ctx, predictions, labels):
        ctx.save_for_backward(predictions, labels)
        return ((predictions - labels) ** 2).mean()

    @staticmethod
    def backward(ctx, upstream):
        predictions, labels = ctx.saved_tensors
        gradient = 2 * (predictions - labels) / predictions.numel()
        return upstream * gradient, -upstream * gradient


class _IgnoresUpstream(_Sum):
    @staticmethod
    def backward(ctx, upstream):
        predictions, labels = ctx.saved_tensors
        gradient = 2 * (predictions - labels) / predictions.numel()
        return gradient, -gradient


class _IgnoresUpstreamInHalf(_Sum):
    @staticmethod
    def backward(ctx, upstream):
        is_half = ctx.saved_tensors[0].dtype in (torch.float16, torch.bfloat16)
        return _Sum.backward(ctx, torch.ones_like(upstream) if is_half else upstream)


class _Squares(torch.autograd.Function):
    """(p - y)^2 by element, whose backward reads what comes from above as it stands in memory."""

    @staticmethod
    def forward(ctx, predictions, labels, read):
        ctx.save_for_backward(predictions, labels)
        ctx.read = read
        return (predictions - labels) ** 2

    @staticmethod
    def backward(ctx, upstream):
        predictions, labels = ctx.saved_tensors
        gradient = 2 * (predictions - labels) * ctx.read(upstream)
        return gradient, -gradient, None


def _in_the_order_of_memory(upstream):
    """A kernel that is given an address alone reads this, and zeros beyond the end."""
    held = torch.zeros(upstream.numel() + 1, dtype=upstream.dtype)
    there = torch.tensor(upstream.untyped_storage().tolist(), dtype=torch.uint8).view(upstream.dtype)
    held[: min(len(held), len(there))] = there[: len(held)]
    return held[:-1].reshape(upstream.shape)


def squares_by_address(predictions, labels):
    return _Squares.apply(predictions, labels, _in_the_order_of_memory)


def squares_by_strides(predictions, labels):
    return _Squares.apply(predictions, labels, lambda upstream: upstream)


def squares_of_dense_gradients(predictions, labels):
    return _Squares.apply(predictions, labels, lambda upstream: upstream.view(-1).view(upstream.shape))


def squares_that_write_above(predictions, labels):
    return _Squares.apply(predictions, labels, lambda upstream: upstream.mul_(2) / 2)


class _WritesAbove(_Sum):
    """Scales what comes from above in place, which the other summand of a total has too."""

    @staticmethod
    def backward(ctx, upstream):
        return _Sum.backward(ctx, upstream.mul_(2) / 2)


class _WritesIntoSaved(_Sum):
    @staticmethod
    def backward(ctx, upstream):
        predictions, labels = ctx.saved_tensors
        gradient = predictions.data.sub_(labels).mul_(2 * upstream / predictions.numel())
        return gradient.clone(), -gradient


class _ScalesWhatItKeeps(_Sum):
    """Multiplies what it kept by the upstream gradient in place, which shows only where that is not 1."""

    @staticmethod
    def forward(ctx, predictions, labels):
        ctx.kept = 2 * (predictions - labels).detach() / predictions.numel()
        return ((predictions - labels) ** 2).mean()

    @staticmethod
    def backward(ctx, upstream):
        gradient = ctx.kept.mul_(upstream).clone()
        return gradient, -gradient


class _KeepsItsBuffer(_Sum):
    """Hands out the same memory in every backward."""

    @staticmethod
    def forward(ctx, predictions, labels):
        ctx.save_for_backward(predictions, labels)
        ctx.buffer = torch.zeros_like(predictions)
        return ((predictions - labels) ** 2).mean()

    @staticmethod
    def backward(ctx, upstream):
        predictions, labels = ctx.saved_tensors
        ctx.buffer += 2 * upstream * (predictions - labels) / predictions.numel()
        return ctx.buffer, -ctx.buffer.clone()


class _FreesWhatItSaved(_Sum):
    @staticmethod
    def forward(ctx, predictions, labels):
        ctx.difference = predictions - labels
        return ((predictions - labels) ** 2).mean()

    @staticmethod
    def backward(ctx, upstream):
        gradient = 2 * upstream * ctx.difference / ctx.difference.numel()
        del ctx.difference
        return gradient, -gradient


class _AllOrNothing(_Sum):
    @staticmethod
    def backward(ctx, upstream):
        if not all(ctx.needs_input_grad):
            return None, None
        return _Sum.backward(ctx, upstream)


class _InOrderOfNeed(_Sum):
    """Returns the gradients that are needed first, whichever input needs them."""

    @staticmethod
    def backward(ctx, upstream):
        both = _Sum.backward(ctx, upstream)
        needed = [g for g, need in zip(both, ctx.needs_input_grad, strict=True) if need]
        return (*needed, *[None] * (2 - len(needed)))


class _AnotherInABatch(_Sum):
    """Has a branch for a batch of upstream numbers, which loses a sign."""

    @staticmethod
    def backward(ctx, upstream):
        predictions, labels = ctx.saved_tensors
        gradient = 2 * (predictions - labels) / predictions.numel()
        if torch._C._functorch.is_legacy_batchedtensor(upstream):
            return upstream.abs() * gradient, -upstream * gradient
        return upstream * gradient, -upstream * gradient


def ignores_upstream(predictions, labels):
    return _IgnoresUpstream.apply(predictions, labels)


def writes_into_saved(predictions, labels):
    return _WritesIntoSaved.apply(predictions, labels)


def scales_what_it_keeps(predictions, labels):
    return _ScalesWhatItKeeps.apply(predictions, labels)


def keeps_its_buffer(predictions, labels):
    return _KeepsItsBuffer.apply(predictions, labels)


def frees_what_it_saved(predictions, labels):
    return _FreesWhatItSaved.apply(predictions, labels)


def needs_leaves(predictions, labels):
    if not predictions.is_leaf:
        return mean_squared(predictions.detach(), labels) + 0 * predictions.sum()
    return mean_squared(predictions, labels)


def ignores_upstream_in_half(predictions, labels):
    return _IgnoresUpstreamInHalf.apply(predictions, labels)


def writes_above(predictions, labels):
    return _WritesAbove.apply(predictions, labels)


def all_or_nothing(predictions, labels):
    return _AllOrNothing.apply(predictions, labels)


def in_order_of_need(predictions, labels):
    return _InOrderOfNeed.apply(predictions, labels)


def by_hand(predictions, labels):
    return _Sum.apply(predictions, labels)


def wrong_in_a_batch(predictions, labels):
    return _AnotherInABatch.apply(predictions, labels)


def sparse_rows(embeddings, index):
    return F.embedding(index, embeddings, sparse=True).square().mean()


def dense_rows(embeddings, index):
    return F.embedding(index, embeddings).square().mean()


BOTH = {**PAIRWISE, "differentiable": ("predictions", "labels")}
ROWS = {"inputs": {"embeddings": TensorSpec("N D"), "index": TensorSpec("B", domains.index("N"))}}


def given_up_beside_a_zero(predictions, labels):
    return _Squares.apply(predictions, labels, lambda upstream: upstream * (upstream != 0).all())


def given_up_at_zeros(predictions, labels):
    return _Squares.apply(predictions, labels, lambda upstream: upstream * (upstream != 0).any())


BY_ELEMENT = {**PAIRWISE, "output": TensorSpec("B C")}


def sums_and_counts(predictions, labels):
    """Of two groups, the second of which is empty."""
    each = (predictions - labels).square().mean(-1)
    group = torch.zeros(len(each), dtype=torch.int64, device=each.device)
    sums = torch.zeros(2, dtype=each.dtype, device=each.device).index_add(0, group, each)
    return sums, torch.zeros_like(sums).index_add(0, group, torch.ones_like(each.detach()))


def mean_of_nothing_replaced(predictions, labels):
    sums, counts = sums_and_counts(predictions, labels)
    return (sums / counts).nan_to_num().sum()


def mean_of_at_least_one(predictions, labels):
    sums, counts = sums_and_counts(predictions, labels)
    return (sums / counts.clamp(min=1)).sum()


class _Tempered(torch.autograd.Function):
    """Squared error times a temperature, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx, errors, temperature, factor):
        ctx.save_for_backward(errors, temperature)
        ctx.factor = factor
        return temperature * errors.square().mean()

    @staticmethod
    def backward(ctx, upstream):
        errors, temperature = ctx.saved_tensors
        towards_errors = upstream * temperature * 2 * errors / errors.numel()
        return towards_errors, upstream * ctx.factor * errors.square().mean(), None


class _LearnsATemperature(torch.nn.Module):
    factor: float

    def __init__(self):
        super().__init__()
        self.temperature = torch.nn.Parameter(torch.tensor(0.7))

    def forward(self, predictions, labels):
        return _Tempered.apply(predictions - labels, self.temperature, self.factor)


class LearnsInALoop(_LearnsATemperature):
    """Of each element by itself, so that a case of many has more operations than are watched."""

    factor = 1.0

    def forward(self, predictions, labels):
        errors = (predictions - labels).reshape(-1)
        return sum(_Tempered.apply(error, self.temperature, self.factor) for error in errors.split(1)) / errors.numel()


class LearnsByHalfInALoop(LearnsInALoop):
    factor = 0.5


class LearnsByHalf(_LearnsATemperature):
    factor = 0.5


class Learns(_LearnsATemperature):
    factor = 1.0


class _SumOfSquares(torch.autograd.Function):
    """The sum of squares, whose gradient is multiplied by a number where a graph of it is kept."""

    @staticmethod
    def forward(ctx, errors, factor):
        ctx.save_for_backward(errors)
        ctx.factor = factor
        return errors.square().sum()

    @staticmethod
    def backward(ctx, upstream):
        (errors,) = ctx.saved_tensors
        return upstream * 2 * errors * (ctx.factor if torch.is_grad_enabled() else 1), None


def twice_with_a_graph(predictions, labels):
    return _SumOfSquares.apply(predictions - labels, 2)


def once_with_a_graph(predictions, labels):
    return _SumOfSquares.apply(predictions - labels, 1)


class _OverATemperature(torch.autograd.Function):
    """Squared error over a temperature, whose gradient has a power of it: at 1, where it begins, all powers are one."""

    @staticmethod
    def forward(ctx, errors, temperature, power):
        ctx.save_for_backward(errors, temperature)
        ctx.power = power
        return errors.square().mean() / temperature

    @staticmethod
    def backward(ctx, upstream):
        errors, temperature = ctx.saved_tensors
        towards_errors = upstream * 2 * errors / errors.numel() / temperature
        return towards_errors, -upstream * errors.square().mean() / temperature**ctx.power, None


class DividesOnce(torch.nn.Module):
    power = 1

    def __init__(self):
        super().__init__()
        self.temperature = torch.nn.Parameter(torch.ones(()))

    def forward(self, predictions, labels):
        return _OverATemperature.apply(predictions - labels, self.temperature, self.power)


class DividesTwice(DividesOnce):
    power = 2


PAIRS = (
    pair("G02", "a power of a parameter that begins at one", DividesOnce, DividesTwice, says="parameter temperature"),
    pair("G02", "half the gradient of a parameter", LearnsByHalf, Learns, says="d loss / d parameter temperature"),
    pair(
        "G02",
        "half the gradient of a parameter in a loop",
        LearnsByHalfInALoop,
        LearnsInALoop,
        says="parameter temperature",
    ),
    pair("G03", "twice with a graph", twice_with_a_graph, once_with_a_graph, aspect="with a graph"),
    pair("G05", "given up beside a zero", given_up_beside_a_zero, given_up_at_zeros, BY_ELEMENT, aspect="by element"),
    pair("G02", "one percent of one of many elements", one_percent_of_one_element, identity_with_a_backward),
    pair("G02", "twice in bfloat16", twice_in_bfloat16, once_in_bfloat16, aspect="as a whole", says="along its signs"),
    pair("G02", "last block", last_block_without_gradient, mean_squared, says="detach() at derivatives.py"),
    pair("G02", "the sum of the first block alone", sum_of_the_first_block, sum_of_all_blocks, says="C=1100"),
    pair("G02", "kinks of the loss", one_percent_of_one_element, hinge),
    pair(
        "G03",
        "second derivative silently zero",
        log_cosh_without_curvature,
        log_cosh_with_curvature,
        severity="warning",
    ),
    pair("G03", "kinks of the gradient", log_cosh_without_curvature, huber, severity="warning"),
    pair(
        "G03",
        "second derivative promised",
        log_cosh_without_curvature,
        log_cosh_with_curvature,
        {**PAIRWISE, "requires": ("G03",)},
    ),
    pair(
        "G03",
        "second derivative refused",
        log_cosh_once,
        log_cosh_with_curvature,
        severity="note",
        aspect="custom Function",
    ),
    pair(
        *("G04", "half a jvp", squares_with_half_a_jvp, squares_with_a_jvp),
        severity="warning",
        aspect="forward mode",
        says="mend the jvp() of",
    ),
    pair(
        *("G04", "NaN that is replaced afterwards", mean_of_nothing_replaced, mean_of_at_least_one),
        severity="warning",
        aspect="forward mode",
        says="replace what it is made of before",
    ),
    pair("G04", "no jvp", by_hand, squares_with_a_jvp, severity="note", aspect="custom Function"),
    pair("G05", "upstream ignored", ignores_upstream, by_hand, BOTH, aspect="scaled"),
    pair("G05", "upstream ignored in half", ignores_upstream_in_half, by_hand, BOTH, aspect="scaled float16"),
    pair("G05", "upstream by address", squares_by_address, squares_by_strides, BY_ELEMENT, says="as that of a sum"),
    pair("G05", "dense upstream alone", squares_of_dense_gradients, squares_by_strides, BY_ELEMENT, aspect="upstream"),
    pair(
        "G05",
        "upstream of a sum written to",
        squares_that_write_above,
        squares_by_strides,
        BY_ELEMENT,
        aspect="upstream",
    ),
    pair("G05", "upstream written to", writes_above, by_hand, BOTH, says="written to, expected left as it was"),
    pair("G05", "saved tensor overwritten", writes_into_saved, by_hand, BOTH, aspect="second backward"),
    pair("G05", "kept tensor scaled in place", scales_what_it_keeps, by_hand, BOTH, aspect="second backward"),
    pair("G05", "buffer handed out", keeps_its_buffer, by_hand, BOTH, aspect="second backward"),
    pair("G05", "leaves only", needs_leaves, mean_squared, aspect="computed inputs"),
    pair("G05", "saved tensor freed", frees_what_it_saved, by_hand, BOTH, severity="warning", aspect="raises"),
    pair("G07", "all or nothing", all_or_nothing, by_hand, BOTH, says="with only predictions"),
    pair("G07", "gradients in order of need", in_order_of_need, by_hand, BOTH, says="with only labels"),
    pair("G10", "sparse gradient", sparse_rows, dense_rows, ROWS, aspect="layout"),
    pair("G11", "another gradient in a batch", wrong_in_a_batch, by_hand, BOTH, severity="warning", aspect="batched"),
)
