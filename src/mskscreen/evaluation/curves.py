"""ROC and precision-recall curves and reliability as statistics of case weights, for pointwise bands."""

from __future__ import annotations

import numpy as np

from mskscreen.evaluation.intervals import TAILS
from mskscreen.evaluation.metrics import Statistic

GRID = np.linspace(0, 1, 101)


def curve_statistic(labels: np.ndarray, scores: np.ndarray, grid: np.ndarray = GRID) -> Statistic:
    """`roc` (R, k): sensitivity at each false-positive rate of `grid` (k,); `pr` (R, k): precision at each recall.

    Between two thresholds the ROC is a straight line and the precision that of the next lower threshold.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, positive = scores[order], labels[order].astype(bool)
    last = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        sorted_weights = weights[:, order]
        above = np.cumsum(sorted_weights * positive, axis=1)[:, last]
        false = np.cumsum(sorted_weights * ~positive, axis=1)[:, last]
        roc, pr = (np.full((len(weights), len(grid)), np.nan) for _ in range(2))
        for r in np.flatnonzero((above[:, -1] > 0) & (false[:, -1] > 0)):
            recall, rate = above[r] / above[r, -1], false[r] / false[r, -1]
            # interp takes the last of equal abscissae: the ROC's vertical steps end at their top.
            roc[r] = np.interp(grid, np.r_[0.0, rate], np.r_[0.0, recall])
            used = above[r] + false[r] > 0
            precision = above[r][used] / (above[r] + false[r])[used]
            pr[r] = precision[np.minimum(np.searchsorted(recall[used], grid - 1e-12), used.sum() - 1)]
        return {"roc": roc, "pr": pr}

    return statistic


def band(replicates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise 95 % limits of `replicates` (R, k), over what is defined; NaN where nothing is."""
    columns = [column[np.isfinite(column)] for column in replicates.T]
    low, high = (
        np.array([np.quantile(column, tail) if len(column) else np.nan for column in columns]) for tail in TAILS
    )
    return low, high
