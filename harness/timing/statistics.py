"""From paired rounds to a speedup, its interval and a verdict."""

from __future__ import annotations

import math as _math
import statistics as _statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import numpy.typing as npt

from harness.results.measured import MARGIN, Speed
from harness.timing.constants import (
    BOOTSTRAP_ROUNDS,
    CONFIDENCE,
    EARLY_GUARD,
    GUARD,
    LEAST_PROCESS_SCATTER,
    LOOK_CONFIDENCE,
    MOST_PROCESS_SCATTER,
    PRIOR_SCATTER,
    PRIOR_WEIGHT,
    PROCESSES,
    RESAMPLES,
    SETTLED_ROUNDS,
)
from harness.timing.timers import held

math, np, statistics = held(_math), held(numpy), held(_statistics)


# Two-sided 95 % quantiles of Student's t for 1 to 10 degrees of freedom, and of the normal distribution.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_NORMAL = 1.959964
# A normal deviate is within this of zero every second time.
_QUARTILE = 0.67449
# Scatters of processes between which their likelihood hardly changes, and halvings that find an end to 1e-7 of its range.
_SCATTERS = 40
_HALVINGS = 24


def student_quantile(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t; beyond 10 degrees of freedom by the expansion, off by less than 0.003.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    if freedom < 1:
        raise ValueError(f"{freedom} degrees of freedom came, but there should be at least 1")
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    z, v = _NORMAL, freedom
    return z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)


@dataclass(frozen=True)
class Ratio:
    """A speedup (reference time / implementation time) and its 95 % interval."""

    speedup: float
    low: float
    high: float

    @property
    def verdict(self) -> Speed:
        """``faster`` or ``slower`` where the whole interval is outside the margin, ``equivalent`` where it is inside."""
        if self.low > MARGIN:
            return "faster"
        if self.high < 1 / MARGIN:
            return "slower"
        if self.low >= 1 / MARGIN and self.high <= MARGIN:
            return "equivalent"
        return "inconclusive"

    def is_far(self, rounds: int) -> bool:
        """Whether the whole interval is so far outside the margin that so many rounds may settle the comparison."""
        guard = GUARD if rounds >= SETTLED_ROUNDS else EARLY_GUARD
        return self.low > guard or self.high < 1 / guard


def is_settled(
    reference: Sequence[float],
    implementation: Sequence[float],
    process: Sequence[int],
    seed: int = 0,
    *,
    least: int = 2,
) -> bool:
    """Whether rounds settle a comparison, so that no more are needed; see `paired_ratio` for what they are.

    They do in two processes by a factor that noise does not reach, and in three by a verdict at 98 % confidence.

    Args:
        reference: seconds per call of the reference, one per round.
        implementation: the same for the implementation, in the same rounds.
        process: which process each round ran in.
        seed: of the resampling.
        least: processes without which nothing is settled.
    """
    processes = len(set(process))
    if len(process) < 2 or processes < least:
        return False
    if paired_ratio(reference, implementation, process, seed).is_far(len(process)):
        return True
    if processes < PROCESSES or len(process) < BOOTSTRAP_ROUNDS:
        return False
    at_look = paired_ratio(reference, implementation, process, seed, confidence=LOOK_CONFIDENCE)
    return at_look.verdict != "inconclusive"


def paired_ratio(
    reference: Sequence[float],
    implementation: Sequence[float],
    process: Sequence[int],
    seed: int = 0,
    *,
    confidence: float = CONFIDENCE,
) -> Ratio:
    """The speedup that paired rounds show.

        speedup = exp(median over rounds of log(reference / implementation))

    The interval holds both of two.  One resamples processes, then rounds within each (hierarchical bootstrap, percentiles);
    of three processes it knows too little, for a resample scatters less than they do.  So where there are several, the other
    holds 95 % of what the mean of all processes may be, given the median m of each process,

        m ~ normal(mean, tau ** 2 + pi / 2 s ** 2 / rounds),   p(tau) ~ 1 / (0.0005 + tau) up to 0.1,   p(mean) constant

    where s is how much rounds scatter within a process.  Of simulated comparisons whose rounds scatter by 2.4 %, looked at after
    three to six processes as `is_settled` says, the intervals of 99, 96, 94 and 92 % held the truth where processes scatter by
    0, 1, 2 and 3 %, and a change of 5 % was seen in 99, 98, 96 and 77 % (`property_tests.tools.clock_statistics`).  Wider ones
    would not see it where processes differ by chance.

    Below six rounds the interval is exp(mean +- t s / sqrt(n)) of the log ratios instead, widened to contain the speedup,
    where

        s ** 2 = (4 * 0.2 ** 2 + (n - 1) * variance) / (4 + n - 1),   t with 4 + n - 1 degrees of freedom

    Args:
        reference: seconds per call of the reference, one per round.
        implementation: the same for the implementation, in the same rounds.
        process: which process each round ran in.
        seed: of the resampling.
        confidence: of the interval, from six rounds on.

    Raises:
        ValueError: fewer than two rounds, unequal lengths, or a time that is not positive.

    Source: Davison and Hinkley, Bootstrap Methods and their Application, section 3.8; Kalibera and Jones, Rigorous
    Benchmarking in Reasonable Time, 2013; Gelman, Prior distributions for variance parameters in hierarchical models, 2006.
    """
    if not len(reference) == len(implementation) == len(process) or len(reference) < 2:
        raise ValueError(
            f"{len(reference)}, {len(implementation)} and {len(process)} rounds came, but a ratio needs the same number, "
            f"at least 2"
        )
    if min(*reference, *implementation) <= 0:
        raise ValueError("a time that is not positive came; a clock of too low resolution?")
    logs = np.log(np.asarray(reference, dtype=np.float64) / np.asarray(implementation, dtype=np.float64))
    centre = float(np.median(logs))
    if len(logs) < BOOTSTRAP_ROUNDS:
        low, high = _student(logs)
    else:
        groups = [logs[np.asarray(process) == number] for number in np.unique(process)]
        found = [_bootstrap(groups, seed, confidence)]
        found += [_hierarchical(groups, confidence)] if len(groups) > 1 else []
        low, high = min(ends[0] for ends in found), max(ends[1] for ends in found)
    return Ratio(math.exp(centre), math.exp(min(low, centre)), math.exp(max(high, centre)))


def _student(logs: npt.NDArray[numpy.float64]) -> tuple[float, float]:
    values = [float(value) for value in logs]
    freedom = PRIOR_WEIGHT + len(values) - 1
    variance = (PRIOR_WEIGHT * PRIOR_SCATTER**2 + (len(values) - 1) * statistics.variance(values)) / freedom
    half = student_quantile(freedom) * math.sqrt(variance / len(values))
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def _bootstrap(groups: Sequence[npt.NDArray[numpy.float64]], seed: int, confidence: float) -> tuple[float, float]:
    generator = np.random.default_rng(seed)
    counts = np.array([len(group) for group in groups])
    width = int(counts.max())
    table = np.full((len(groups), width), np.nan)
    for row, group in enumerate(groups):
        table[row, : len(group)] = group
    chosen = generator.integers(len(groups), size=(RESAMPLES, len(groups), 1))
    drawn = (generator.random((RESAMPLES, len(groups), width)) * counts[chosen]).astype(np.int64)
    samples = table[chosen, drawn]
    samples[np.arange(width) >= counts[chosen]] = np.nan  # a process that ran fewer rounds weighs less
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(np.nanmedian(samples.reshape(RESAMPLES, -1), axis=1), [tail, 100 - tail])
    return float(low), float(high)


def _hierarchical(groups: Sequence[npt.NDArray[numpy.float64]], confidence: float) -> tuple[float, float]:
    """Ends of the central part of the posterior of the mean over all processes."""
    medians = np.array([np.median(group) for group in groups])
    counts = np.array([len(group) for group in groups])
    # Of one round the variance is s ** 2, of many pi / 2 s ** 2 / rounds.
    own = _scatter(groups) ** 2 * (math.pi / 2) / (counts + math.pi / 2 - 1)
    # Midpoints of equal parts of the prior, so that each has the weight of its likelihood.
    parts = (np.arange(_SCATTERS) + 0.5) / _SCATTERS
    scatters = LEAST_PROCESS_SCATTER * np.expm1(parts * math.log1p(MOST_PROCESS_SCATTER / LEAST_PROCESS_SCATTER))
    precision = 1 / (scatters[:, None] ** 2 + own)
    total = precision.sum(axis=1)
    means = (precision * medians).sum(axis=1) / total
    misfit = (precision * (medians - means[:, None]) ** 2).sum(axis=1)
    likelihood = (np.log(precision).sum(axis=1) - np.log(total) - misfit) / 2
    weights = np.exp(likelihood - likelihood.max())
    return _central(weights / weights.sum(), means, 1 / np.sqrt(total), confidence)


def _scatter(groups: Sequence[npt.NDArray[numpy.float64]]) -> float:
    """Standard deviation of rounds within a process, from the median difference of two, which few outliers do not move."""
    differences = [np.abs(group[:, None] - group)[np.triu_indices(len(group), 1)] for group in groups]
    every = np.concatenate(differences)
    return float(np.median(every)) / (_QUARTILE * math.sqrt(2)) if len(every) else 0.0


def _central(
    weights: npt.NDArray[numpy.float64],
    means: npt.NDArray[numpy.float64],
    deviations: npt.NDArray[numpy.float64],
    confidence: float,
) -> tuple[float, float]:
    """The interval between whose ends so much of a mixture of normal distributions lie, as much below as above."""
    parts = list(zip(weights.tolist(), means.tolist(), (deviations * math.sqrt(2)).tolist(), strict=True))
    ends = []
    for side in (-confidence, confidence):
        low, high = float((means - 6 * deviations).min()), float((means + 6 * deviations).max())
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            is_below = sum(weight * math.erf((middle - mean) / wide) for weight, mean, wide in parts) < side
            low, high = (middle, high) if is_below else (low, middle)
        ends.append((low + high) / 2)
    return ends[0], ends[1]
