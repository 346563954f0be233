"""Calibration: temperatures, isotonic maps, reliability bins, slope and intercept of the recalibration model.

Everything is fitted on development studies and judged elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mskscreen.errors import DataError
from mskscreen.predictions import softmax

BINS = 15
TEMPERATURES = 0.05, 20.0
_EPSILON = float(np.finfo(np.float64).eps)
_NEWTON_STEPS = 40
_LOG_TEMPERATURES = float(np.log(TEMPERATURES[0])), float(np.log(TEMPERATURES[1]))


def bin_index(p: np.ndarray) -> np.ndarray:
    """Bin of each probability: [0, 1/15), ..., [14/15, 1]."""
    return np.minimum((p * BINS).astype(np.intp), BINS - 1)


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability diagram: mean probability, observed frequency and number of cases."""

    mean: float
    observed: float
    cases: int


def reliability(labels: np.ndarray, p: np.ndarray) -> list[ReliabilityBin]:
    """Non-empty bins of equal width of `p` (n,) against boolean `labels` (n,)."""
    index = bin_index(p)
    count = np.bincount(index, minlength=BINS)
    means = np.bincount(index, p, BINS)
    observed = np.bincount(index, labels.astype(np.float64), BINS)
    return [
        ReliabilityBin(float(means[k] / count[k]), float(observed[k] / count[k]), int(count[k]))
        for k in np.flatnonzero(count)
    ]


def fit_temperature(scores: np.ndarray, classes: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Temperature in [0.05, 20] that minimises the log loss of softmax(scores / T) averaged in each group.

    `scores` (n, k) are raw, `classes` (g,) the true class of each group, `groups` (n,) the group of each row
    (None: each row its own, which is Guo et al., arXiv:1706.04599). With studies as groups the loss is that of
    the study score, the mean over its images. Golden-section search on log T; one of `TEMPERATURES` where no
    other is better: the cases have no best temperature then.

    Raises DataError where there is no row or only one class.
    """
    loss = _group_loss(scores, classes, groups)
    found = float(np.exp(_golden(lambda log: loss(log, 0.0), *_LOG_TEMPERATURES)))
    return min(*TEMPERATURES, found, key=lambda temperature: loss(float(np.log(temperature)), 0.0))


def fit_temperature_and_offset(
    scores: np.ndarray, classes: np.ndarray, groups: np.ndarray | None = None
) -> tuple[float, float]:
    """Temperature in [0.05, 20] and offset of the last class's score in [-5, 5], fitted together.

    As `fit_temperature`, of softmax((scores + offset) / T): the offset takes up another prevalence than that of
    training (Saerens et al., Neural Computation 14, 2002) and what averaging over a study's images shifts.
    """
    loss = _group_loss(scores, classes, groups)

    def best(log_temperature: float) -> float:
        return _golden(lambda offset: loss(log_temperature, offset), -5.0, 5.0)

    log_temperature = _golden(lambda log: loss(log, best(log)), *_LOG_TEMPERATURES)
    return float(np.exp(log_temperature)), best(log_temperature)


def _group_loss(
    scores: np.ndarray, classes: np.ndarray, groups: np.ndarray | None
) -> Callable[[float, float], float]:
    """Log loss of the group means, by logarithm of the temperature and offset of the last class."""
    index = np.arange(len(scores)) if groups is None else groups
    if len(np.unique(classes)) < 2:
        raise DataError(
            "a temperature needs development cases of at least two classes; add cases of the other class"
        )
    sizes = np.bincount(index, minlength=len(classes))
    last = np.eye(scores.shape[1])[-1]

    def loss(log_temperature: float, offset: float) -> float:
        # Only the probability of each row's true class enters the loss.
        p = softmax(scores + offset * last, float(np.exp(log_temperature)))
        own = np.bincount(index, p[np.arange(len(scores)), classes[index]], len(classes)) / sizes
        return float(-np.log(np.clip(own, _EPSILON, 1)).mean())

    return loss


def _golden(function: Callable[[float], float], low: float, high: float) -> float:
    ratio = (5**0.5 - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > 1e-7:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2


@dataclass(frozen=True)
class Isotonic:
    """A non-decreasing map of probabilities: straight lines between (x, y), constant outside."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, p: np.ndarray) -> np.ndarray:
        return np.interp(p, self.x, self.y)


def fit_isotonic(labels: np.ndarray, p: np.ndarray) -> Isotonic:
    """Least-squares non-decreasing map from `p` (n,) to boolean `labels` (n,): pool adjacent violators.

    Zadrozny and Elkan, KDD 2002. Raises DataError where there is no case.
    """
    if not len(p):
        raise DataError("an isotonic map needs development cases; the table has none")
    x, inverse, count = np.unique(p, return_inverse=True, return_counts=True)
    mean = np.bincount(inverse, labels.astype(np.float64)) / count
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(mean.tolist(), count.tolist(), strict=True):
        block = (value, float(weight), 1)
        while blocks and blocks[-1][0] >= block[0]:
            last = blocks.pop()
            total = last[1] + block[1]
            block = ((last[0] * last[1] + block[0] * block[1]) / total, total, last[2] + block[2])
        blocks.append(block)
    y = np.repeat([block[0] for block in blocks], [block[2] for block in blocks])
    return Isotonic(tuple(x.tolist()), tuple(y.tolist()))


def recalibration_statistic(labels: np.ndarray, p: np.ndarray) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Slope of logit P(abnormal) = a + b logit(p), and the intercept with the slope held at one, by case weights.

    Cox, Biometrika 1958; Van Calster et al., BMC Medicine 2019. Newton's method on all resamples at once; NaN
    where there is no solution, as when the classes are separated.
    """
    y = labels.astype(np.float64)
    clipped = np.clip(p, _EPSILON, 1 - _EPSILON)
    x = np.log(clipped) - np.log1p(-clipped)
    # Two or three steps from the solution of the whole sample suffice for any resample of it.
    ones = np.ones((1, len(y)))
    start = _newton(ones, x, y, np.zeros((1, 2)), slope=True)
    level = _newton(ones, x, y, np.array([[0.0, 1.0]]), slope=False)

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        both = _newton(weights, x, y, np.repeat(start, len(weights), axis=0), slope=True)
        fixed = _newton(weights, x, y, np.repeat(level, len(weights), axis=0), slope=False)
        return {"calibration_slope": both[:, 1], "calibration_intercept": fixed[:, 0]}

    return statistic


def _newton(weights: np.ndarray, x: np.ndarray, y: np.ndarray, start: np.ndarray, *, slope: bool) -> np.ndarray:
    """Intercept and slope (R, 2) of the weighted logistic regression of `y` on `x`; NaN where there is none."""
    found = np.full((len(weights), 2), np.nan)
    positives, total = weighted_sum(weights, y), weights.sum(axis=1)
    live = np.flatnonzero((positives > 0) & (positives < total) & np.isfinite(start).all(axis=1))
    ab, w = start[live], weights[live]
    x2 = x * x
    targets = np.stack([positives, weighted_sum(weights, y * x)], axis=1)[live]
    for _ in range(_NEWTON_STEPS):
        if not len(live):
            break
        mean = _sigmoid(ab[:, :1] + ab[:, 1:] * x)
        weighted = w * mean
        gradient = targets - np.stack([weighted.sum(axis=1), weighted_sum(weighted, x)], axis=1)
        weighted *= np.subtract(1, mean, out=mean)
        sums = (weighted.sum(axis=1), weighted_sum(weighted, x), weighted_sum(weighted, x2))
        curvature = np.stack(sums, axis=1)
        # Overconfident scores have almost no curvature: the bound keeps the first steps from overshooting.
        step = np.clip(_solve(gradient, curvature, slope=slope), -3, 3)
        ab = ab + step
        # Newton's error is the square of the last step.
        done = np.abs(step).max(axis=1) < 1e-7 * (1 + np.abs(ab).max(axis=1))
        # Separated classes drive every fitted probability to 0 or 1, where no curvature is left.
        lost = ~np.isfinite(ab).all(axis=1) | (curvature[:, 0] < 1e-9 * w.sum(axis=1))
        found[live[done & ~lost]] = ab[done & ~lost]
        going = ~done & ~lost
        if not going.all():
            live, ab, w, targets = live[going], ab[going], w[going], targets[going]
    return found


def _solve(gradient: np.ndarray, curvature: np.ndarray, *, slope: bool) -> np.ndarray:
    first, second = gradient.T
    a, b, c = curvature.T
    with np.errstate(divide="ignore", invalid="ignore"):
        if not slope:
            return np.stack([first / a, np.zeros_like(a)], axis=1)
        return np.stack([c * first - b * second, a * second - b * first], axis=1) / (a * c - b * b)[:, None]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function, in place."""
    with np.errstate(over="ignore"):
        np.exp(np.negative(x, out=x), out=x)
    x += 1
    return np.reciprocal(x, out=x)


def weighted_sum(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum of `values` (n,) under each row of `weights` (R, n); not by BLAS, whose threads fight with ours."""
    return np.einsum("rn,n->r", weights, values)
