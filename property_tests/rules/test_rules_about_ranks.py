"""L14 over processes that fail, hang and end, and where there can be none."""

from __future__ import annotations

import os
import time

import pytest
from click.testing import CliRunner
from mutants import ranks as losses

from harness import DeclarationError, LossSpec, cli, laws, verify
from harness.checking.verify import open_session
from harness.isolation import limits
from harness.isolation.sandbox import Forks, Sandbox
from harness.results.findings import Status
from harness.rules.laws import ranks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, which this system cannot")


def asked(loss, profile="quick", **changes):
    return verify(LossSpec("rows", {"candidate": loss}, **{**losses.ROWS, **changes}), profile=profile, rules=["L14"])


def ends_the_process(predictions, labels):
    if losses.rank() == 1:
        os._exit(3)
    return losses.mean_logged(predictions, labels)


def loops(predictions, labels):
    while losses.rank() == 1:
        time.sleep(0.01)
    return losses.mean_squared(predictions, labels)


@pytest.mark.parametrize(
    ("loss", "aspect", "said"),
    [
        (losses.mean_logged_by_the_first, "a process waits", "process 0 of 2 = waits for the others at ranks.py:"),
        (losses.mean_logged_by_the_first, "a process waits", ", which process 1 left without, expected"),
        (ends_the_process, "a process fails", "process 1 of 2 = exited: it ended the process with exit code 3"),
        (loops, "a process fails", "process 1 of 2 = timed out: it was not done after 3 s"),
    ],
)
def test_a_process_that_hangs_or_ends_is_a_finding_that_says_which_and_nothing_is_left(monkeypatch, loss, aspect, said):
    monkeypatch.setattr(ranks, "PATIENCE_S", 2.0)
    before = limits.children(os.getpid())
    (finding,) = asked(loss).findings
    assert finding.evidence["aspect"] == f"laws.data_parallel('B') {aspect}"
    assert said in finding.message
    assert set(limits.children(os.getpid())) <= set(before)


def test_every_process_that_waits_in_the_same_order_is_right():
    assert asked(losses.mean_logged).ok


def test_the_same_seed_gives_the_same_finding():
    first, second = (asked(losses.refuses_the_second).findings for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fixed_sizes": {"B": 6}}, "B = 6 cannot be cut into 4 equal parts"),
        ({"laws": (laws.data_parallel("C"),), "fixed_sizes": {"C": 3}}, "C = 3 cannot be cut"),
    ],
)
def test_a_batch_that_cannot_be_cut_says_so(changes, reason):
    (outcome,) = asked(losses.mean_squared, **changes).outcomes
    assert outcome.status is Status.INAPPLICABLE
    assert reason in outcome.reason


def of_any_rows_but_four(predictions, labels):
    if len(labels) == 4:
        raise ValueError("four rows came")
    return losses.mean_squared(predictions, labels)


def test_a_loss_that_refuses_a_small_batch_by_itself_is_not_blamed():
    (outcome,) = asked(of_any_rows_but_four).outcomes
    assert outcome.status is Status.INAPPLICABLE
    assert "refuses a part of the batch by itself: ValueError: four rows came" in outcome.reason


def test_the_reference_is_asked_of_whole_batches_alone():
    both = {"naive": losses.divided_by_the_world, "candidate": losses.mean_squared}
    found = verify(LossSpec("rows", both, **losses.ROWS), profile="quick", rules=["L14"])
    assert [(o.implementation, o.status.value) for o in found.outcomes] == [
        ("naive", "inapplicable"),
        ("candidate", "passed"),
    ]


@pytest.mark.parametrize("name", ["rows", "mean", "masked", "ours", "theirs", "both", "alone", "detection"])
def test_parts_hold_different_counts_whatever_is_drawn(name):
    declared = {**losses.MASKED, "laws": (laws.data_parallel("B", worlds=(2,)),)}
    spec = LossSpec(name, {"candidate": losses.mean_of_its_own_mask}, **declared)
    assert [f.rule for f in verify(spec, profile="quick", rules=["L14"]).findings] == ["L14"]


def test_a_loss_per_row_is_no_subject_of_the_law():
    (outcome,) = asked(lambda predictions, labels: ((predictions - labels) ** 2).mean(-1), output=None).outcomes
    assert (outcome.status, outcome.reason) == (Status.INAPPLICABLE, "the law speaks of a loss that is one number")


def test_numbers_of_processes_are_chosen_and_refused():
    assert repr(laws.data_parallel("B", worlds=2)) == "laws.data_parallel('B', worlds=(2,))"
    with pytest.raises(DeclarationError, match=r"worlds=\(0,\), expected numbers of processes from 1 to 8"):
        laws.data_parallel("B", worlds=(0,))


FILE = """
import torch.distributed as dist
from harness import LossSpec, TensorSpec, laws


def world():
    return dist.get_world_size() if dist.is_initialized() else 1


def summed(predictions, labels):
    return ((predictions - labels) ** 2).mean() / world()


SPEC = LossSpec("summed", {"summed": summed}, inputs={"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")})
"""


def test_processes_that_load_the_loss_say_what_forks_say(tmp_path, monkeypatch):
    from harness.declare.targets import load_specs

    (tmp_path / "summed.py").write_text(FILE)
    (spec,) = load_specs([str(tmp_path / "summed.py")])
    session = open_session(spec, profile="quick")
    trial = session.trial("summed", session.pool("distinct", "smooth", 1)[0])
    trial = ranks._sized(trial, "B", 4, [2])
    forked = ranks._in_forks(Forks(), trial, "B", 2)
    with Sandbox(["torch", "harness.rules.laws.ranks"]) as fresh:
        loaded = ranks._in_forks(fresh, trial, "B", 2)
    assert [rank.result for rank in loaded] == [rank.result for rank in forked]
    assert all("value" in rank.result for rank in forked)


def test_forks_that_cannot_differentiate_give_way_to_processes_that_load_the_loss(tmp_path, monkeypatch):
    from harness.declare.targets import load_specs

    raising = "    if os.getpid() != first and 'FORKED' in globals(): raise RuntimeError(\"autograd's threading in combination with fork\")"
    (tmp_path / "summed.py").write_text(
        FILE.replace("def summed", "import os\nfirst = os.getpid()\n\n\ndef summed").replace("    return ((p", f"{raising}\n    return ((p")
    )  # fmt: skip
    (spec,) = load_specs([str(tmp_path / "summed.py")])
    spec.implementations["summed"].__globals__["FORKED"] = True
    (finding,) = verify(
        spec.replace(laws=(laws.data_parallel("B", worlds=2),)), profile="quick", rules=["L14"]
    ).findings
    assert "all of it is 1/W times what it should be, W = 2" in finding.message


def test_the_command_line_takes_the_law(tmp_path, monkeypatch):
    (tmp_path / "summed.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    arguments = ["verify", "summed.py:summed", "--inputs", "predictions: B C; labels: B C", "--law", "data_parallel(B)"]
    ran = CliRunner().invoke(cli.cli, [*arguments, "--select", "L14", "--profile", "quick"])
    assert (ran.exit_code, "multiply the part of the loss" in ran.output) == (1, True), ran.output
