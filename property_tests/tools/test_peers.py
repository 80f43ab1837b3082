"""The page of peers shows what its program gives; the suites of others are run as their users run them."""

from __future__ import annotations

from pathlib import Path

import pytest

from property_tests.tools.peers.__main__ import ours, suite
from property_tests.tools.peers.losses import LOSSES

PAGE = (Path(__file__).parents[2] / "docs" / "peers.md").read_text(encoding="utf-8")


def test_every_loss_has_a_row() -> None:
    assert all(f"(`{name}`) |" in PAGE for name in LOSSES)


@pytest.mark.parametrize(
    ("name", "loss", "failed"),
    [
        ("plain", "Right", []),
        ("plain", "Detached", ["test_gradcheck"]),
        ("checks", "Right", []),
        ("checks", "NoShapes", ["check_n_features_in_after_fitting"]),
        ("base_tester", "Right", ["no clone"]),
    ],
)
def test_a_suite_says_which_of_its_tests_fail(name: str, loss: str, failed: list[str]) -> None:
    assert suite(name, loss, "") == failed


@pytest.mark.parametrize("loss", ["Right", "PlainAttribute"])
def test_ours_finds_what_the_page_shows(loss: str) -> None:
    found = ours(loss)
    assert [line.partition(" ")[0] for line in found] == ([] if loss == "Right" else ["C01"])
    assert all(f"{loss}: {line}" in PAGE for line in found)
