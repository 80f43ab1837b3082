"""On a device that is played, as strict as CUDA, every rule says what it says on the CPU; and the device does refuse.

`played_table` compares the whole table; here each loss is asked a share of the rules.
"""

from __future__ import annotations

import importlib

import numpy as np
import played_table
import pytest
import torch
from played_device import CPU_GENERATOR, NO_NUMPY, played

from harness import LossSpec, TensorSpec, laws, rules
from harness.rules.gradients import second_order
from harness.rules.tools import made, symbols

SHARE = 9
CUDA = pytest.param(
    "cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")]
)


@pytest.fixture(params=["played", CUDA])
def device(request):
    if request.param == "cuda":
        yield "cuda"
        return
    with played() as name:
        yield name


REFUSED = {
    "sums": lambda x, other: x + other,
    "sums in place": lambda x, other: x.add_(other),
    "comparisons": lambda x, other: x > other,
    "products": lambda x, other: x @ other,
    "where": lambda x, other: torch.where(x > 0, x, other),
    "a condition": lambda x, other: torch.where(other > 0, x, x),
    "stacks": lambda x, other: torch.stack([x, other]),
    "a mask to fill by": lambda x, other: x.masked_fill(other > 0, 0.0),
    "an index to select by": lambda x, other: x.index_select(0, other.long()),
    "an index to gather by": lambda x, other: x.gather(0, other.long()),
    "an index to fill at": lambda x, other: x.index_fill(0, other.long(), 0.0),
    "a tensor to look up in": lambda x, other: other[x.long()],
    "values to write": lambda x, other: x.index_put((x.long(),), other),
    "gradients": lambda x, other: (x.detach().requires_grad_() * other).sum().backward(),
    "losses": torch.nn.functional.mse_loss,
    "a distance": lambda x, other: torch.dist(x, other),
}


@pytest.mark.parametrize("mixed", REFUSED.values(), ids=REFUSED)
def test_tensors_of_two_devices_do_not_meet(device, mixed):
    x = torch.ones(3).to(device)
    with pytest.raises(RuntimeError, match=r"same device|indices should be either on|is on cpu|different devices"):
        mixed(x, torch.ones(3))


def test_numbers_of_the_cpu_meet_any_tensor(device):
    x = torch.ones(3).to(device)
    assert (x * torch.tensor(2.0)).tolist() == [2, 2, 2]
    assert torch.where(x > 0, x, torch.tensor(0.0)).tolist() == [1, 1, 1]
    assert torch.maximum(torch.tensor(4.0), x).device == x.device


def test_an_index_may_be_on_the_cpu_and_copies_go_anywhere(device):
    x = torch.arange(3.0, device=device)
    assert x[torch.tensor([2, 0])].tolist() == [2, 0]
    assert x[torch.tensor([True, False, True])].tolist() == [0, 2]
    x[torch.tensor([1])] = 7.0
    assert x.cpu().add(torch.ones(3)).tolist() == [1, 8, 3]
    assert x.copy_(torch.zeros(3)).tolist() == [0, 0, 0]
    assert torch.tensor([1.0, 2.0], device=device).tolist() == [1, 2]
    assert x.new_tensor([5]).device == x.device


def test_a_copy_on_the_cpu_is_another_tensor(device):
    x = torch.zeros(3, device=device)
    x.cpu().add_(1)
    assert x.tolist() == [0, 0, 0]


def test_views_are_edited_with_their_base(device):
    x = torch.zeros(2, 2, device=device)
    x[0].add_(1)
    x.T[1] = 5
    assert x.tolist() == [[1, 5], [0, 5]]


def test_gradients_are_where_their_inputs_are_and_find_their_way_through_the_cpu(device):
    x = torch.ones(3, device=device).requires_grad_()
    (x.cpu() * torch.arange(3.0)).sum().to(device).backward()
    assert x.grad.device == x.device
    assert x.grad.tolist() == [0, 1, 2]


def test_a_generator_of_the_cpu_draws_nothing_there(device):
    with pytest.raises(RuntimeError, match=CPU_GENERATOR.replace("played", ".*")):
        torch.randn(3, generator=torch.Generator(), device=device)


@pytest.mark.parametrize("read", [lambda x: x.numpy(), np.asarray], ids=["numpy", "asarray"])
def test_numpy_is_given_nothing(device, read):
    with pytest.raises(TypeError, match=NO_NUMPY.partition("played:0")[0]):
        read(torch.ones(3, device=device))


def test_a_module_moves_there_with_what_it_has_registered(device):
    module = torch.nn.Linear(2, 1).to(device)
    assert module(torch.ones(1, 2, device=device)).device.type == torch.device(device).type
    with pytest.raises(RuntimeError, match="same device"):
        module(torch.ones(1, 2))


@pytest.mark.parametrize("position", range(len(played_table.SPECS)), ids=lambda at: played_table.SPECS[at].name)
def test_a_rule_says_on_the_device_what_it_says_on_the_cpu(position):
    spec = played_table.SPECS[position]
    candidate = played_table.candidates(spec)[position % len(played_table.candidates(spec))]
    assert played_table.differences(spec, played_table.sample(position, SHARE), [candidate]) == []


def test_every_rule_with_a_meaning_there_is_asked_of_several_losses():
    asked = [code for at in range(len(played_table.SPECS)) for code in played_table.sample(at, SHARE)]
    assert all(asked.count(code) >= 4 for code in played_table.codes())
    assert {*played_table.codes(), *played_table.WITHOUT_MEANING} == {rule.code for rule in rules.BATTERY}


def squares(predictions, labels):
    return (predictions - labels).square().mean()


def with_a_constant_of_the_cpu(predictions, labels):
    return ((predictions - labels).square() * torch.ones(labels.shape, dtype=labels.dtype)).mean()


def spec(name="squares", **implementations):
    tensors = {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")}
    return LossSpec(name, implementations, inputs=tensors, output=TensorSpec(""))


def test_a_loss_that_makes_a_constant_on_the_cpu_fails_on_the_device_alone():
    bad = spec(loop=squares, fast=with_a_constant_of_the_cpu)
    (((*_, rule, status), came),) = played_table.differences(bad, ["B01"], ["fast"])
    assert (rule, status, came) == ("B01", "passed", "failed")


def test_the_reference_may_make_constants_on_the_cpu_for_it_runs_there():
    good = spec(loop=with_a_constant_of_the_cpu, fast=squares)
    assert played_table.differences(good, ["B01", "E01", "E02", "E03", "E05", "G01"], ["loop", "fast"]) == []


@pytest.mark.parametrize(
    ("module", "name", "code"),
    [(second_order, "signs", "G03"), (symbols, "positions", "L01")],
    ids=["signs", "positions"],
)
def test_a_planted_mix_of_a_rule_is_found(monkeypatch, module, name, code):
    make = getattr(made, name)
    monkeypatch.setattr(module, name, lambda *given: make(*given).cpu())
    given = spec(fast=squares).replace(laws=(laws.mean_over("B"),))
    (((*_, rule, status), came),) = played_table.differences(given, [code], ["fast"])
    assert (rule, status) == (code, "passed")
    assert came.startswith("crashed: RuntimeError: Expected all tensors to be on the same device")


def test_the_laws_that_are_suggested_are_those_of_the_cpu():
    verifying = importlib.import_module("harness.checking.verify")
    given = spec(fast=squares)
    should = verifying.suggested(verifying.open_session(given, profile="quick"), "fast")
    with played() as device:
        came = verifying.suggested(verifying.Session(given, verifying.PROFILES["quick"], 0, device), "fast")
    assert len(should) > 2
    assert came == should
