"""Every rule of the battery catches a mutant and is silent on the mutant's honest twin."""

import pytest
import torch
from mutants import PAIRS
from mutants.pair import verified
from reproductions import HERE, ROOT, run_each, shows

from harness import verify
from harness.results.findings import Status
from harness.rules import BATTERY
from harness.rules.trial import describe


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_the_rule_catches_the_mutant(pair):
    found = verified(pair)
    fitting = [
        f
        for f in found.findings
        if f.rule == pair.code and f.severity == pair.severity and pair.aspect in f.evidence["aspect"]
    ]
    assert fitting, [(f.severity, f.evidence["aspect"], f.message) for f in found.findings]
    assert any(pair.says in f.message for f in fitting), fitting[0].message
    assert found.outcomes[0].status is Status.FAILED
    assert found.ok is not (pair.severity == "error")


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_the_rule_is_silent_on_the_twin(pair):
    found = verify(pair.twin, profile=pair.profile, rules=[pair.code], implementations=["candidate"])
    assert [f.message for f in found.findings] == []
    assert found.outcomes[0].status is Status.PASSED
    assert found.outcomes[0].examples > 0


def test_every_rule_of_the_battery_has_a_mutant():
    assert {rule.code for rule in BATTERY} == {pair.code for pair in PAIRS}


def test_every_row_has_a_name_of_its_own():
    names = [pair.name for pair in PAIRS]
    assert sorted(set(names)) == sorted(names)


# --- the code that their findings print


@pytest.fixture(scope="module")
def caught():
    return {f"{pair.name} {f.evidence['aspect']}": f for pair in PAIRS for f in verified(pair).findings}


@pytest.fixture(scope="module")
def runnable(caught):
    return {name: f for name, f in caught.items() if f.reproduction and "= ...  #" not in f.reproduction}


@pytest.fixture(scope="module")
def results(runnable):
    return run_each({name: f.reproduction for name, f in runnable.items()}, path=[ROOT, HERE])


def test_every_reproduction_of_a_mutant_runs_as_printed(caught, runnable, results):
    assert len(runnable) > 0.9 * len(caught)
    for name, finding in runnable.items():
        assert shows(finding, results[name]), (name, finding.evidence, results[name], finding.reproduction)


CONTEXT_LAWS = {"B04", "C04", "C05", "C06"}
BOTH = {pair.code for pair in PAIRS if pair.code.startswith("L") or pair.code in CONTEXT_LAWS} - {
    "L08",
    "L09",
    "L14",
    "L15",
}


def test_the_reproduction_of_a_law_prints_what_came_and_what_should_have(caught, results):
    by_value = {
        name: finding
        for name, finding in caught.items()
        if finding.rule in BOTH and finding.evidence["where"].startswith("loss ") and finding.evidence["kind"] != "leak"
    }
    assert {f.rule for f in by_value.values()} >= {"B04", "C04", "C05", "C06", "L01", "L02", "L03", "L04", "L05", "L13"}
    for name, finding in by_value.items():
        came, should = (float(line.partition(":")[2]) for line in results[name]["out"].splitlines())
        assert describe(came) == finding.evidence["came"], (name, finding.reproduction)
        assert describe(should) == finding.evidence["should"], (name, finding.reproduction)


def test_the_reproduction_of_a_gradient_that_breaks_a_law_prints_both_gradients(caught, results):
    ((name, finding),) = ((name, f) for name, f in caught.items() if name.startswith("L05-scale_of_the_gradient"))
    printed = results[name]["out"].splitlines()
    came, should = (eval(line.partition(":")[2], {"tensor": torch.tensor, "torch": torch}) for line in printed)
    assert describe(came["embeddings"][0, 0].item()) == finding.evidence["came"]
    assert describe(should["embeddings"][0, 0].item()) == finding.evidence["should"]
