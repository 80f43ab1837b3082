import json
import sys
import threading
from collections.abc import Iterable
from dataclasses import replace

import pytest
import scripted_losses
import torch
from fake_time import AMPLE_S, install
from timed_losses import SPECS, naive, not_finite, raises, spec_of, talks, vectorized, wrong_axis, wrong_gradient

from harness import DeclarationError, HarnessError, LossSpec, TensorSpec
from harness.results.measured import Cell
from harness.timing import session as sessions
from harness.timing.benchmark import Benchmark, Measurement, _bases, _not_below_its_parts, benchmark
from harness.timing.constants import LOOKS, PROCESSES, ROUNDS
from harness.timing.processes import Answer, time_in_fresh_process
from harness.timing.worker import MARK


@pytest.fixture
def here(monkeypatch):
    """Timing in this process, which starts at once."""
    monkeypatch.setattr(sessions, "target_of", lambda spec: (None, "the test says so"))


def unseen_from_outside(*given, **named):
    """What a fresh process says by its scripted time, without what the process beside it saw by the machine's."""
    answer = time_in_fresh_process(*given, **named)
    return replace(answer, samples=tuple(replace(samples, outside=None) for samples in answer.samples))


def in_fresh_processes(spec: LossSpec) -> Benchmark:
    """A benchmark of losses that last as long as they say, here and where they are timed."""
    with pytest.MonkeyPatch.context() as patch:
        install(scripted_losses.TIME, patch.setattr)
        patch.setattr(sessions, "time_in_fresh_process", unseen_from_outside)
        return benchmark(spec, passes=("full",), budget_s=AMPLE_S, rounds=ROUNDS)


@pytest.fixture(scope="module")
def far() -> Benchmark:
    """Of a loop against tensors."""
    return in_fresh_processes(scripted_losses.FAR)


@pytest.fixture(scope="module")
def close() -> Benchmark:
    """Of two that are equally fast."""
    return in_fresh_processes(scripted_losses.CLOSE)


def lasting(fake_time, name, reference="naive", **seconds):
    """A spec of implementations that take so many seconds a call by the time of the test, and the loop a millisecond."""
    made = {who: fake_time.lasting(each, vectorized) for who, each in seconds.items()}
    loops = {} if reference in made else {"naive": fake_time.lasting(1e-3, naive)}
    return spec_of(name, reference, **loops, **made)


def endless_by(fake_time):
    """A loop without end, each step of which takes a hundredth of a second by the time of the test."""

    def endless(predictions, labels, weights):
        total = predictions.sum()
        while True:
            fake_time.sleep(0.01)
            total = total + weights[0]

    return endless


def unmeasured(measurements: Iterable[Measurement]) -> list[tuple[str, str, str]]:
    """What a failed test should show of those that have no time: the reason."""
    return [(m.implementation, m.status, m.reason) for m in measurements if m.status != "measured"]


def rows(result: Benchmark) -> dict[tuple[str, str], Measurement]:
    return {(m.implementation, m.pass_name): m for m in result.measurements}


def test_what_is_equally_fast_is_settled_by_half_of_the_rounds_in_three_fresh_processes(close):
    assert [m.implementation for m in close.measurements] == ["vectorized", "module"]
    for measurement in close.measurements:
        assert measurement.status == "measured"
        assert len(measurement.seconds_per_call) == len(measurement.process) == ROUNDS // 2
        assert set(measurement.process) == set(range(PROCESSES))
        assert measurement.costs
        assert min(measurement.seconds_per_call) < measurement.median_seconds < max(measurement.seconds_per_call)
    assert close.environment["timed_in"] == "fresh processes"
    assert close.environment["threads"] == 1
    assert close.notes == ()
    assert [(c.verdict, c.rounds, c.reason) for c in close.comparisons] == [
        ("equivalent", ROUNDS // 2, f"settled after {ROUNDS // 2} rounds in {PROCESSES} processes")
    ]


def test_what_is_far_from_the_reference_is_settled_in_two_processes_by_few_rounds(far):
    for comparison in far.comparisons:
        assert (comparison.reference, comparison.verdict) == ("naive", "faster")
        assert comparison.rounds == 2 * LOOKS[0]
        assert comparison.low <= comparison.speedup <= comparison.high
        assert comparison.speedup == pytest.approx(20, rel=0.04)
        assert comparison.reason == f"settled after {2 * LOOKS[0]} rounds in 2 processes"
    assert [m.reason.partition(": ")[2] for m in far.measurements] == [
        "they settled every comparison with it",
        "they settled its comparison",
        "they settled its comparison",
    ]


def test_the_frames_are_tidy_and_have_units_in_their_names(far):
    frame = far.frame()
    assert len(frame) == 3
    assert {"median_seconds", "saved_bytes", "aten_calls", "peak_bytes", "size_B", "size_C"} <= set(frame.columns)
    assert frame["saved_bytes"].tolist() == [m.costs["saved_bytes"] for m in far.measurements]
    assert frame["peak_bytes"].notna().all()
    assert far.comparisons_frame()["verdict"].tolist() == ["faster", "faster"]


def test_an_implementation_that_is_wrong_is_neither_timed_nor_ranked(here, monkeypatch):
    timed = []
    monkeypatch.setattr(
        sessions, "measure", lambda spec, heats, **_: timed.extend(name for heat in heats for name in heat.contestants)
    )
    spec = spec_of("faulty", wrong_axis=wrong_axis, wrong_gradient=wrong_gradient, not_finite=not_finite, raises=raises)
    result = benchmark(spec, budget_s=AMPLE_S)
    found = rows(result)
    assert set(timed) == {"naive", "wrong_gradient"}
    assert timed.count("wrong_gradient") == 1  # its forward pass is right
    assert result.comparisons == ()
    for key, reason in {
        ("wrong_axis", "forward"): "differs from the reference on the timed input: loss",
        ("wrong_axis", "full"): "differs from the reference on the timed input: loss",
        ("wrong_gradient", "full"): "differs from the reference on the timed input: gradient",
        ("not_finite", "forward"): "the loss on the timed input is not finite",
        ("raises", "full"): "ValueError: no such thing",
    }.items():
        assert found[key].status == "failed"
        assert found[key].reason.startswith(reason)
        assert found[key].seconds_per_call == ()
        assert found[key].median_seconds is None


def exits(predictions, labels, weights):
    sys.exit(3)


def test_who_exits_is_failed_and_who_prints_writes_to_stderr(here, capfd):
    result = benchmark(spec_of("rude", exits=exits, talks=talks), passes=("forward",), budget_s=AMPLE_S)
    assert [(m.status, m.reason) for m in result.measurements if m.implementation == "exits"] == [
        ("failed", "SystemExit: 3")
    ]
    assert rows(result)["talks", "forward"].status == "measured"
    came = capfd.readouterr()
    assert (came.out, set(came.err.splitlines())) == ("", {"{not json"})


def test_a_missing_device_is_skipped_with_the_reason_and_the_others_are_measured(here):
    device = f"cuda:{torch.cuda.device_count()}"
    result = benchmark(SPECS[0], devices=("cpu", device), passes=("forward",), budget_s=AMPLE_S)
    skipped = [m for m in result.measurements if m.device == device]
    assert [m.status for m in skipped] == ["skipped"] * 3
    assert all("CUDA" in m.reason for m in skipped)
    assert unmeasured(m for m in result.measurements if m.device == "cpu") == []
    assert any(device in note for note in result.notes)
    assert {c.device for c in result.comparisons} == {"cpu"}


@pytest.fixture
def busy_thread():
    """Another thread of this process that works all the time, as a notebook's or a test's may."""
    over = threading.Event()

    def work():
        while not over.wait(1e-4):
            sum(range(3000))

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


def test_what_other_threads_of_the_calling_process_do_is_no_fault_of_a_loss(here, busy_thread):
    result = benchmark(SPECS[0], passes=("forward",), budget_s=AMPLE_S, rounds=6)
    assert [(m.status, m.reason) for m in result.measurements if m.status == "failed"] == []
    assert result.findings == ()
    assert any(note.startswith("other threads of the calling process work") for note in result.notes)


def test_an_endless_loop_keeps_the_budget_and_is_skipped(here, fake_time):
    spec = lasting(fake_time, "endless", vectorized=1e-4)
    spec = spec.replace(implementations={**spec.implementations, "endless": endless_by(fake_time)})
    result = benchmark(spec, budget_s=3)
    assert fake_time.now < 3
    found = rows(result)
    assert found["endless", "forward"].status == "skipped"
    assert "one call takes longer than" in found["endless", "forward"].reason
    assert found["vectorized", "full"].status == "measured"
    assert {c.implementation for c in result.comparisons} == {"vectorized"}


def test_what_was_too_slow_is_not_tried_again_on_a_larger_input(here, fake_time):
    spec = spec_of("endless", naive=fake_time.lasting(1e-3, naive), endless=endless_by(fake_time))
    sizes = [{"B": 3, "C": 3}, {"B": 3, "C": 4}, {"B": 3, "C": 5}]
    result = benchmark(spec, sizes=sizes, passes=("forward",), budget_s=3)
    assert fake_time.now < 3
    reasons = [m.reason for m in result.measurements if m.implementation == "endless"]
    assert "which is no larger" in reasons[1]
    assert "which is no larger" in reasons[2]


def test_everyone_has_an_interval_at_one_size_before_anyone_has_a_second(here, fake_time):
    slow = {f"slow_{n}": fake_time.lasting(0.05, vectorized) for n in range(4)}
    spec = spec_of("crowded", "naive", naive=fake_time.lasting(0.05, naive), **slow)
    sizes = [{"B": b, "C": 3} for b in (3, 6)]
    result = benchmark(spec, sizes=sizes, passes=("forward",), budget_s=3.2)
    compared = {(c.sizes["B"], c.implementation) for c in result.comparisons}
    assert {(3, name) for name in slow} <= compared
    assert fake_time.now < 4


def test_slow_implementations_get_fewer_rounds_and_say_so(here, fake_time):
    spec = lasting(fake_time, "slow", "slow", slow=0.15, slow_too=0.15)
    result = benchmark(spec, passes=("forward",), budget_s=4)
    assert fake_time.now <= 4
    measured = rows(result)["slow_too", "forward"]
    assert measured.status == "measured"
    assert 1 < len(measured.seconds_per_call) < ROUNDS
    assert measured.median_seconds == pytest.approx(0.15)
    assert f"{len(measured.seconds_per_call)} of {ROUNDS} rounds: one call takes 0.15 s" in measured.reason
    assert result.comparisons[0].verdict in ("equivalent", "inconclusive")
    assert f"fewer than the {ROUNDS} that were planned" in result.comparisons[0].reason


def test_what_is_far_from_the_reference_gives_its_time_back_in_one_process_too(here, fake_time):
    result = benchmark(lasting(fake_time, "slow", slow=0.15), passes=("forward",), budget_s=60)
    assert fake_time.now < 30
    assert [(c.verdict, c.rounds) for c in result.comparisons] == [("slower", LOOKS[1])]


def test_what_would_take_too_long_by_its_growth_is_not_begun_and_has_a_labelled_estimate(here, fake_time):
    def sleeps_by_the_row(predictions, labels, weights):
        fake_time.sleep(0.002 * predictions.shape[0])
        return vectorized(predictions, labels, weights)

    quick = fake_time.lasting(1e-4, vectorized)
    spec = spec_of("growing", "vectorized", vectorized=quick, sleeps=sleeps_by_the_row)
    result = benchmark(spec, sizes=[{"B": b, "C": 3} for b in (8, 16, 4096)], passes=("forward",), budget_s=4)
    assert fake_time.now < 8
    small, middle, large = (m for m in result.measurements if m.implementation == "sleeps")
    assert (small.status, middle.status, large.status) == ("measured", "measured", "skipped")
    assert large.estimated_seconds == pytest.approx(0.002 * 4096)
    assert large.reason.startswith("not begun: by its growth so far, one call takes far longer than")
    assert f"; estimated from B=8 and 16: about {large.estimated_seconds:.2g} s" in large.reason
    assert large.seconds_per_call == ()
    assert [c.sizes["B"] for c in result.comparisons] == [8, 16]
    assert {m.estimated_seconds for m in result.measurements if m is not large} == {None}


def test_no_full_pass_is_estimated_below_the_pass_within_it():
    def row(pass_name, status, median_s, estimated_s, sizes=("B", 8)):
        times = () if median_s is None else (median_s,)
        cell, reason = Cell(dict([sizes]), "cpu", "float32", pass_name), "too slow; estimated from B=2"
        place = vars(cell) | {"implementation": "slow", "status": status, "reason": reason}
        return Measurement(**place, seconds_per_call=times, estimated_seconds=estimated_s)

    forward, full = row("forward", "measured", 3.0, None), row("full", "skipped", None, 2.0)
    other = row("forward", "measured", 9.0, None, ("B", 16))
    mended = _not_below_its_parts(full, (forward, full, other))
    assert mended.estimated_seconds == 3.0
    assert mended.reason == "too slow; estimated by the pass within it: about 3 s"
    above = row("full", "skipped", None, 4.0)
    assert _not_below_its_parts(above, (forward, above)) is above
    assert _not_below_its_parts(forward, (forward, full)) is forward


def test_a_candidate_that_cannot_be_held_to_a_slow_reference_says_so_and_is_not_ranked(here, fake_time):
    spec = LossSpec(
        "unheld",
        {"endless": endless_by(fake_time), "vectorized": fake_time.lasting(1e-4, vectorized)},
        inputs={"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
        context={"weights": TensorSpec("B")},
        bench_sizes=({"B": 3, "C": 3},),
    )
    result = benchmark(spec, passes=("forward",), budget_s=3)
    assert rows(result)["vectorized", "forward"].status == "measured"
    assert "not compared with endless, which was skipped here" in rows(result)["vectorized", "forward"].reason
    assert result.comparisons == ()


def test_a_spec_that_no_file_holds_is_timed_in_this_process_and_a_note_says_so():
    threads = torch.get_num_threads()
    spec = spec_of("nowhere", vectorized=lambda predictions, labels, weights: vectorized(predictions, labels, weights))
    result = benchmark(spec, passes=("forward",), budget_s=AMPLE_S)
    assert [m.status for m in result.measurements] == ["measured", "measured"]
    assert set(result.measurements[0].process) == {0}
    assert "'nowhere' cannot be loaded in a fresh one" in result.notes[0]
    assert "/" not in result.notes[0]
    assert result.environment["timed_in"] == "the calling process"
    assert torch.get_num_threads() == threads


def test_another_function_in_the_fresh_process_is_not_passed_off_as_this_one(monkeypatch):
    fake = sessions.Samples(0, "vectorized", "measured", "", 10, (1e-6, 1e-6), loss=12345.0)
    answer = Answer((fake,), {"threads": 1}, 0.1)
    monkeypatch.setattr(sessions, "time_in_fresh_process", lambda *_, **__: answer)
    result = benchmark(SPECS[0], passes=("forward",), budget_s=AMPLE_S)
    measured = rows(result)["vectorized", "forward"]
    assert measured.status == "failed"
    assert "in a fresh process its loss was 12345" in measured.reason
    assert measured.seconds_per_call == ()


def test_who_breaks_a_process_is_failed_and_the_rest_goes_on(monkeypatch):
    asked = []

    def break_at_first(spec, target, heats, **_):
        asked.append([sorted(heat.contestants) for heat in heats])
        good = [
            sessions.Samples(at, name, "measured", "", 10, (1e-6, 1e-6))
            for at, heat in enumerate(heats)
            for name in heat.contestants
            if len(asked) > 1 or (name == "naive" and at == 0)
        ]
        return Answer(tuple(good), {"threads": 1}, 0.01, broken="it died of SIGSEGV: ..." if len(asked) == 1 else "")

    monkeypatch.setattr(sessions, "time_in_fresh_process", break_at_first)
    result = benchmark(spec_of("breaking", vectorized=vectorized), budget_s=AMPLE_S)
    assert rows(result)["vectorized", "forward"].status == "failed"
    assert "SIGSEGV" in rows(result)["vectorized", "forward"].reason
    assert rows(result)["vectorized", "full"].status == "measured"
    assert asked[1] == [["naive"], ["naive", "vectorized"]]
    assert any("timing process 1 broke" in note for note in result.notes)


def test_a_loss_whose_costs_cannot_be_counted_is_timed_all_the_same(here):
    def through_transforms(predictions, labels, weights):
        rows_of = torch.func.vmap(lambda p, y, w: w * (p - y) ** 2)
        value, _ = torch.func.vjp(lambda p: rows_of(p, labels, weights).mean(), predictions)
        return value

    result = benchmark(spec_of("transforms", transforms=through_transforms), passes=("forward",), budget_s=AMPLE_S)
    measured = rows(result)["transforms", "forward"]
    assert measured.status == "measured"
    assert measured.costs == {}
    assert "exact costs unknown: RuntimeError" in measured.reason


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_dtype_is_compared_and_timed(here, dtype):
    result = benchmark(spec_of("typed", vectorized=vectorized), dtypes=(dtype,), passes=("full",), budget_s=AMPLE_S)
    assert [m.status for m in result.measurements] == ["measured", "measured"]
    assert {m.dtype for m in result.measurements} == {str(dtype).removeprefix("torch.")}
    wrong = benchmark(spec_of("typed", wrong=wrong_axis), dtypes=(dtype,), passes=("full",), budget_s=AMPLE_S)
    assert rows(wrong)["wrong", "full"].status == "failed"


def test_costs_are_those_of_a_warm_call(here):
    class Lazy(torch.nn.Module):
        def __init__(self, weights):
            super().__init__()
            self.register_buffer("weights", weights)
            self.prepared = None

        def forward(self, predictions, labels):
            if self.prepared is None:
                self.prepared = (self.weights * 2 / 2)[:, None]
            return (self.prepared * (predictions - labels) ** 2).mean()

    result = benchmark(spec_of("lazy", lazy=Lazy), passes=("forward",), budget_s=AMPLE_S)
    # sub, pow, mul, mean
    assert rows(result)["lazy", "forward"].costs["aten_calls"] == 4


def test_exact_costs_stand_beside_the_time_of_both_passes(here):
    found = rows(benchmark(spec_of("costs", vectorized=vectorized), budget_s=AMPLE_S))
    assert unmeasured(found.values()) == []
    forward, full = found["vectorized", "forward"].costs, found["vectorized", "full"].costs
    # weights[:, None] is one view, then sub, pow, mul, mean; the base of the power and the weights are kept.
    assert forward["aten_calls"] == 5
    assert forward["saved_bytes"] == full["saved_bytes"] == (9 + 3) * 4
    assert full["aten_calls"] > forward["aten_calls"]


def test_the_backward_pass_alone_is_timed_and_costs_what_it_adds(here):
    passes = ("forward", "backward", "full")
    result = benchmark(spec_of("apart", vectorized=vectorized), passes=passes, budget_s=AMPLE_S)
    calls = {name: rows(result)["vectorized", name].costs["aten_calls"] for name in passes}
    assert calls["backward"] == calls["full"] - calls["forward"]
    assert all(rows(result)["vectorized", name].status == "measured" for name in passes)


def test_the_environment_is_json(far):
    assert json.loads(json.dumps(far.environment)) == far.environment


def test_a_file_that_calls_it_while_a_timing_process_loads_it_is_told_how_to_mend_it(monkeypatch):
    monkeypatch.setenv(MARK, "1")
    with pytest.raises(HarnessError, match="__main__"):
        benchmark(SPECS[0])


BUDGETS = (0, -1, float("nan"), float("inf"), "x", None, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"implementations": ("vectorised",)}, "did you mean 'vectorized'"),
        ({"dtypes": (torch.int32,)}, "int32"),
        ({"passes": ("backwards",)}, "did you mean 'backward'"),
        ({"caches": ("hot",)}, "expected one of"),
        ({"clocks": ("sundial",)}, "expected one of"),
        ({"clocks": ("graph",)}, "leave nothing to time on cpu"),
        ({"densities": ({"weight": 0.5},)}, "did you mean 'weights'"),
        ({"densities": ({"weights": 1.5},)}, r"expected a number in \[0, 1\]"),
        *(({"budget_s": budget}, "expected a positive number of seconds") for budget in BUDGETS),
        ({"sizes": []}, r"sizes=\[\] came, but there should be at least one, such as {'B': 8, 'C': 8}"),
        ({"sizes": "B=3"}, "expected one like {'B': 8, 'C': 8}"),
        ({"devices": ()}, "at least one, such as 'cpu'"),
        ({"devices": ["tpu"]}, "one of 'cpu', 'cuda' and 'cuda:N', such as 'cuda:0'; did you mean 'cpu'"),
        ({"devices": "cuda:"}, "one of 'cpu', 'cuda' and 'cuda:N'"),
        ({"devices": 0}, "devices: got 0, expected one like 'cpu'"),
        ({"passes": "fullest"}, "pass 'fullest', expected one of .* did you mean 'full'"),
        ({"dtypes": "float31"}, "did you mean 'float32'"),
        ({"sizes": [{"B": 1}]}, "one for each of"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(DeclarationError, match=message):
        benchmark(SPECS[0], **arguments)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SPECS, "got a list, expected one LossSpec; call it once for each"),
        (vectorized, "got a function, expected one LossSpec; wrap the loss"),
    ],
)
def test_what_is_no_single_spec_is_refused(spec, message):
    with pytest.raises(DeclarationError, match=message):
        benchmark(spec)


def test_a_single_value_needs_no_list_around_it():
    one = {
        "sizes": {"B": 2, "C": 3},
        "devices": "cpu",
        "dtypes": torch.float64,
        "passes": "forward",
        "implementations": "module",
        "caches": "warm",
        "clocks": "wall",
        "densities": {"weights": 0.5},
    }
    alone = benchmark(SPECS[0], **one, timed=False)
    listed = benchmark(SPECS[0], **{name: [value] for name, value in one.items()}, timed=False)
    assert [m.implementation for m in alone.measurements] == ["naive", "module"]
    assert alone.frame().equals(listed.frame())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_is_timed_with_its_peak(here):
    result = benchmark(spec_of("on_cuda", vectorized=vectorized), devices=("cuda",), budget_s=AMPLE_S)
    assert all(m.status == "measured" and m.costs["peak_bytes"] > 0 for m in result.measurements)
    assert result.environment["gpu"]["name"]


def test_the_reference_is_always_beside_the_chosen(here):
    result = benchmark(SPECS[0], implementations=("module",), passes=("forward",), budget_s=AMPLE_S)
    assert [m.implementation for m in result.measurements] == ["naive", "module"]


def measured_row(name, status="measured"):
    return Measurement({"B": 4}, "cpu", "float32", "full", implementation=name, status=status)


def test_where_the_reference_was_not_measured_the_first_that_was_takes_its_place():
    spec = spec_of("rivals", vectorized=vectorized, other=vectorized)
    slow, one, two = measured_row("naive", "skipped"), measured_row("vectorized"), measured_row("other")
    named = lambda measurement, row: [base.implementation for base in _bases(spec, measurement, row)]  # noqa: E731
    assert named(one, [slow, one, two]) == ["other"]
    assert named(two, [slow, one, two]) == ["vectorized"]
    assert named(two, [measured_row("naive"), one, two]) == ["naive"]
    assert named(one, [slow, one, measured_row("other", "failed")]) == []


def test_a_compiled_variant_is_compared_with_its_eager_form_too_and_stands_in_for_nobody():
    spec = spec_of("variants", vectorized=vectorized)
    row = [measured_row(name) for name in ("naive", "vectorized", "naive (compiled)", "vectorized (compiled)")]
    named = lambda at: [base.implementation for base in _bases(spec, row[at], row)]  # noqa: E731
    assert [named(at) for at in (1, 2, 3)] == [["naive"], ["naive"], ["naive", "vectorized"]]
    row[0] = measured_row("naive", "skipped")
    assert named(1) == []
    assert named(3) == ["vectorized"]
