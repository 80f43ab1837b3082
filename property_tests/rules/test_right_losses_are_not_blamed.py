"""Right losses of kinds that a rule could take for wrong ones: nothing worse than a note is said of them."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from harness import LossSpec, TensorSpec, domains, laws, verify
from harness.calls.watch import Watch
from harness.results.findings import Status
from losses.graph_distance import SPEC_DISTANCE

PAIR = {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")}


def blamed(loss, inputs=None, rules=None, profile="quick", **declared):
    """(severity, rule, message) of all that is worse than a note."""
    spec = LossSpec("right", {"right": loss}, inputs=inputs or PAIR, output=TensorSpec(""), **declared)
    found = verify(spec, profile=profile, rules=rules)
    assert found.outcomes
    return [(f.severity, f.rule, f.message) for f in found.findings if f.severity != "note"]


def checked(predictions, labels):
    if predictions.shape != labels.shape:
        raise ValueError(f"predictions {list(predictions.shape)} and labels {list(labels.shape)} should have one shape")


def reentrant(predictions, labels):
    checked(predictions, labels)
    return checkpoint(lambda p, y: (p - y).square().sum(), predictions, labels, use_reentrant=True)


def own_checkpoint(predictions, labels):
    checked(predictions, labels)
    return OwnCheckpoint.apply(predictions, labels)


class OwnCheckpoint(torch.autograd.Function):
    """Computes the graph again in backward, and differentiates it by backward()."""

    @staticmethod
    def forward(ctx, p, y):
        ctx.save_for_backward(p, y)
        return (p - y).square().sum()

    @staticmethod
    def backward(ctx, upstream):
        if not torch.autograd._is_checkpoint_valid():
            raise RuntimeError("this checkpoint does not work with torch.autograd.grad()")
        leaf, labels = (tensor.detach().requires_grad_() for tensor in ctx.saved_tensors)
        with torch.enable_grad():
            (leaf - labels).square().sum().backward(upstream)
        return leaf.grad, labels.grad


@pytest.mark.parametrize("loss", [reentrant, own_checkpoint])
def test_a_loss_that_trains_by_backward_alone(loss):
    rules = ["G01", "G02", "G05", "G06", "G07", "G08", "G10", "B", "C", "D", "S", "E"]
    assert blamed(loss, rules=rules) == []


def branches(predictions, labels):
    checked(predictions, labels)
    mean = (predictions - labels).square().sum()
    return torch.cond(mean.detach() < 1, lambda m: m * 1.0, lambda m: 2 * m.sqrt() - 1, (mean,))


class WithAParametrizedHead(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 2))

    def forward(self, x):
        return self.head(x).square().mean()


class WithALazyHead(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.LazyLinear(2)

    def forward(self, x):
        return self.head(x).square().mean()


@pytest.mark.parametrize("loss", [WithAParametrizedHead, WithALazyHead])
def test_a_head_that_torch_does_not_pickle_or_makes_at_its_first_call(loss):
    found = verify(LossSpec("head", {"loss": loss}, inputs={"x": TensorSpec("B 4")}), profile="quick")
    assert [f.message for f in found.findings if f.severity == "error"] == []
    assert any(o.rule == "G01" and o.status.value == "passed" for o in found.outcomes)


def test_a_loss_with_a_higher_order_operator():
    assert blamed(branches, rules=["B01", "D03", "G08", "P01", "P02", "S02"]) == []


def test_every_mode_of_a_rule_takes_a_higher_order_operator():
    spec = LossSpec("branches", {"branches": branches}, inputs=PAIR, output=TensorSpec(""))
    outcomes = verify(spec, profile="quick", rules=["S01", "G06"]).outcomes
    assert {o.rule: o.status for o in outcomes} == dict.fromkeys(("S01", "G06"), Status.PASSED)


def rows_with_any(predictions, labels, mask):
    kept = mask.any(-1)
    return ((predictions - labels).square().mean(-1) * kept).sum() / kept.sum().clamp(min=1)


def rows_with_enough(predictions, labels, mask):
    kept = mask.sum(-1) > 0
    return ((predictions - labels).square().mean(-1) * kept).sum() / kept.sum().clamp(min=1)


@pytest.mark.parametrize("loss", [rows_with_any, rows_with_enough])
def test_a_mask_that_selects_rows_by_what_is_left_of_them_matters(loss):
    context = {"mask": TensorSpec("B C", domains.boolean())}
    assert blamed(loss, rules=["C07"], profile="ci", context=context) == []


class Names(Watch):
    def __init__(self):
        super().__init__()
        self.names = []

    def _see(self, func, args, kwargs):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **kwargs)


def test_a_mode_sees_what_a_higher_order_operator_calls_and_spoils_no_later_call():
    predictions, labels = torch.full((2, 2), 3.0), torch.zeros(2, 2)
    with Names() as seen:
        watched = branches(predictions, labels)
    assert watched == branches(predictions, labels) == 11
    assert "sqrt" in seen.names


class ClassicSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx, errors):
        ctx.save_for_backward(errors)
        return errors.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        return 2 * upstream * ctx.saved_tensors[0]


def classic(predictions, labels):
    return ClassicSquare.apply(predictions - labels).mean()


def test_a_function_of_forward_and_backward_alone_is_told_once_and_is_a_note():
    spec = LossSpec("classic", {"classic": classic}, inputs=PAIR, output=TensorSpec(""))
    found = verify(spec, profile="ci", rules=["G03", "G04", "G11", "T02"]).findings
    first, *others = found
    assert {f.severity for f in found} == {"note"}
    assert "ClassicSquare" in first.hint
    assert not first.follows
    assert others
    assert {f.follows for f in others} == {first.rule}


def test_a_function_that_is_required_to_be_transformed_is_an_error():
    spec = LossSpec("classic", {"classic": classic}, inputs=PAIR, output=TensorSpec(""), requires=["T02"])
    assert [f.severity for f in verify(spec, profile="ci", rules=["T02"]).findings] == ["error"]


def correlation(predictions, labels):
    """1 - correlation of each column, by moments: where a column is constant their difference is rounding."""
    checked(predictions, labels)
    spread = [(t.square().mean(0) - t.mean(0) ** 2) for t in (predictions, labels)]
    together = (predictions * labels).mean(0) - predictions.mean(0) * labels.mean(0)
    return 1 - (together / (spread[0] * spread[1] + 1e-6).sqrt()).mean()


def in_precision(loss, dtype):
    return lambda predictions, labels: loss(predictions.to(dtype), labels.to(dtype)).to(predictions.dtype)


ROUNDED = [("candidate", torch.float32), ("reference", torch.float32), ("reference", torch.bfloat16)]


@pytest.mark.parametrize("seed", [0, 3, 10])
@pytest.mark.parametrize(("coarse", "dtype"), ROUNDED, ids=str)
def test_a_difference_that_is_rounding_on_either_side_is_none(coarse, dtype, seed):
    losses = {"reference": correlation, "candidate": correlation}
    losses[coarse] = in_precision(correlation, dtype)
    spec = LossSpec("rounded", losses, inputs=PAIR, output=TensorSpec(""))
    found = verify(spec, profile="ci", rules=["E01", "E02", "E04"], implementations=["candidate"], seed=seed)
    assert [f.message for f in found.findings] == []


def normalised(p, w):
    return (w * p**2).sum() / w.sum()


@pytest.mark.parametrize("seed", [5, 6, 11])
def test_a_weight_that_is_divided_by_itself_is_not_called_narrowed(seed):
    """With one sample the loss depends on the weight by rounding alone."""
    weighted = {"inputs": {"p": TensorSpec("B")}, "context": {"w": TensorSpec("B", domains.positive())}}
    spec = LossSpec("normalised", {"normalised": normalised}, fixed_sizes={"B": 1}, **weighted)
    assert verify(spec, profile="quick", rules=["D05"], seed=seed).findings == ()


class CosineWithItself(torch.autograd.Function):
    """sum_i <z_i, z_i> / |z_i|^2 of one node that is its own neighbour: always 1, and its gradient is a difference, in float32 or wider."""

    @staticmethod
    def forward(ctx, z):
        wide = z.to(torch.promote_types(z.dtype, torch.float32))
        length = wide.norm(dim=-1, keepdim=True)
        unit = wide / length
        ctx.save_for_backward(unit, length)
        return 0.6 * (unit * unit).sum().to(z.dtype)

    @staticmethod
    def backward(ctx, upstream):
        unit, length = ctx.saved_tensors
        return (upstream * 1.2 * (unit - unit * (unit * unit).sum(-1, keepdim=True)) / length).to(upstream.dtype)


@pytest.mark.parametrize("seed", range(4))
def test_a_gradient_of_a_kernel_that_cancels_to_nothing_is_not_called_inaccurate(seed):
    inputs = {"z": TensorSpec("B D")}
    spec = LossSpec(
        "cosine", {"kernel": CosineWithItself.apply}, inputs=inputs, fixed_sizes={"D": 3}, output=TensorSpec("")
    )
    assert verify(spec, profile="quick", rules=["D02"], seed=seed).findings == ()


def in_one_dtype(loss, dtype):
    """As a kernel that is built for one dtype: it raises on any other."""

    def strict(*tensors):
        if any(tensor.is_floating_point() and tensor.dtype != dtype for tensor in tensors):
            raise TypeError(f"expected {dtype}")
        if len({tensor.shape for tensor in tensors}) > 1:
            raise ValueError(f"one shape expected, got {[list(tensor.shape) for tensor in tensors]}")
        return loss(*tensors)

    return strict


def weighted_squares(predictions, labels, weights):
    return (weights * (predictions - labels) ** 2).sum() / 8


CHANCES = {"scores": TensorSpec("B C", domains.logits()), "chances": TensorSpec("B C", domains.probability())}
WEIGHTED = PAIR | {"weights": TensorSpec("B C", domains.nonnegative())}
ONE_DTYPE = {
    "chances": (torch.nn.functional.binary_cross_entropy_with_logits, CHANCES, ()),
    "weights": (weighted_squares, WEIGHTED, ()),
    "promised": (weighted_squares, WEIGHTED, [laws.zero_weight_removes("weights")]),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ONE_DTYPE)
def test_a_loss_that_is_built_for_16_bits_is_asked_in_them(name, dtype):
    loss, inputs, promised = ONE_DTYPE[name]
    rules = ["C03", "C07", "C08", "G01", "G05", "L11", "T03", "D01"]
    assert blamed(in_one_dtype(loss, dtype), inputs, rules, profile="ci", laws=promised) == []


class Cauchy(torch.nn.Module):
    def forward(self, residual):
        return torch.log1p(residual**2).mean()


def test_a_loss_of_any_number_of_axes_may_have_none():
    spec = LossSpec("cauchy", {"cauchy": Cauchy}, inputs={"residual": TensorSpec("*batch")}, context={})
    assert verify(spec, profile="quick", rules=["S03"]).findings == ()


def ends(shape, generator, dtype, *, sizes):
    return torch.randint(min(sizes["C"], 24), sizes["C"] + 1, shape, generator=generator)  # short rows are full


def up_to_the_end(predictions, labels, end):
    checked(predictions, labels)
    kept = torch.arange(labels.shape[1]) < end.unsqueeze(-1)
    return (kept * (predictions - labels).square()).sum() / kept.sum()


def test_what_the_values_of_another_tensor_leave_out_is_no_end_of_a_block():
    inputs = {**PAIR, "end": TensorSpec("B", domains.custom(ends), torch.int64)}
    assert blamed(up_to_the_end, inputs, rules=["G06"]) == []


def hardest(z, labels):
    """For each row the farthest of its class and the nearest of another, at least so much farther."""
    apart = torch.where(torch.eye(len(labels)).bool(), 0, torch.cdist(z, z))
    same = labels.unsqueeze(1) == labels
    far, near = (apart * same).amax(1), apart.masked_fill(same, torch.inf).amin(1)
    return torch.relu(far - near + 0.3).mean()


@pytest.mark.parametrize("seed", [0, 3, 4])
def test_a_hinge_that_is_inactive_in_the_few_cases_of_a_profile(seed):
    inputs = {"z": TensorSpec("B D"), "labels": TensorSpec("B", domains.index("K"))}
    spec = LossSpec("hardest", {"hardest": hardest}, inputs=inputs, output=TensorSpec(""))
    assert verify(spec, profile="quick", seed=seed, rules=["G06"]).findings == ()


def windowed(predictions, labels):
    checked(predictions, labels)
    difference = (predictions - labels).square()
    return difference.unfold(0, 20, 1).sum() if len(difference) >= 20 else 0 * difference.sum()


def test_what_counts_nothing_in_small_cases_is_asked_in_larger_ones():
    spec = LossSpec("windowed", {"windowed": windowed}, inputs=PAIR, output=TensorSpec(""))
    found = verify(spec, profile="quick", rules=["G06"])
    assert found.findings == ()
    assert (
        "only with all sizes at 24 does the loss count anything that depends on predictions" in found.outcomes[0].reason
    )


def doubled_where_sparse(predictions, labels, context):
    dense = context.to_dense() * 2 if context.is_sparse else context
    return ((predictions - labels) ** 2 * dense).sum()


@pytest.mark.parametrize(("dims", "severity"), [("B C", "note"), ("B B", "warning")])
def test_who_keeps_no_graph_keeps_it_dense(dims, severity):
    """A mask of samples is not given as a sparse matrix; a graph is."""
    inputs = {name: TensorSpec(dims) for name in PAIR}
    context = {"context": TensorSpec(dims, domains.boolean())}
    loss = {"doubled": doubled_where_sparse}
    spec = LossSpec("doubled", loss, inputs=inputs, context=context, output=TensorSpec(""))
    assert [f.severity for f in verify(spec, profile="quick", rules=["C09"]).findings] == [severity]


def one_mean_for_all_rows(predictions, labels, kept):
    return ((predictions - labels) ** 2 * kept).sum() / kept.sum().clamp(min=1)


def a_mean_for_each_row(predictions, labels, kept):
    return (((predictions - labels) ** 2 * kept).sum(1) / kept.sum(1).clamp(min=1)).mean()


def test_a_gradient_that_a_wrong_value_hides_has_not_passed():
    """On masks whose rows hold equal counts the two agree, in value and gradient."""
    losses = {"rows": a_mean_for_each_row, "all": one_mean_for_all_rows}
    context = {"kept": TensorSpec("B C", domains.boolean())}
    spec = LossSpec("means", losses, inputs=PAIR, context=context, output=TensorSpec(""))
    found = verify(spec, profile="ci", rules=["E01", "E02"], implementations=["all"])
    outcomes = {outcome.rule: outcome for outcome in found.outcomes if outcome.implementation == "all"}
    assert outcomes["E01"].status == Status.FAILED
    assert (outcomes["E02"].status, outcomes["E02"].reason) == (
        Status.INAPPLICABLE,
        "the values differ already; see E01",
    )


def distilled(student, teacher):
    checked(student, teacher)
    return torch.nn.functional.cross_entropy(student / 0.1, (teacher / 0.04).softmax(-1).detach())


def test_a_slope_that_is_zero_by_symmetry_is_held_to_those_nearby():
    inputs = {"student": TensorSpec("B K"), "teacher": TensorSpec("B K")}
    assert blamed(distilled, inputs, rules=["G01"], profile="ci") == []


@pytest.mark.skipif(not hasattr(torch.nn.functional, "linear_cross_entropy"), reason="torch has it since 2.13")
def test_a_fused_kernel_whose_slopes_are_all_rounding():
    """With one class the loss is zero and its gradient 1e-16; no operation shows the numbers that were rounded."""
    function = torch.nn.functional.linear_cross_entropy
    options = torch.nn.LinearCrossEntropyOptions(allow_retain_graph=True)
    inputs = {"x": TensorSpec("B D"), "w": TensorSpec("C D"), "target": TensorSpec("B", domains.index("C"))}
    sizes = {"fixed_sizes": {"C": 1}, "differentiable": ("x", "w")}
    assert (
        blamed(
            lambda x, w, target: function(x, w, target, options=options),
            inputs,
            rules=["G01"],
            profile="thorough",
            **sizes,
        )
        == []
    )


@pytest.mark.parametrize("width", [2, 3])
def test_a_gradient_that_cancels_where_the_loss_is_zero_too(width):
    """The distance of one node to itself, whose backward in float32 leaves 1e-7 and shows no intermediates."""
    spec = SPEC_DISTANCE.replace(fixed_sizes={"N": 1, "D": width})
    found = verify(spec, profile="thorough", seed=1, rules=["D02"], implementations=["vectorized"]).findings
    assert [(f.severity, f.message) for f in found if f.severity != "note"] == []


def some_event(shape, generator, dtype):
    events = torch.rand(shape, generator=generator) < 0.5
    events[:1] = True
    return events.to(dtype)


def over_events(hazard, event):
    return -(hazard * event).sum() / event.sum()


def test_values_of_ones_own_in_an_integer_dtype_are_no_real_numbers():
    """Fractions of truth values cannot be cut off: torch has no `trunc` of them."""
    inputs = {"hazard": TensorSpec("B"), "event": TensorSpec("B", domains.custom(some_event), torch.bool)}
    spec = LossSpec("events", {"over_events": over_events}, inputs=inputs, output=TensorSpec(""))
    assert verify(spec, profile="quick", rules=["D", "G06", "L"]).findings == ()
