"""Every defect that the usual form of a loss lists is found by the rule it names, and by no rule on the reference loss."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from loss_examples import WORKED, evaluate

from harness.checking.verify import verify
from harness.declare.targets import load_specs
from losses import SPECS

FORMS = sorted((Path(__file__).parents[1] / "examples/usual_forms").glob("*.py"))
LOADED = {path.stem: load_specs([str(path)]) for path in FORMS}


def listed(stem):
    """Codes at the head of the file, in order."""
    spec = LOADED[stem][0]
    module = sys.modules[spec.implementations["usual"].__module__]
    return re.findall(r"^- ([A-Z]\d\d)  ", module.__doc__, flags=re.MULTILINE)


DEFECTS = [(path.stem, code) for path in FORMS for code in listed(path.stem)]


def test_each_reference_loss_has_a_usual_form_with_listed_defects():
    assert [path.stem for path in FORMS] == ["dynamic_weighted", "graph_distance", "weighted_mse"]
    assert all(listed(path.stem) for path in FORMS)


@pytest.mark.parametrize("example", WORKED, ids=lambda example: example.spec.name)
def test_the_usual_form_gives_the_worked_example_so_that_a_value_alone_does_not_show_its_defects(example):
    found = evaluate(LOADED[example.spec.name][0], "usual", example.tensors)
    assert found.item() == pytest.approx(example.value, rel=1e-7)


@pytest.mark.parametrize(("form", "code"), DEFECTS)
def test_each_listed_defect_is_found_with_the_input_and_the_code_that_show_it(form, code):
    torch.set_num_threads(1)
    alone, against_reference = LOADED[form]
    spec = against_reference if code.startswith("E") else alone
    found = [f for f in verify(spec, profile="ci", rules=[code]).of("usual") if f.rule == code]
    assert found
    for finding in found:
        assert finding.case is not None
        assert finding.reproduction


@pytest.mark.parametrize(("form", "code"), DEFECTS)
def test_the_same_rule_finds_nothing_on_the_vectorized_loss(form, code):
    (spec,) = [spec for spec in SPECS if spec.name == form]
    verification = verify(spec, profile="quick", rules=[code])
    assert verification.of("vectorized") == ()
    assert verification.ok
