"""What the rules about weights and shared contexts rightly say nothing about, and where a law is checked."""

import pytest
import torch
import torch.nn.functional as F
from mutants.context import TWO_HEADS, TWO_MASKS, two_masks
from mutants.laws import WEIGHTED, mean_squared, weights_applied, weights_normalised
from mutants.pair import PAIRWISE

from harness import LossSpec, TensorSpec, domains, laws, verify
from harness.checking.session import PROFILES, Session
from harness.results.findings import Status
from harness.rules.tools import masking
from harness.rules.trial import Trial

RULES = ["C03", "C04", "C05", "C06", "C07", "C08", "C09", "C10", "C11", "S03"]


def schedule(predictions, labels, steps, rates):
    """The rate at a step is the product of all rates before it, so that their order has a meaning."""
    kept = (1 - rates).cumprod(0)[steps]
    return (kept.unsqueeze(-1) * (predictions - labels) ** 2).mean()


def neighbours_against_all(embeddings, adjacency):
    """Every node is a negative of every other, an isolated one too."""
    scores = (embeddings @ embeddings.mT).log_softmax(-1)
    return -(adjacency * scores).sum()


def same_group_attracts(embeddings, groups):
    together = groups.unsqueeze(0) == groups.unsqueeze(1)
    return ((embeddings.unsqueeze(0) - embeddings.unsqueeze(1)).square().sum(-1) * together).mean()


def tempered(logits, labels, temperature):
    scores = (logits / (1 + temperature)).log_softmax(-1)
    return -scores.gather(-1, labels.unsqueeze(-1)).mean()


def partial_likelihood(risk, time, event):
    """Of Breslow: who had no event stays among those at risk."""
    at_risk = time.unsqueeze(0) >= time.unsqueeze(1)
    total = torch.where(at_risk, risk.unsqueeze(0), -torch.inf).logsumexp(1)
    return (event * (total - risk)).sum()


def hinge(scores, labels):
    return (1 - (2 * labels - 1) * scores).clamp(min=0).mean()


def contrastive(za, zb, y):
    """Where y is 0 a pair is pushed apart as far as a margin, beyond which it has no influence."""
    distance = (za - zb).square().sum(-1).clamp(min=1e-12).sqrt()
    return (y * distance**2 + (1 - y) * (1 - distance).clamp(min=0) ** 2).mean()


def two_heads_of_one_mean(coarse, fine, coarse_labels, fine_labels):
    """Both heads are divided by the labels of both, so that each has a say in the size of the other's gradient."""
    heads = ((coarse, coarse_labels), (fine, fine_labels))
    total = sum(F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum") for logits, labels in heads)
    return total / sum((labels != -100).sum() for _, labels in heads).clamp(min=1)


def heads_in_one_tensor(logits, labels, other_labels):
    half = logits.shape[1] // 2
    heads = ((logits[:, :half], labels), (logits[:, half:], other_labels))
    return sum(F.cross_entropy(part, y.clamp(min=-1), ignore_index=-1, reduction="sum") for part, y in heads)


def mean_of_rows(predictions, labels, mask):
    """A weighted mean of each row, so that an empty row counts as zero in the mean over rows."""
    rows = (mask * (predictions - labels) ** 2).sum(-1) / mask.sum(-1).clamp(min=1e-12)
    return rows.mean()


def looked_up(predictions, labels, indices, weights):
    chosen = weights[indices]
    return (chosen.unsqueeze(-1) * (predictions - labels) ** 2).sum() / chosen.sum().clamp(min=1e-12)


def class_weighted(logits, labels, weights):
    """A class of weight zero still has a share in every softmax."""
    picked = logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return -(weights[labels] * picked).mean()


class PrecomputedTable(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)
        self.by_width = {}

    def forward(self, predictions, labels):
        width = predictions.shape[-1]
        if width not in self.by_width:
            self.by_width[width] = torch.linspace(1, 2, width, dtype=torch.float64)
        error = self.by_width[width].to(predictions) * (predictions - labels) ** 2
        return (self.weights.unsqueeze(-1) * error).mean()


def preferred(chosen, rejected, mask):
    """Beside the margin to what is rejected, what is chosen is learned by itself."""
    mean = (rejected * mask).sum(1) / mask.sum(1).clamp(min=1)
    return -(chosen.mean(1) + F.logsigmoid(chosen.mean(1) - mean)).mean()


def negatives(z, labels):
    """Who has no label is a negative of the others, and no anchor; without an anchor the mean is 0/0."""
    scores = (F.normalize(z, dim=1) @ F.normalize(z, dim=1).mT).fill_diagonal_(-torch.inf).log_softmax(1)
    pairs = ((labels[:, None] == labels) & (labels >= 0)[:, None]).fill_diagonal_(False)
    return -torch.where(pairs, scores, 0).sum() / pairs.sum()


HONEST = {
    "schedule": (
        schedule,
        {
            "inputs": {**PAIRWISE["inputs"], "steps": TensorSpec("B", domains.index("T"))},
            "context": {"rates": TensorSpec("T", domains.interval(0.01, 0.5))},
        },
    ),
    "neighbours": (
        neighbours_against_all,
        {
            "inputs": {"embeddings": TensorSpec("N D")},
            "context": {"adjacency": TensorSpec("N N", domains.adjacency())},
        },
    ),
    "groups": (
        same_group_attracts,
        {"inputs": {"embeddings": TensorSpec("B D"), "groups": TensorSpec("B", domains.index("G"))}},
    ),
    "temperature": (
        tempered,
        {
            "inputs": {"logits": TensorSpec("B C", domains.logits()), "labels": TensorSpec("B", domains.index("C"))},
            "context": {"temperature": TensorSpec("", domains.nonnegative())},
        },
    ),
    "events": (
        partial_likelihood,
        {
            "inputs": {"risk": TensorSpec("B")},
            "context": {"time": TensorSpec("B", domains.positive()), "event": TensorSpec("B", domains.binary())},
        },
    ),
    "hinge": (
        hinge,
        {"inputs": {"scores": TensorSpec("B", domains.logits()), "labels": TensorSpec("B", domains.binary())}},
    ),
    "contrastive": (
        contrastive,
        {"inputs": {"za": TensorSpec("B D"), "zb": TensorSpec("B D"), "y": TensorSpec("B", domains.binary())}},
    ),
    "heads": (two_heads_of_one_mean, TWO_HEADS),
    "parts": (
        heads_in_one_tensor,
        {
            "inputs": {
                "logits": TensorSpec("B K+K", domains.logits()),
                "labels": TensorSpec("B", domains.index("K", ignore=-1)),
                "other_labels": TensorSpec("B", domains.index("K", ignore=-1)),
            }
        },
    ),
    "masks": (two_masks, TWO_MASKS),
    "rows": (
        mean_of_rows,
        {
            **PAIRWISE,
            "context": {"mask": TensorSpec("B C", domains.nonnegative())},
            "laws": (laws.zero_weight_removes("mask"), laws.scale_invariant("mask")),
        },
    ),
    "lookup": (
        looked_up,
        {
            "inputs": {**PAIRWISE["inputs"], "indices": TensorSpec("B", domains.index("N"))},
            "context": {"weights": TensorSpec("N", domains.nonnegative())},
            "laws": (laws.scale_invariant("weights"),),
        },
    ),
    "table": (PrecomputedTable, WEIGHTED),
    "negatives": (
        negatives,
        {"inputs": {"z": TensorSpec("B D"), "labels": TensorSpec("B", domains.index("C", ignore=-1))}},
    ),
    "preferred": (
        preferred,
        {
            "inputs": {
                "chosen": TensorSpec("B T"),
                "rejected": TensorSpec("B S"),
                "mask": TensorSpec("B S", domains.binary()),
            },
            "differentiable": ("chosen", "rejected"),
        },
    ),
}


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_honest_loss_gets_no_error_and_no_warning(name, seed):
    loss, declared = HONEST[name]
    found = verify(LossSpec(name, {"loss": loss}, **declared), rules=RULES, seed=seed)
    assert [f.message for f in found.findings if f.severity != "note"] == []
    assert found.counts["crashed"] == 0


@pytest.mark.parametrize("seed", [11, 14, 28])  # in which all labels of some case are of the class that is removed
def test_weights_of_classes_that_labels_pick_need_not_remove_the_logits_of_a_class(seed):
    declared = {
        "inputs": {"logits": TensorSpec("B C", domains.logits()), "labels": TensorSpec("B", domains.index("C"))},
        "context": {"weights": TensorSpec("C", domains.nonnegative())},
    }
    assert verify(LossSpec("classes", {"loss": class_weighted}, **declared), rules=["C03"], seed=seed).findings == ()


def mean_by_class_weight(logits, labels, weights):
    return F.cross_entropy(logits, labels, weight=weights)


def mean_of_soft_labels(logits, labels, weights):
    return -(weights * labels * logits.log_softmax(-1)).sum() / (weights * labels).sum()


def mean_of_masked_weights(predictions, labels, mask, weights):
    kept = mask * weights
    return (kept * (predictions - labels) ** 2).sum() / kept.sum()


LOGITS = TensorSpec("B C", domains.logits())
CLASS_WEIGHTS = {"weights": TensorSpec("C", domains.nonnegative())}
NOTHING_COUNTS = {
    "class weights": (
        mean_by_class_weight,
        {"inputs": {"logits": LOGITS, "labels": TensorSpec("B", domains.index("C"))}, "context": CLASS_WEIGHTS},
    ),
    "class weights beside ignored labels": (
        mean_by_class_weight,
        {"inputs": {"logits": LOGITS, "labels": TensorSpec("B", domains.index("C", -100))}, "context": CLASS_WEIGHTS},
    ),
    "soft labels": (
        mean_of_soft_labels,
        {"inputs": {"logits": LOGITS, "labels": TensorSpec("B C", domains.probability())}, "context": CLASS_WEIGHTS},
    ),
    "mask and weights": (
        mean_of_masked_weights,
        {
            **PAIRWISE,
            "context": {
                "mask": TensorSpec("B C", domains.binary()),
                "weights": TensorSpec("B C", domains.nonnegative()),
            },
        },
    ),
}


@pytest.mark.parametrize("name", NOTHING_COUNTS)
@pytest.mark.parametrize("seed", range(6))
def test_where_nothing_counts_nan_is_a_convention(name, seed):
    loss, declared = NOTHING_COUNTS[name]
    found = verify(LossSpec(name, {"loss": loss}, **declared), rules=["G08"], seed=seed)
    assert {finding.severity for finding in found.findings} == {"warning"}, [f.message for f in found.findings]


def divergence(p, target):
    return (torch.xlogy(target, target) - target * p.log()).mean()


def divergence_of_a_bare_logarithm(p, target):
    return (target * (target.log() - p.log())).mean()


def relative_error(p, target):
    return ((p - target).abs() / target).mean()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("loss", "severities"),
    [(divergence, set()), (divergence_of_a_bare_logarithm, {"error"}), (relative_error, {"error"})],
)
def test_a_target_that_may_be_zero_is_no_weight_where_one_zero_among_others_is_nan(loss, severities, seed):
    inputs = {"p": TensorSpec("B C", domains.interval(0.01, 0.99)), "target": TensorSpec("B C", domains.probability())}
    found = verify(LossSpec("loss", {"loss": loss}, inputs=inputs), rules=["G08"], seed=seed)
    assert {finding.severity for finding in found.findings} == severities


def test_zeros_that_remove_at_some_values_only_are_a_note_that_says_how_to_declare_a_label():
    loss, declared = HONEST["events"]
    found = [
        finding
        for seed in range(4)
        for finding in verify(LossSpec("events", {"loss": loss}, **declared), rules=["C03"], seed=seed).findings
    ]
    assert {finding.severity for finding in found} == {"note"}
    assert all("declare 'event': TensorSpec('B', domains.label())" in finding.message for finding in found)
    labelled = {**declared["context"], "event": TensorSpec("B", domains.label())}
    spec = LossSpec("events", {"loss": loss}, inputs=declared["inputs"], context=labelled)
    (outcome,) = verify(spec, rules=["C03"]).outcomes
    assert outcome.status is Status.INAPPLICABLE


@pytest.mark.parametrize(
    ("of", "removing", "line"),
    [
        (TensorSpec("B T V"), TensorSpec("B T", domains.binary()), "x = torch.where(w[:, :, None] > 0, x, 0)"),
        (TensorSpec("B T"), TensorSpec("B T", domains.boolean()), "x = torch.where(w, x, 0)"),
        (TensorSpec("B T"), TensorSpec("T", domains.nonnegative()), "x = torch.where(w > 0, x, 0)"),
        (TensorSpec("T B"), TensorSpec("B T", domains.binary()), "x = torch.where(w.permute(1, 0)[:, :] > 0, x, 0)"),
        (
            TensorSpec("B V"),
            TensorSpec("B", domains.index("V", ignore=-100)),
            "x = torch.where(w[:, None] != -100, x, 0)",
        ),
        (TensorSpec("B V", domains.positive()), TensorSpec("B 1", domains.binary()), "x = torch.where(w > 0, x, 1)"),
        (TensorSpec("B V"), TensorSpec("B V", domains.real(nan=True)), "x = torch.where(~w.isnan(), x, 0)"),
    ],
)
def test_the_line_that_replaces_what_is_removed_runs_for_the_shapes_and_the_domain(of, removing, line):
    spec = LossSpec("loss", {"loss": lambda x, w: x.sum()}, inputs={"x": of, "w": removing}, differentiable=("x",))
    (case,) = Session(spec, PROFILES["quick"], 0, "cpu").pool("distinct", "smooth", 1)
    assert masking.replaced_first(spec, case, "w", "x") == line
    trial = Trial(spec, "loss", case)
    given, removed = masking.with_some_removed(spec, trial.tensors(), "w")
    names = {"torch": torch, **given}
    exec(line, names)
    changed = names["x"] != given["x"]
    assert torch.equal(changed, masking.aligned(spec, case, removed, "w")["x"])


def open_set(logits, target):
    """Cross-entropy of known classes, and the confidence in what is of none, which has the label -1."""
    known = target >= 0
    loss = torch.nn.functional.cross_entropy(logits, target, ignore_index=-1, reduction="none")
    return torch.where(known, loss, logits.logsumexp(1) ** 2).mean()


def test_a_label_that_counts_in_another_way_is_not_one_that_is_ignored():
    inputs = {"logits": TensorSpec("B C"), "target": TensorSpec("B", domains.index("C", ignore=-1))}
    (found,) = verify(LossSpec("open_set", {"loss": open_set}, inputs=inputs), rules=["C03"]).findings
    assert found.hint.endswith("declare TensorSpec(..., role='label') of target")
    inputs["target"] = TensorSpec("B", domains.index("C", ignore=-1), role="label")
    assert not verify(LossSpec("open_set", {"loss": open_set}, inputs=inputs), rules=["C", "G08"]).findings


def chamfer(points, others, mask):
    """The mean distance of each kept point to the nearest of the others, and of each of those to the nearest kept point."""
    distances = (points[:, :, None] - others[:, None]).square().sum(-1)
    there = (torch.where(mask > 0, distances.amin(2), 0.0).sum(1) / mask.sum(1).clamp(min=1)).mean()
    back = distances.masked_fill(mask[:, :, None] == 0, float("inf")).amin(1)
    return there + torch.where(back.isfinite(), back, 0.0).mean()


def chamfer_to_removed(points, others, mask):
    distances = (points[:, :, None] - others[:, None]).square().sum(-1)
    there = (torch.where(mask > 0, distances.amin(2), 0.0).sum(1) / mask.sum(1).clamp(min=1)).mean()
    return there + distances.amin(1).mean()


def squares_of_masked_predictions(points, others, mask):
    return (points * mask[:, :, None] - others).square().mean()


def masks_one_set(loss, *, of, axis, masked):
    """Findings of L11 for a loss of two sets whose mask is of the first argument; ``of`` is the input that it is of."""

    def two_sets(x, y, mask):
        return loss(x, y, mask) if of == "x" else loss(y, x, mask)

    inputs = {
        "x": TensorSpec("B N D"),
        "y": TensorSpec(f"B {axis} D"),
        "mask": TensorSpec(f"B {masked}", domains.binary()),
    }
    declared = LossSpec("sets", {"sets": two_sets}, inputs=inputs, laws=(laws.zero_weight_removes("mask"),))
    return verify(declared, rules=["L11"]).findings


SETS = [("x", "M", "N"), ("y", "M", "M"), ("x", "N", "N"), ("y", "N", "N")]


@pytest.mark.parametrize(("of", "axis", "masked"), SETS)
def test_a_mask_of_one_of_two_sets_is_held_to_that_one(of, axis, masked):
    found = masks_one_set(chamfer, of=of, axis=axis, masked=masked)
    assert {finding.severity for finding in found} <= {"note"}, [finding.message for finding in found]
    apart = [finding.hint for finding in found if "any order" in finding.hint]
    assert len(apart) == (axis == masked == "N")
    wrong = masks_one_set(chamfer_to_removed, of=of, axis=axis, masked=masked)
    assert "error" in {finding.severity for finding in wrong}


def test_a_mask_that_forgets_what_stands_beside_each_point_is_wrong():
    (found, *_) = masks_one_set(squares_of_masked_predictions, of="x", axis="N", masked="N")
    assert found.severity == "error"
    assert "what mask removes of y" in found.message


def test_a_node_that_is_only_a_negative_is_a_note():
    loss, declared = HONEST["neighbours"]
    (finding,) = verify(LossSpec("neighbours", {"loss": loss}, **declared), rules=["C08"]).findings
    assert finding.severity == "note"
    assert "laws.zero_weight_removes('adjacency')" in finding.message


def outcomes(spec, *rules):
    return {o.rule: (o.status, o.reason) for o in verify(spec, profile="quick", rules=rules).outcomes}


def test_a_law_of_the_context_is_checked_once():
    declared = {
        **WEIGHTED,
        "laws": (laws.linear_in("weights"), laws.reduces_to(mean_squared, weights=1.0), laws.linear_in("labels")),
    }
    found = outcomes(LossSpec("loss", {"loss": weights_applied}, **declared), "L04", "L10", "C05", "C06")
    assert found["C05"] == found["C06"] == (Status.PASSED, "")
    assert found["L10"] == (Status.INAPPLICABLE, "checked as C06")
    assert found["L04"][0] is Status.FAILED  # the law of the labels is not about the context


@pytest.mark.parametrize(
    ("law", "code", "taken_by"),
    [
        (laws.repeats("weights"), "L12", "C04"),
        (laws.scale_invariant("weights"), "L05", "C05"),
    ],
)
def test_a_law_of_weights_is_inapplicable_where_another_rule_checks_it(law, code, taken_by):
    spec = LossSpec("loss", {"loss": weights_normalised}, **{**WEIGHTED, "laws": (law,)})
    found = outcomes(spec, code, taken_by)
    assert found[code] == (Status.INAPPLICABLE, f"checked as {taken_by}")
    assert found[taken_by][0] is Status.PASSED


def test_zero_weight_removes_needs_a_domain_with_zeros():
    positive = {**WEIGHTED, "context": {"weights": TensorSpec("B", domains.positive())}}
    spec = LossSpec("loss", {"loss": weights_applied}, **{**positive, "laws": (laws.zero_weight_removes("weights"),)})
    status, reason = outcomes(spec, "L11")["L11"]
    assert status is Status.INAPPLICABLE
    assert "weights" in reason


def test_caches_are_put_back_as_they_were():
    kept = {"a": 1}

    def loss(predictions, labels):
        kept.setdefault(tuple(labels.shape), labels.shape[0])
        return mean_squared(predictions, labels)

    before = dict(kept)
    found = verify(LossSpec("loss", {"loss": loss}, **PAIRWISE), profile="quick", rules=["S03"])
    assert [f.message for f in found.findings] == []
    assert kept == before


def hard_ones(p, y, w):
    return (w * (p - y) ** 2)[(p - y).abs() > 0.5]


def test_what_is_removed_may_change_how_many_numbers_are_returned():
    tensors = {
        "inputs": {"p": TensorSpec("B"), "y": TensorSpec("B")},
        "context": {"w": TensorSpec("B", domains.binary())},
    }
    spec = LossSpec("hard", {"hard": hard_ones}, output=TensorSpec("B"), fixed_sizes={"B": 9}, **tensors)
    (outcome,) = verify(spec, profile="ci", rules=["C03"]).outcomes
    assert outcome.status == Status.FAILED


def test_a_loss_that_is_nan_everywhere_says_nothing_of_what_matters():
    def never_finite(predictions, weights):
        return (weights * predictions / torch.zeros_like(predictions)).sum() * 0

    inputs = {"predictions": TensorSpec("B"), "weights": TensorSpec("B", domains.positive())}
    found = verify(LossSpec("nan", {"nan": never_finite}, inputs=inputs), profile="quick", rules=["C07", "G08"])
    assert {o.rule: o.reason for o in found.outcomes}["C07"] == "not finite; see G08"
    assert [f.rule for f in found.findings] == ["G08"]
