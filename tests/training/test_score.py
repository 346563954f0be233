"""The figures of an epoch are those that the evaluation room finds in the same scores."""

from pathlib import Path

import numpy as np
import pytest

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.data.manifest import Manifest
from mskscreen.evaluation.metrics import abnormality_statistic
from mskscreen.predictions import softmax
from mskscreen.training.score import Scores, figures


def test_what_one_class_leaves_undefined_is_left_out():
    rows = [{"image": f"{i}.png", "study": "one", "joint": "hand", "label": i % 2} for i in range(6)]
    table = np.column_stack([np.arange(6), np.random.default_rng(0).normal(size=(6, 9))]).astype(np.float32)
    found = figures(Scores.of(table), Manifest.from_rows(Path(), rows, "t"), "label", ("abnormality", "joint"))
    assert found.keys() == {"abnormality_accuracy", "joint_accuracy"}
    unknown = Manifest.from_rows(Path(), [{"image": row["image"]} for row in rows], "test")
    assert figures(Scores.of(table), unknown, "label", ("abnormality", "joint")) == {}


def test_abnormality_is_measured_on_studies_whatever_the_order_of_images():
    rng = np.random.default_rng(5)
    study = rng.integers(0, 12, 60)
    label = (np.arange(12) % 2)[study]
    rows = [
        {"image": f"{i}.png", "study": f"study {s}", "joint": JOINT_LABELS[s % 7], "label": int(y)}
        for i, (s, y) in enumerate(zip(study, label, strict=True))
    ]
    manifest = Manifest.from_rows(Path(), rows, "test")
    table = np.column_stack([np.arange(60), rng.normal(size=(60, 9))]).astype(np.float32)
    table[:, 2] += label * 0.7
    filling = np.full((3, 10), -1, np.float32)
    shuffled = np.concatenate([filling, rng.permutation(table)])
    found = figures(Scores.of(shuffled), manifest, "label", ("abnormality", "joint"))
    mean = np.bincount(study, softmax(table[:, 1:3])[:, 1]) / np.bincount(study)
    expected = abnormality_statistic(np.arange(12) % 2, mean, 0.5)(np.ones((1, 12)))
    assert 0.5 < found["abnormality_auroc"] < 1
    assert found["abnormality_auroc"] == pytest.approx(expected["auroc"][0])
    assert found["abnormality_accuracy"] == pytest.approx(expected["accuracy"][0])
    assert found["joint_accuracy"] == pytest.approx(np.mean(table[:, 3:].argmax(1) == study % 7))
