"""Scores on the development fold: the figures of an epoch, and the predictions table of the best one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

import mskscreen
from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.contract import ModelContract
from mskscreen.data.manifest import Manifest
from mskscreen.predictions import Prediction, score, softmax, threshold, write_table
from mskscreen.training.loader import joint_numbers
from mskscreen.training.material import study_truth

POINT = "balanced"


@dataclass(frozen=True)
class Scores:
    """Raw scores of images: `row` (n,) in the development fold, `pred1` (n, 2) and `pred2` (n, 7)."""

    row: np.ndarray
    pred1: np.ndarray
    pred2: np.ndarray

    @classmethod
    def of(cls, table: np.ndarray) -> Scores:
        """From rows (m, 10) of row, pred1 and pred2; a row number below 0 is filling."""
        table = table[table[:, 0] >= 0]
        table = table[table[:, 0].argsort()]
        return cls(table[:, 0].astype(np.int64), table[:, 1:3], table[:, 3:])


def figures(scores: Scores, development: Manifest, labels: str, tasks: tuple[str, ...]) -> dict[str, float]:
    """Figures of the tasks on the development fold; what a missing class leaves undefined is left out.

    Abnormality is of studies (mean probability; abnormal where one image is), joint of images (mean AUROC of one
    joint type against the rest, over those present).
    """
    found: dict[str, float] = {}
    if "abnormality" in tasks:
        truth = development.numbers(labels)[scores.row]
        p = softmax(scores.pred1)[:, 1]
        known = truth >= 0
        study, abnormal = study_truth(development, scores.row[known], truth[known])
        mean = np.bincount(study, p[known]) / np.bincount(study)
        if len(np.unique(abnormal)) > 1:
            found["abnormality_auroc"] = float(roc_auc_score(abnormal, mean))
        if len(abnormal):
            found["abnormality_accuracy"] = float(np.mean((mean >= 0.5) == abnormal))
    if "joint" in tasks:
        joints = joint_numbers(development)[scores.row]
        known = joints >= 0
        p_joint, joints = softmax(scores.pred2)[known], joints[known]
        present = np.unique(joints)
        if len(present) > 1:
            areas = [roc_auc_score(joints == joint, p_joint[:, joint]) for joint in present]
            found["joint_auroc"] = float(np.mean(areas))
        if len(present):
            found["joint_accuracy"] = float(np.mean(p_joint.argmax(1) == joints))
    return found


def write_predictions(
    path: Path, scores: Scores, development: Manifest, errors: Sequence[str | None], contract: ModelContract
) -> None:
    """Write the predictions table of the development fold; an image without scores has its error."""
    where = {row: position for position, row in enumerate(scores.row.tolist())}
    rows = []
    for row, error in enumerate(errors):
        image, patient = development["image"][row], development["patient"][row]
        study = development["study"][row] or image
        if row in where:
            fields = score(contract, scores.pred1[where[row]], scores.pred2[where[row]], at=POINT)
            rows.append(Prediction(image, study, patient=patient, **fields))
        else:
            rows.append(Prediction(image, study, patient=patient, error=error or "the image was not scored"))
    model = {
        "name": contract.name,
        "architecture": contract.architecture,
        # Not "contract": that is the digest of an exported file, and export adds to it.
        "checkpoint": contract.digest,
        "engine": "torch",
        "operating_point": POINT,
        "mskscreen": mskscreen.__version__,
        "intended_use": NOT_FOR_DIAGNOSIS,
    }
    write_table(path, rows, model, threshold(contract, POINT))
