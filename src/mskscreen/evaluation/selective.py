"""Leaving the hard studies to a person: the risk-coverage curve, and a conformal "undetermined"."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mskscreen.errors import DataError
from mskscreen.evaluation.metrics import Statistic

_EPSILON = 1e-12


def confidence(p: np.ndarray, threshold: float) -> np.ndarray:
    """Distance of `p` (n,) from the threshold in log odds; at a threshold of 0.5 the order of max(p, 1 - p)."""
    clipped = np.clip(p, _EPSILON, 1 - _EPSILON)
    return np.abs(np.log(clipped / (1 - clipped)) - math.log(threshold / (1 - threshold)))


def risk_statistic(labels: np.ndarray, p: np.ndarray, threshold: float, coverage: np.ndarray) -> Statistic:
    """`risk` (R, k): error rate of the most confident part of the cases, at each `coverage` (k,) in (0, 1].

    El-Yaniv and Wiener, JMLR 2010. A cut through cases of equal confidence takes the share of their errors that
    it takes of them.
    """
    sure = confidence(p, threshold)
    order = np.argsort(-sure, kind="stable")
    wrong = ((p >= threshold) != labels)[order].astype(np.float64)
    ordered = sure[order]
    last = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        cases = np.cumsum(weights[:, order], axis=1)[:, last]
        errors = np.cumsum(weights[:, order] * wrong, axis=1)[:, last]
        risk = np.full((len(weights), len(coverage)), np.nan)
        for r in np.flatnonzero(cases[:, -1] > 0):
            covered = cases[r] / cases[r, -1]
            lost = errors[r] / cases[r, -1]
            risk[r] = np.interp(coverage, np.r_[0.0, covered], np.r_[0.0, lost]) / coverage
        return {"risk": risk}

    return statistic


@dataclass(frozen=True)
class Conformal:
    """Prediction sets with a promised coverage in each class (split conformal, class-conditional).

    Vovk et al., Algorithmic Learning in a Random World, 2005; Sadinle et al., JASA 2019. Normal is possible where
    p <= `normal`, abnormal where p >= `abnormal`. Where both or neither are possible the study is undetermined.
    """

    alpha: float
    normal: float
    abnormal: float

    def outcome(self, p: np.ndarray) -> np.ndarray:
        """1 abnormal, 0 normal, -1 undetermined, for each of `p` (n,)."""
        normal, abnormal = p <= self.normal, p >= self.abnormal
        return np.where(normal == abnormal, -1, abnormal.astype(np.intp))


def fit_conformal(labels: np.ndarray, p: np.ndarray, alpha: float = 0.1) -> Conformal:
    """Limits such that a new study of either class is called wrongly with probability of at most `alpha`.

    The promise holds for studies exchangeable with the development studies `labels`, `p` (n,). Raises DataError
    where a class is missing or `alpha` is not in (0, 1).
    """
    if not 0 < alpha < 1:
        raise DataError(f"conformal error rate {alpha} is not between 0 and 1; give a fraction such as 0.1")
    if not labels.any() or labels.all():
        raise DataError("a conformal rule needs abnormal and normal development studies; add the missing ones")
    return Conformal(alpha, _limit(p[~labels], alpha), -_limit(-p[labels], alpha))


def _limit(scores: np.ndarray, alpha: float) -> float:
    """The ceil((n + 1)(1 - alpha))-th smallest score; infinite where n is too small to promise anything."""
    rank = math.ceil((len(scores) + 1) * (1 - alpha) - 1e-9)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf


@dataclass(frozen=True)
class ConformalResult:
    """What a conformal rule did on evaluation studies: cases, undetermined and covered ones, by true class."""

    cases: dict[str, int]
    undetermined: dict[str, int]
    covered: dict[str, int]


def judge_conformal(rule: Conformal, labels: np.ndarray, p: np.ndarray) -> ConformalResult:
    """Count, by true class, the studies that are undetermined and those whose call does not exclude the truth."""
    outcome = rule.outcome(p)
    classes = {"normal": ~labels, "abnormal": labels}
    return ConformalResult(
        {name: int(rows.sum()) for name, rows in classes.items()},
        {name: int((outcome[rows] == -1).sum()) for name, rows in classes.items()},
        {name: int(((outcome == -1) | (outcome == labels))[rows].sum()) for name, rows in classes.items()},
    )
