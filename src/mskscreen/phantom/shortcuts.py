"""Can the label be told from what surrounds the anatomy? A linear model on border statistics should not manage.

A classifier that learns markers, collimation, exposure or image size instead of disease shows here first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mskscreen.errors import DataError
from mskscreen.phantom.manifest import Row

_BORDER = 0.08
_FOLDS = 5
_STATISTICS = 29
_RIDGE = 1e-2


def border_auroc(folder: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """AUROC for abnormality of a linear discriminant on border statistics, and its standard error.

    Each image gives the statistics of `border_features` less their mean in its joint, so that the prevalence of a
    region is no clue. The discriminant is cross-validated in five folds by patient; pairs of one
    joint only are compared. The standard error is Hanley and McNeil's (Radiology 143, 1982) with the studies as
    the independent cases. Raises DataError without enough images of both labels.
    """
    labels = np.array([row.label for row in rows])
    if min(labels.sum(), len(labels) - labels.sum()) < 2 * _STATISTICS:
        raise DataError(
            f"{folder} holds too few images to train {_STATISTICS} border statistics on; "
            f"make at least {2 * _STATISTICS} with and without abnormality"
        )
    features = np.stack([border_features(folder / row.image) for row in rows])
    joints = np.unique([row.joint for row in rows], return_inverse=True)[1]
    patients = np.unique([row.patient for row in rows], return_inverse=True)[1]
    for joint in np.unique(joints):
        here = joints == joint
        features[here] -= features[here].mean(axis=0)
    scores = np.zeros(len(labels))
    for fold in range(_FOLDS):
        out = patients % _FOLDS == fold
        scores[out] = features[out] @ _discriminant(features[~out], labels[~out])
    auroc = _stratified_auroc(scores, labels, joints)
    studies = {row.study: row.label for row in rows}
    positive = sum(studies.values())
    error = _hanley_mcneil(auroc, positive, len(studies) - positive)
    return {
        "images": len(rows),
        "studies": len(studies),
        "auroc": round(auroc, 3),
        "standard_error": round(error, 3),
    }


def border_features(path: Path) -> np.ndarray:
    """Statistics of the outer 8 % of an image on each side, of its corners, and of its shape: float64 (29,)."""
    with Image.open(path) as stored:
        image = np.asarray(stored.convert("L"), float) / 255
    rows, columns = image.shape
    depth = max(1, round(_BORDER * max(rows, columns)))
    sides = [image[:depth], image[-depth:], image[:, :depth], image[:, -depth:]]
    values = [f(side) for side in sides for f in (np.mean, np.std, np.min, np.max, np.median)]
    corners = [
        image[y, x].mean()
        for y in (slice(depth), slice(-depth, None))
        for x in (slice(depth), slice(-depth, None))
    ]
    whole = np.concatenate([side.ravel() for side in sides])
    spread = [np.percentile(whole, share) for share in (5, 25, 75, 95)]
    return np.array([*values, *corners, *spread, np.log(columns / rows)])


def _discriminant(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Fisher's linear discriminant with a little ridge, for statistics of any scale."""
    scale = features.std(axis=0) + 1e-9
    standard = features / scale
    means = [standard[labels == label].mean(axis=0) for label in (0, 1)]
    within = np.cov(standard - np.where(labels[:, None] == 1, means[1], means[0]), rowvar=False)
    weights = np.linalg.solve(within + _RIDGE * np.eye(len(within)), means[1] - means[0])
    return np.asarray(weights / scale)


def _stratified_auroc(scores: np.ndarray, labels: np.ndarray, strata: np.ndarray) -> float:
    """Share of (abnormal, normal) pairs within a stratum that the scores put in order; ties count half."""
    ordered = pairs = 0.0
    for stratum in np.unique(strata):
        positive = scores[(strata == stratum) & (labels == 1)]
        negative = np.sort(scores[(strata == stratum) & (labels == 0)])
        below = np.searchsorted(negative, positive, "left")
        ordered += float((below + np.searchsorted(negative, positive, "right")).sum()) / 2
        pairs += len(positive) * len(negative)
    return ordered / pairs if pairs else 0.5


def _hanley_mcneil(auroc: float, positive: int, negative: int) -> float:
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = auroc * (1 - auroc) + (positive - 1) * (q1 - auroc**2) + (negative - 1) * (q2 - auroc**2)
    return float(max(variance, 0.0) / (positive * negative)) ** 0.5
