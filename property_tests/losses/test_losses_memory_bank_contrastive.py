"""The contrastive loss against a memory bank: its value, keys beside the bank, and chunks that change nothing but memory."""

from __future__ import annotations

import math

import pytest
import torch
from loss_examples import draw, evaluate, generator, gradient
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.nn import functional

from harness import verify
from harness.timing.costs.counting import peak_bytes
from losses import MemoryBankContrastiveLoss
from losses.memory_bank_contrastive import SPEC, SPEC_KEYS, DenseMemoryBankContrastiveLoss

each_implementation = pytest.mark.parametrize("implementation", SPEC.implementations)
each_spec = pytest.mark.parametrize("spec", [SPEC, SPEC_KEYS], ids=lambda spec: spec.name)


@each_implementation
def test_it_is_minus_the_log_share_of_the_positive(implementation):
    tensors = {
        "queries": torch.tensor([[1.0], [2.0]]).double(),
        "positives": torch.tensor([0, 1]),
        "bank": torch.tensor([[1.0], [0.0], [-1.0]]).double(),
    }
    first = math.log((math.e + 1 + 1 / math.e) / math.e)
    second = math.log(math.exp(2) + 1 + math.exp(-2))
    found = evaluate(SPEC, implementation, tensors, temperature=1.0, reduction="none")
    assert found.tolist() == pytest.approx([first, second])


@each_implementation
def test_a_key_is_one_more_row_that_only_its_own_query_sees(implementation):
    tensors = draw(SPEC_KEYS)
    expected = [
        functional.cross_entropy(torch.cat([key.unsqueeze(0), tensors["bank"]]) @ query / 0.07, torch.tensor(0))
        for query, key in zip(tensors["queries"], tensors["keys"], strict=True)
    ]
    torch.testing.assert_close(
        evaluate(SPEC_KEYS, implementation, tensors, reduction="none"), torch.stack(expected), rtol=1e-9, atol=1e-12
    )


@each_implementation
def test_the_temperature_divides_the_similarities(implementation):
    tensors = draw(SPEC)
    halved = tensors | {"queries": tensors["queries"] / 2}
    value = evaluate(SPEC, implementation, tensors, temperature=2.0)
    torch.testing.assert_close(value, evaluate(SPEC, implementation, halved, temperature=1.0))


@each_spec
def test_the_size_of_a_chunk_does_not_change_value_or_gradient(spec):
    for seed, chunk_bytes in enumerate((1, 1000)):
        tensors = draw(spec, seed, N=20)
        found = evaluate(spec, "vectorized", tensors, chunk_bytes=chunk_bytes)
        torch.testing.assert_close(found, evaluate(spec, "vectorized", tensors))
        found = gradient(spec, "vectorized", tensors, chunk_bytes=chunk_bytes)
        torch.testing.assert_close(found, gradient(spec, "vectorized", tensors))


@each_spec
def test_chunks_hold_the_battery_but_for_the_loop_over_them(spec):
    found = verify(spec.replace(options={"chunk_bytes": 1}), profile="quick", implementations=["naive", "vectorized"])
    unexpected = [f for f in found.of("vectorized") if f.severity != "note" and f.rule != "P01"]
    assert unexpected == []
    assert [f.rule for f in found.of("vectorized") if f.severity == "warning"] == ["P01"]


def chunked(seed=0, **sizes):
    tensors = draw(SPEC, seed, N=11, **sizes)
    module = MemoryBankContrastiveLoss(tensors["bank"], temperature=0.5, chunk_bytes=1)
    return (lambda queries: module(queries, tensors["positives"])), tensors["queries"]


def test_derivatives_of_every_order_go_through_the_chunks():
    loss, queries = chunked()
    queries.requires_grad_()
    assert gradcheck(loss, queries)
    assert gradgradcheck(loss, queries)
    assert gradgradcheck(lambda q: torch.autograd.grad(loss(q), q, create_graph=True)[0].square().sum(), queries)


# torch scripts its own formulas when forward mode is first used, and warns about it.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_transforms_go_through_the_chunks():
    loss, queries = chunked()
    leaf = queries.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(loss)(queries), expected)
    torch.testing.assert_close(torch.vmap(torch.func.grad(loss))(torch.stack([queries, -queries]))[0], expected)
    with forward_ad.dual_level():
        slope = forward_ad.unpack_dual(loss(forward_ad.make_dual(queries, torch.ones_like(queries)))).tangent
    torch.testing.assert_close(slope, expected.sum())


# torch's compiler makes an instance of every Function, which torch deprecates.
@pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated:DeprecationWarning")
def test_a_compiled_loss_goes_through_the_chunks():
    loss, queries = chunked()
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    leaves = [queries.clone().requires_grad_() for _ in range(2)]
    for leaf, function in zip(leaves, (compiled, loss), strict=True):
        function(leaf).backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


@each_spec
def test_memory_above_the_inputs_does_not_grow_with_the_bank(spec):
    peaks = {}
    for rows in (4_000, 16_000):
        tensors = draw(spec, dtype=torch.float32, B=32, N=rows, D=16)
        others = {name: tensors[name] for name in spec.inputs}
        others["queries"].requires_grad_()
        for implementation in (MemoryBankContrastiveLoss, DenseMemoryBankContrastiveLoss):
            loss = implementation(tensors["bank"], chunk_bytes=2**16)
            peaks[implementation, rows] = peak_bytes(
                lambda loss=loss, others=others: torch.autograd.grad(loss(**others), others["queries"]), "cpu"
            )
    assert peaks[MemoryBankContrastiveLoss, 16_000] < 4 * 2**16
    assert peaks[MemoryBankContrastiveLoss, 16_000] < 1.1 * peaks[MemoryBankContrastiveLoss, 4_000]
    assert peaks[DenseMemoryBankContrastiveLoss, 16_000] > 2 * 32 * 16_000 * 4


def test_similarities_that_overflow_as_exponentials_leave_the_loss_finite():
    queries = torch.tensor([[1e4], [-1e4]]).requires_grad_()
    for chunk_bytes in (1, 2**20):
        loss = MemoryBankContrastiveLoss(torch.tensor([[1.0], [-1.0], [0.5]]), chunk_bytes=chunk_bytes)
        value = loss(queries, torch.tensor([0, 0]))
        assert value.item() == pytest.approx(0.5 * 2e4 / 0.07)
        assert torch.isfinite(torch.autograd.grad(value, queries)[0]).all()


def test_the_bank_may_be_written_into_after_the_backward_pass():
    loss = MemoryBankContrastiveLoss(torch.eye(3))
    queries = torch.rand(2, 3, generator=generator()).requires_grad_()
    positives = torch.tensor([0, 1])
    loss(queries, positives).backward()
    loss.bank[2] = queries.detach()[0]
    other = MemoryBankContrastiveLoss(loss.bank)
    assert loss(queries, positives) == other(queries, positives)
    assert not loss.bank.requires_grad


def test_keys_may_need_a_gradient():
    tensors = draw(SPEC_KEYS)
    found = []
    for implementation in SPEC_KEYS.implementations:
        keys = tensors["keys"].clone().requires_grad_()
        found.append(torch.autograd.grad(evaluate(SPEC_KEYS, implementation, tensors | {"keys": keys}), keys)[0])
    assert found[0].abs().max() > 0
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


@each_implementation
def test_positives_and_keys_exclude_each_other(implementation):
    tensors = draw(SPEC)
    module = SPEC.implementations[implementation]
    call = (
        module(tensors["bank"]) if isinstance(module, type) else lambda **given: module(bank=tensors["bank"], **given)
    )
    with pytest.raises(ValueError, match="got neither of positives and keys, expected one of them"):
        call(queries=tensors["queries"])
    with pytest.raises(ValueError, match="got both of positives and keys, expected one of them"):
        call(queries=tensors["queries"], positives=tensors["positives"], keys=tensors["queries"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, r"temperature=0.0, expected above zero"),
        ({"temperature": math.nan}, r"temperature=nan, expected above zero"),
        ({"chunk_bytes": 0}, r"chunk_bytes=0, expected above zero"),
        ({"bank": torch.ones(0, 3)}, r"bank has shape \[0, 3\], expected \[N, D\] with N and D >= 1"),
        ({"bank": torch.ones(3)}, r"bank has shape \[3\], expected \[N, D\]"),
    ],
)
def test_what_no_bank_can_be_built_from_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MemoryBankContrastiveLoss(**{"bank": torch.eye(2), **arguments})
