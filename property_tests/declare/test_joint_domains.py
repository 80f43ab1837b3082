"""Domains whose values depend on sizes, on each other or on other tensors; the roles of tensors; what is left unchecked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.nn import functional

from harness import Case, DeclarationError, LossSpec, TensorSpec, cases, domains, verify
from harness.declare import inline
from harness.declare.domains import Domain
from harness.declare.on_command_line import Declaration
from harness.declare.targets import load_declared


def spec_of(dims: str, domain: Domain, **more: Any) -> LossSpec:
    inputs = {"p": TensorSpec("T D"), "x": TensorSpec(dims, domain, more.pop("dtype", None))}
    return LossSpec("l", {"l": lambda p, x: p.sum() + 0 * x.sum()}, inputs=inputs, **more)


def rising(values: Tensor) -> bool:
    return bool((values.diff(dim=-1) >= 0).all())


def legal(name: str, x: Tensor, size: int) -> bool:
    """Each domain in other words."""
    if name == "index":
        return bool(((x >= 0) & (x < size + 1)).all())
    if name == "number":
        return bool(((x >= 0) & (x < 4)).all())
    if name == "lengths":
        return bool(((x >= 1) & (x <= size)).all())
    if name == "offsets":
        return rising(x) and bool((x[..., 0] == 0).all() and (x[..., -1] == size).all())
    if name == "distinct":
        return all(len(set(row)) == len(row) and max(row) < size and min(row) >= 0 for row in x.tolist())
    if name == "sorted_along":
        return rising(x)
    if name in ("strict", "strict_in_bounds"):
        return bool((x.diff(dim=-1) > 0).all()) and (name == "strict" or bool(((x >= 0) & (x <= 1)).all()))
    if name == "log_simplex":
        return torch.allclose(x.exp().sum(-1), torch.ones(x.shape[:-1], dtype=x.dtype))
    if name == "boxes":
        return bool((x[..., 2:] > x[..., :2]).all())
    return bool((x[..., 2:] > 0).all())


KINDS: dict[str, tuple[str, Domain]] = {
    "index": ("B", domains.index("T+1")),
    "number": ("B", domains.index(4)),
    "lengths": ("B", domains.lengths("T")),
    "offsets": ("B S+2", domains.offsets("T")),
    "distinct": ("B K", domains.distinct("T")),
    "sorted_along": ("B K", domains.sorted_along(-1)),
    "strict": ("B", domains.sorted_along(-1, strict=True)),
    "strict_in_bounds": ("B K", domains.sorted_along(-1, low=0, high=1, strict=True)),
    "log_simplex": ("B K", domains.log_simplex(-1)),
    "boxes": ("B 4", domains.boxes()),
    "centres": ("B 4", domains.boxes("cxcywh")),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_draw_and_special_point_is_legal(name: str) -> None:
    dims, domain = KINDS[name]
    spec = spec_of(dims, domain)

    @settings(max_examples=40, deadline=None)
    @given(case=cases(spec))
    def check(case: Case) -> None:
        size = case.sizes["T"]
        assert isinstance(size, int)
        for moved in (case, *(case.with_points({"x": point}) for point in domain.special)):
            values = moved.materialize(spec)["x"]
            assert legal(name, values, size), (moved, values)
        again = Case.from_json(case.to_json()).materialize(spec)["x"]
        assert torch.equal(again, case.materialize(spec)["x"])

    check()


def test_lengths_reach_the_size_and_shrink_to_it() -> None:
    assert domains.lengths("T").lattice({"T": 3}) == (3.0, 2.0, 1.0)
    assert domains.index("T+1").count({"T": 3}) == 4


def after(shape: Any, generator: Any, dtype: Any, *, sizes: Any, tensors: Any) -> Tensor:
    """Ends that lie behind their starts, at most at T + 2."""
    return tensors["start"] + torch.randint(1, sizes["T"] + 2, shape, generator=generator)


def span(p: Tensor, start: Tensor, end: Tensor) -> Tensor:
    assert bool((end > start).all())
    place = torch.arange(p.shape[1])
    kept = (place >= start[:, None]) & (place < end[:, None])
    return torch.where(kept, p.square(), 0).sum()


def test_a_sampler_may_name_sizes_and_the_tensors_before_it() -> None:
    spec = LossSpec(
        "span",
        {"span": span},
        inputs={
            "p": TensorSpec("B T"),
            "start": TensorSpec("B", domains.index("T")),
            "end": TensorSpec("B", domains.custom(after), torch.int64),
        },
    )
    checked = verify(spec, profile="quick")
    assert checked.ok, [finding.message for finding in checked.findings if finding.severity == "error"]


def test_a_right_loss_over_lengths_is_not_blamed_and_a_wrong_one_is() -> None:
    def mean(p: Tensor, y: Tensor, n: Tensor) -> Tensor:
        kept = torch.arange(p.shape[1]) < n[:, None]
        return torch.where(kept, (p - y).square(), 0).sum() / n.sum()

    def out_of_range(p: Tensor, y: Tensor, n: Tensor) -> Tensor:
        return mean(p, y, n) + 0 * p.gather(1, n[:, None]).sum()  # the last position is n - 1

    inputs = {"p": TensorSpec("B T"), "y": TensorSpec("B T"), "n": TensorSpec("B", domains.lengths("T"))}
    assert verify(LossSpec("mean", {"mean": mean}, inputs=inputs), profile="quick").ok
    assert not verify(LossSpec("out", {"out": out_of_range}, inputs=inputs), profile="quick", rules=["B01"]).ok


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: domains.lengths("*T"), r"lengths\('\*T'\): needs the name of a size"),
        (lambda: domains.index(-3), "needs the name of a size"),
        (lambda: domains.boxes("yxyx"), "needs 'xyxy', 'xywh' or 'cxcywh'"),
        (lambda: TensorSpec("B 5", domains.boxes()), r'TensorSpec\("N 4", domains.boxes\(\'xyxy\'\)\)'),
        (lambda: TensorSpec("*K", domains.distinct("N")), r'such as TensorSpec\("K"'),
        (lambda: TensorSpec("B", role="masc"), "did you mean 'mask'"),
        (lambda: TensorSpec("B", role="mask"), r'domains.nonnegative\(\), role="mask"'),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_the_line_to_write(make: Any, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        make()


@pytest.mark.parametrize(
    "text",
    [
        "B index(T+1)",
        "B lengths(T)",
        "S+1 offsets(N)",
        "K distinct(N)",
        "B index(4)",
        "B Q sorted_along(-1)",
        "N 4 boxes(xyxy)",
    ],
)
def test_each_stands_in_a_line(text: str) -> None:
    tensor = inline.tensor(text)
    assert inline.tensor(inline.tensor_text(tensor)) == tensor


LABELLED = {"logits": TensorSpec("B C"), "labels": TensorSpec("B", domains.index("C"))}


def weighted(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return (functional.cross_entropy(logits, labels, reduction="none") * weights).mean()


def test_a_role_is_inferred_and_overruled() -> None:
    spec = LossSpec("w", {"w": weighted}, inputs=LABELLED, context={"weights": TensorSpec("B", domains.nonnegative())})
    assert spec.roles == {"logits": "data", "labels": "label", "weights": "weight"}
    weights = TensorSpec("B", domains.nonnegative(), role="data")
    overruled = spec.replace(context={"weights": weights})
    assert overruled.roles["weights"] == "data"
    assert not overruled.context["weights"].domain.weighs
    graph = {"e": TensorSpec("N D"), "node": TensorSpec("B", domains.index("N"))}
    assert LossSpec("g", {"g": lambda e, node: e[node].sum()}, inputs=graph).roles == {"e": "data", "node": "index"}


def test_a_declaration_says_what_it_leaves_unchecked(tmp_path: Any) -> None:
    def preference(chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor]:
        return -functional.logsigmoid(chosen - rejected).mean(), chosen.mean()

    inputs = {"chosen": TensorSpec("B"), "rejected": TensorSpec("B")}
    spec = LossSpec("preference", {"preference": preference}, inputs=inputs, select=0)
    assert spec.unchecked == (
        "not checked: gradients of rejected (differentiable=('chosen', 'rejected') checks them); what is returned beside 0"
    )
    assert spec.replace(differentiable=("chosen", "rejected"), select=lambda returned: returned[0]).unchecked == ""
    file = tmp_path / "loss.py"
    file.write_text("def preference(chosen, rejected, w):\n    return ((chosen - rejected) * w).mean()\n")
    told = Declaration(f"{file}:preference", "chosen: B; rejected: B; w: B nonnegative", roles=("w=label",))
    spec = load_declared(Declaration.from_target(told.as_target))
    assert spec.roles["w"] == "label"
    assert "--differentiable chosen,rejected" in spec.unchecked
    with pytest.raises(DeclarationError, match=r"expected a tensor and its role, such as chosen=data"):
        load_declared(Declaration(f"{file}:preference", "chosen: B; rejected: B; w: B", roles=("v=label",)))
