"""Knowledge distillation: its value, what the temperature does to the gradient, and the share of the hard labels."""

from __future__ import annotations

import math

import pytest
import torch
from loss_examples import draw, evaluate, gradient
from torch.nn import functional

from harness.timing.costs.counting import peak_bytes
from losses import DistillationLoss, distillation
from losses.distillation import SPEC, SPEC_WITH_LABELS, KLDivDistillationLoss

each_implementation = pytest.mark.parametrize("implementation", SPEC.implementations)


@each_implementation
def test_it_is_the_divergence_of_the_model_from_the_teacher(implementation):
    tensors = {
        "logits": torch.zeros(1, 2).double(),
        "indices": torch.tensor([1]),
        "teacher_logits": torch.tensor([[5.0, 5.0], [math.log(3), 0.0]]).double(),
    }
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert evaluate(SPEC, implementation, tensors, temperature=1.0).item() == pytest.approx(expected)


@each_implementation
def test_it_is_torchs_divergence_over_the_batch_times_the_squared_temperature(implementation):
    tensors = draw(SPEC)
    mine = functional.log_softmax(tensors["logits"] / 3, dim=1)
    theirs = functional.softmax(tensors["teacher_logits"][tensors["indices"]] / 3, dim=1)
    expected = 9 * functional.kl_div(mine, theirs, reduction="batchmean")
    torch.testing.assert_close(evaluate(SPEC, implementation, tensors, temperature=3.0), expected)


@each_implementation
def test_at_a_high_temperature_it_matches_logits_whose_mean_is_zero(implementation):
    tensors = draw(SPEC, B=3, C=5)
    for name in ("logits", "teacher_logits"):
        tensors[name] = tensors[name] - tensors[name].mean(-1, keepdim=True)
    off = tensors["logits"] - tensors["teacher_logits"][tensors["indices"]]
    found = gradient(SPEC, implementation, tensors, temperature=1e4, reduction="sum")
    torch.testing.assert_close(found, off / 5, rtol=1e-2, atol=1e-3)  # Hinton et al., equation 4


@each_implementation
def test_a_model_that_agrees_with_the_teacher_up_to_a_constant_has_nothing_to_learn(implementation):
    tensors = draw(SPEC)
    tensors["logits"] = tensors["teacher_logits"][tensors["indices"]] + 2
    assert evaluate(SPEC, implementation, tensors).abs() < 1e-14
    assert gradient(SPEC, implementation, tensors).abs().max() < 1e-14


@each_implementation
def test_saturated_logits_on_both_sides_give_a_finite_loss_and_gradient(implementation):
    tensors = {
        "logits": torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 1e4]]),
        "indices": torch.tensor([0, 0]),
        "teacher_logits": torch.tensor([[-1e4, 1e4, 0.0]]),
    }
    found = evaluate(SPEC, implementation, tensors, temperature=1.0, reduction="none")
    torch.testing.assert_close(found, torch.tensor([2e4, 1e4]))
    expected = torch.tensor([[1.0, -1.0, 0.0], [0.0, -1.0, 1.0]])
    torch.testing.assert_close(gradient(SPEC, implementation, tensors, temperature=1.0, reduction="sum"), expected)


@each_implementation
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_hard_labels_have_their_share(implementation, share):
    tensors = draw(SPEC_WITH_LABELS)
    soft = evaluate(SPEC, implementation, {name: tensors[name] for name in SPEC.tensors})
    hard = functional.cross_entropy(tensors["logits"], tensors["labels"])
    found = evaluate(SPEC_WITH_LABELS, implementation, tensors, hard_weight=share)
    torch.testing.assert_close(found, (1 - share) * soft + share * hard)


@each_implementation
def test_labels_come_with_a_share_and_a_share_with_labels(implementation):
    tensors = draw(SPEC_WITH_LABELS)
    with pytest.raises(ValueError, match="labels came with hard_weight=0; labels are used where hard_weight > 0"):
        evaluate(SPEC_WITH_LABELS, implementation, tensors, hard_weight=0.0)
    tensors = draw(SPEC)
    with pytest.raises(ValueError, match=r"no labels came with hard_weight=0\.5"):
        evaluate(SPEC, implementation, tensors, hard_weight=0.5)


@pytest.mark.parametrize("seed", range(3))
def test_the_rows_that_are_in_the_cache_at_once_change_nothing(monkeypatch, seed):
    tensors = draw(SPEC, seed)
    expected = evaluate(SPEC, "vectorized", tensors), gradient(SPEC, "vectorized", tensors)
    monkeypatch.setattr(distillation, "CHUNK_BYTES", 1)
    torch.testing.assert_close((evaluate(SPEC, "vectorized", tensors), gradient(SPEC, "vectorized", tensors)), expected)


def test_two_tensors_of_the_size_of_the_logits_are_enough():
    tensors = draw(SPEC, dtype=torch.float32, B=4096, C=256, N=32)
    logits = tensors["logits"].requires_grad_()
    peaks = [
        peak_bytes(lambda module=module: torch.autograd.grad(module(logits, tensors["indices"]), logits), "cpu")
        / logits.nbytes
        for module in (loss(tensors["teacher_logits"]) for loss in (DistillationLoss, KLDivDistillationLoss))
    ]
    assert peaks[0] < 2.1
    assert peaks[1] > 3.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0, expected above zero"),
        ({"temperature": math.inf}, "temperature=inf, expected above zero"),
        ({"hard_weight": 1.5}, "hard_weight=1.5, expected from 0 to 1"),
        ({"teacher_logits": torch.ones(3)}, r"teacher_logits has shape \[3\], expected \[N, C\] with C >= 1"),
    ],
)
def test_what_no_loss_can_be_built_from_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DistillationLoss(**{"teacher_logits": torch.eye(2), **arguments})
