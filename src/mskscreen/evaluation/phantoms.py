"""What a model reaches on phantoms: by kind of abnormality, and how often its map peaks inside the truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mskscreen.errors import DataError
from mskscreen.evaluation.intervals import delong, delong_interval, wilson
from mskscreen.evaluation.keys import keys
from mskscreen.evaluation.metrics import TOO_FEW, loss_statistic
from mskscreen.phantom.manifest import Row
from mskscreen.predictions import Predictions


def phantom_figures(rows: Iterable[Row], table: Predictions) -> dict[str, float]:
    """Joint accuracy, abnormality AUROC (all, visible and by kind) and calibration error over studies.

    A study is visible where at least one of its images shows the abnormality (Rose's k of 5 or more); normal
    studies are in every comparison, and a kind of fewer than 20 visible studies has none. `_low` and `_high` are
    DeLong's and Wilson's 95 % limits; the calibration error is the expected one over 15 bins of equal width.
    Raises DataError where no study is in both.
    """
    truth: dict[str, list[Row]] = {}
    for row in rows:
        truth.setdefault(keys(row.image, row.study)[1], []).append(row)
    files = {row.study: row.file for row in table.images}
    predicted = {keys(files[study.study], study.study)[1]: study for study in table.studies}
    shared = [name for name in truth if name in predicted and predicted[name].p_abnormal is not None]
    if not shared:
        raise DataError("no study of the predictions is one of the phantoms; name the two that belong together")
    p = np.array([predicted[name].p_abnormal for name in shared], np.float64)
    labels = np.array([truth[name][0].label for name in shared], bool)
    kinds = np.array([truth[name][0].kind or "" for name in shared])
    seen = np.array([any(not row.occult for row in truth[name]) for name in shared])
    right = [predicted[name].joint == truth[name][0].joint for name in shared]
    found: dict[str, float] = {"studies": len(shared)} | _share("joint_accuracy", right)
    found |= _auroc("abnormality_auroc", labels, p)
    found |= _auroc("abnormality_auroc_visible", labels[seen], p[seen])
    for kind in sorted(set(kinds[labels])):
        chosen = seen & (~labels | (kinds == kind))
        if labels[chosen].sum() >= TOO_FEW:
            found |= _auroc(f"auroc_{kind.replace(' ', '_')}", labels[chosen], p[chosen])
    error = loss_statistic(labels, p)(np.ones((1, len(labels))))["ece"][0]
    return found | {"calibration_error": float(error)}


def _share(name: str, hits: Sequence[bool]) -> dict[str, float]:
    interval = wilson(sum(hits), len(hits))
    limits = {} if interval is None else {f"{name}_low": interval[0], f"{name}_high": interval[1]}
    return {name: sum(hits) / len(hits)} | limits


def _auroc(name: str, labels: np.ndarray, p: np.ndarray) -> dict[str, float]:
    value = float(delong(labels, p[None])[0][0])
    if not np.isfinite(value):
        return {}
    interval = delong_interval(labels, p)
    limits = {} if interval is None else {f"{name}_low": interval[0], f"{name}_high": interval[1]}
    return {name: value} | limits
