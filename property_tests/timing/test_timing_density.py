import pytest
import torch

from harness import DeclarationError, LossSpec, TensorSpec, domains
from harness.results.measured import Cell
from harness.timing.density import check_densities
from harness.timing.workload import inputs


def loss(predictions, context):
    return (context.to(predictions.dtype) * predictions[:, None]).sum()


def spec_of(domain, dims="N N"):
    return LossSpec(
        name="thinned",
        implementations={"loss": loss},
        inputs={"predictions": TensorSpec("N")},
        context={"context": TensorSpec(dims, domain)},
        output=TensorSpec(""),
    )


def drawn(domain, density, size=200, seed=0):
    cell = Cell({"N": size}, "cpu", "float32", "full", densities={"context": density})
    return inputs(spec_of(domain), cell, seed)["context"]


THINNABLE = [
    domains.nonnegative(),
    domains.probability(),
    domains.binary(),
    domains.boolean(),
    domains.adjacency(),
    domains.adjacency(symmetric=True),
]


@pytest.mark.parametrize("domain", THINNABLE, ids=repr)
@pytest.mark.parametrize("density", [0.01, 0.3, 0.9])
def test_the_part_that_is_not_zero_is_the_density(domain, density):
    part = float((drawn(domain, density) != 0).double().mean())
    # elements that are free: all, or half of them where the matrix is symmetric
    deviation = (density * (1 - density) / (200 * 200 / 2)) ** 0.5
    assert abs(part - density) < 4 * deviation


@pytest.mark.parametrize("domain", THINNABLE, ids=repr)
def test_what_is_left_is_legal_and_what_is_asked_for_is_exact_at_the_ends(domain):
    assert not drawn(domain, 0.0).any()
    assert bool((drawn(domain, 1.0) != 0).all())
    assert domain.legal(drawn(domain, 0.5).double(), {"N": 200})


def test_a_graph_stays_symmetric_and_without_self_loops():
    thin = drawn(domains.adjacency(symmetric=True, self_loops=False), 0.1)
    assert bool((thin == thin.T).all())
    assert not thin.diagonal().any()


def test_the_same_seed_keeps_the_same_elements_and_other_tensors_are_untouched():
    spec, cell = spec_of(domains.nonnegative()), Cell({"N": 20}, "cpu", "float32", "full")
    thin = Cell({"N": 20}, "cpu", "float32", "full", densities={"context": 0.2})
    full, once, again, other = (
        *(inputs(spec, each, 0) for each in (cell, thin, thin)),
        inputs(spec, thin, 1),
    )
    assert torch.equal(once["context"], again["context"])
    assert not torch.equal(once["context"] != 0, other["context"] != 0)
    assert torch.equal(once["predictions"], full["predictions"])
    kept = once["context"] != 0
    assert torch.equal(once["context"][kept], full["context"][kept])


@pytest.mark.parametrize(
    ("domain", "dims"),
    [
        (domains.real(), "N N"),
        (domains.positive(), "N N"),
        (domains.simplex(-1), "N N"),
        (domains.unit_norm(-1), "N N"),
        (domains.index("N"), "N"),
        (domains.custom(lambda shape, generator, dtype: torch.zeros(shape, dtype=dtype)), "N N"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.text[:12],
)
def test_what_has_no_zeros_of_its_own_cannot_be_thinned(domain, dims):
    with pytest.raises(DeclarationError, match=r"can(not)? be (set to zero one by one|thinned)"):
        check_densities(spec_of(domain, dims), {"context": 0.5})
