"""The suite that asv runs: its parameters, its profiles, and what it does with what cannot run."""

import json
import math
import sys

import pytest
import torch

pytest.importorskip("asv_runner")

import json5
from asv_runner.benchmarks.mark import SkipNotImplemented

from asv_benchmarks.benchmarks import exact_costs, parameters, profiles, times
from harness import LossSpec, TensorSpec
from harness.timing.workload import checked_sizes, elements
from losses import SPECS

BY_NAME = {spec.name: spec for spec in SPECS}


@pytest.mark.parametrize("module", [exact_costs, times])
def test_every_loss_has_benchmarks_over_its_implementations(module):
    for spec in SPECS:
        benchmarks = getattr(module, spec.name)
        assert list(benchmarks.params[0]) == list(spec.implementations)
        assert tuple(benchmarks.param_names) == ("implementation", "size", "device")
        assert len(benchmarks.params) == 3


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("name", profiles.PROFILES)
def test_a_label_says_which_sizes_it_stands_for(spec, name):
    labelled = [(parameters.label(sizes), sizes) for sizes in profiles.sizes(spec, profiles.PROFILES[name])]
    assert [parameters.read_label(spec, label) for label, _ in labelled] == [sizes for _, sizes in labelled]
    assert len({label for label, _ in labelled}) == len(labelled)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_fast_is_the_smallest_size_and_large_goes_beyond_the_largest(spec):
    fast, regular, large = (profiles.sizes(spec, profiles.PROFILES[name]) for name in ("fast", "regular", "large"))
    assert fast == regular[:1]
    assert tuple(regular) == checked_sizes(spec, None)
    assert large[: len(regular)] == regular
    assert all(elements(spec, beyond) > elements(spec, regular[-1]) for beyond in large[len(regular) :])


def test_fast_leaves_the_loops_out_and_others_have_every_implementation():
    both = {"input": TensorSpec("B"), "target": TensorSpec("B")}
    alone = LossSpec("alone", {"only": torch.nn.functional.mse_loss}, inputs=both, output=TensorSpec(""))
    for spec in (*SPECS, alone):
        names = list(spec.implementations)
        found = {name: profiles.implementations(spec, profile) for name, profile in profiles.PROFILES.items()}
        assert found == {"fast": names[1:] or names, "regular": names, "large": names}


def _squared(*sizes):
    both = {"predictions": TensorSpec("*batch B"), "labels": TensorSpec("*batch B")}
    loss = {"only": lambda predictions, labels: (predictions - labels).square().mean()}
    return LossSpec("squared", loss, inputs=both, output=TensorSpec(""), bench_sizes=sizes)


def test_large_doubles_what_may_grow_twice_and_stops_where_tensors_have_too_many_elements():
    found = profiles.sizes(_squared({"batch": (2,), "B": 64}), profiles.PROFILES["large"])
    assert found == [{"batch": (2,), "B": size} for size in (64, 128, 256)]
    large = {"batch": (), "B": profiles.MOST_ELEMENTS // 4}  # two tensors: doubled they just fit
    assert [sizes["B"] for sizes in profiles.sizes(_squared(large), profiles.PROFILES["large"])] == [2**23, 2**24]


def test_the_environment_chooses_the_profile_and_a_wrong_name_is_refused():
    assert profiles.chosen({}) == profiles.PROFILES[profiles.configured()["profile"]]
    assert profiles.chosen({profiles.VARIABLE: "large"}) == profiles.PROFILES["large"]
    with pytest.raises(ValueError, match=r"LOSS_HARNESS_ASV_PROFILE='quick' came.*fast, regular, large"):
        profiles.chosen({profiles.VARIABLE: "quick"})


def test_asv_has_no_setup_to_run_before_every_timed_call():
    for spec in SPECS:
        assert not hasattr(getattr(times, spec.name), "setup")


def test_what_cannot_run_is_not_available():
    spec = SPECS[0]
    smallest, larger = (parameters.label(sizes) for sizes in checked_sizes(spec, None)[:2])
    grid = (list(spec.implementations), [smallest, larger], ["cpu"])
    with pytest.raises(NotImplementedError, match="a loop over elements"):
        parameters.workload(spec.name, grid, spec.reference, larger, "cpu")
    with pytest.raises(NotImplementedError, match=f"no fused9 implementation of {spec.name}"):
        parameters.workload(spec.name, grid, "fused9", smallest, "cpu")
    with pytest.raises(NotImplementedError, match="no naive implementation of unheard_of"):
        parameters.workload("unheard_of", grid, "naive", smallest, "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(NotImplementedError, match="torch sees no cuda here"):
            parameters.workload(spec.name, grid, spec.reference, smallest, "cuda")
    benchmark = getattr(times, spec.name)()
    with pytest.raises(SkipNotImplemented, match="no fused9"):
        benchmark.time_full("fused9", smallest, "cpu")


def _counted(monkeypatch, grids):
    monkeypatch.setattr(exact_costs, "_GRIDS", grids)
    benchmark = getattr(exact_costs, SPECS[0].name)()
    return benchmark, benchmark.setup_cache()


def test_every_cost_is_that_of_one_count_and_has_a_unit(monkeypatch):
    spec = SPECS[0]
    size = parameters.label(checked_sizes(spec, None)[0])
    fast = list(spec.implementations)[1]
    benchmark, counted = _counted(monkeypatch, {spec.name: [[fast], [size], ["cpu"]]})
    costs = counted[spec.name, fast, size, "cpu"]
    assert costs["aten_calls"] > 0
    benchmark.setup(counted, fast, size, "cpu")
    known = {field: value for field, value in costs.items() if value is not None}
    assert {name.removeprefix("track_") for name in dir(benchmark) if name.startswith("track_")} == set(known)
    for field, value in known.items():
        track = getattr(benchmark, f"track_{field}")
        assert track(counted, fast, size, "cpu") == value
        assert track.unit in ("calls", "bytes", "flops", "reads")


def test_a_cost_that_this_commit_does_not_count_is_not_available():
    benchmark = getattr(exact_costs, SPECS[0].name)()
    benchmark.found = {"aten_calls": 3}
    assert math.isnan(exact_costs._metric("novelty")(benchmark, {}, "naive", "", "cpu"))


def test_a_loss_that_raises_fails_alone_and_says_why(monkeypatch):
    first, second = SPECS[:2]
    fast = list(first.implementations)[1]

    def workload(loss, *arguments):
        if loss == first.name:
            raise RuntimeError("broken here")
        return parameters.workload(loss, *arguments)

    monkeypatch.setattr(exact_costs, "workload", workload)
    grids = {s.name: [[fast], [parameters.label(checked_sizes(s, None)[0])], ["cpu"]] for s in (first, second)}
    benchmark, counted = _counted(monkeypatch, grids)
    with pytest.raises(RuntimeError, match="RuntimeError: broken here"):
        benchmark.setup(counted, *(axis[0] for axis in grids[first.name]))
    assert counted[second.name, *(axis[0] for axis in grids[second.name])]["aten_calls"] > 0


@pytest.fixture
def filed(monkeypatch, tmp_path):
    """A commit that asv runs with the parameters that it discovered at another one."""
    path = tmp_path / "benchmarks.json"
    params = [["'naive'", "'fused9'"], ["'B=2'"], ["'cpu'"]]
    path.write_text(
        json.dumps({"exact_costs.unheard_of.track_novelty": {"params": params}, "version": 2}), encoding="utf-8"
    )
    monkeypatch.setattr(parameters, "DISCOVERED", path)
    return monkeypatch


@pytest.mark.parametrize("command", ["run", "run_server", "setup_cache"])
def test_a_commit_that_asv_runs_has_the_parameters_under_which_asv_files_its_results(filed, command):
    filed.setattr(sys, "argv", ["somewhere/asv/benchmark.py", command])
    grids = parameters.grids("exact_costs")
    assert grids["unheard_of"] == [["naive", "fused9"], ["B=2"], ["cpu"]]
    assert set(BY_NAME) < set(grids)
    assert set(parameters.grids("times")) == set(BY_NAME)


@pytest.mark.parametrize("argv", [["asv/benchmark.py", "discover"], ["asv/benchmark.py"], ["pytest", "run"]])
def test_discovery_and_others_have_the_commits_own_parameters(filed, argv):
    filed.setattr(sys, "argv", argv)
    assert set(parameters.grids("exact_costs")) == set(BY_NAME)


def test_parameters_are_looked_for_where_asv_stores_them():
    folder = profiles.CONFIG.parent.parent
    configured = json5.loads((folder / "asv.conf.json").read_text(encoding="utf-8"))
    assert folder / configured["results_dir"] / "benchmarks.json" == parameters.DISCOVERED
