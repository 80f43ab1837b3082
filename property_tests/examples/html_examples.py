"""Reports written by hand with one of everything that the HTML report shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.results.measured import Crossover, Growth, Measurement
from harness.results.schema import LossRecord, Report, SourceRecord
from property_tests.examples import report_examples as examples

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "</style><script>alert(2)</script>",
    '"><svg onload=alert(3)>',
    "' onmouseover='alert(4)",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe\u2066",
    "\x00\x07\x1b[31mred\x1b[0m\x7f\x85",
    "lone \ud800 surrogate, not a character \uffff",
    "-->]]><!--",
    "javascript:alert(5)",
    "n" * 10_000,
    "",
)


SIZES = (64, 256, 1024)
TIMES, PEAKS = (1e-5, 1.6e-4, 2.5e-3), (4096, 65536, 1048576)


def sweep(*implementations: str, peaks: Sequence[int] = PEAKS, **changes: Any) -> tuple[Measurement, ...]:
    """Measurements of what `growth` says; each round a little slower than the one before."""
    return tuple(
        examples.measurement(
            name,
            sizes={"N": size, "D": 16},
            seconds_per_call=tuple(seconds * (0.8 + 0.05 * n) for n in range(9)),
            process=(0,) * 9,
            costs=dict(examples.COSTS) | {"peak_bytes": peak},
            **changes,
        )
        for name in implementations
        for size, seconds, peak in zip(SIZES, TIMES, peaks, strict=True)
    )


def growth(implementation: str, cost: str = "seconds", **changes: Any) -> Growth:
    made: dict[str, Any] = {
        "implementation": implementation,
        "device": "cpu",
        "dtype": "float32",
        "pass_name": "full",
        "cache": "warm",
        "clock": "wall",
        "cost": cost,
        "along": "N",
        "sizes": {"D": 16},
        "at": tuple(map(float, SIZES)),
        "costs": TIMES if cost == "seconds" else PEAKS,
        "exponent": 2.0,
        "low": 1.9,
        "high": 2.1,
        "last_exponent": 2.0,
    }
    return Growth(**made | changes)


def good() -> LossRecord:
    """Two implementations, measured at two sizes; to be adopted."""
    return examples.loss(
        description="Minus the sum of cosines over the edges.",
        outcomes=tuple(
            examples.outcome(name, f"{group}01", "inapplicable" if group == "T" else "passed", reason="")
            for name in ("naive", "vectorized")
            for group in "GBDCLSETP"
        ),
        sources=(SourceRecord("vectorized", "losses/graph_distance.py", 57, is_local=True),),
        measurements=sweep("naive", "vectorized"),
        comparisons=(examples.comparison(size=128, speedup=5.0), examples.comparison(size=1024, speedup=40.0)),
        growths=tuple(growth(name, cost) for name in ("naive", "vectorized") for cost in ("seconds", "peak_bytes")),
        crossovers=(
            Crossover(
                *({}, "cpu", "float32", "full"),
                overtaking="vectorized",
                overtaken="naive",
                along="N",
                below=16.0,
                above=64.0,
                estimate=22.0,
            ),
        ),
        suggestions=("laws.permutation('N') holds",),
    )


def bad() -> LossRecord:
    """An error with a follower, and a note."""
    outcomes = (
        examples.outcome("naive"),
        examples.outcome("fast", status="failed"),
        examples.outcome("fast", "G02", "failed"),
        examples.outcome("fast", "P02", "failed"),
        examples.outcome("fast", "L01", "inapplicable", reason="no law is declared"),
    )
    evidence = {"kind": "gradient", "where": "d loss / d embeddings"}
    wrong = examples.finding(implementation="fast", hint="multiply by 2", evidence=evidence)
    after = replace(wrong, rule="G02", title="slopes match", follows="G01")
    note = examples.finding("note", implementation="fast", rule="P02", title="no hidden host reads")
    return examples.loss(
        name="dice",
        implementations=("naive", "fast"),
        outcomes=outcomes,
        findings=(wrong, after, note),
        measurements=(),
        comparisons=(),
    )


def warned() -> LossRecord:
    """A warning and a speed that is lower."""
    found = examples.finding("warning", rule="D03", title="no overflow where the true value fits")
    return examples.loss(
        name="focal",
        outcomes=(examples.outcome("naive"), examples.outcome("vectorized", "D03", "failed")),
        findings=(found,),
        comparisons=(examples.comparison("slower", speedup=0.5),),
    )


def unknown() -> LossRecord:
    """Nothing was compared, since a rule crashed."""
    crashed = examples.outcome("vectorized", status="crashed", reason="out of memory")
    return examples.loss(
        name="sinkhorn", outcomes=(examples.outcome("naive"), crashed), measurements=(), comparisons=()
    )


def report(*losses: LossRecord) -> Report:
    """A report with a loss of every verdict, unless others are given."""
    return examples.report(*(losses or (good(), bad(), warned(), unknown())))


def hostile(text: str) -> LossRecord:
    """A loss in which everything that a user can name is called ``text``."""
    message = f"{text} / {text} / G01 gradient / float64 / cpu\n  {text} = 1, expected 2\n  {text}"
    found = (
        examples.finding(
            implementation=text,
            message=message,
            reproduction=text,
            hint=text,
            evidence={"where": text},
            case={"sizes": {text: 2}},
            failure=text,
        ),
        examples.finding("warning", rule=text, title=text, implementation=text, message=message),
    )
    return examples.loss(
        name=text,
        target=text,
        reference="naive",
        implementations=("naive", text),
        findings=found,
        outcomes=(
            examples.outcome(text, status="failed"),
            examples.outcome(text, text, "skipped", reason=text),
        ),
        comparisons=(examples.comparison(implementation=text, sizes={text: 2}, reason=text),),
        measurements=(examples.measurement(text, "failed", reason=text),),
        growths=(growth(text, along=text, sizes={text: 2}),),
        suggestions=(text,),
        notes=(text,),
        missing=text,
        description=text,
        sources=(SourceRecord(text, text, 3, is_local=True),),
    )


def large(losses: int = 80, notes: int = 12) -> Report:
    """Many losses, each with an error, a warning and many notes that are long to show."""
    values = ", ".join(f"{0.123456789 * n:.15f}" for n in range(120))
    long: dict[str, Any] = {
        "message": f"large / vectorized / G01 gradient / float64 / cpu\n  came 1, expected 2\n  N=2, x=[{values}]",
        "reproduction": f"import torch\n\nx = torch.tensor([{values}])\nprint(x)\n",
    }
    found = (
        examples.finding("error", **long),
        examples.finding("warning", rule="D03", **long),
        *(examples.finding("note", rule=f"P{n:02}", failure=f"{n}.json", **long) for n in range(notes)),
    )
    outcomes = tuple(
        examples.outcome(name, f"{group}{n:02}", "inapplicable", reason=f"reason {n} why the rule says nothing here")
        for name in ("naive", "vectorized")
        for group in "GBDC"
        for n in range(12)
    )
    return examples.report(
        *(replace(good(), name=f"loss_{n}", findings=found, outcomes=outcomes) for n in range(losses))
    )
