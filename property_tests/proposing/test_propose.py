"""Proposed declarations: most losses run under them as they are, and what cannot be proposed is said with what to write."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
import torch
from fake_time import AMPLE_S
from torch.nn import functional as F

from harness.checking.verify import verify
from harness.proposing import code, docs, knowledge
from harness.proposing.calls import SlowCallError, limited, picked
from harness.proposing.proposal import Proposal
from harness.proposing.propose import UnproposableError, propose
from property_tests.tools import proposals
from property_tests.tools.proposals import specified

FLOOR = 0.92
# What every declaration must fit; the whole battery is `python -m property_tests.tools.proposals`.
RULES = ("B01", "B02", "D01", "G01")


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search ends by its number of trials, however long a slow machine takes for them."""
    monkeypatch.setattr("harness.proposing.search.MOST_S", AMPLE_S)
    monkeypatch.setattr("harness.proposing.calls.CALL_S", AMPLE_S)


def test_most_losses_run_under_their_proposed_declaration() -> None:
    own = {
        name: loss for name, loss in proposals.own_losses().items() if not name.startswith("naive")
    }  # loops take long
    everything = {**proposals.losses_of_torch(), **own}
    rows = [proposals.measured(name, loss, RULES, with_laws=False) for name, loss in everything.items()]
    failed = {row.name: row.problem or row.errors for row in rows if not row.ok}
    assert len(rows) >= 45
    assert len(rows) - len(failed) >= FLOOR * len(rows), failed


def texts(proposal: Proposal) -> dict[str, str]:
    return {decision.name: decision.text for decision in proposal.decisions}


def bare_masked(pred, target, mask):
    return ((pred - target).abs() * mask).sum() / mask.sum().clamp(min=1)


def bare_graph(z, adj):
    return (adj * torch.cdist(z, z)).sum()


def bare_classes(scores, y, num_classes):
    return F.cross_entropy(scores, y) + 0 * F.one_hot(y, num_classes).sum()


def bare_dictionary(logits, labels):
    return {"accuracy": torch.tensor(1.0), "loss": F.binary_cross_entropy_with_logits(logits, labels)}


def test_names_and_trial_calls_decide_where_nothing_else_is_said() -> None:
    assert texts(propose("masked", bare_masked, with_laws=False)) == {
        "pred": "B D",
        "target": "B D",
        "mask": "B D boolean",
    }
    assert texts(propose("graph", bare_graph, with_laws=False)) == {"z": "N D", "adj": "N N adjacency"}


def test_a_constant_that_states_a_size_fixes_it() -> None:
    proposal = propose("classes", bare_classes, with_laws=False)
    assert texts(proposal) == {"scores": "B C logits", "y": "B index(C)", "num_classes": "5"}
    assert proposal.fixed_sizes == {"C": 5}
    assert specified(bare_classes, proposal).options == {"num_classes": 5}


class Centers(torch.nn.Module):
    def __init__(self, num_classes=7, feat_dim=3):
        super().__init__()
        self.register_buffer("centers", torch.ones(num_classes, feat_dim, dtype=torch.float64))

    def forward(self, x, labels):
        return (x - self.centers[labels]).square().sum(1).mean()


def test_a_default_that_states_a_size_fixes_it_where_nothing_runs_without() -> None:
    proposal = propose("centers", Centers, with_laws=False)
    assert texts(proposal) == {"num_classes": "7", "feat_dim": "3", "x": "B D", "labels": "B index(C)"}
    assert proposal.fixed_sizes == {"C": 7, "D": 3}


def overlap(boxes, gt_boxes):
    (a, b), (c, d) = boxes.split(2, -1), gt_boxes.split(2, -1)
    shared = (torch.minimum(b, d) - torch.maximum(a, c)).clamp(min=0).prod(-1)
    return (1 - shared / ((b - a).prod(-1) + (d - c).prod(-1) - shared)).mean()


def survival(risk, time, event):
    order = time.argsort(descending=True)
    return -((risk[order] - risk[order].logcumsumexp(0)) * event[order]).mean()


def distilled(student_logits, teacher_logits, labels):
    soft = F.kl_div(student_logits.log_softmax(1), teacher_logits.softmax(1), reduction="batchmean")
    return soft + F.cross_entropy(student_logits, labels)


@pytest.mark.parametrize(
    ("loss", "tensors"),
    [
        (overlap, {"boxes": "B 4 boxes", "gt_boxes": "B 4 boxes"}),
        (survival, {"risk": "B", "time": "B positive", "event": "B label"}),
        (distilled, {"student_logits": "B C logits", "teacher_logits": "B C logits", "labels": "B index(C)"}),
    ],
)
def test_tensors_of_other_fields_are_known_by_name(loss: Any, tensors: dict[str, str]) -> None:
    proposal = propose("loss", loss, with_laws=False)
    assert texts(proposal) == tensors
    assert verify(specified(loss, proposal), profile="quick", rules=["B01", "G01"]).ok


def tagged(emissions, tags, num_tags=7):
    """Score of tags.

    Args:
        emissions (`~torch.Tensor`): scores of size ``(seq_length, batch_size, num_tags)``
        tags (`~torch.LongTensor`): tags of size ``(seq_length, batch_size)``
    """
    if emissions.shape[-1] != num_tags:
        raise ValueError(f"got {emissions.shape[-1]} tags, expected {num_tags}")
    return F.cross_entropy(emissions.flatten(0, 1), tags.flatten())


def of_corners(pred, target):
    if pred.shape[1:] != (8, 3):
        raise ValueError("`pred` and `target` must have shape [B,8,3].")
    return (pred - target).abs().mean()


def of_ensembles(obs, fct, *, backend=None):
    if backend != "torch":
        obs, fct = obs.numpy(), fct.numpy()
    if obs.shape != fct.shape[:-1]:
        raise IndexError("obs has one axis less")
    return (fct - obs[..., None]).abs().mean()


def contrasted(embeddings_left, embeddings_right, distance_true):
    d = (embeddings_left - embeddings_right).norm(dim=1)
    return ((1 - distance_true) * d**2 + distance_true * (1 - d).clamp(min=0) ** 2).mean()


def mixed(logits, target_a, target_b, lam):
    return lam * F.cross_entropy(logits, target_a) + (1 - lam) * F.cross_entropy(logits, target_b)


def filtered(pred, target):
    """Distance of spectra.

    Args:
        pred (torch.Tensor): of shape (N, C, H, W). Predicted tensor.
        target (torch.Tensor): of shape (N, C, H, W). Target tensor.
    """
    return (torch.fft.fft2(pred, norm="ortho") - torch.fft.fft2(target, norm="ortho")).abs().square().mean()


def lifted(scores, truth, num_classes):
    """Cross-entropy of all classes but the first.

    >>> NUM_CLASSES = 5
    >>> scores = torch.randn(3, NUM_CLASSES - 1)
    >>> lifted(scores, torch.tensor([0, 4, 1]), num_classes=NUM_CLASSES)
    """
    if scores.shape[1] != num_classes - 1:
        raise ValueError("no score is given to the first class")
    return F.cross_entropy(F.pad(scores, (1, 0)), truth)


def of_samples(fake, real):
    """Distance of two samples.

    Example:
        >>> fake = torch.randn(32, 100, 2, requires_grad=True)
        >>> real = torch.rand(32, 100, 2).softmax(dim=1)
        >>> loss = of_samples(fake, real)
    """
    return torch.cdist(fake, real).mean()


def ordered(logits, targets, thresholds):
    """Ordinal loss.

    Args:
        logits: (batch,) scores.
        targets: (batch,) - integer labels in [0, K).
        thresholds: (K-1,) - sorted interior thresholds.
    """
    above = torch.arange(len(thresholds)) >= targets.long()[:, None]
    return F.softplus((thresholds - logits[:, None]) * torch.where(above, -1.0, 1.0)).mean()


def at_times(log_hz, event, time, eval_time):
    """Likelihood of hazards.

    Args:
        log_hz (torch.Tensor): of shape (n_samples, n_eval_time)
        event (torch.Tensor): of length n_samples
        time (torch.Tensor): of length n_samples
        eval_time (torch.Tensor): of length n_eval_time
    """
    if not bool((eval_time.diff() > 0).all()):
        raise ValueError("'eval_times' must be strictly increasing")
    return (log_hz[:, :1].exp().squeeze(1) * time - event * log_hz.mean(1)).square().mean() + eval_time.square().sum()


def evidence(alpha, y):
    """Bayes risk of a Dirichlet distribution."""
    total = alpha.sum(-1, keepdim=True)
    return (F.one_hot(y, alpha.shape[-1]) * (total.log() - (alpha + 1e-3).log())).sum(-1).square().mean()


def ranked(pos_score, neg_score):
    return (neg_score.max(-1).values - pos_score.view(-1) + 1).clamp(min=0).mean()


def of_sequences(x, y):
    (batch, _, _), (other, _, _) = x.shape, y.shape
    return (x - y).square().sum() / (batch + other)


def either(pred, target, with_logits):
    if with_logits:
        return F.binary_cross_entropy_with_logits(pred, target)
    return F.binary_cross_entropy(pred, target)


def measured(levels, logits):
    """Cross-entropy.

    Args:
        logits: of shape (num_examples, num_classes-1)
        levels: binary levels of shape (num_examples, num_classes-1)
    """
    return F.binary_cross_entropy_with_logits(logits, levels)


def hazards(phi, idx_durations, events):
    if events.dtype == torch.bool or idx_durations.is_floating_point():
        raise TypeError("events are numbers, durations positions")
    event = F.one_hot(idx_durations, phi.shape[1]) * events[:, None]
    return F.binary_cross_entropy_with_logits(phi, event.to(phi.dtype))


def graded(scores, relevance: torch.LongTensor):
    return ((2.0**relevance - 1) * F.softplus(-scores)).mean()


def of_padded(scores, n):
    """Mean of what is no padding.

    Args:
        n: number of documents of each query, for padding.
    """
    kept = torch.arange(scores.shape[1]) < n[:, None]
    return (F.softplus(-scores) * kept).sum() / kept.sum()


def of_named(x, lens):
    kept = torch.arange(x.shape[1]) < lens[:, None]
    return (x.square() * kept).sum(1).div(lens).mean()


def of_counted(x, n):
    """Mean of what is no padding.

    Args:
        x: spectrogram (B, F, T).
        n: number of valid frames (B,).
    """
    kept = torch.arange(x.shape[-1]) < n[:, None]
    return (x.square().mean(1) * kept).sum(1).div(n).mean()


def open_set(logits, target):
    """Cross-entropy of the known.

    :param logits: of shape :math:`B \\times C`
    :param target: labels of shape :math:`B`; labels :math:`< 0` are ignored
    """
    return F.cross_entropy(logits, target, ignore_index=-1, reduction="sum") / len(target)


def hidden(x, z, obf_vars):
    """Error of what was hidden.

    Parameters
    ----------
    obf_vars : torch.Tensor
        Binary mask of the hidden variables, of which the rest is left out.
    """
    if not bool(((obf_vars == 0) | (obf_vars == 1)).all()):
        raise ValueError("a mask is 0 or 1")
    return ((x - z).square() * obf_vars).mean()


def regularised(features_s, features_t, reg_dist):
    """Distance of domains.

    Parameters
    ----------
    reg_dist : float
        Strength.
    """
    return reg_dist * (features_s - features_t).square().mean()


def by_kind(est, ref, kind):
    """Ratio of signals.

    Args:
        kind (str): choose ``plain`` or ``scaled``.
    """
    if kind not in ("plain", "scaled"):
        raise ValueError("unknown kind")
    return (est - ref).square().mean()


def of_signals(est, ref):
    """Ratio of signals, below zero where they are near.

    Args:
        est: of shape :math:`(B, S, T)`.
        ref: of shape :math:`(B, S, T)`.
    """
    return -10 * (ref.square().sum(-1) / (1e-3 + (est - ref).square().sum(-1)) + 1e-3).log10().mean()


def of_colours(x, y):
    """Difference of images.

    Args:
        x: of shape :math:`(N, C, H, W)`.
        y: of shape :math:`(N, C, H, W)`.
    """
    for image in (x, y):
        assert image.shape[1] == 3, f"Expected number of channels to be 3, but got {image.shape[1]}."
        assert image.shape[2] > 10, "Kernel size can't be greater than actual input size"
        assert image.min() >= 0, "Expected values to be greater or equal to 0"
        assert image.max() <= 1, "Expected values to be lower or equal to 1.0"
    return (F.avg_pool2d(x, 11, 1) - F.avg_pool2d(y, 11, 1)).square().mean()


@pytest.mark.parametrize(
    ("loss", "tensors"),
    [
        (hazards, {"phi": "B C logits", "idx_durations": "B index(C)", "events": "B label"}),
        (graded, {"scores": "B D", "relevance": "B D index(C)"}),
        (of_padded, {"scores": "B D", "n": "B lengths(D)"}),
        (of_named, {"x": "B D", "lens": "B lengths(D)"}),
        (of_counted, {"x": "B F T", "n": "B lengths(T)"}),
        (open_set, {"logits": "B C logits", "target": "B index(C, ignore=-1)"}),
        (hidden, {"x": "B D", "z": "B D", "obf_vars": "B D binary"}),
        (regularised, {"features_s": "B D", "features_t": "B D", "reg_dist": "1.0"}),
        (by_kind, {"est": "B D", "ref": "B D", "kind": "'plain'"}),
        (of_signals, {"est": "B S T", "ref": "B S T"}),
        (of_colours, {"x": "B 3 H+15 W+15 probability", "y": "B 3 H+15 W+15 probability"}),
        (lifted, {"scores": "B C-1", "truth": "B index(C)", "num_classes": "5"}),
        (of_samples, {"fake": "B S D", "real": "B S D simplex(-2)"}),
        (ordered, {"logits": "B logits", "targets": "B index(K)", "thresholds": "K-1 sorted_along(-1)"}),
        (
            at_times,
            {
                "log_hz": "B N_EVAL_TIME",
                "event": "B label",
                "time": "B positive",
                "eval_time": "N_EVAL_TIME sorted_along(-1, strict=True)",
            },
        ),
        (evidence, {"alpha": "B C nonnegative", "y": "B index(C)"}),
        (ranked, {"pos_score": "B", "neg_score": "B N"}),
        (of_sequences, {"x": "B S D", "y": "B S D"}),
        (either, {"pred": "B C logits", "target": "B C label", "with_logits": "True"}),
        (measured, {"levels": "NUM_EXAMPLES C-1 label", "logits": "NUM_EXAMPLES C-1 logits"}),
        (tagged, {"emissions": "T B C", "tags": "T B index(C)", "num_tags": "7"}),
        (of_corners, {"pred": "B 8 3", "target": "B 8 3"}),
        (of_ensembles, {"obs": "B", "fct": "B D", "backend": "'torch'"}),
        (contrasted, {"embeddings_left": "B D", "embeddings_right": "B D", "distance_true": "B label"}),
        (mixed, {"logits": "B C logits", "target_a": "B index(C)", "target_b": "B index(C)", "lam": "0.5"}),
        (filtered, {"pred": "B C H W", "target": "B C H W"}),
    ],
)
def test_docstrings_errors_and_choices_place_tensors(loss: Any, tensors: dict[str, str]) -> None:
    proposal = propose("loss", loss, with_laws=False)
    assert texts(proposal) == tensors
    assert verify(specified(loss, proposal), profile="quick", rules=["B01", "G01"]).ok


class Metric(torch.nn.Module):
    """As torchmetrics has it: the call hands all to ``update``."""

    def forward(self, *args, **kwargs):
        return self.update(*args, **kwargs)

    def update(self, preds, target):
        return (preds - target).square().mean()


class Centred(torch.nn.Module):
    def __init__(self, output_dim=65536):
        super().__init__()
        self.register_buffer("center", torch.zeros(output_dim))

    def forward(self, x, y):
        """Args: x: of shape (batch_size, output_dim)."""
        return (x - y - self.center).square().mean()


def test_a_metric_is_read_by_its_update_and_a_large_default_gives_way_to_a_small_size() -> None:
    assert texts(propose("Metric", Metric, with_laws=False)) == {"preds": "B D", "target": "B D"}
    proposal = propose("Centred", Centred, with_laws=False)
    assert texts(proposal) == {"output_dim": "4", "x": "B D", "y": "B D"}
    assert proposal.fixed_sizes == {"D": 4}


def scaled(pred, target):
    return (pred @ torch.eye(pred.shape[-1], dtype=torch.float32) - target).square().mean()


def some_event(risk, time, event):
    if not event.any():
        raise ValueError("all events are censored")
    return survival(risk, time, event)


def test_a_loss_may_refuse_a_dtype_or_some_values_and_is_placed_all_the_same() -> None:
    assert texts(propose("scaled", scaled, with_laws=False)) == {"pred": "B D", "target": "B D"}
    proposal = propose("some_event", some_event, with_laws=False)
    assert texts(proposal) == {"risk": "B", "time": "B positive", "event": "B label"}
    assert "all events are censored" in proposal.notes[0]


class Unfinished(torch.nn.Module):
    def __init__(self, scale=1.0):
        self.scale = scale

    def forward(self, x, y):
        return self.scale * (x - y).square().mean()


def test_a_module_that_is_not_initialised_is_said_to_be() -> None:
    with pytest.raises(UnproposableError, match=re.escape("Unfinished.__init__() does not call super().__init__()")):
        propose("Unfinished", Unfinished, with_laws=False)


def projected(pred, target):
    direction = torch.randn(pred.shape[-1], dtype=pred.dtype)
    return (pred @ direction - target @ direction).square().mean()


def test_a_loss_that_draws_is_declared_to() -> None:
    proposal = propose("projected", projected, with_laws=False)
    assert proposal.stochastic
    assert "--stochastic" in proposal.command("verify", "projected.py")
    assert verify(specified(projected, proposal), profile="quick", rules=["B01", "S01"]).ok
    assert not propose("contrasted", contrasted, with_laws=False).stochastic


def test_the_loss_is_picked_out_of_what_is_returned() -> None:
    proposal = propose("dictionary", bare_dictionary, with_laws=False)
    assert proposal.select == "['loss']"
    assert texts(proposal)["labels"] == "B C label"  # labels of any real number would make the loss negative
    assert picked((1, torch.ones(2)))[0] == "[1]"
    assert picked("nothing") == ("", None)


def test_a_docstring_is_believed_before_names() -> None:
    proposal = propose("CosineEmbeddingLoss", torch.nn.CosineEmbeddingLoss, with_laws=False)
    assert texts(proposal) == {"input1": "B D", "input2": "B D", "target": "B sign"}
    assert {d.name: d.confidence for d in proposal.decisions}["target"] == "declared"


def test_what_a_docstring_says_in_prose_is_believed_too() -> None:
    assert texts(propose("KLDivLoss", torch.nn.KLDivLoss, with_laws=False)) == {
        "input": "*rest log_simplex(-1)",
        "target": "*rest simplex(-1)",
    }
    assert texts(propose("CrossEntropyLoss", torch.nn.CrossEntropyLoss, with_laws=False)) == {
        "input": "B C logits",
        "target": "B index(C)",
    }


def test_only_laws_that_hold_are_proposed() -> None:
    found = propose("mse", F.mse_loss).laws
    assert {"symmetric(input, target)", "nonnegative()"} <= set(found)
    likelihood = propose("likelihood", F.gaussian_nll_loss).laws
    assert "nonnegative()" not in likelihood  # it is on most values
    assert "zero_when_equal(input, target)" not in likelihood


def test_proposals_come_back_from_json() -> None:
    proposal = propose("masked", bare_masked, with_laws=False)
    assert Proposal.from_json(proposal.to_json()) == proposal
    assert proposal.command("verify", "mine.py:masked") == (
        'loss-harness verify mine.py:masked --inputs "pred: B D; target: B D" --context "mask: B D boolean"'
    )


def refuses(predictions, labels):
    raise RuntimeError("needs a licence")


def test_what_cannot_be_proposed_says_what_the_loss_raised_and_what_to_write() -> None:
    with pytest.raises(UnproposableError) as raised:
        propose("refuses", refuses)
    assert "needs a licence" in str(raised.value)
    assert '"predictions": TensorSpec("DIMS")' in str(raised.value)


def noisy(predictions, labels):
    print("noise")
    torch.rand(3)
    error = predictions - labels
    with torch.no_grad():
        labels.zero_()
    return error.square().mean()


def test_trial_calls_leave_no_trace(capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    propose("noisy", noisy, with_laws=False)
    assert torch.equal(state, torch.get_rng_state())
    assert capsys.readouterr().out == ""


def test_a_slow_call_is_interrupted() -> None:
    with pytest.raises(SlowCallError, match=r"more than 0\.05 s"), limited(0.05):
        time.sleep(3600)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("Input: :math:`(N, C)` or :math:`(C)`", ["B C", "C"]),
        ("``*batch H W``, or ``N N``", ["*batch H W", "N N"]),
        ("of shape [B, C, H, W]", ["B C H W"]),
        ("a tensor of shape (batch, D)", ["B D"]),
        (":math:`(*)`", ["*rest"]),
        (":math:`K \\geq 1` (default 0.5), e.g. (1, 2)", []),
        ("shape = (n_samples, 1) or (n_samples, 2)", ["B 1", "B 2"]),
        ("atoms, shape: [bs; num_atoms]", ["B NUM_ATOMS"]),
        ("x : array-like, shape=(batch_size, ts_length, dim)", ["B T D"]),
        ("Float tensor in shape [B,N]", ["B N"]),
        ("of length n_samples", ["B"]),
        ("x (torch.Tensor, optional): any size", []),
    ],
)
def test_shapes_are_read_from_docstrings(text: str, shapes: list[str]) -> None:
    assert docs.shapes_in(text) == shapes


@pytest.mark.parametrize(
    ("text", "domains"),
    [
        ("log-probabilities of each class", ["log_simplex(-1)"]),
        ("the unnormalized logits for each class", ["logits"]),
        ("log-probabilities, or probabilities", ["log_simplex(-1)", "probability"]),
        ("any tensor", []),
    ],
)
def test_words_that_name_one_domain_name_no_other(text: str, domains: list[str]) -> None:
    assert docs.values_in(text) == domains


def test_only_sentences_that_are_about_one_parameter_speak_of_it() -> None:
    text = (
        "The `input` is in the log space (not `target`). Both `input` and `target` are binary. A `scale` is positive."
    )
    assert docs.sentences_about(text, "input", ["input", "target"]) == ""
    assert docs.sentences_about(text, "scale", ["input", "scale"]) == "A `scale` is positive."


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("y_pred", "scores"),
        ("yTrue", "labels"),
        ("teacher_logits", "teachers"),
        ("memory_bank", "bank"),
        ("class_weights", "class_weights"),
        ("input2", "embeddings"),
        ("edge_mask", "mask"),
        ("log_probs", "log_probabilities"),
    ],
)
def test_names_are_known_by_their_parts(name: str, kind: str) -> None:
    assert knowledge.kind_of(name)[1] is knowledge.KINDS[kind]


def test_a_search_whose_time_is_over_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has found a reading by then, but not yet what else there is."""
    passed = iter([0.0, 0.0])
    monkeypatch.setattr("harness.proposing.search.time.process_time", lambda: next(passed, 2 * AMPLE_S))
    proposal = propose("nll", F.gaussian_nll_loss, with_laws=False)
    assert any("the search ended at 1 of the readings" in note for note in proposal.notes)


def bare_pixels(logits, targets, valid, class_weight):
    B, C, H, W = logits.shape
    total = (logits * 0).sum()
    for b in range(B):
        for c in range(C):
            for i in range(H):
                for j in range(W):
                    if valid[b, i, j] != 0:
                        total = total + class_weight[c] * (logits[b, c, i, j].sigmoid() - targets[b, c, i, j]) ** 2
    return total


def bare_flattened(pred, target):
    pred, target = pred.flatten(1), target.flatten(1)
    batch_size, _ = pred.shape
    return (pred - target).square().sum() / batch_size


def test_axes_are_read_off_the_code() -> None:
    proposal = propose("pixels", bare_pixels, with_laws=False)
    found = texts(proposal)
    assert found["logits"] == "B C H W logits"
    assert found["targets"] == "B C H W label"
    assert found["valid"] == "B H W binary"
    assert found["class_weight"] == "C nonnegative"
    assert proposal.trials == 1


def test_axes_of_a_name_that_is_set_again_tell_nothing() -> None:
    assert code.unpacked(bare_pixels) == {"logits": "B C H W"}
    assert code.unpacked(bare_flattened) == {}
    assert code.unpacked(F.cross_entropy) == {}
