"""The survey shows what torch does: the code beside each of its findings gives what the comments say.

The findings in other packages are of versions that `make survey` installs in an environment of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from property_tests.helpers.documents.blocks import blocks
from property_tests.helpers.documents.comments import differences

SURVEY = Path(__file__).parents[2] / "docs" / "survey.md"


@pytest.mark.filterwarnings("ignore")  # torch warns of some of what is shown
def test_the_code_beside_each_finding_in_torch_gives_what_its_comments_say() -> None:
    following = SURVEY.read_text(encoding="utf-8").partition("\n## geomloss\n")[0].count("\n")
    shown = [block for block in blocks(SURVEY) if block.language == "python" and block.line <= following]
    assert len(shown) > 10
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        wrong = {block.line: differences(block.text, names) for block in shown}
    assert {line: found for line, found in wrong.items() if found} == {}


@pytest.mark.parametrize(
    ("code", "is_right"),
    [
        ("1 / 3  # 0.333", True),
        ("1 / 3  # 0.334", False),
        ("1.0, float('nan')  # 1 and nan", True),
        ("1.0, 2.0  # 1", False),
        ("1.0  # 1 and 2", False),
        ("1 / 0  # ZeroDivisionError: as in arithmetic", True),
        ("1 / 1  # ZeroDivisionError", False),
        ("1 / 0  # 0", False),
        ("for n in (1, 1, 2):\n    n  # 1, 2", True),
        ("for n in (1, 1, 2):\n    n  # 1", False),
        ("exit()  # nothing that could be compared", True),
    ],
)
def test_a_comment_that_says_something_else_is_found(code: str, is_right: bool) -> None:
    assert (differences(code, {}) == []) is is_right
