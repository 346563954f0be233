"""Label noise: studies whose label a cross-validated model contradicts with confidence."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mskscreen.data.manifest import Manifest
from mskscreen.errors import DataError
from mskscreen.predictions import Predictions


def study_probabilities(manifest: Manifest, tables: Sequence[Predictions]) -> dict[str, float]:
    """Mean probability of abnormality of each labelled study, from tables that together hold an image once.

    Files of a table are matched by their path below the root; those named otherwise than from `/` are named from
    the working folder or from the root. Raises DataError where an image occurs twice (its
    model has seen it in all folds but one) or none is of the manifest.
    """
    rows = {image: row for row, image in enumerate(manifest["image"])}
    matched: dict[int, float] = {}
    if not any(row.p_abnormal is not None for table in tables for row in table.images):
        raise DataError("predictions: none has a probability of abnormality; predict with a model that learned it")
    for prediction in (row for table in tables for row in table.images):
        if prediction.p_abnormal is None or (row := rows.get(_below(manifest.root, prediction.file))) is None:
            continue
        if row in matched:
            raise DataError(f"predictions: row {row} of the manifest occurs twice; give out-of-fold tables only")
        matched[row] = prediction.p_abnormal
    if not matched:
        raise DataError("predictions: no file is an image of the manifest; predict below the same root")
    grouped: dict[str, list[float]] = {}
    studies = manifest.studies
    for row, value in matched.items():
        grouped.setdefault(studies[row], []).append(value)
    return {study: sum(values) / len(values) for study, values in grouped.items()}


def _below(root: Path, file: str) -> str:
    path = Path(file)
    if not path.is_relative_to(root):
        # The root of a manifest is written as the system resolves it.
        path = Path(os.path.realpath(path.parent), path.name)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else Path(file).as_posix()


def label_noise(
    manifest: Manifest, tables: Sequence[Predictions], labels: str = "label"
) -> tuple[dict[str, float], set[str]]:
    """Quality of each study's label, and the studies whose label is probably wrong (confident learning).

    Quality is the probability that the model gives the label, in [0, 1]. Northcutt et al., arXiv:1911.00068, by
    the package cleanlab. Studies with both labels or none are left out. Raises DataError where a label has
    fewer than two studies.
    """
    from cleanlab.filter import find_label_issues

    given: dict[str, set[int | None]] = {}
    for study, label in zip(manifest.studies, manifest[labels], strict=True):
        given.setdefault(study, set()).add(label)
    probable = study_probabilities(manifest, tables)
    names = [name for name in probable if len(given[name]) == 1 and None not in given[name]]
    label = np.array([next(iter(given[name])) for name in names], np.int64)
    if min(np.bincount(label, minlength=2)) < 2:
        raise DataError("label noise needs two studies of each label at least; give more predictions")
    abnormal = np.array([probable[name] for name in names])
    both = np.stack([1 - abnormal, abnormal], axis=1)
    wrong = find_label_issues(label, both, n_jobs=1)
    quality = both[np.arange(len(names)), label]
    return dict(zip(names, quality.tolist(), strict=True)), {names[i] for i in np.flatnonzero(wrong)}
