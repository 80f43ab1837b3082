"""Reports written by hand, for the tests of verdicts and renderers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.judging.verdict import with_verdicts
from harness.results.findings import Finding, Outcome
from harness.results.measured import Comparison, Measurement
from harness.results.schema import LossRecord, Report

COSTS = {"aten_calls": 7, "read_bytes": 1024, "written_bytes": 512, "saved_bytes": 4096, "peak_bytes": 8192}


def outcome(implementation: str = "vectorized", rule: str = "G01", status: str = "passed", **changes: Any) -> Outcome:
    return Outcome(
        **{
            "implementation": implementation,
            "rule": rule,
            "device": "cpu",
            "status": status,
            "examples": 12,
            "reason": "",
        }
        | changes
    )


def finding(severity: str = "error", **changes: Any) -> Finding:
    made: dict[str, Any] = {
        "implementation": "vectorized",
        "rule": "G01",
        "title": "gradient matches finite differences",
        "severity": severity,
        "device": "cpu",
        "message": "graph_distance / vectorized / G01 gradient matches finite differences / float64 / cpu\n"
        "  d loss / d embeddings[0, 1] = -0.5599, expected -0.2799   (off by 0.28, allowed 1e-06)\n"
        "  N=2, D=2, adjacency=[[0, 1], [1, 0]]",
        "reproduction": "import torch\n\nprint(torch.ones(2))",
        "hint": "",
        "evidence": {"off": 0.28, "kind": "gradient"},
        "case": {"sizes": {"N": 2}},
        "failure": "graph_distance-G01-3f2a.json",
    }
    return Finding(**made | changes)


def comparison(verdict: str = "faster", size: int = 128, speedup: float | None = 5.0, **changes: Any) -> Comparison:
    made: dict[str, Any] = {
        "implementation": "vectorized",
        "reference": "naive",
        "device": "cpu",
        "dtype": "float32",
        "sizes": {"N": size},
        "pass_name": "full",
        "speedup": speedup,
        "low": None if speedup is None else 0.9 * speedup,
        "high": None if speedup is None else 1.1 * speedup,
        "verdict": verdict,
        "rounds": 30,
        "reason": "",
    }
    return Comparison(**made | changes)


def measurement(implementation: str = "vectorized", status: str = "measured", **changes: Any) -> Measurement:
    is_measured = status == "measured"
    made: dict[str, Any] = {
        "implementation": implementation,
        "device": "cpu",
        "dtype": "float32",
        "sizes": {"N": 128},
        "pass_name": "full",
        "status": status,
        "reason": "",
        "seconds_per_call": (2e-5, 1e-5, 4e-5) if is_measured else (),
        "process": (0, 0, 1) if is_measured else (),
        "calls_per_block": 100 if is_measured else 0,
        "costs": dict(COSTS) if is_measured else {},
        "bound_bytes": 1024,
    }
    return Measurement(**made | changes)


def loss(**changes: Any) -> LossRecord:
    """A loss with two implementations that passed one rule, and a speedup."""
    made: dict[str, Any] = {
        "name": "graph_distance",
        "target": "losses",
        "reference": "naive",
        "implementations": ("naive", "vectorized"),
        "outcomes": (outcome("naive"), outcome("vectorized")),
        "measurements": (measurement("naive"), measurement("vectorized")),
        "comparisons": (comparison(),),
    }
    return LossRecord(**made | changes)


def report(*losses: LossRecord) -> Report:
    made = Report(
        seed=0,
        profile="ci",
        devices=("cpu",),
        environment={"cpu": {"torch": "2.13.0", "threads": 1}},
        losses=losses or (loss(),),
        seconds={"verify graph_distance": 1.5},
    )
    return with_verdicts(made)


def large(losses: int = 30) -> Report:
    """A report of the size that a whole library of losses has: 2 MB."""
    measured = measurement(seconds_per_call=tuple(1e-5 + n * 1e-9 for n in range(400)), process=(0,) * 400)
    made = (
        loss(
            name=f"loss_{number}",
            outcomes=tuple(outcome(rule=f"L{rule:02}") for rule in range(100)),
            findings=tuple(finding("warning", rule=f"L{rule:02}") for rule in range(5)),
            measurements=tuple(replace(measured, sizes={"N": n}) for n in range(4)),
        )
        for number in range(losses)
    )
    return report(*made)
