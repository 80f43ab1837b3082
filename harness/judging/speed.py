"""What the timings say of an implementation, in sentences: where it is faster, slower, equally fast or open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

from harness.results.measured import Cell, Comparison
from harness.results.schema import LossRecord
from harness.results.variants import SUFFIX
from harness.results.words import seconds_text


def open_everywhere(loss: LossRecord, implementation: str) -> bool:
    """Whether every comparison of it is open."""
    mine = [c for c in loss.comparisons if c.implementation == implementation]
    return bool(mine) and all(comparison.verdict == "inconclusive" for comparison in mine)


def speed_sentences(loss: LossRecord, implementation: str) -> tuple[list[str], list[str]]:
    """Sentences on speed, one a setting and rival: those with a size at which it is slower than the reference, and the others."""
    slow: list[str] = []
    other: list[str] = []
    mine = (c for c in loss.comparisons if c.implementation == implementation)
    for (reference, setting), ordered in _grouped(mine).items():
        is_slow = reference == loss.reference and any(c.verdict == "slower" for c in ordered)
        (slow if is_slow else other).append(f"against {reference} on {setting}: {_places(ordered)}")
    return slow, [*other, *_uncompared(loss, implementation)]


def _grouped(comparisons: Iterable[Comparison]) -> dict[tuple[str, str], list[Comparison]]:
    """(rival, setting) -> comparisons in order of size."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault((comparison.reference, setting_text(comparison)), []).append(comparison)
    return {key: sorted(group, key=lambda c: elements(c.sizes)) for key, group in groups.items()}


def compiled_sentences(loss: LossRecord, implementation: str) -> list[str]:
    """Sentences on the compiled variant, one a setting; it has no verdict of its own."""
    variant = implementation + SUFFIX
    mine = [m for m in loss.measurements if m.implementation == variant]
    failed = [m for m in mine if m.status == "failed"]
    reasons = [f"compiled, it failed on {setting_text(m)} at {input_text(m)}: {m.reason}" for m in failed]
    compared = (c for c in loss.comparisons if (c.implementation, c.reference) == (variant, implementation))
    for (_, setting), ordered in _grouped(compared).items():
        taken = [m.compile_seconds for m in mine if setting_text(m) == setting and m.compile_seconds is not None]
        compile_s = f"; to compile took {seconds_text(max(taken))}" if taken else ""
        reasons.append(f"compiled, against its eager form on {setting}: {_places(ordered)}{compile_s}")
    skipped = [m.reason for m in mine if m.status == "skipped" and m.reason]
    return list(dict.fromkeys(reasons or [f"its compiled form was not timed: {reason}" for reason in skipped[:1]]))


def _uncompared(loss: LossRecord, implementation: str) -> list[str]:
    """Sizes at which only the implementation was measured: what they cost is known, what they gain is not."""
    compared = {place_of(c) for c in loss.comparisons if c.implementation == implementation}
    if not compared:
        return []  # said once, as an unknown speed
    sizes: dict[str, list[str]] = {}
    for m in loss.measurements:
        if m.implementation == implementation and m.status == "measured" and place_of(m) not in compared:
            sizes.setdefault(setting_text(m), []).append(input_text(m))
    return [f"not compared with {loss.reference} on {setting}: {listed(found)}" for setting, found in sizes.items()]


def main_comparisons(loss: LossRecord) -> list[Comparison]:
    """Comparisons with the reference, or with what stands in for it where it is too slow.

    Those of compiled variants with their eager forms stand apart.
    """
    return [c for c in loss.comparisons if c.reference == loss.reference or c.implementation != c.reference + SUFFIX]


def place_of(record: Cell) -> tuple[str, str]:
    """Setting and input: what is compared is compared at one place."""
    return (setting_text(record), input_text(record))


_OWN_CLOCK = {"cpu": "wall", "cuda": "events"}
_CLOCK_TEXT = {"wall": "wall clock of the host", "events": "events on the stream", "graph": "replay of a CUDA graph"}


def setting_text(record: Cell) -> str:
    """How something was timed, such as ``cpu, float32, full pass``; cache and clock where they are not the usual ones.

    The device alone where an implementation was left out of all timing on it.
    """
    parts = [record.device, *([record.dtype, f"{record.pass_name} pass"] if record.pass_name else [])]
    if record.cache != "warm":
        parts.append(f"{record.cache} cache")
    if record.clock != _OWN_CLOCK.get(record.device.partition(":")[0], "wall"):
        parts.append(_CLOCK_TEXT.get(record.clock, record.clock))
    return ", ".join(parts)


def _places(ordered: Sequence[Comparison]) -> str:
    """Where it is faster, slower and equally fast, in order of size."""
    words = {"faster": "faster", "slower": "slower", "equivalent": "equally fast", "inconclusive": "open"}
    by_verdict = {verdict: [c for c in ordered if c.verdict == verdict] for verdict in words}
    parts = [f"{words[verdict]} at {listed(list(map(_at, found)))}" for verdict, found in by_verdict.items() if found]
    return f"{'; '.join(parts)}{_crossover(by_verdict)}"


def _crossover(by_verdict: Mapping[str, Sequence[Comparison]]) -> str:
    """Where one overtakes the other; both sequences are in order of size."""
    faster, slower = by_verdict["faster"], by_verdict["slower"]
    if not slower:
        return ""
    if not faster:
        return "; faster at no measured size"
    if elements(slower[-1].sizes) < elements(faster[0].sizes):
        return f"; it overtakes between {input_text(slower[-1])} and {input_text(faster[0])}"
    if elements(faster[-1].sizes) < elements(slower[0].sizes):
        return f"; it is overtaken between {input_text(faster[-1])} and {input_text(slower[0])}"
    return "; no single crossover"


def _at(comparison: Comparison) -> str:
    speedup = f" ({speedup_text(comparison.speedup)})" if comparison.speedup is not None else ""
    return f"{input_text(comparison)}{speedup}"


def input_text(record: Cell) -> str:
    """Sizes and densities of what was timed; ``all sizes`` where an implementation was left out of all timing."""
    return size_text(record.sizes, record.densities) if record.pass_name else "all sizes"


def elements(sizes: Mapping[str, Any]) -> int:
    """Number of elements, by which sizes are put in order."""
    return prod(prod(size) if isinstance(size, (list, tuple)) else size for size in sizes.values())


def speedup_text(speedup: float | None) -> str:
    """A ratio to three significant digits, such as ``1.25×``; ``unknown`` where there is none."""
    if speedup is None:
        return "unknown"
    return f"{speedup:.0f}×" if speedup >= 100 else f"{speedup:.3g}×"


def size_text(sizes: Mapping[str, Any], densities: Mapping[str, Any] | None = None) -> str:
    """Sizes for a person, such as ``N=128, D=64, rest=2×3``, and ``1 % of mask`` where a tensor was thinned."""
    parts = [
        f"{name}={'×'.join(map(str, size)) or '()' if isinstance(size, (list, tuple)) else size}"
        for name, size in sizes.items()
    ]
    parts += [f"{100 * density:g} % of {name}" for name, density in (densities or {}).items()]
    return ", ".join(parts) or "scalar"


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def order_changes(loss: LossRecord, implementation: str) -> list[str]:
    """Where it overtakes another or is overtaken, one sentence a pair and setting."""
    found = []
    for c in loss.crossovers:
        if implementation not in (c.overtaking, c.overtaken):
            continue
        verb, other = (
            ("overtakes", c.overtaken) if c.overtaking == implementation else ("is overtaken by", c.overtaking)
        )
        fixed = f" at {input_text(c)}" if c.fixed_text else ""
        found.append(f"{verb} {other} at about {c.along}={c.estimate:.3g}{fixed}, on {setting_text(c)}")
    settled = {(c.overtaking, c.overtaken) for c in loss.crossovers}
    settled |= {pair[::-1] for pair in settled}
    mine = (c for c in loss.comparisons if c.implementation == implementation)
    left = (c for c in mine if (implementation, c.reference) not in settled)
    for (rival, setting), ordered in _grouped(left).items():
        by_verdict = {verdict: [c for c in ordered if c.verdict == verdict] for verdict in ("faster", "slower")}
        where = _crossover(by_verdict).removeprefix("; ") if all(by_verdict.values()) else ""
        found += [f"against {rival} on {setting}: {where}"] if where else []
    return found
