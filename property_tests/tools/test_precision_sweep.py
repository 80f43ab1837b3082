"""No wrong gradient is called right in any precision, and no right one wrong: the sweep's table, at small cost."""

from __future__ import annotations

import pytest
import torch

from property_tests.tools.precision_sweep import DEFECTS, cell, verified

LOW = (torch.float32, torch.bfloat16)
BESIDE = ("none", "sign", "two percent", "where not contiguous")


def word(inside, name, *, alone):
    return cell(verified(inside, name, alone=alone, seed=0, profile="quick"), inside, name, alone=alone)


@pytest.mark.parametrize("name", DEFECTS)
@pytest.mark.parametrize("inside", LOW, ids=str)
def test_a_kernel_alone_is_caught_or_could_not_be_measured(inside, name):
    assert word(inside, name, alone=True) in {"silent", "caught", "unmeasured", "below"}


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("inside", LOW, ids=str)
def test_a_kernel_beside_its_reference_is_caught_where_the_precision_shows_it(inside, name):
    assert word(inside, name, alone=False) in {"silent", "caught", "below"}


@pytest.mark.parametrize("name", ["sign", "last column is zero", "twice", "one element of many"])
def test_float32_shows_gross_defects_without_a_reference(name):
    assert word(torch.float32, name, alone=True) == "caught"


@pytest.mark.parametrize("name", ["sign", "twice"])
def test_bfloat16_shows_another_sign_or_factor_without_a_reference(name):
    assert word(torch.bfloat16, name, alone=True) == "caught"
