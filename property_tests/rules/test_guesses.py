"""What a candidate is guessed to compute is asked of values that the declaration allows."""

import torch

from harness import LossSpec, TensorSpec, domains
from harness.drawing.case import Case, Recipe
from harness.rules.rule import Mismatch
from harness.rules.tools import instead
from harness.rules.tools.instead import computed_instead
from harness.rules.tools.remarks import beside_the_reference
from harness.rules.trial import Trial


def trial(spec, sizes):
    case = Case(spec.name, sizes, {name: Recipe(seed=place) for place, name in enumerate(spec.tensors)})
    return Trial(spec, "candidate", case)


def tree(shape, generator, dtype):
    parents = [int(torch.randint(0, max(node, 1), (1,), generator=generator)) for node in range(shape[0])]
    return torch.tensor(parents, dtype=dtype)


def after_the_others(shape, generator, dtype, sizes, tensors):
    return tensors["rank"].double().cumsum(-1) / sizes["N"] + torch.rand(shape, generator=generator, dtype=dtype)


TIED = {
    "parent": TensorSpec("N", domains.custom(tree), torch.int64),
    "rank": TensorSpec("N", domains.distinct("N")),
    "begins": TensorSpec("S+1", domains.offsets("N")),
    "edges": TensorSpec("N", domains.sorted_along(-1, strict=True)),
    "after": TensorSpec("N", domains.custom(after_the_others)),
}


def test_no_guess_gives_a_loss_what_the_domain_forbids():
    seen, rolled = [], set()

    def reference(x, parent, rank, begins, edges, after):
        rolled.add(tuple(x.tolist()))
        seen.append((parent.tolist(), rank.tolist(), begins.tolist(), edges.tolist(), after - rank.cumsum(-1) / len(x)))
        return (x * x).mean() + (edges + after + parent + rank).sum() * x.sum() + begins.sum()

    def candidate(x, parent, rank, begins, edges, after):
        return (x * x.roll(1)).sum() + (edges * rank).sum()

    both = {"reference": reference, "candidate": candidate}
    spec = LossSpec("tied", both, inputs={**TIED, "x": TensorSpec("N")}, differentiable=("x",))
    computed_instead(trial(spec, {"N": 4, "S": 2}))
    assert len(rolled) > 2  # of x, which nothing ties
    for parent, rank, begins, edges, rest in seen:
        assert all(up < max(node, 1) for node, up in enumerate(parent))
        assert sorted(set(rank)) == sorted(rank)
        assert begins == sorted(begins)
        assert begins[-1] == len(parent)
        assert edges == sorted(set(edges))
        assert bool(((rest >= 0) & (rest <= 1)).all())


def test_what_is_left_alone_may_still_be_guessed():
    def reference(x, y, parent):
        return (x * y[parent]).mean()

    def candidate(x, y, parent):
        return (x * y.roll(1)[parent]).mean()

    declared = {"x": TensorSpec("N"), "y": TensorSpec("N")}
    spec = LossSpec(
        "rolled", {"reference": reference, "candidate": candidate}, inputs=declared, context={"parent": TIED["parent"]}
    )
    assert "y moved by +1 along N" in computed_instead(trial(spec, {"N": 4}))


def test_guesses_end_where_they_take_too_many_operations(monkeypatch):
    monkeypatch.setattr(instead, "OPERATIONS", 3000)
    calls = []

    def reference(x, y, z):
        calls.append(x)
        for _ in range(400):
            x = x + 1
        return (x * y * z).mean()

    def candidate(x, y, z):
        return (x * y.roll(1) - z).mean()

    declared = {name: TensorSpec("N") for name in ("x", "y", "z")}
    spec = LossSpec("long", {"reference": reference, "candidate": candidate}, inputs=declared)
    computed_instead(trial(spec, {"N": 3}))
    few = len(calls)
    monkeypatch.setattr(instead, "OPERATIONS", 300_000)
    computed_instead(trial(spec, {"N": 3}))
    assert few < len(calls) - few


def test_a_guess_that_moves_labels_leaves_those_that_do_not_count():
    def picked(scores, labels, by=0):
        kept = labels != 0
        return torch.where(kept, scores.gather(1, (labels * kept + by).clamp(max=3)[:, None])[:, 0], 0.0).sum()

    def moved(scores, labels):
        return picked(scores, labels, 1)

    inputs = {"scores": TensorSpec("N 4"), "labels": TensorSpec("N", domains.index(4, ignore=0))}
    drawn = {name: Recipe(seed=place) for place, name in enumerate(inputs)}
    of_moved = LossSpec("picked", {"reference": picked, "candidate": moved}, inputs=inputs)
    said = computed_instead(Trial(of_moved, "candidate", Case("picked", {"N": 5}, drawn)))
    assert "labels is off by one" in said


def test_rows_of_a_nested_tensor_are_never_empty_and_not_all_of_one_length():
    lengths = []

    def mean_of_rows(p, y):
        lengths.append(p.offsets().diff().tolist())
        return sum((a - b).square().sum(-1).mean() for a, b in zip(p.unbind(), y.unbind(), strict=True)) / p.shape[0]

    def mean_of_frames(p, y):
        return (p.values() - y.values()).square().sum(-1).mean()

    spec = LossSpec(
        "nested",
        {"reference": mean_of_rows, "candidate": mean_of_frames},
        inputs={name: TensorSpec("N D", jagged="B") for name in ("p", "y")},
    )
    drawn = {name: Recipe(seed=place) for place, name in enumerate(spec.tensors)}
    at = Trial(spec, "candidate", Case("nested", {"N": 5, "D": 2, "B": 2}, drawn))
    assert computed_instead(at) == ""
    assert all(0 not in rows and len(set(rows)) > 1 for rows in lengths)
    found = beside_the_reference(at, Mismatch("loss", "1", "2", kind="value"))
    assert (found.hint, found.note) == ("", "")


def test_nothing_is_said_of_a_mean_that_has_no_number_for_one_position():
    def reference(x):
        return x.std(0).mean()  # NaN of one row

    def candidate(x):
        return x.square().mean()

    spec = LossSpec("deviation", {"reference": reference, "candidate": candidate}, inputs={"x": TensorSpec("B D")})
    assert computed_instead(trial(spec, {"B": 3, "D": 2})) == ""  # both are means over D
