"""Compiled variants: their names, what is compiled afresh, and their trials under the light `eager` backend or the full one."""

import functools
import os

import pytest
import torch
from fake_time import AMPLE_S, FakeTime
from timed_losses import SPECS, Module, naive, raises, spec_of, vectorized, wrong_axis
from torch._dynamo.backends.debugging import aot_eager, boxed_nop

from harness.results.measured import Cell
from harness.results.variants import compiled_names, eager_name, variants_of
from harness.timing import session as sessions
from harness.timing.admission import Patience, admit
from harness.timing.benchmark import benchmark
from harness.timing.compilation import freshly_compiled
from harness.timing.compiled import compiling, own_cache, unavailable_compiler
from harness.timing.design import Contestant, Heat
from harness.timing.processes import target_of, time_in_fresh_process
from harness.timing.session import Course

CELL = Cell({"B": 5, "C": 4}, "cpu", "float32", "full")
PASSES = ("forward", "backward", "full")


class Light:
    """A compiler that captures graphs and runs them as they are: what is tested is all but the code that is generated."""

    def __init__(self):
        self.time, self.seconds = FakeTime(), {"forward": 0.0, "backward": 0.0}

    def takes(self, time, **seconds):
        """From now on compiling a graph moves a time."""
        self.time, self.seconds = time, seconds

    def __call__(self, graph, inputs):
        return aot_eager(graph, inputs, fw_compiler=self._of("forward"), bw_compiler=self._of("backward"))

    def _of(self, pass_name):
        def compiles(graph, inputs):
            self.time.sleep(self.seconds[pass_name])
            return boxed_nop(graph, inputs)

        return compiles


@pytest.fixture
def light(monkeypatch):
    made, real = Light(), torch.compile
    monkeypatch.setattr(torch, "compile", functools.partial(real, backend=made))
    unavailable_compiler.cache_clear()
    assert unavailable_compiler("cpu") is None
    yield made
    unavailable_compiler.cache_clear()


def tried(spec, name, passes=PASSES, reference=None):
    return admit(spec, name, CELL, passes, reference or {}, seed=0, patience=Patience(AMPLE_S))


# ---- names ---------------------------------------------------------------------------------------------------------------


def test_a_variant_is_named_after_its_implementation_and_found_again():
    names = compiled_names(["naive", "fast"])
    assert names == ("naive (compiled)", "fast (compiled)")
    assert [eager_name(["naive", "fast"], name) for name in ("naive", *names)] == [None, "naive", "fast"]
    assert variants_of(["naive"], "naive", names) == ["naive (compiled)"]
    assert variants_of(["naive"], "naive (compiled)", ["naive"]) == ["naive"]
    assert variants_of(["naive", "fast"], "fast", ["fast"]) == []


# ---- compiling -----------------------------------------------------------------------------------------------------------


def test_every_variant_of_one_code_is_compiled_on_its_own_beyond_the_compilers_limit(light):
    def shared(value):
        return (value * value).sum()

    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    for size in range(2, 14):  # the limit is 8 variants of one code
        assert freshly_compiled(shared)(value=torch.ones(size)).item() == size
    assert graphs["unique_graphs"] - before == 12


@pytest.mark.parametrize("name", ["naive", "module", "partial"])
def test_functions_modules_and_other_callables_are_compiled_and_give_what_they_gave(light, name):
    spec = spec_of("others", module=Module, partial=functools.partial(vectorized))
    trials = tried(spec, f"{name} (compiled)", reference=tried(spec, "naive"))
    assert {trial.status for trial in trials.values()} == {"measured"}, trials
    assert (trials["full"].costs.graphs, trials["full"].costs.graph_breaks) == (1, 0)


def test_a_function_that_is_compiled_keeps_its_defaults_and_what_it_closes_over(light):
    factor = torch.tensor(3.0)

    def closes(value, *, power=2, more=1.0):
        return factor * value.sum() ** power + more

    assert freshly_compiled(closes)(value=torch.ones(2)).item() == 13.0


def test_the_limits_of_the_user_come_back(light):
    before = torch._dynamo.config.recompile_limit
    with compiling("backward"):
        assert torch._dynamo.config.recompile_limit > 1000
        assert not torch._functorch.config.donated_buffer
    with compiling("full"):
        assert torch._functorch.config.donated_buffer
    assert torch._dynamo.config.recompile_limit == before


@pytest.mark.parametrize("before", [None, "/somewhere"])
def test_the_compilers_cache_is_ours_for_a_while_and_then_the_users_again(monkeypatch, before):
    name = "TORCHINDUCTOR_CACHE_DIR"
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    with own_cache():
        first = os.environ[name]
        assert os.path.isdir(first)
        assert first != before
    assert os.environ.get(name) == before
    with own_cache():
        assert os.environ[name] == first  # workers and later losses find it again


# ---- trials --------------------------------------------------------------------------------------------------------------


def test_a_compiled_variant_is_held_to_the_reference_and_its_time_to_compile_stands_apart(light, fake_time):
    light.takes(fake_time, forward=2.0, backward=3.0)
    trials = tried(SPECS[0], "vectorized (compiled)", reference=tried(SPECS[0], "naive"))
    assert {trial.status for trial in trials.values()} == {"measured"}
    costs = trials["full"].costs
    assert (costs.graphs, costs.graph_breaks, costs.recompilations) == (1, 0, 0)
    assert costs.aten_calls is None  # ATen does not see what a compiled kernel does
    assert costs.saved_bytes > 0
    assert costs.peak_bytes > 0
    assert (trials["forward"].compile_seconds, trials["full"].compile_seconds) == (2.0, 5.0)
    assert trials["full"].seconds == 0  # for the compiler alone took time
    eager = tried(SPECS[0], "vectorized")
    for name in PASSES:
        for value, should in zip(trials[name].values, eager[name].values, strict=True):
            assert torch.allclose(value, should)


def test_a_graph_break_is_counted(light):
    def breaks(predictions, labels, weights):
        loss = vectorized(predictions, labels, weights)
        torch._dynamo.graph_break()
        return 2 * loss / 2

    trial = tried(spec_of("breaking", breaks=breaks), "breaks (compiled)")["full"]
    assert trial.status == "measured", trial.reason
    costs = trial.costs
    assert (costs.graphs, costs.graph_breaks) == (2, 1)


@pytest.mark.parametrize(
    ("implementation", "reason"), [(raises, "ValueError: no such thing"), (wrong_axis, "shape|differs|size")]
)
def test_a_compiled_variant_that_is_wrong_fails_as_its_eager_form_does(light, implementation, reason):
    spec = spec_of("faulty", candidate=implementation)
    trials = tried(spec, "candidate (compiled)", reference=tried(spec, "naive"))
    assert {trial.status for trial in trials.values()} == {"failed"}


def test_without_a_compiler_the_variants_are_skipped_with_the_reason_and_the_others_are_not(monkeypatch):
    why = "torch.compile does not work on cpu here: InvalidCxxCompiler: No working C++ compiler found"
    monkeypatch.setattr(sessions, "unavailable_compiler", lambda device: why)
    session = Course(SPECS[0], ["naive", "vectorized", "vectorized (compiled)"], [CELL], budget_s=AMPLE_S, seed=0)
    session.admit_all()
    assert [session.trials[0, name].status for name in session.names] == ["measured", "measured", "skipped"]
    assert session.trials[0, "vectorized (compiled)"].reason == why


def test_what_the_compiler_raises_is_the_reason(monkeypatch):
    def broken(function, **_):
        raise RuntimeError("\nNo working C++ compiler found in torch._inductor.config.cpp.cxx: (None, 'g++')\nmore")

    monkeypatch.setattr(torch, "compile", broken)
    unavailable_compiler.cache_clear()
    try:
        assert unavailable_compiler("cpu") == (
            "torch.compile does not work on cpu here: RuntimeError: No working C++ compiler found in "
            "torch._inductor.config.cpp.cxx: (None, 'g++')"
        )
    finally:
        unavailable_compiler.cache_clear()


def test_what_would_take_longer_to_compile_than_there_is_is_not_compiled_and_says_so(light, fake_time):
    def loop(predictions, labels, weights):
        return naive(predictions, labels, weights)

    cell = Cell({"B": 24, "C": 24}, "cpu", "float32", "forward")
    session = Course(spec_of("unrolled", loop=loop), ["naive", "loop", "loop (compiled)"], [cell], budget_s=10, seed=0)
    session.admit_all()
    trial = session.trials[0, "loop (compiled)"]
    assert trial.status == "skipped"
    assert "ATen calls takes about" in trial.reason
    assert session.trials[0, "loop"].status == "measured"


def test_what_is_wrong_or_too_slow_is_not_compiled(light):
    session = Course(
        spec_of("faulty", raises=raises), ["naive", "raises", "raises (compiled)"], [CELL], budget_s=AMPLE_S, seed=0
    )
    session.admit_all()
    trial = session.trials[0, "raises (compiled)"]
    assert (trial.status, trial.reason) == ("skipped", "not compiled, for raises was failed here")


# ---- a benchmark ---------------------------------------------------------------------------------------------------------


def test_variants_are_timed_beside_all_others_and_compared_with_the_reference_and_their_eager_form(light, monkeypatch):
    monkeypatch.setattr(sessions, "target_of", lambda spec: (None, "the test says so"))
    result = benchmark(SPECS[0], implementations=["vectorized"], passes=("full",), budget_s=AMPLE_S, compiled=True)
    found = {m.implementation: m for m in result.measurements}
    assert set(found) == {"naive", "vectorized", "naive (compiled)", "vectorized (compiled)"}
    assert {m.status for m in found.values()} == {"measured"}, {n: m.reason for n, m in found.items()}
    assert found["vectorized"].compile_seconds is None
    assert found["vectorized (compiled)"].compile_seconds > 0
    assert [(c.implementation, c.reference) for c in result.comparisons] == [
        ("vectorized", "naive"),
        ("naive (compiled)", "naive"),
        ("vectorized (compiled)", "naive"),
        ("vectorized (compiled)", "vectorized"),
    ]
    assert result.frame()["graphs"].dropna().tolist() == [1, 1]


# The only test of generated code: it takes longer where the compiler's headers are not compiled yet.
def test_a_fresh_process_compiles_before_it_times_and_says_how_long_the_compiler_took_to_load():
    contestants = {name: Contestant(1e-4, compile_s=1.0) for name in ("vectorized", "vectorized (compiled)")}
    answer = time_in_fresh_process(
        SPECS[0],
        str(target_of(SPECS[0])[0]),
        [Heat(CELL, contestants, rounds=3)],
        device="cpu",
        left_s=AMPLE_S,
        process=0,
        processes=1,
        seed=0,
    )
    assert (answer.broken, answer.unloadable) == ("", "")
    assert answer.tools_s > 0
    found = {samples.implementation: samples for samples in answer.samples}
    assert {samples.status for samples in found.values()} == {"measured"}, found
    assert len(found["vectorized (compiled)"].seconds_per_call) == 3
    assert found["vectorized (compiled)"].loss == pytest.approx(found["vectorized"].loss, rel=1e-4)
