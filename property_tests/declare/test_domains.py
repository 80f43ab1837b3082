"""Domains: every draw and every special point is legal, at every shape, and mutants of the checks are seen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from harness import domains
from harness.declare.domains import Domain
from harness.drawing.case import from_bytes
from harness.errors import DeclarationError


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def off_centre(shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
    return 3 + torch.rand(shape, generator=generator, dtype=dtype)


def all_threes(shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
    return torch.full(shape, 3, dtype=dtype)


ALL = (
    domains.real(),
    domains.real(nan=True),
    domains.logits(),
    domains.interval(1e-4, 2e-4),
    domains.interval(-5, 1e6),
    domains.probability(),
    domains.positive(),
    domains.nonnegative(),
    domains.simplex(-1),
    domains.simplex(0),
    domains.unit_norm(-1),
    domains.unit_norm(0),
    domains.binary(),
    domains.boolean(),
    domains.boolean(dtype=torch.uint8),
    domains.sign(),
    domains.index("C"),
    domains.index("C", ignore=-100),
    domains.index("C", ignore=0),
    domains.index("C", ignore=255),
    domains.adjacency(),
    domains.adjacency(symmetric=True, self_loops=False),
    domains.custom(off_centre, special=(all_threes,)),
)
SHAPES = ((), (0,), (1,), (4,), (0, 3), (3, 0), (0, 0), (1, 1), (2, 3), (2, 2), (2, 3, 3), (2, 2, 5), (1, 0, 3))
SIZES = {"C": 3}


def fits(domain: Domain, shape: tuple[int, ...]) -> bool:
    return not domain.square or (len(shape) >= 2 and shape[-1] == shape[-2])


PAIRS = [
    pytest.param(domain, shape, id=f"{domain!r}-{list(shape)}")
    for domain in ALL
    for shape in SHAPES
    if fits(domain, shape)
]


def complaint(domain: Domain, values: Tensor, shape: tuple[int, ...]) -> str | None:
    """What is illegal about values of a domain, structure included, or ``None``."""
    if tuple(values.shape) != shape:
        return f"has shape {tuple(values.shape)}, expected {shape}"
    if not domain.nan and values.isnan().any():
        return "has NaN"
    if not domain.legal(values, SIZES):
        return "has an element outside the bounds"
    if domain.axis is not None and shape and shape[domain.axis]:
        total = values.sum(domain.axis) if "simplex" in repr(domain) else values.square().sum(domain.axis)
        if not torch.allclose(total, torch.ones_like(total)):
            return "is not normalised"
    if domain.square:
        if "symmetric=True" in repr(domain) and not torch.equal(values, values.mT):
            return "is not symmetric"
        if "self_loops=False" in repr(domain) and values.diagonal(dim1=-2, dim2=-1).any():
            return "has a self-loop"
    if domain.whole and not torch.equal(values, values.round()):
        return "has a fraction"
    return None


@pytest.mark.parametrize(("domain", "shape"), PAIRS)
def test_every_draw_and_every_special_point_is_legal(domain: Domain, shape: tuple[int, ...]) -> None:
    drawn = domain.sample(shape, generator(), SIZES)
    assert complaint(domain, drawn, shape) is None
    for name, point in domain.special.items():
        before = drawn.clone()
        assert complaint(domain, point(drawn), shape) is None, name
        assert torch.equal(before.nan_to_num(9e9), drawn.nan_to_num(9e9)), f"{name} wrote into the draw"


@pytest.mark.parametrize(
    ("domain", "values", "seen"),
    [
        (domains.real(), torch.tensor([math.nan]), "has NaN"),
        (domains.probability(), torch.tensor([1.5]), "outside the bounds"),
        (domains.index("C"), torch.tensor([3.0]), "outside the bounds"),
        (domains.index("C", ignore=-100), torch.tensor([-1.0]), "outside the bounds"),
        (domains.simplex(0), torch.tensor([0.5, 0.4]), "not normalised"),
        (domains.unit_norm(0), torch.tensor([0.5, 0.5]), "not normalised"),
        (domains.adjacency(symmetric=True), torch.tensor([[0.0, 1.0], [0.0, 0.0]]), "not symmetric"),
        (domains.adjacency(self_loops=False), torch.eye(2), "self-loop"),
        (domains.binary(), torch.tensor([0.5]), "fraction"),
    ],
)
def test_the_legality_check_sees_illegal_values(domain: Domain, values: Tensor, seen: str) -> None:
    assert seen in str(complaint(domain, values, tuple(values.shape)))


def test_the_legality_check_sees_another_shape() -> None:
    assert "has shape" in str(complaint(domains.real(), torch.zeros(2), (3,)))


@pytest.mark.parametrize("domain", [d for d in ALL if d.make is None and not d.whole and not d.nan], ids=repr)
def test_a_smooth_draw_has_no_ties_and_stays_off_the_boundary(domain: Domain) -> None:
    drawn = domain.sample((16, 16), generator(1), SIZES)
    assert drawn.unique().numel() == drawn.numel()
    assert ((drawn > domain.low) & (drawn < domain.high)).all()


@pytest.mark.parametrize(
    "domain", [domains.real(), domains.logits(), domains.interval(1e-4, 2e-4), domains.probability(), domains.positive()],
    ids=repr,
)  # fmt: skip
def test_exact_smooth_values_do_not_tie_even_where_every_byte_is_equal(domain: Domain) -> None:
    values = from_bytes(domain, (64,), bytes(64), "smooth", SIZES)
    assert len(set(values)) == 64
    assert domain.legal(torch.tensor(values, dtype=torch.float64), SIZES)


def test_exact_smooth_values_have_few_decimals() -> None:
    values = from_bytes(domains.real(), (8,), bytes(range(8, 16)), "smooth", SIZES)
    assert all(len(f"{value:.12g}") <= len("-12.34567") for value in values), values


@pytest.mark.parametrize("domain", ALL, ids=repr)
def test_the_generator_decides_every_value(domain: Domain) -> None:
    shape = (3, 3)
    before = torch.get_rng_state()
    first, again = (domain.sample(shape, generator(5), SIZES) for _ in range(2))
    assert torch.equal(first.nan_to_num(9e9), again.nan_to_num(9e9))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("domain", "values", "moved"),
    [
        (domains.probability(), [0.0, 0.5, 1.0], [0.001, 0.5, 0.999]),
        (domains.nonnegative(), [0.0, 3.0], [0.001, 3.0]),
        (domains.real(), [0.0, -7.0], [0.0, -7.0]),
        (domains.simplex(0), [0.0, 1.0], [0.0, 1.0]),
    ],
)
def test_interior_moves_only_what_is_at_a_boundary(domain: Domain, values: list[float], moved: list[float]) -> None:
    assert domain.interior(torch.tensor(values)).tolist() == pytest.approx(moved)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: domains.interval(1, 1), r"needs finite low < high; for no bound use real\(\)"),
        (lambda: domains.interval(0, math.inf), r"needs finite low < high"),
        (lambda: domains.interval(math.nan, 1), r"needs finite low < high"),
        (lambda: domains.simplex("C"), r"such as simplex\(axis=-1\)"),
        (lambda: domains.unit_norm(None), r"such as unit_norm\(axis=-1\)"),
        (lambda: domains.boolean(torch.float32), r"write binary\(\)"),
        (lambda: domains.index(0), r"such as index\('C'\)"),
        (lambda: domains.index("N M"), r"such as index\('C'\)"),
        (lambda: domains.index("C", ignore=-1.5), r"such as ignore=-100"),
        (lambda: domains.custom("uniform"), r"needs a function make\(shape, generator, dtype\)"),
        (lambda: domains.custom(off_centre, special=("zeros",)), r"functions make\(shape, generator, dtype\)"),
        (lambda: domains.custom(off_centre, special=all_threes), r"a sequence, such as special=\(make,\)"),
    ],
)
def test_an_impossible_domain_is_refused_with_the_line_to_write(make: object, message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda shape, generator, dtype: torch.zeros(7), r"returned shape \(7,\), expected \(2,\)"),
        (lambda shape, generator, dtype: [0.0, 0.0], r"returned list, expected a torch.Tensor"),
        (lambda shape, generator, dtype: torch.rand(shape), r"torch.rand\(shape, generator=generator, dtype=dtype\)"),
    ],
)
def test_a_custom_sampler_is_held_to_its_contract(make: domains.Domain, message: str) -> None:
    before = torch.get_rng_state()
    with pytest.raises(DeclarationError, match=message):
        domains.custom(make).sample((2,), generator(), SIZES)  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match=message):
        domains.custom(off_centre, special=(make,)).special["special 0"](torch.zeros(2))  # type: ignore[arg-type]
    assert torch.equal(before, torch.get_rng_state())


def test_two_special_samplers_of_one_name_stay_apart() -> None:
    domain = domains.custom(off_centre, special=(lambda s, g, d: torch.zeros(s), lambda s, g, d: torch.ones(s)))
    assert [float(point(torch.full((1,), 3.0))) for point in domain.special.values()] == [0.0, 1.0]


def test_the_text_of_a_domain_is_the_call_that_makes_it() -> None:
    for domain in ALL:
        if domain.make is None:
            namespace = {name: getattr(domains, name) for name in domains.__all__} | {"torch": torch}
            assert eval(repr(domain), namespace) == domain


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("domain", "shape"), PAIRS)
def test_a_domain_holds_what_it_draws(domain: Domain, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    drawn = domain.sample(shape, generator(3), SIZES)
    assert domain.holds(drawn.to(domain.dtype(dtype)), SIZES) is (domain.make is None)


@pytest.mark.parametrize(
    ("domain", "values"),
    [
        (domains.offsets("N"), [3, 0, 3]),
        (domains.distinct("N"), [0, 2, 2]),
        (domains.index("N"), [0, 1, 99]),
        (domains.sorted_along(-1), [1.0, 0.0, 2.0]),
        (domains.sorted_along(-1, strict=True), [0.0, 1.0, 1.0]),
        (domains.simplex(-1), [0.5, 0.5, 0.5]),
        (domains.log_simplex(-1), [0.0, 0.0, 0.0]),
        (domains.unit_norm(-1), [1.0, 1.0, 0.0]),
        (domains.boxes(), [1.0, 1.0, 0.0, 0.0]),
        (domains.binary(), [1.0, 0.5, 0.0]),
        (domains.positive(), [1.0, -1.0, 2.0]),
        (domains.adjacency(symmetric=True), [[0.0, 1.0], [0.0, 0.0]]),
    ],
    ids=lambda given: repr(given) if isinstance(given, Domain) else "",
)
def test_a_domain_does_not_hold_what_its_structure_forbids(domain: Domain, values: list[float]) -> None:
    given = torch.tensor(values, dtype=domain.dtype(torch.float64))
    assert not domain.holds(given, {**SIZES, "N": 3})
