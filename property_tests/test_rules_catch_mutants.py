"""Every rule of the battery catches a mutant and is silent on the mutant's honest twin."""

import pytest
from mutants import PAIRS
from mutants.pair import verified

from harness import verify
from harness.results import Status
from harness.rules import BATTERY


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
