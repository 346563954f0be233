"""Every metric as a function of case weights, so that one piece of code gives estimate, bootstrap and jackknife.

A *statistic* takes weights (R, n), one row a resample and one column a case, and returns name -> values (R,).
Weights of one give the estimate; multinomial counts give bootstrap replicates; a zeroed patient gives a jackknife
value. A value that is not defined is NaN; `reason` says why in words. The formulas and their sources stand in
docs/numbers.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.evaluation.calibration import BINS, bin_index, recalibration_statistic, weighted_sum

Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]

# Of fewer cases no figure is given, and none enters a mean.
TOO_FEW = 20
_EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Metric:
    """What is printed of a metric, and what must be present for it to be defined.

    `needs` names what must occur, as `present` counts it; `scores` is True where hard calls are not enough;
    `proportion` names the cells of the confusion table in the numerator and in the denominator. `biased` marks an
    estimate that sampling noise alone moves away from its true value: its statistic also gives `NAME_gaps` (R, k),
    whose absolute values it sums, for `intervals.inverted`.
    """

    title: str
    needs: tuple[str, ...] = ()
    scores: bool = False
    proportion: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    biased: bool = False


_BOTH = ("abnormal case", "normal case")
_ALL_CELLS = ("tp", "fp", "tn", "fn")
ABNORMALITY: Mapping[str, Metric] = {
    "auroc": Metric("AUROC", _BOTH, scores=True),
    "auprc": Metric("AUPRC", _BOTH, scores=True),
    "accuracy": Metric("Accuracy", proportion=(("tp", "tn"), _ALL_CELLS)),
    "sensitivity": Metric("Sensitivity", ("abnormal case",), proportion=(("tp",), ("tp", "fn"))),
    "specificity": Metric("Specificity", ("normal case",), proportion=(("tn",), ("tn", "fp"))),
    "ppv": Metric("PPV", ("case called abnormal",), proportion=(("tp",), ("tp", "fp"))),
    "npv": Metric("NPV", ("case called normal",), proportion=(("tn",), ("tn", "fn"))),
    "f1": Metric("F1", ("abnormal case",)),
    "mcc": Metric("MCC", (*_BOTH, "case called abnormal", "case called normal")),
    "kappa": Metric("Cohen's kappa", _BOTH),
    "brier": Metric("Brier score", scores=True),
    "log_loss": Metric("Log loss", scores=True),
    "ece": Metric("ECE", scores=True, biased=True),
    "calibration_slope": Metric("Calibration slope", _BOTH, scores=True),
    "calibration_intercept": Metric("Calibration intercept", _BOTH, scores=True),
}
_ENOUGH = f"{TOO_FEW} cases of "
_ANY = f"{_ENOUGH}any joint type"
JOINT: Mapping[str, Metric] = {
    "accuracy": Metric("Accuracy"),
    "balanced_accuracy": Metric("Balanced accuracy", (_ANY,)),
    "auroc_macro": Metric("AUROC, macro", ("second joint type", _ANY), scores=True),
    **{
        f"auroc_{joint}": Metric(
            f"AUROC, {joint} against the rest",
            (f"case of {joint}", _ENOUGH + joint, f"case beside {joint}"),
            scores=True,
        )
        for joint in JOINT_LABELS
    },
    "log_loss": Metric("Log loss", scores=True),
    "ece": Metric("ECE of the chosen class", scores=True, biased=True),
}


def confusion(labels: np.ndarray, calls: np.ndarray) -> dict[str, int]:
    """Cells tp, fp, tn, fn of boolean `labels` (n,) and `calls` (n,)."""
    labels, calls = labels.astype(bool), calls.astype(bool)
    return {
        "tp": int((labels & calls).sum()),
        "fp": int((~labels & calls).sum()),
        "tn": int((~labels & ~calls).sum()),
        "fn": int((labels & ~calls).sum()),
    }


def threshold_metrics(tp: np.ndarray, fp: np.ndarray, tn: np.ndarray, fn: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of the two-by-two table from its (weighted) cells, each (R,); NaN where undefined."""
    tp, fp, tn, fn = (np.asarray(cell, np.float64) for cell in (tp, fp, tn, fn))
    total = tp + fp + tn + fn
    chance = (tp + fp) * (tp + fn) + (tn + fn) * (tn + fp)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "accuracy": (tp + tn) / total,
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "ppv": tp / (tp + fp),
            "npv": tn / (tn + fn),
            "f1": np.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan),
            "mcc": (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)),
            "kappa": ((tp + tn) * total - chance) / (total * total - chance),
        }


def threshold_statistic(labels: np.ndarray, calls: np.ndarray) -> Statistic:
    """Metrics of hard `calls` (n,) against `labels` (n,).

    Where the labels are all of one class kappa is undefined: it would be 0 whatever the calls.
    """
    labels, calls = labels.astype(bool), calls.astype(bool)
    cell = 2 * labels + calls

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        tn, fp, fn, tp = _binned(weights, cell, 4).T
        found = threshold_metrics(tp, fp, tn, fn)
        found["kappa"][(tp + fn == 0) | (tn + fp == 0)] = np.nan
        return found

    return statistic


def ranking_statistic(labels: np.ndarray, scores: np.ndarray, *, average: bool = True) -> Statistic:
    """AUROC (ties count half) and, if `average`, AUPRC (average precision, not interpolated) of `scores` (n,)."""
    order = np.argsort(-scores, kind="stable")
    ordered, positive = scores[order], labels[order].astype(bool)
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(order) else np.zeros(0, np.intp)
    ties = len(starts) < len(order)

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        if not len(order):
            return dict.fromkeys(("auroc", "auprc"), np.full(len(weights), np.nan))
        sorted_weights = weights[:, order]
        abnormal = sorted_weights * positive
        normal = sorted_weights - abnormal
        if ties:
            abnormal, normal = (np.add.reduceat(part, starts, axis=1) for part in (abnormal, normal))
        above = np.cumsum(abnormal, axis=1)
        positives, negatives = above[:, -1].copy(), normal.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            wins = np.einsum("rn,rn->r", normal, above) - np.einsum("rn,rn->r", normal, abnormal) / 2
            found = {"auroc": wins / (positives * negatives)}
            if average:
                called = np.cumsum(normal, axis=1)
                called += above
                # Before the first case with weight nothing is called yet; that precision is multiplied by zero.
                precision = np.divide(above, called, out=above, where=called > 0)
                found["auprc"] = np.einsum("rn,rn->r", abnormal, precision) / positives
                found["auprc"][negatives == 0] = np.nan
            return found

    return statistic


def loss_statistic(labels: np.ndarray, p: np.ndarray) -> Statistic:
    """Brier score, log loss and ECE (15 bins of equal width) of `p` (n,), the probability of abnormality."""
    y = labels.astype(np.float64)
    clipped = np.clip(p, _EPSILON, 1 - _EPSILON)
    square, log = (p - y) ** 2, -np.where(labels, np.log(clipped), np.log1p(-clipped))
    index, gap = bin_index(p), y - p

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            gaps = _binned(weights * gap, index, BINS) / total[:, None]
            return {
                "brier": weighted_sum(weights, square) / total,
                "log_loss": weighted_sum(weights, log) / total,
                "ece": np.abs(gaps).sum(axis=1),
                "ece_gaps": gaps,
            }

    return statistic


def _binned(weights: np.ndarray, index: np.ndarray, bins: int) -> np.ndarray:
    """Sum of the weights (R, n) in each bin: (R, bins)."""
    return np.stack([np.bincount(index, row, bins) for row in weights])


def abnormality_statistic(
    labels: np.ndarray, p: np.ndarray, threshold: float, *, scores: bool = True
) -> Statistic:
    """Every metric of `ABNORMALITY` for boolean `labels` (n,) and probabilities `p` (n,).

    A case is called abnormal where p >= threshold. With `scores` False, `p` holds hard calls and only the metrics
    of the two-by-two table are computed.
    """
    parts = [threshold_statistic(labels, p >= threshold)]
    if scores:
        parts += [ranking_statistic(labels, p), loss_statistic(labels, p), recalibration_statistic(labels, p)]
    return _together(parts)


def joint_statistic(truth: np.ndarray, p: np.ndarray, least: int = TOO_FEW) -> Statistic:
    """Every metric of `JOINT` for joint indices `truth` (n,) and probabilities `p` (n, 7).

    A joint type has an AUROC, and a part in balanced accuracy and macro AUROC, from `least` cases on.
    """
    classes = p.shape[1]
    right, confidence = p.argmax(axis=1) == truth, p.max(axis=1)
    loss = -np.log(np.clip(p[np.arange(len(truth)), truth], _EPSILON, 1))
    index, gap = bin_index(confidence), confidence - right
    cell = 2 * truth + right
    enough = np.flatnonzero(np.bincount(truth, minlength=classes) >= max(least, 1)).tolist()
    rankings = {k: ranking_statistic(truth == k, p[:, k], average=False) for k in enough}

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        missed, recalled = _binned(weights, cell, 2 * classes).reshape(-1, classes, 2).transpose(2, 0, 1)
        total = weights.sum(axis=1)
        areas = np.full((classes, len(weights)), np.nan)
        for k, ranking in rankings.items():
            areas[k] = ranking(weights)["auroc"]
        with np.errstate(divide="ignore", invalid="ignore"):
            gaps = _binned(weights * gap, index, BINS) / total[:, None]
            return {
                "accuracy": recalled.sum(axis=1) / total,
                "balanced_accuracy": nanmean((recalled / (missed + recalled))[:, enough], axis=1),
                "auroc_macro": nanmean(areas, axis=0),
                **{f"auroc_{joint}": areas[k] for k, joint in enumerate(JOINT_LABELS)},
                "log_loss": weighted_sum(weights, loss) / total,
                "ece": np.abs(gaps).sum(axis=1),
                "ece_gaps": gaps,
            }

    return statistic


def nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is defined; NaN, without a warning, where nothing is."""
    defined = np.isfinite(values)
    count = defined.sum(axis=axis)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0.0).sum(axis=axis) / np.where(count, count, np.nan)


def _together(parts: Sequence[Statistic]) -> Statistic:
    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {name: value for part in parts for name, value in part(weights).items()}

    return statistic


def present(labels: np.ndarray, calls: np.ndarray) -> dict[str, int]:
    """How often each thing that a metric of `ABNORMALITY` needs occurs."""
    cells = confusion(labels, calls)
    return {
        "abnormal case": cells["tp"] + cells["fn"],
        "normal case": cells["tn"] + cells["fp"],
        "case called abnormal": cells["tp"] + cells["fp"],
        "case called normal": cells["tn"] + cells["fn"],
    }


def present_joints(truth: np.ndarray) -> dict[str, int]:
    """How often each thing that a metric of `JOINT` needs occurs."""
    counts = np.bincount(truth, minlength=len(JOINT_LABELS))
    named = dict(zip(JOINT_LABELS, counts.tolist(), strict=True))
    return {
        "second joint type": int((counts > 0).sum() > 1),
        **{f"case of {joint}": count for joint, count in named.items()},
        **{f"case beside {joint}": len(truth) - count for joint, count in named.items()},
        **{_ENOUGH + joint: int(count >= TOO_FEW) for joint, count in named.items()},
        _ANY: int((counts >= TOO_FEW).any()),
    }


def reason(metric: Metric, occurs: Mapping[str, int], cases: int, no_scores: str | None = None) -> str:
    """Why `metric` is not defined on these cases, in words; `no_scores` is that of the table."""
    if not cases:
        return "no cases"
    if metric.scores and no_scores:
        return no_scores
    missing = [need for need in metric.needs if occurs.get(need) == 0]
    if missing:
        return ("fewer than " if missing[0].startswith(_ENOUGH) else "no ") + missing[0]
    return "the classes are separated by the score, or the scores do not vary"
