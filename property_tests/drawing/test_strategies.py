"""Drawn cases: legal for every domain and dims form, of the sizes that their regime promises, small after shrinking, fast."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
import torch

import losses
from harness import DeclarationError, LossSpec, TensorSpec, domains
from harness.declare import dims
from harness.drawing.case import DRAWN_LAYOUTS
from harness.drawing.hypothesis_runs import run
from harness.drawing.strategies import EXACT_ELEMENTS, REGIMES, cases
from property_tests.declare.test_domains import ALL, complaint


def spec_of(inputs, name="drawn", **declared):
    inputs = {n: t if isinstance(t, TensorSpec) else TensorSpec(t) for n, t in inputs.items()}
    return LossSpec(name, {"only": lambda **tensors: None}, inputs=inputs, **declared)


def draws(spec, regime, *, examples=30, start=0, **chosen):
    found = []
    run(cases(spec, regime=regime, **chosen), found.append, examples=examples, start=start, shrink=False)
    return found


FORMS = {
    "one vector": spec_of({"x": "B"}),
    "scalar": spec_of({"x": "", "y": "B"}),
    "linked": spec_of({"x": "B C", "y": "B C", "w": "C"}),
    "four symbols": spec_of({"x": "B C H W", "w": "C"}),
    "fixed by a number": spec_of({"x": "B 3", "y": "B"}),
    "square": spec_of({"e": "N D", "a": TensorSpec("N N", domains.adjacency())}),
    "variadic first": spec_of({"x": "*batch H W", "y": "*batch H W", "m": "H W"}),
    "variadic last": spec_of({"x": "B *rest", "w": "B"}),
    "two variadics": spec_of({"x": "*a B", "y": "B *b"}),
    "broadcastable": spec_of({"x": "B C", "w": "#B #C"}),
    "computed": spec_of({"x": "N", "gaps": "N-1", "pairs": "2*N+1"}),
    "anonymous": spec_of({"x": "B _", "y": "B _"}),
    "anything": spec_of({"x": "B ...", "w": "B"}),
    "class labels": spec_of({"x": "B C", "y": TensorSpec("B", domains.index("C", ignore=-100))}),
    "symbol of a domain only": spec_of({"x": "E", "i": TensorSpec("E", domains.index("N"))}),
    "fixed size": spec_of({"x": "B C", "y": "B"}, fixed_sizes={"C": 4}),
    "large fixed size": spec_of({"x": "B C", "y": "C"}, fixed_sizes={"C": 100}),
}


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("form", FORMS)
def test_every_case_has_the_declared_shapes(form, regime):
    spec = FORMS[form]
    all_dims = {name: tensor.dims for name, tensor in spec.tensors.items()}
    for case in draws(spec, regime, examples=8):
        tensors = case.materialize(spec, layouts=True)
        solved = dims.unify(all_dims, {n: tuple(t.shape) for n, t in tensors.items()}, spec.fixed_sizes)
        assert {name: case.sizes[name] for name in solved} == solved
        assert set(spec.symbols) | set(spec.variadic) <= set(case.sizes)
        assert {name: case.sizes[name] for name in spec.fixed_sizes} == spec.fixed_sizes
        assert case.regime == regime


DOMAINS = [domain for domain in ALL if domain.symbol is None]


@pytest.mark.parametrize("mode", ["smooth", "lattice"])
@pytest.mark.parametrize("domain", DOMAINS, ids=repr)
def test_every_value_is_legal_in_its_domain(domain, mode):
    shape = "N N" if domain.square else "N M"
    spec = spec_of({"x": TensorSpec(shape, domain), "other": "N"})
    for regime in ("free", "large"):
        for case in draws(spec, regime, examples=12, mode=mode):
            values = case.materialize(spec)["x"].double()
            assert complaint(domain, values, case.shape(spec, "x")) is None


@pytest.mark.parametrize("ignore", [None, -100, 0])
def test_every_label_is_a_class_of_the_case(ignore):
    spec = spec_of({"x": "B C", "y": TensorSpec("B", domains.index("C", ignore=ignore))})
    seen = set()
    for regime in REGIMES:
        for case in draws(spec, regime, examples=15):
            labels = case.materialize(spec)["y"]
            assert labels.dtype == torch.int64
            counted = labels[labels != ignore] if ignore is not None else labels
            assert bool(((counted >= 0) & (counted < case.sizes["C"])).all())
            seen |= set(labels.tolist())
    assert ignore is None or ignore in seen


# --- regimes


LINKED = FORMS["four symbols"]


def extents(case):
    return list(itertools.chain.from_iterable(s if isinstance(s, tuple) else (s,) for s in case.sizes.values()))


@pytest.mark.parametrize("form", ["linked", "four symbols", "variadic last", "variadic first", "fixed size"])
@pytest.mark.parametrize("regime", ["distinct", "large"])
def test_distinct_sizes_are_distinct_and_none_is_one(form, regime):
    for case in draws(FORMS[form], regime):
        found = extents(case)
        assert len(set(found)) == len(found)
        assert min(found) >= 2


@pytest.mark.parametrize("form", ["linked", "four symbols", "variadic last", "variadic first", "fixed size"])
def test_coincident_sizes_are_equal_and_there_are_several(form):
    for case in draws(FORMS[form], "coincident"):
        found = extents(case)
        assert len(set(found)) == 1
        assert len(found) >= 2
        assert found[0] >= 2


def test_the_unit_regime_has_a_size_of_one_and_every_symbol_takes_its_turn():
    units = Counter(name for case in draws(LINKED, "unit") for name, size in case.sizes.items() if size == 1)
    assert set(units) == set(LINKED.symbols)
    assert all(1 in case.sizes.values() for case in draws(LINKED, "unit"))


def test_large_sizes_are_larger_than_all_others():
    small = max(
        size
        for regime in ("distinct", "coincident", "unit", "free")
        for c in draws(LINKED, regime)
        for size in extents(c)
    )
    assert min(size for case in draws(FORMS["linked"], "large") for size in extents(case)) >= 6
    assert max(size for case in draws(LINKED, "large") for size in extents(case)) > small


@pytest.mark.parametrize("spec", losses.SPECS, ids=lambda spec: spec.name)
def test_many_elements_are_a_thousand_to_four_thousand(spec):
    for case in draws(spec, "many", examples=5):
        count = sum(math.prod(case.shape(spec, name)) for name in spec.differentiable)
        assert 1000 <= count <= 4096


def test_free_sizes_reach_one_and_equal_and_unequal_ones():
    found = [tuple(case.sizes.values()) for case in draws(FORMS["linked"], "free", examples=60)]
    assert any(1 in sizes for sizes in found)
    assert any(len(set(sizes)) == 1 for sizes in found)
    assert any(len(set(sizes)) > 1 for sizes in found)


@pytest.mark.parametrize("regime", ["distinct", "unit", "free"])
def test_variadic_axes_are_none_one_and_two(regime):
    found = {len(case.sizes["rest"]) for case in draws(FORMS["variadic last"], regime, examples=60)}
    assert found == {0, 1, 2}


def test_computed_axes_are_never_empty():
    for regime in REGIMES:
        assert all(case.shape(FORMS["computed"], "gaps")[0] >= 1 for case in draws(FORMS["computed"], regime))


def test_an_unknown_regime_is_refused_with_the_nearest():
    with pytest.raises(DeclarationError, match="did you mean 'distinct'"):
        cases(LINKED, regime="distnct")


# --- values


def test_lattice_values_tie_and_smooth_ones_do_not():
    spec = spec_of({"x": "N M"})
    for case in draws(spec, "large", mode="lattice"):
        values = case.materialize(spec)["x"]
        assert values.unique().numel() < values.numel()
    for case in draws(spec, "large", mode="smooth"):
        values = case.materialize(spec)["x"]
        assert values.unique().numel() == values.numel()
        assert case.smooth


def test_tensors_of_one_case_are_not_equal_to_each_other():
    for regime, spec in itertools.product(("distinct", "large", "many"), (FORMS["linked"], FORMS["variadic first"])):
        for case in draws(spec, regime, mode="smooth", examples=5):
            tensors = case.materialize(spec)
            assert not torch.equal(tensors["x"], tensors["y"])


def test_small_tensors_are_exact_and_large_ones_come_from_a_seed():
    spec = spec_of({"x": "N M"})
    for regime in ("free", "large"):
        for case in draws(spec, regime):
            exact = case.tensors["x"].values is not None
            assert exact == (case.numel(spec) <= EXACT_ELEMENTS)


def test_every_layout_and_every_asked_dtype_is_drawn():
    found = draws(FORMS["linked"], "distinct", examples=80, dtypes=("float64", "float32", "bfloat16"))
    assert {next(iter(case.layouts.values()), "contiguous") for case in found} == set(DRAWN_LAYOUTS)
    assert {case.dtype for case in found} == {"float64", "float32", "bfloat16"}
    for case in found:
        assert case.materialize(FORMS["linked"])["x"].dtype == getattr(torch, case.dtype)


def test_the_same_start_draws_the_same_cases_and_another_one_others():
    first, again, other = ([case.key for case in draws(LINKED, "distinct", start=start)] for start in (5, 5, 6))
    assert first == again
    assert len(set(first) - set(other)) > len(first) // 2


def test_drawing_leaves_the_global_generators_alone():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    draws(LINKED, "many", examples=5)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())


# --- shrinking


def shrunk(spec, wrong, *, regime="free", mode=None, examples=60):
    """The case that is left where every case fails for which ``wrong`` holds."""

    class Wrong(Exception):
        pass

    last = []

    def check(case):
        if wrong(case.materialize(spec)):
            last.append(case)
            raise Wrong

    with pytest.raises(Wrong):
        run(cases(spec, regime=regime, mode=mode), check, examples=examples, start=1, shrink=True)
    return last[-1], last[-1].materialize(spec)


LINEAR = FORMS["linked"]


def test_what_always_fails_shrinks_to_one_element_each_of_the_simplest_value():
    case, tensors = shrunk(LINEAR, lambda tensors: True)
    assert case.sizes == {"B": 1, "C": 1}
    assert [t.flatten().tolist() for t in tensors.values()] == [[0.0], [0.0], [0.0]]
    assert case.layouts == {}


def test_a_size_shrinks_to_the_smallest_that_fails():
    case, tensors = shrunk(LINEAR, lambda tensors: tensors["x"].shape[1] >= 3)
    assert case.sizes == {"B": 1, "C": 3}
    assert all(not bool(t.any()) for t in tensors.values())


def test_values_shrink_to_the_one_that_fails():
    case, tensors = shrunk(LINEAR, lambda tensors: bool((tensors["x"] < 0).any()), mode="lattice")
    assert case.sizes == {"B": 1, "C": 1}
    assert tensors["x"].tolist() == [[-1.0]]
    assert not tensors["y"].any()


def test_two_sizes_that_must_differ_shrink_to_the_smallest_pair():
    case, _ = shrunk(LINEAR, lambda tensors: tensors["x"].shape[0] != tensors["x"].shape[1])
    assert sorted(case.sizes.values()) == [1, 2]


def test_a_mask_shrinks_to_all_kept_but_what_fails():
    spec = spec_of({"m": TensorSpec("N", domains.boolean())})
    _, tensors = shrunk(spec, lambda tensors: bool((~tensors["m"]).any()))
    assert tensors["m"].tolist() == [False]


def test_a_label_shrinks_to_the_first_class_that_fails():
    spec = FORMS["class labels"]
    case, tensors = shrunk(spec, lambda tensors: bool((tensors["y"] >= 1).any()))
    assert tensors["y"].tolist() == [1]
    assert case.sizes == {"B": 1, "C": 2}


def test_two_equal_elements_shrink_to_two_zeros():
    _, tensors = shrunk(spec_of({"x": "N"}), lambda t: t["x"].unique().numel() < t["x"].numel(), mode="lattice")
    assert tensors["x"].tolist() == [0.0, 0.0]


def test_a_layout_stays_only_where_it_matters():
    spec = spec_of({"x": "N M"})

    class Wrong(Exception):
        pass

    last = []

    def check(case):
        if not case.materialize(spec, layouts=True)["x"].is_contiguous():
            last.append(case)
            raise Wrong

    with pytest.raises(Wrong):
        run(cases(spec), check, examples=100, start=1, shrink=True)
    assert last[-1].layouts
    assert last[-1].numel(spec) <= 4


def test_the_smallest_case_of_distinct_sizes_has_distinct_sizes():
    case, _ = shrunk(LINEAR, lambda tensors: True, regime="distinct")
    assert sorted(case.sizes.values()) == [2, 3]


@pytest.mark.parametrize("regime", REGIMES)
def test_a_computed_axis_always_has_an_element(regime):
    spec = LossSpec(
        "band", {"band": lambda x, y: x.sum() + y.sum()}, inputs={"x": TensorSpec("M-N"), "y": TensorSpec("M N")}
    )
    seen = []
    run(cases(spec, regime=regime), seen.append, examples=30, start=0, shrink=False)
    assert all(case.sizes["M"] > case.sizes["N"] for case in seen)
