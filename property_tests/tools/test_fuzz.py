"""What `make fuzz` keeps and tries again; how long it goes on is up to whoever calls it."""

from __future__ import annotations

import json
import math
import runpy

import pytest

from harness import verify
from harness.errors import HarnessError
from property_tests.tools import fuzz
from property_tests.tools.fuzz import SECOND, Fuzzer, OutOfTime

LOSS = """
from torch import Tensor
from harness import LossSpec, TensorSpec

def good(p, y):
    return (p - y).square().mean()

def bad(p, y):
    return good(p, y) * (1 + p.detach().sum())

SPECS = [
    LossSpec("squares", {"good": good, "bad": bad}, inputs={"p": TensorSpec("B"), "y": TensorSpec("B")}, output=TensorSpec(""))
]
"""


def finding(rule: str) -> dict[str, dict[str, str]]:
    about = {"loss": "squares", "implementation": "bad", "rule": rule, "severity": "error", "message": ""}
    return {f"squares / bad / {rule} / ": about}


@pytest.fixture
def played(tmp_path, monkeypatch):
    """A fuzzer whose runs are told by a function of target, seed and rules; it ends once that raises `OutOfTime`."""

    def make(tell):
        monkeypatch.setattr(fuzz, "found", lambda report: report)
        monkeypatch.setattr(Fuzzer, "_unit", lambda self, target, request: tell(target, request.seed, request.codes))
        monkeypatch.setattr(fuzz, "Sandbox", lambda preload: None)
        made = Fuzzer(tmp_path / "fuzz", "quick", math.inf, 1)
        with pytest.raises(OutOfTime):
            made.run(["losses", "absent", "others"])
        return made

    return make


def test_what_a_second_seed_does_not_show_is_flaky_and_what_it_shows_is_not(played):
    def tell(target, seed, codes):
        if seed == 2:
            raise OutOfTime
        if target != "losses":
            return {}
        return finding("G01") if seed > SECOND else finding("G01") | finding("E01")

    repeated = {e["rule"]: e["repeated"] for e in played(tell).book.data["findings"].values()}
    assert repeated == {"G01": True, "E01": False}


def test_every_target_has_a_seed_before_any_has_the_next_and_the_next_run_has_new_ones(played):
    asked: list[tuple[str, int]] = []
    last = [2]

    def tell(target, seed, codes):
        if target == "absent":
            raise HarnessError("not installed\nwrite pip install")
        if seed > last[0]:
            raise OutOfTime
        asked.append((target, seed))
        return {}

    assert played(tell).absent == {"absent": "not installed write pip install"}
    assert asked == [("losses", 1), ("others", 1), ("losses", 2), ("others", 2)]
    asked.clear()
    last[0] = 3
    played(tell)
    assert asked == [("losses", 3), ("others", 3)]


def test_a_run_that_was_stopped_goes_on_from_its_journal_and_leaves_only_the_book(tmp_path):
    (tmp_path / "mine.py").write_text(LOSS)
    target, folder = str(tmp_path / "mine.py"), tmp_path / "fuzz"

    class Stopped(Fuzzer):
        def _try_again(self, target, seed, new):
            super()._try_again(target, seed, new)
            raise OutOfTime

    stopped = Stopped(folder, "quick", math.inf, 1)
    with pytest.raises(OutOfTime):
        stopped.run([target])
    stopped.close()
    kept = sorted(p.name for p in folder.iterdir())
    assert len(kept) == 3  # the book, and the journals of the seed and of its second try
    again = Fuzzer(folder, "quick", math.inf, 1)
    again.book.units = lambda *_: iter([(target, 1)])
    again.run([target])
    again.close()
    assert [p.name for p in folder.iterdir()] == ["found.json"]
    data = json.loads((folder / "found.json").read_text())
    assert data["done"] == [[target, 1]]
    outcomes = verify(runpy.run_path(target)["SPECS"][0], profile="quick", seed=1).outcomes
    first, second = data["examples"].values()
    assert first == sum(outcome.examples for outcome in outcomes)
    assert again.book.examples == first + second > first
    assert {e["rule"]: e["repeated"] for e in data["findings"].values() if e["implementation"] == "bad"}["G01"] is True


def test_a_process_that_grows_is_told_from_one_that_is_flat():
    flat = [{"examples": 1_000 * n, "bytes": 100 * 2**20} for n in range(1, 6)]
    grown = [each | {"bytes": each["bytes"] + 6 * 2**18 * n} for n, each in enumerate(flat)]
    assert fuzz.memory(flat).endswith("100 to 100 MiB after a unit, flat")
    assert fuzz.memory(grown).endswith("100 to 106 MiB after a unit, it grew")
    assert fuzz.memory(flat[:1]).endswith("fewer than two units to compare")
