"""Complex and sparse tensors: what the loss is given, what rules see, and the conjugate convention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from jaxtyping import Complex
from torch import Tensor, nn
from torch.nn import functional

from harness import DeclarationError, LossSpec, TensorSpec, domains, verify
from harness.calls.evaluation import Candidate
from harness.declare import inline

COMPLEX = TensorSpec("B T", domains.complex_())


class Squares(torch.autograd.Function):
    """The sum of |z|^2, whose gradient by torch's convention is 2 z."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z.abs().square().sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return 2 * upstream * z


class Conjugated(Squares):
    """The same with the conjugate of the gradient."""

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return 2 * upstream * z.conj()


class Filter(nn.Module):
    """Mean of |taps z|^2."""

    def __init__(self, taps: Tensor) -> None:
        super().__init__()
        self.register_buffer("taps", taps)

    def forward(self, z: Tensor) -> Tensor:
        return (z * self.taps).abs().square().mean()


class Smooth(nn.Module):
    """Mean of (G x)^2 over a sparse G."""

    def __init__(self, graph: Tensor) -> None:
        super().__init__()
        assert graph.layout == torch.sparse_coo
        self.register_buffer("graph", graph)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sparse.mm(self.graph, x).square().mean()


def squares(z: Tensor) -> Tensor:
    assert z.is_complex()
    return Squares.apply(z)  # type: ignore[no-any-return, no-untyped-call]


def conjugated(z: Tensor) -> Tensor:
    return Conjugated.apply(z)  # type: ignore[no-any-return, no-untyped-call]


def test_the_conjugate_convention_is_held() -> None:
    spec = LossSpec("squares", {"squares": squares}, inputs={"z": COMPLEX})
    assert verify(spec, profile="quick").ok
    assert spec.tensors["z"].dims == "B T 2"
    wrong = LossSpec("conjugated", {"conjugated": conjugated}, inputs={"z": COMPLEX})
    found = verify(wrong, profile="quick", rules=["G01"]).findings
    assert "d loss / d z[0, 0, 1]" in found[0].message


def test_an_annotation_declares_a_complex_tensor() -> None:
    def power(z: Complex[Tensor, "B T"]) -> Tensor:
        return z.abs().square().mean()

    spec = LossSpec("power", {"power": power})
    given = Candidate(spec, "power").arguments({"z": torch.rand(2, 3, 2, dtype=torch.float32)})[1]["z"]
    assert given.shape == (2, 3)
    assert given.dtype == torch.complex64
    assert verify(spec, profile="quick", rules=["B01", "B03", "G01", "G03", "B06"]).ok


def test_a_complex_or_sparse_context_is_not_blamed_for_what_torch_cannot_do() -> None:
    taps = {"taps": TensorSpec("T", domains.complex_())}
    assert verify(LossSpec("filter", {"filter": Filter}, inputs={"z": COMPLEX}, context=taps), profile="quick").ok
    graph = {"graph": TensorSpec("M N", domains.sparse("coo"))}
    spec = LossSpec("smooth", {"smooth": Smooth}, inputs={"x": TensorSpec("N D")}, context=graph)
    checked = verify(spec)
    assert checked.ok, [finding.message for finding in checked.findings if finding.severity == "error"]
    reads = next(outcome for outcome in checked.outcomes if outcome.rule == "P02")
    assert reads.status == "passed"  # finding what is stored is none of the loss's


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_a_sparse_tensor_has_the_values_of_the_dense_one(layout: str) -> None:
    def smooth(graph: Tensor, x: Tensor) -> Tensor:
        return (graph @ x).square().mean()

    graph = TensorSpec("M N", domains.sparse(layout))
    spec = LossSpec("smooth", {"smooth": smooth}, inputs={"x": TensorSpec("N D")}, context={"graph": graph})
    dense = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    given = Candidate(spec, "smooth").arguments({"x": torch.ones(2, 1), "graph": dense})[1]["graph"]
    assert given.layout == {"coo": torch.sparse_coo, "csr": torch.sparse_csr}[layout]
    assert torch.equal(given.to_dense(), dense)
    assert verify(spec, profile="quick", rules=["B01", "G01", "C02"]).ok


def test_a_loss_of_images_that_reads_memory_is_seen_in_channels_last() -> None:
    def flattened(x: Tensor, y: Tensor) -> Tensor:
        if min(x.shape) > 1 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
            x = torch.as_strided(x, x.shape, x.contiguous().stride())
        return functional.mse_loss(x, y)

    images = {"x": TensorSpec("B C H W"), "y": TensorSpec("B C H W")}
    spec = LossSpec("flattened", {"flattened": flattened}, inputs=images)
    found = verify(spec, profile="quick", rules=["B06"]).findings
    assert "channels_last" in found[0].message


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: domains.sparse("dense"), "needs 'coo', 'csr' or 'bsr'"),
        (lambda: domains.sparse("coo", 0), r"needs a number in \(0, 1\], such as 0.3"),
        (lambda: TensorSpec("B N M", domains.sparse("csr")), r"got 3 axes, expected a matrix"),
    ],
)
def test_what_no_tensor_can_be_is_refused(make: Any, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        make()


def test_both_stand_in_a_line() -> None:
    assert inline.tensor("B T complex") == COMPLEX
    assert inline.tensor(inline.tensor_text(COMPLEX)) == COMPLEX
    assert inline.tensor("M N sparse(coo, 0.1)").domain == domains.sparse("coo", 0.1)
