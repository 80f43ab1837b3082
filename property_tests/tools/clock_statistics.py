"""What the statistics of the clock promise, on rounds whose truth is known: ``python -m property_tests.tools.clock_statistics``.

Each comparison is planned, looked at and judged as `harness.timing.session` does: three to six processes of a part of the
rounds each.  A round is exp of a normal number about the mean of its process, which is a normal number about the truth.

    python -m property_tests.tools.clock_statistics --comparisons 1000 --rounds-scatter 3
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import click
import numpy as np

from harness.results.words import table
from harness.timing.constants import MOST_PROCESSES, ROUNDS
from harness.timing.rates import Rate
from harness.timing.statistics import Ratio, is_settled, paired_ratio

SCATTERS = (0, 1, 2, 3)  # of processes, per cent
SLOWDOWNS = (0, 3, 5, 10)  # per cent
# What is promised; the power where processes scatter by no more than 2 %, as on a machine that is not overloaded.
FALSE_CALLS, POWER, COVERAGE = 0.01, 0.95, 0.93
POWER_SCATTER = 2
ROUNDS_ONCE = 30  # of every comparison, before there were looks


@dataclass(frozen=True)
class Seen:
    """Comparisons of one kind.

    Args:
        scatter: of processes, per cent.
        slowdown: the truth, per cent.
        ratios: what was said.
        rounds: how many each took.
    """

    scatter: int
    slowdown: int
    ratios: tuple[Ratio, ...]
    rounds: tuple[int, ...]

    @property
    def covered(self) -> Rate:
        """Whose interval holds the truth."""
        truth = 1 / (1 + self.slowdown / 100)
        return self._rate([r.low <= truth <= r.high for r in self.ratios])

    @property
    def called(self) -> Rate:
        """Called faster or slower."""
        return self._rate([r.verdict in ("faster", "slower") for r in self.ratios])

    @property
    def found(self) -> Rate:
        """Whose interval excludes no change, and that are not called equivalent."""
        return self._rate([r.high < 1 and r.verdict != "equivalent" for r in self.ratios])

    def _rate(self, counts: list[bool]) -> Rate:
        return Rate(sum(counts), len(counts))

    @property
    def broken(self) -> list[str]:
        """Promises that these comparisons refute."""
        found = []
        if self.covered.interval[1] < COVERAGE:
            found.append(f"{self.covered.value:.1%} of the intervals hold the truth, expected {COVERAGE:.0%}")
        if not self.slowdown and self.called.is_above(FALSE_CALLS):
            found.append(f"{self.called.value:.1%} were called faster or slower, expected at most {FALSE_CALLS:.0%}")
        if self.slowdown == 5 and self.scatter <= POWER_SCATTER and self.found.interval[1] < POWER:
            found.append(f"{self.found.value:.1%} were found, expected {POWER:.0%}")
        return found


def compared(truth: float, scatter: float, noise: float, generator: np.random.Generator) -> tuple[Ratio, int]:
    """One comparison of a true speedup, and the rounds that it took."""
    logs: list[float] = []
    process: list[int] = []
    for number in range(MOST_PROCESSES):
        part = -(-(ROUNDS - len(logs)) // (MOST_PROCESSES - number))
        mean = math.log(truth) + generator.normal(0, scatter)
        logs += [float(value) for value in mean + generator.normal(0, noise, part)]
        process += [number] * part
        if is_settled([math.exp(log) for log in logs], [1.0] * len(logs), process):
            break
    return paired_ratio([math.exp(log) for log in logs], [1.0] * len(logs), process), len(logs)


def seen(scatter: int, slowdown: int, noise: float, count: int, seed: int) -> Seen:
    """Many comparisons of one kind."""
    generator = np.random.default_rng((seed, scatter, slowdown))
    made = [compared(1 / (1 + slowdown / 100), scatter / 100, noise, generator) for _ in range(count)]
    return Seen(scatter, slowdown, tuple(ratio for ratio, _ in made), tuple(rounds for _, rounds in made))


@click.command()
@click.option("--comparisons", default=400, show_default=True, help="Of each kind.")
@click.option(
    "--rounds-scatter", default=2.4, show_default=True, help="How much rounds scatter in a process, per cent."
)
@click.option("--seed", default=0, show_default=True)
def main(comparisons: int, rounds_scatter: float, seed: int) -> None:
    """Print a row for each scatter of processes and true slowdown; fail where a promise is refuted."""
    rows = [["processes", "slowdown", "covered", "called", "found", "rounds"]]
    broken, rounds = [], []
    for scatter in SCATTERS:
        for slowdown in SLOWDOWNS:
            made = seen(scatter, slowdown, rounds_scatter / 100, comparisons, seed)
            mean = sum(made.rounds) / len(made.rounds)
            rates = [f"{rate.value:.1%}" for rate in (made.covered, made.called, made.found)]
            rows.append([f"{scatter} %", f"+{slowdown} %", *rates, f"{mean:.1f}"])
            broken += [f"{scatter} %, +{slowdown} %: {text}" for text in made.broken]
            rounds += made.rounds
    click.echo(table(rows))
    click.echo(
        f"{sum(rounds) / len(rounds):.1f} rounds on average, {sum(rounds) / len(rounds) / ROUNDS_ONCE:.0%} of 30"
    )
    for text in broken:
        click.echo(text)
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
