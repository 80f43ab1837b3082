"""A job goes on after each process that it loses, and every rule of it has an outcome in the end.  The processes are played."""

from __future__ import annotations

import pytest

from harness.isolation import events
from harness.isolation.events import Ended
from harness.results.schema import loss_loads
from harness.runs.conduct import DEATHS, ProcessLost, conduct
from harness.runs.job import MEASURE, VERIFY, Job
from harness.runs.perform import LOADING, SUGGESTIONS

CODES = ("B01", "B05", "E01", "G05")
FINISHED = Ended(events.FINISHED)


def killed(step):
    return Ended(events.KILLED, "Segmentation fault (signal 11)", step, {"case": 7})


def job(kind=VERIFY, codes=CODES, **options):
    request = {"profile": "quick", "seed": 0, "devices": ["cpu"]}
    return Job(kind, ("losses.py",), "mse", "naive", "cpu", codes, options.get("suggests", False), request)


class Played:
    """Processes that check rules up to the one that each does not survive; what describes such an end fails too."""

    def __init__(self, *ends):
        self.ends, self.codes = list(ends), []

    def run(self, function, payload, limits=None, hear=None, *, folder=None):
        if function.endswith(":stopped"):
            return killed(LOADING)
        codes, ended = payload["request"].get("codes") or [], self.ends.pop(0)
        self.codes.append(codes)
        for code in codes:
            if code == ended.step or ended.step == LOADING:
                break
            hear("step", code)
            hear("result", {"step": code, "record": "", "failures": {}, "is_outcome": True})
        return ended


def conducted(played, asked):
    kept = []
    lost = conduct(played, asked, lambda kind, data: kept.append(data) if kind == "result" else None)
    return lost, {result["step"]: result for result in kept}


def outcome(result):
    (found,) = loss_loads(result["record"]).outcomes
    return found.status, found.reason


def test_the_rules_after_the_one_that_ended_the_process_run_in_a_new_one():
    played = Played(killed("B05"), FINISHED)
    lost, kept = conducted(played, job())
    assert lost == ""
    assert played.codes == [list(CODES), ["E01", "G05"]]
    assert list(kept) == list(CODES)
    assert outcome(kept["B05"]) == ("crashed", "killed by a signal: Segmentation fault (signal 11)")


def test_an_end_between_two_rules_is_that_of_the_next_one():
    class Between(Played):
        def run(self, function, payload, limits=None, hear=None, *, folder=None):
            if not self.codes:
                hear("result", {"step": "B01", "record": "", "failures": {}, "is_outcome": True})
                self.codes.append(payload["request"]["codes"])
                return killed("B01")  # told of as done
            return super().run(function, payload, limits, hear, folder=folder)

    played = Between(FINISHED)
    _, kept = conducted(played, job())
    assert outcome(kept["B05"])[0] == "crashed"
    assert played.codes == [list(CODES), ["E01", "G05"]]


def test_a_job_that_loses_every_process_is_given_up_and_the_rest_is_not_run():
    _, kept = conducted(Played(*map(killed, CODES[:DEATHS])), job())
    assert [outcome(kept[code])[0] for code in CODES] == ["crashed"] * DEATHS + ["skipped"]
    assert outcome(kept[CODES[-1]])[1] == f"not run, after {DEATHS} processes had ended"


@pytest.mark.parametrize("suggests", [False, True])
def test_a_loss_that_cannot_be_loaded_is_tried_once(suggests):
    played = Played(killed(LOADING))
    lost, kept = conducted(played, job(suggests=suggests))
    assert len(played.codes) == 1
    assert [outcome(kept[code])[0] for code in CODES] == ["crashed", "skipped", "skipped", "skipped"]
    assert all("loading the loss ended: killed by a signal" in outcome(result)[1] for result in kept.values())
    assert lost == ("looking for laws to declare did not run" if suggests else "")


def test_who_looks_for_laws_and_ends_loses_no_rule():
    lost, kept = conducted(Played(killed(SUGGESTIONS)), job(suggests=True))
    assert list(kept) == list(CODES)
    assert lost == "looking for laws to declare ended: killed by a signal: Segmentation fault (signal 11)"


def test_timing_that_ends_its_process_says_how():
    lost, kept = conducted(Played(killed("timing")), job(MEASURE, codes=()))
    assert (lost, kept) == ("timing it ended: killed by a signal: Segmentation fault (signal 11)", {})


def test_nothing_is_said_of_a_loss_whose_watcher_is_gone():
    with pytest.raises(ProcessLost, match="the process that watches the job has ended"):
        conducted(Played(Ended(events.LOST, "the process that watches the job has ended")), job())
