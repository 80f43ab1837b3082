"""What `verify` promises about itself: it counts, waives, refuses, survives rough losses, leaves no trace, repeats."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import rough_losses
import torch
from rough_losses import changes_every_global, checks_shapes, mean_squared, spec

import harness
import losses
from harness import Case, HarnessError, LossSpec, TensorSpec, domains, laws, verify
from harness.checking import session as sessions
from harness.checking.verify import checked, open_session, plan, suggested
from harness.drawing import hypothesis_runs
from harness.results.findings import Status
from harness.rules import BATTERY

CODES = [rule.code for rule in BATTERY]
HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]


def doubled(predictions, labels):
    return 2 * mean_squared(predictions, labels)


def two_candidates(**declared):
    implementations = {"naive": mean_squared, "same": checks_shapes, "doubled": doubled}
    return LossSpec("two_candidates", implementations, **{**rough_losses.DECLARED, **declared})


@pytest.mark.parametrize("first", ["harness.runs.run", "harness.timing.benchmark"])
def test_verify_and_benchmark_are_functions_whatever_is_imported_first(first):
    code = f"import {first}, harness; print(harness.verify.__name__, harness.benchmark.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["verify", "benchmark"]


def test_a_misspelt_name_is_an_error_that_says_the_nearest():
    with pytest.raises(AttributeError, match="no attribute 'verfiy'; did you mean 'verify'"):
        harness.verfiy  # noqa: B018


def test_a_misspelt_name_is_an_error_to_a_type_checker(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "harness").mkdir()  # its facade alone: to read torch and all others takes half a minute
    shutil.copy(harness.__file__, tmp_path / "harness")
    (tmp_path / "mine.py").write_text("from harness import verfiy, verify\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-site-packages", "mine.py"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("mine.py")]
    assert 'Module "harness" has no attribute "verfiy"' in line, done.stdout + done.stderr


# --- what is planned is counted


def coded(prefix):
    return [code for code in CODES if code.startswith(prefix)]


@pytest.mark.parametrize(
    ("rules", "ignore", "implementations", "planned"),
    [
        (["B01"], (), None, 3),
        (["b01", "E01", "E02"], (), None, 9),
        (["E01", "E02"], ["E02"], ["doubled"], 1),
        (["B01", "B0", "B01"], (), ["same"], len(coded("B"))),
        (["L"], (), ["same", "doubled"], 2 * len(coded("L"))),
    ],
)
def test_planned_is_the_sum_of_the_counts_for_every_filter(rules, ignore, implementations, planned):
    found = verify(two_candidates(), profile="quick", rules=rules, ignore=ignore, implementations=implementations)
    assert found.planned == sum(found.counts.values()) == planned
    asked = plan(two_candidates(), rules=rules, ignore=ignore, implementations=implementations)
    assert [(o.implementation, o.rule) for o in found.outcomes] == list(asked)


@pytest.mark.parametrize(
    "loss", [checks_shapes, rough_losses.raises, rough_losses.returns_a_tuple], ids=lambda loss: loss.__name__
)
def test_the_whole_battery_is_planned_whatever_becomes_of_it(loss):
    found = verify(spec(loss), profile="quick")
    assert [o.rule for o in found.outcomes] == CODES
    assert found.planned == sum(found.counts.values()) == len(CODES)


@pytest.mark.parametrize("loss", losses.SPECS, ids=lambda loss: loss.name)
def test_the_reference_losses_are_planned_rule_by_rule_and_implementation_by_implementation(loss):
    assert plan(loss) == tuple((name, code) for name in loss.implementations for code in CODES)


def test_examples_are_those_that_ran():
    found = verify(spec(checks_shapes), profile="quick", rules=["B01", "L01"])
    by_rule = {o.rule: o for o in found.outcomes}
    assert by_rule["B01"].status is Status.PASSED
    assert by_rule["B01"].examples > 4
    assert (by_rule["L01"].status, by_rule["L01"].examples) == (Status.INAPPLICABLE, 0)
    assert "laws.mean_over" in by_rule["L01"].reason


def test_a_thorough_profile_runs_more_examples_than_a_quick_one():
    ran = {p: verify(spec(checks_shapes), profile=p, rules=["B01"]).outcomes[0].examples for p in ("quick", "ci")}
    assert ran["quick"] < ran["ci"]


def test_a_loss_without_a_finding_is_ok_and_every_outcome_says_why():
    found = verify(spec(checks_shapes), profile="quick")
    assert found.ok
    assert {f.severity for f in found.findings} <= {"note"}
    assert all(o.reason or o.status in (Status.PASSED, Status.FAILED) for o in found.outcomes)


# --- waivers and requirements


def test_a_waived_failure_is_a_note_that_gives_the_reason():
    found = verify(spec(mean_squared, waivers={"b03": "callers check"}), profile="quick", rules=["B03"])
    assert found.ok
    assert [o.status for o in found.outcomes] == [Status.WAIVED]
    assert found.outcomes[0].reason == "callers check"
    assert {f.severity for f in found.findings} == {"note"}
    assert all("callers check" in f.hint for f in found.findings)


def test_a_waiver_that_is_not_needed_is_an_error_that_says_so():
    found = verify(spec(checks_shapes, waivers={"B03": "callers check"}), profile="quick", rules=["B03"])
    assert not found.ok
    (finding,) = found.findings
    assert (finding.rule, finding.severity) == ("B03", "error")
    assert "callers check" in finding.message
    assert "LossSpec(waivers=...)" in finding.message


def test_a_waiver_of_another_rule_changes_nothing():
    found = verify(spec(mean_squared, waivers={"G01": "slow"}), profile="quick", rules=["B03"])
    assert [o.status for o in found.outcomes] == [Status.FAILED]


@pytest.mark.parametrize(("code", "says"), [("G99", "no rule 'G99'"), ("B0", "did you mean"), ("", "no rule ''")])
def test_a_waiver_of_no_single_rule_is_refused(code, says):
    with pytest.raises(HarnessError, match=says):
        verify(spec(mean_squared, waivers={code: "some reason"}), rules=["B01"])


def test_a_required_rule_turns_its_warnings_into_errors():
    asked = verify(spec(mean_squared), profile="quick", rules=["B03"])
    required = verify(spec(mean_squared, requires=["B03"]), profile="quick", rules=["B03"])
    assert asked.ok
    assert {f.severity for f in asked.findings} == {"warning"}
    assert not required.ok
    assert {f.severity for f in required.findings} == {"error"}


def test_an_unknown_required_rule_is_refused():
    with pytest.raises(HarnessError, match="Q77"):
        verify(spec(mean_squared, requires=["Q77"]), rules=["B01"])


# --- what cannot be understood is refused


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rules": ["GO1"]}, "did you mean 'G[01]1'"),
        ({"rules": ["B01", "zzz"]}, "loss-harness rules"),
        ({"rules": "B01"}, r"rules=\['B01'\]"),
        ({"rules": []}, "no rule is left"),
        ({"ignore": ["GO1"]}, "did you mean 'G[01]1'"),
        ({"ignore": sorted({code[0] for code in CODES})}, "no rule is left"),
        ({"implementations": ["doubld"]}, "did you mean 'doubled'"),
        ({"implementations": "doubled"}, r"implementations=\['doubled'\]"),
        ({"implementations": []}, "no rule is left"),
        ({"profile": "thorugh"}, "did you mean 'thorough'"),
        ({"device": "gpu"}, "'cpu', 'cuda'"),
        ({"device": "meta"}, "'cpu', 'cuda'"),
    ],
    ids=str,
)
def test_what_is_unknown_is_refused_with_what_is_allowed(arguments, says):
    with pytest.raises(HarnessError, match=says):
        verify(two_candidates(), **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_missing_device_is_refused_with_what_to_write():
    with pytest.raises(HarnessError, match="device='cpu'"):
        verify(two_candidates(), device="cuda")


# --- a crash of a rule is no silence


def crashing(monkeypatch, code, error):
    def crash(trial):
        raise error

    changed = [dataclasses.replace(r, check=crash, check_all=None) if r.code == code else r for r in BATTERY]
    monkeypatch.setattr(sys.modules["harness.checking.verify"], "BATTERY", tuple(changed))


def test_a_rule_that_crashes_is_counted_and_found_and_the_others_go_on(monkeypatch):
    crashing(monkeypatch, "B06", ZeroDivisionError("our fault\nsecond line"))
    found = verify(spec(checks_shapes), profile="quick", rules=["B04", "B06", "C02"])
    assert {o.rule: o.status for o in found.outcomes} == {
        "B04": Status.PASSED,
        "B06": Status.CRASHED,
        "C02": Status.PASSED,
    }
    (finding,) = found.findings
    assert (finding.rule, finding.severity, finding.evidence["aspect"]) == ("X01", "error", "B06")
    assert "ZeroDivisionError: our fault" in finding.message
    assert not found.ok
    assert found.counts["crashed"] == 1
    assert found.planned == sum(found.counts.values())


def test_a_waiver_does_not_hide_a_crash(monkeypatch):
    crashing(monkeypatch, "B03", RuntimeError("our fault"))
    found = verify(spec(mean_squared, waivers={"B03": "known"}), profile="quick", rules=["B03"])
    assert [o.status for o in found.outcomes] == [Status.CRASHED]
    assert not found.ok


def test_an_interrupt_is_not_taken_for_a_crash(monkeypatch):
    crashing(monkeypatch, "B03", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        verify(spec(mean_squared), profile="quick", rules=["B03"])


# --- rough losses


@pytest.mark.parametrize("loss", rough_losses.FAILING, ids=lambda loss: loss.__name__)
def test_a_rough_loss_fails_and_crashes_nothing(loss):
    found = verify(spec(loss), profile="quick")
    assert not found.ok
    assert [o for o in found.outcomes if o.status is Status.CRASHED] == []
    assert any(f.severity == "error" for f in found.findings)
    for finding in found.findings:
        assert "Traceback" not in finding.message
        assert finding.message.startswith(f"{loss.__name__} / candidate / {finding.rule} ")


@pytest.mark.parametrize("loss", rough_losses.NOISY, ids=lambda loss: loss.__name__)
def test_a_noisy_loss_is_verified_like_a_quiet_one(loss):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filters = list(warnings.filters)
        found = verify(spec(loss), profile="quick", ignore=["B03", "S04"])  # S04 is about noise
        assert warnings.filters == filters
    quiet = verify(spec(mean_squared), profile="quick", ignore=["B03", "S04"])
    assert found.ok
    assert found.counts == quiet.counts


def test_what_the_loss_raises_is_shown_in_one_line():
    found = verify(spec(rough_losses.raises), profile="quick", rules=["B01"])
    assert any("RuntimeError: no luck" in f.message for f in found.findings)
    assert all("second line" not in f.message for f in found.findings)


@pytest.mark.parametrize("code", ["B03", "B04", "L16"])
def test_a_rule_of_all_cases_says_so_where_the_loss_raises_on_each(code):
    (outcome,) = verify(spec(rough_losses.raises), profile="quick", rules=[code]).outcomes
    assert (outcome.status, outcome.reason) == (Status.INAPPLICABLE, "the loss raises on every case, see B01")


def test_what_an_error_says_beyond_its_first_line_stands_in_no_reason():
    outcomes = verify(spec(rough_losses.raises), profile="quick", rules=["G", "D"]).outcomes
    assert any("see B01 (RuntimeError: no luck)" in outcome.reason for outcome in outcomes)
    assert all("\n" not in outcome.reason for outcome in outcomes)


@pytest.mark.parametrize("error", [IndexError, RuntimeError, AssertionError])
def test_a_backward_that_raises_crashes_no_rule(error):
    class Raises(torch.autograd.Function):
        @staticmethod
        def forward(ctx, predictions, labels):
            return (predictions - labels).square().mean()

        @staticmethod
        def backward(ctx, upstream):
            raise error("no gradient")

    found = verify(spec(Raises.apply), profile="quick")
    assert {f.rule for f in found.findings if f.severity == "error" and not f.follows} == {"B01"}
    assert all(outcome.status is not Status.CRASHED for outcome in found.outcomes)


# --- no trace is left


def state():
    numpy_state = np.random.get_state()
    return {
        "torch": torch.get_rng_state().tolist(),
        "python": random.getstate(),
        "numpy": (numpy_state[1].tolist(), numpy_state[2:]),
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.get_deterministic_debug_mode(),
        "anomaly": torch.is_anomaly_enabled(),
        "filters": list(warnings.filters),
    }


@pytest.mark.parametrize(
    "loss", [mean_squared, changes_every_global, rough_losses.changes_every_global_and_raises], ids=lambda f: f.__name__
)
def test_global_state_is_the_same_before_and_after(loss):
    torch.manual_seed(1)
    random.seed(2)
    np.random.seed(3)
    before = state()
    verify(spec(loss), profile="quick")
    assert state() == before


def test_a_warning_about_what_is_not_deterministic_stays_one():
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        verify(spec(changes_every_global), profile="quick", rules=["B01"])
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_loss_has_one_thread_whatever_the_process_has_and_the_process_keeps_its_own():
    seen = set()

    def counts_threads(predictions, labels):
        seen.add(torch.get_num_threads())
        return mean_squared(predictions, labels)

    torch.set_num_threads(2)
    try:
        session = open_session(spec(counts_threads), profile="quick")
        checked(session, rules=["B01", "S02", "G01"])
        suggested(session, "candidate")
        assert (seen, torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(1)


def test_what_one_rule_leaves_behind_does_not_reach_the_next():
    """The default dtype that the loss sets would make every later constant float64."""
    found = verify(spec(rough_losses.changes_every_global), profile="quick", rules=["S02", "D01"])
    alone = verify(spec(rough_losses.changes_every_global), profile="quick", rules=["D01"])
    assert [o for o in found.outcomes if o.rule == "D01"] == list(alone.outcomes)


# --- the same seed gives the same cases and findings


def as_json(found):
    return json.dumps(
        {
            "outcomes": [dataclasses.asdict(o) for o in found.outcomes],
            "findings": [dataclasses.asdict(f) for f in found.findings],
        },
        sort_keys=True,
    )


def weighted(predictions, labels, weights):
    """Loses precision, breaks at zero weights and leaks what they remove: several findings with shrunk cases."""
    return (weights.view(-1, 1) * (predictions.float() - labels) ** 2).sum() / weights.sum()


SEVERAL = ["B03", "B04", "C01", "C03", "D02", "D05", "G01", "G08", "L", "S"]


def weighted_spec():
    return spec(
        weighted,
        context={"weights": TensorSpec("B", domains.nonnegative())},
        laws=(laws.linear_in("weights"), laws.mean_over("B")),
    )


def test_the_same_seed_gives_the_same_verification_in_one_process():
    first = verify(weighted_spec(), profile="quick", rules=SEVERAL, seed=3)
    verify(spec(mean_squared), profile="quick", rules=["B01"])  # what is kept of the first call is thrown away
    second = verify(weighted_spec(), profile="quick", rules=SEVERAL, seed=3)
    assert len(first.findings) >= 5
    assert as_json(first) == as_json(second)
    assert first == second


def test_a_rule_finds_the_same_alone_and_among_others():
    together = verify(weighted_spec(), profile="quick", rules=SEVERAL, seed=3)
    alone = verify(weighted_spec(), profile="quick", seed=3, rules=["D05"])
    assert [f for f in together.findings if f.rule == "D05"] == list(alone.findings)
    assert alone.findings


def test_rules_that_share_a_session_find_what_each_finds_alone_and_evaluate_less():
    calls = []

    def counting(predictions, labels):
        calls.append(1)
        return mean_squared(predictions, labels)

    loss, rules = spec(counting), coded("B")
    alone = [verify(loss, profile="quick", rules=[code]) for code in rules]
    most = len(calls)
    calls.clear()
    session = open_session(loss, profile="quick")
    assert [as_json(checked(session, rules=[code])) for code in rules] == [as_json(each) for each in alone]
    assert len(calls) < most


@pytest.fixture
def drawn(monkeypatch):
    """How many cases each draw was asked for."""
    counts = []
    run = hypothesis_runs.run

    def counting(strategy, check, *, examples, **named):
        counts.append(examples)
        run(strategy, check, examples=examples, **named)

    monkeypatch.setattr(hypothesis_runs, "run", counting)
    sessions.drawn.cache_clear()
    return counts


def test_cases_of_a_declaration_are_drawn_once_and_others_anew(drawn):
    losses_of_one = (spec(loss, "mean_squared") for loss in (mean_squared, checks_shapes))
    first, again = (open_session(loss).pool("distinct", None, 3) for loss in losses_of_one)
    assert again == first
    assert len(drawn) == 1
    wider = spec(
        mean_squared, inputs={**rough_losses.DECLARED["inputs"], "labels": TensorSpec("B C", domains.binary())}
    )
    for session in (open_session(wider), open_session(spec(mean_squared), seed=1)):
        assert session.pool("distinct", None, 3) != first
    assert len(drawn) == 3


def test_a_process_keeps_the_cases_of_a_few_losses(drawn):
    for seed in range(3):
        open_session(spec(mean_squared), seed=seed).pool("unit", None, 1)
    kept = sessions.drawn.cache_info()
    assert (kept.currsize, kept.maxsize) == (3, sessions.POOLS)


def test_cases_for_suggestions_are_drawn_with_those_of_the_rules(drawn):
    session = open_session(spec(mean_squared), profile="quick")
    session.suggests = True
    of_rules = session.pool("distinct", "smooth", 1)
    assert session.pool("distinct", "smooth", sessions.CASES_OF_SUGGESTIONS)[:1] == of_rules
    assert drawn == [sessions.CASES_OF_SUGGESTIONS]


@pytest.mark.parametrize("profile", ["quick", "ci", "thorough"])
def test_the_cases_of_rules_are_the_same_whether_suggestions_follow_or_not(drawn, profile):
    alone, followed = (open_session(spec(mean_squared), profile=profile) for _ in range(2))
    followed.suggests = True
    for session in (alone, followed):
        session.pool("distinct", "smooth", 1)
    few, all_of_them = (session.pools["distinct", "smooth"] for session in (alone, followed))
    assert all_of_them[: len(few)] == few


def test_a_random_loss_gives_the_same_findings_too():
    first, second = (verify(spec(changes_every_global), profile="quick", rules=["B", "S"]) for _ in range(2))
    assert first.findings
    assert as_json(first) == as_json(second)


SCRIPT = """
import sys
sys.path[:0] = sys.argv[1:]
from test_verify import SEVERAL, as_json, verify, weighted_spec
print(as_json(verify(weighted_spec(), profile="quick", rules=SEVERAL, seed=3)))
forward = verify(weighted_spec(), profile="quick", rules=["G04"])
print([outcome.status.value for outcome in forward.outcomes], "torch._dynamo" in sys.modules)
verify(weighted_spec(), profile="ci", rules=["T02"])
print("torch._dynamo" in sys.modules)
"""


@pytest.fixture(scope="module")
def told_elsewhere():
    """What a fresh process with another hash seed prints."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(HERE), str(HERE.parent / "examples")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "2"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_same_seed_gives_the_same_verification_in_a_fresh_process_with_another_hash_seed(told_elsewhere):
    here = as_json(verify(weighted_spec(), profile="quick", rules=SEVERAL, seed=3))
    assert json.loads(told_elsewhere[0]) == json.loads(here)


def test_the_profile_that_leaves_out_the_compiler_does_not_load_it_for_forward_mode_either(told_elsewhere):
    assert told_elsewhere[1:] == ["['passed'] False", "True"]


def test_another_seed_draws_other_cases():
    seen: dict[int, set[float]] = {}

    def recording(predictions, labels):
        seen.setdefault(seed, set()).add(float(predictions.detach().sum()))
        return mean_squared(predictions, labels)

    for seed in (1, 2):
        verify(spec(recording), profile="quick", rules=["B01"], seed=seed)
    assert len(seen[1] - seen[2]) >= 4


# --- the smallest failing input


def test_a_finding_shows_the_smallest_input_that_has_it():
    def wrong_beyond_two_columns(predictions, labels):
        error = (predictions - labels) ** 2
        return error.mean() + error[:, 2:].detach().sum()

    found = verify(spec(wrong_beyond_two_columns), profile="ci", rules=["G01"])
    (finding,) = found.findings
    case = Case.from_json(finding.case)
    assert case.sizes == {"B": 1, "C": 3}
    assert "B=1, C=3" in finding.message
    assert len({v for r in case.tensors.values() for v in r.values}) <= 2


def _exits(p, y):
    print("on its way out")
    raise SystemExit(0)


def test_a_loss_that_exits_ends_nothing_but_itself_and_its_prints_go_nowhere(capsys):
    declared = {"p": TensorSpec("B"), "y": TensorSpec("B")}
    found = verify(LossSpec("exits", {"exits": _exits}, inputs=declared, output=TensorSpec("")), profile="quick")
    assert any(f.rule == "B01" and "SystemExit" in f.message for f in found.findings)
    assert capsys.readouterr().out == ""


def _first_dropped(p, y):
    return ((p - y)[:, 1:] ** 2).sum()


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_a_permutation_moves_the_first_element(size):
    declared = {"p": TensorSpec("B T"), "y": TensorSpec("B T")}
    spec = LossSpec(
        "tail", {"tail": _first_dropped}, inputs=declared, fixed_sizes={"T": size}, laws=(laws.permutation("T"),)
    )
    assert [f.rule for f in verify(spec, profile="quick", rules=["L03"]).findings] == ["L03"]


def _naive_log_softmax(p, y):
    return -(p - p.exp().sum(1, keepdim=True).log()).gather(1, y[:, None]).mean()


def test_logits_that_saturate_are_asked_in_float32_too():
    declared = {"p": TensorSpec("B C", domains.logits()), "y": TensorSpec("B", domains.index("C"))}
    naive, stable = (
        verify(LossSpec("nll", {"nll": loss}, inputs=declared, output=TensorSpec("")), rules=["D02"])
        for loss in (_naive_log_softmax, lambda p, y: torch.nn.functional.cross_entropy(p, y))
    )
    assert [f.evidence["aspect"] for f in naive.findings if f.severity == "error"] == ["finite float32"]
    assert stable.ok


def _steps(log_probs, lengths):
    """Mean over samples of the mean over valid steps of -log p; 0 of none."""
    rows = [row[:n].sum() / max(n, 1) for row, n in zip(log_probs, lengths.tolist(), strict=True)]
    return -torch.stack(rows).mean()


def _one_too_many(log_probs, lengths):
    keep = torch.arange(log_probs.shape[1]) <= lengths[:, None]
    return -(torch.where(keep, log_probs, 0.0).sum(1) / lengths.clamp(min=1)).mean()


def _over_nothing(log_probs, lengths):
    keep = torch.arange(log_probs.shape[1]) < lengths[:, None]
    return -(torch.where(keep, log_probs, 0.0).sum(1) / lengths).mean()


@pytest.mark.parametrize(("wrong", "rule", "is_empty"), [(_one_too_many, "E01", False), (_over_nothing, "G08", True)])
def test_what_is_wrong_of_more_than_an_empty_input_is_shown_on_another(wrong, rule, is_empty):
    spec = LossSpec(
        "steps",
        {"loop": _steps, "wrong": wrong},
        inputs={"log_probs": TensorSpec("B T")},
        context={"lengths": TensorSpec("B", domains.index("T+1"))},
    )
    found = verify(spec, profile="quick", rules=[rule], implementations=["wrong"]).findings
    assert found
    assert ("the input is empty: a length of 0 in lengths" in found[0].message) is is_empty


@pytest.mark.parametrize(
    ("number", "columns", "is_length"),
    [(3, "3", False), ("C", "C", False), ("C+1", "C+1", False), ("T+1", "C+9", True)],
)
def test_the_first_class_is_no_length_of_nothing(number, columns, is_length):
    declared = {"x": TensorSpec(f"T B {columns}"), "y": TensorSpec("B", domains.index(number))}
    spec = LossSpec("classes", {"loss": lambda x, y: x.sum() + y.sum()}, inputs=declared)
    shown = {"x": torch.ones(2, 1, 4), "y": torch.tensor([0])}
    assert bool(sessions.counts_nothing(spec, shown)) is is_length


def test_a_second_derivative_that_is_not_finite_is_a_warning_and_not_silent():
    def naive(x):
        return torch.stack([torch.logsumexp(row, 0) for row in x]).sum()

    def padded(x):
        least = x[:, 0] - 1e30
        for column in x.unbind(1):
            least = torch.logaddexp(least, column)
        return least.sum()

    spec = LossSpec("lse", {"naive": naive, "padded": padded}, inputs={"x": TensorSpec("B C")})
    (found,) = verify(spec, profile="quick", rules=["E03"], implementations=["padded"]).findings
    assert (found.rule, found.severity) == ("E03", "warning")
    assert "logaddexp is NaN beside a stand-in for -inf" in found.hint
