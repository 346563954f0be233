"""Confidence intervals of 95 %: patient-clustered bootstrap (percentile, BCa), DeLong, Wilson, and one for ECE.

The bootstrap never copies cases. It draws how often each patient occurs in a resample and hands those counts to
the statistics of `metrics` as case weights, a block of resamples at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from mskscreen.evaluation.metrics import Statistic

RESAMPLES = 2000
LEVEL = 0.95
TAILS = (1 - LEVEL) / 2, (1 + LEVEL) / 2
# Weights held at once, per thread: 2 MB of float64 stay in the cache of a core.
_BLOCK = 2**18
# Where each patient is left out in turn with fewer than this many, and a random group of patients otherwise.
_JACKKNIFE_GROUPS = 400
# An interval needs at least this share of its resamples to be defined.
DEFINED = 0.95
_NORMAL = NormalDist()
_Z = _NORMAL.inv_cdf(TAILS[1])


class Interval(NamedTuple):
    """Limits of a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Part:
    """A statistic of some of the cases: `rows` (k,) are their indices, in the order the statistic was made for."""

    rows: np.ndarray
    statistic: Statistic


@dataclass(frozen=True)
class Draws:
    """Values of every statistic of every part: on the cases, per resample (R,) and per jackknife group (G,).

    A statistic that is a curve adds an axis for its points. Without a second patient there are no replicates.
    """

    estimate: Mapping[str, Mapping[str, Any]]
    replicates: Mapping[str, Mapping[str, np.ndarray]]
    jackknife: Mapping[str, Mapping[str, np.ndarray]]


def draw(
    parts: Mapping[str, Part], patients: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0, bca: bool = True
) -> Draws:
    """Resample patients with replacement and evaluate every part on the same resamples.

    `patients` (n,) numbers the patient of each case from 0 without gaps. The result depends on `seed` and not
    on the number of threads. The jackknife leaves out one patient, or one of 400 random groups of patients where
    there are more; the acceleration it yields is the same up to sampling noise of 0.41 / 400.
    """
    count = int(patients.max()) + 1 if len(patients) else 0
    estimate = _evaluate(parts, np.ones((1, count)), patients)
    if count < 2:
        return Draws({k: _first(v) for k, v in estimate.items()}, {}, {})
    replicates = _blocks(parts, patients, _bootstrap_counts(count, resamples, seed, len(patients)))
    left_out = _blocks(parts, patients, _jackknife_counts(count, seed, len(patients))) if bca else {}
    return Draws({k: _first(v) for k, v in estimate.items()}, replicates, left_out)


def _first(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: value[0] for name, value in values.items()}


def _block_rows(cases: int) -> int:
    return max(1, _BLOCK // max(cases, 1))


def _bootstrap_counts(patients: int, resamples: int, seed: int, cases: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    block = _block_rows(cases)
    for start in range(0, resamples, block):
        yield np.stack(
            [
                np.bincount(rng.integers(patients, size=patients), minlength=patients)
                for _ in range(min(block, resamples - start))
            ]
        ).astype(np.float64)


def _jackknife_counts(patients: int, seed: int, cases: int) -> Iterator[np.ndarray]:
    groups = min(patients, _JACKKNIFE_GROUPS)
    group = np.random.default_rng((seed, 1)).permutation(np.arange(patients) % groups)
    block = _block_rows(cases)
    for start in range(0, groups, block):
        yield (np.arange(start, min(start + block, groups))[:, None] != group).astype(np.float64)


def _evaluate(parts: Mapping[str, Part], counts: np.ndarray, patients: np.ndarray) -> dict[str, dict]:
    return {key: part.statistic(np.take(counts, patients[part.rows], axis=1)) for key, part in parts.items()}


def _blocks(
    parts: Mapping[str, Part], patients: np.ndarray, blocks: Iterator[np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """Evaluate every block of counts, as many at a time as there are cores, and join the results in order."""
    workers = min(os.cpu_count() or 1, 8)
    results: list[dict[str, dict]] = []
    with ThreadPoolExecutor(workers) as pool:
        # map() would draw every block up front; a window keeps the memory bounded.
        waiting = []
        for counts in blocks:
            waiting.append(pool.submit(_evaluate, parts, counts, patients))
            if len(waiting) > workers:
                results.append(waiting.pop(0).result())
        results.extend(future.result() for future in waiting)
    return {
        key: {name: np.concatenate([result[key][name] for result in results]) for name in results[0][key]}
        for key in parts
    }


def percentile(replicates: np.ndarray) -> Interval | None:
    """Quantiles of the defined `replicates` (R,); None where more than 5 % of them are undefined or none vary."""
    defined = _usable(replicates)
    if defined is None:
        return None
    low, high = np.quantile(defined, TAILS)
    return Interval(float(low), float(high))


def inverted(gaps: np.ndarray, replicates: np.ndarray) -> Interval | None:
    """Interval of sum |g| from estimated `gaps` (k,) and their bootstrap `replicates` (R, k), by inverting tests.

    Noise alone makes the estimate sum |gaps| larger than sum |g|, and resampling adds the noise once more, so that
    percentile and BCa intervals lie too high. Here a value of sum |g| is in the interval if the estimate is in
    neither tail of what gaps of that sum give with the noise of the resamples (Carpenter, Statistics in Medicine
    1999). Which gaps share the sum is not known: those proportional to the estimates and to the estimates plus
    their standard errors are tried, and the wider limits are kept.
    """
    defined = replicates[np.isfinite(replicates).all(axis=1)]
    if (
        len(defined) < DEFINED * len(replicates)
        or not np.isfinite(gaps).all()
        or not np.ptp(defined, axis=0).any()
    ):
        return None
    noise, observed = defined - gaps, float(np.abs(gaps).sum())
    shapes = (np.abs(gaps), np.abs(gaps) + noise.std(axis=0))
    limits = [
        [_sum_with_quantile(np.copysign(shape / shape.sum(), gaps), noise, tail, observed) for tail in TAILS[::-1]]
        for shape in shapes
        if shape.any()
    ]
    lows, highs = zip(*limits, strict=True)
    return Interval(min(lows), max(highs))


def _sum_with_quantile(shape: np.ndarray, noise: np.ndarray, tail: float, observed: float) -> float:
    """The sum |g| of gaps g along `shape` at which the quantile `tail` of sum |g + noise| is `observed`, or 0."""

    def quantile(total: float) -> float:
        return float(np.quantile(np.abs(total * shape + noise).sum(axis=1), tail))

    low, high = 0.0, 2 * observed + float(np.abs(noise).sum(axis=1).max())
    if quantile(low) >= observed:
        return 0.0
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (middle, high) if quantile(middle) < observed else (low, middle)
    return (low + high) / 2


def bca(estimate: float, replicates: np.ndarray, jackknife: np.ndarray) -> Interval | None:
    """Bias-corrected and accelerated interval (Efron, JASA 1987); None where it is not defined.

    `replicates` (R,) from the bootstrap and `jackknife` (G,) of the same statistic.
    """
    defined, left_out = _usable(replicates), jackknife[np.isfinite(jackknife)]
    if defined is None or len(left_out) < 2 or not np.isfinite(estimate):
        return None
    below = float((defined < estimate).mean() + (defined == estimate).mean() / 2)
    if not 0 < below < 1:
        return None
    deviation = left_out.mean() - left_out
    spread = float((deviation**2).sum())
    acceleration = float((deviation**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    bias = _NORMAL.inv_cdf(below)
    edges = []
    for tail in TAILS:
        z = bias + _NORMAL.inv_cdf(tail)
        edges.append(_NORMAL.cdf(bias + z / (1 - acceleration * z)))
    low, high = np.quantile(defined, edges)
    return Interval(float(low), float(high))


def _usable(replicates: np.ndarray) -> np.ndarray | None:
    defined = replicates[np.isfinite(replicates)]
    if not len(defined) or len(defined) < DEFINED * len(replicates) or np.ptp(defined) == 0:
        return None
    return defined


def wilson(successes: int, trials: int) -> Interval | None:
    """Score interval of a proportion (Wilson, JASA 1927); None without a trial. Takes trials as independent."""
    if trials <= 0:
        return None
    p, shrink = successes / trials, 1 + _Z * _Z / trials
    centre = (p + _Z * _Z / (2 * trials)) / shrink
    half = _Z / shrink * (p * (1 - p) / trials + _Z * _Z / (4 * trials * trials)) ** 0.5
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def delong(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC (k,) of k sets of `scores` (k, n) on the same cases, and their covariance (k, k).

    DeLong et al., Biometrics 1988, by midranks (Sun and Xu, IEEE Signal Processing Letters 2014). Takes cases as
    independent. NaN where a class has fewer than two cases.
    """
    positive = labels.astype(bool)
    m, n = int(positive.sum()), int((~positive).sum())
    if m < 2 or n < 2:
        return np.full(len(scores), np.nan), np.full((len(scores), len(scores)), np.nan)
    ranks = np.stack([_midranks(row) for row in scores])
    above = np.stack([_midranks(row[positive]) for row in scores])
    below = np.stack([_midranks(row[~positive]) for row in scores])
    v10 = (ranks[:, positive] - above) / n
    v01 = 1 - (ranks[:, ~positive] - below) / m
    return v10.mean(axis=1), np.atleast_2d(np.cov(v10)) / m + np.atleast_2d(np.cov(v01)) / n


def delong_interval(labels: np.ndarray, scores: np.ndarray) -> Interval | None:
    """Normal interval of the AUROC of `scores` (n,) in [0, 1]; None where the variance is zero or undefined."""
    area, covariance = delong(labels, scores[None])
    if not covariance[0, 0] > 0:
        return None
    half = _Z * float(covariance[0, 0]) ** 0.5
    return Interval(max(0.0, float(area[0]) - half), min(1.0, float(area[0]) + half))


def _midranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[inverse]
