"""What is drawn depends on the seed alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers

from harness.drawing import hypothesis_runs

ANYTHING = st.tuples(st.integers(1, 1000), st.binary(min_size=4, max_size=4))


def drawn(start: int = 0, examples: int = 200) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    hypothesis_runs.run(ANYTHING, found.append, examples=examples, start=start)
    return found


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is imported now and was not before, and has constants that fit."""
    name = f"has_constants_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text("FOUND = [b'abcd', b'1234', b'wxyz', 611, 612, 613]\n")
    monkeypatch.syspath_prepend(tmp_path)
    __import__(name)
    monkeypatch.delitem(sys.modules, name, raising=False)
    __import__(name)


def test_the_same_start_draws_the_same_and_another_one_does_not() -> None:
    assert drawn() == drawn()
    assert drawn() != drawn(start=1)


def test_what_else_was_imported_changes_nothing(request: pytest.FixtureRequest) -> None:
    before = drawn()
    request.getfixturevalue("module")
    assert drawn() == before


def test_what_others_have_drawn_changes_nothing(request: pytest.FixtureRequest) -> None:
    """Hypothesis keeps the constants that fit; those of a user's own tests are not ours."""
    before = drawn()
    request.getfixturevalue("module")
    from hypothesis import HealthCheck, given, settings

    @settings(max_examples=200, database=None, suppress_health_check=list(HealthCheck))
    @given(ANYTHING)
    def test_of_a_user(values: tuple[int, bytes]) -> None:
        pass

    test_of_a_user()
    assert drawn() == before


def test_hypothesis_is_left_as_it_was(module: None) -> None:
    finds, kept = providers._get_local_constants, providers.CONSTANTS_CACHE
    with pytest.raises(ZeroDivisionError):
        hypothesis_runs.run(ANYTHING, lambda values: 1 / 0, examples=5, start=0, shrink=True)  # type: ignore[arg-type,return-value]
    drawn()
    assert providers._get_local_constants is finds
    assert providers.CONSTANTS_CACHE is kept
