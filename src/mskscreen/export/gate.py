"""The parity gate: may a faster precision stand for f32 on these development images?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from mskscreen.contract import MIN_STUDIES, TASKS, Gate, ModelContract
from mskscreen.errors import DataError
from mskscreen.export.images import Images, Truth
from mskscreen.inference import Engine
from mskscreen.predictions import softmax

MAX_AUROC_CHANGE = 0.005
MAX_FLIPPED = 0.01
MAX_P_CHANGE = 0.01
MIN_MAP_CORRELATION = 0.95
_FLIPPED = "flipped_"
_ROUNDS = 5
_TIMED = 16


@dataclass(frozen=True)
class Scores:
    """What one engine gave: `p` (n,), `p_joint` (n, 7) and, where there is one, the maps (n, cells)."""

    p: np.ndarray
    p_joint: np.ndarray
    maps: np.ndarray | None

    @property
    def finite(self) -> bool:
        """Whether every output is a number on every image."""
        return all(np.isfinite(values).all() for values in (self.p, self.p_joint, self.maps) if values is not None)


def scores(engine: Engine, images: Images) -> Scores:
    """Calibrated probabilities and maps of all images."""
    found = engine.run(images.pixels)
    calibration = engine.contract.calibration
    maps = found.get("map")
    return Scores(
        softmax(found["pred1"], calibration.abnormality_temperature)[:, 1],
        softmax(found["pred2"], calibration.joint_temperature),
        None if maps is None else maps.reshape(len(maps), -1),
    )


def judge(contract: ModelContract, images: Images, f32: Scores, found: Scores, speed: float) -> Gate:
    """The gate's outcome for scores at another precision against those at f32 from the same engine.

    AUROC (the joint's is the mean over the joint types present) and decisions are of studies, by the mean over
    their images; the change of p and the correlation of the maps are means over images. A task that the model did
    not learn is not judged. Where an output is not a number everywhere, the changes are 1, and the gate fails.
    Raises DataError as `require_evidence`.
    """
    require_evidence(images, contract.tasks)
    sizes = {"images": float(len(images)), "studies": float(images.study.max() + 1), "speed": speed}
    finite = f32.finite and found.finite
    measures: dict[str, float] = {}
    if "abnormality" in contract.tasks:
        measures["auroc_change"] = _auroc_change(images, f32, found) if finite else 1.0
        measures["p_change"] = float(np.abs(found.p - f32.p).mean()) if finite else 1.0
        before, after = (_by_study(images, values.p) for values in (f32, found))
        for name, threshold in contract.operating_points.items():
            flipped = float(((before >= threshold) != (after >= threshold)).mean())
            measures[_FLIPPED + name] = flipped if finite else 1.0
        if finite and f32.maps is not None and found.maps is not None:
            measures["map_correlation"] = _correlation(f32.maps, found.maps)
    if "joint" in contract.tasks:
        measures["joint_auroc_change"] = _joint_auroc_change(images, f32, found) if finite else 1.0
    return Gate(finite and worst(measures) <= 1, measures | sizes)


def require_evidence(truth: Truth, tasks: Sequence[str] = TASKS) -> None:
    """Raise DataError where images cannot judge `tasks`: under 100 studies, of one class, or of one joint type."""
    studies = len(np.unique(truth.study))
    classes = len(np.unique(_study_truth(truth, truth.label)))
    for enough, needed in (
        (studies >= MIN_STUDIES, f"at least {MIN_STUDIES} studies, found {studies}"),
        ("abnormality" not in tasks or classes > 1, "normal and abnormal studies"),
        ("joint" not in tasks or len(_joints(truth)) > 1, "studies of at least two joint types"),
    ):
        if not enough:
            raise DataError(f"the gate needs {needed}; give it more development images")


def shares(measures: Mapping[str, float]) -> dict[str, float]:
    """How much of its limit each measure takes: at most 1 throughout where the gate is passed."""
    limits = {"auroc_change": MAX_AUROC_CHANGE, "joint_auroc_change": MAX_AUROC_CHANGE, "p_change": MAX_P_CHANGE}
    limits |= {name: MAX_FLIPPED for name in measures if name.startswith(_FLIPPED)}
    found = {name: measures[name] / limit for name, limit in limits.items() if name in measures}
    if "map_correlation" in measures:
        found["map_correlation"] = (1 - measures["map_correlation"]) / (1 - MIN_MAP_CORRELATION)
    return {name: share if np.isfinite(share) else np.inf for name, share in found.items()}


def worst(measures: Mapping[str, float]) -> float:
    """The largest share of its limit that a measure takes."""
    return max(shares(measures).values(), default=0.0)


def relative_speed(f32: Engine, other: Engine, images: Images) -> float:
    """Images a second of `other` relative to `f32`: median over rounds in which both run in turn."""
    batch = images.pixels[:_TIMED]
    ratios = []
    for _ in range(_ROUNDS):
        spent = []
        for engine in (f32, other):
            start = time.perf_counter()
            engine.run(batch)
            spent.append(time.perf_counter() - start)
        ratios.append(spent[0] / spent[1])
    return statistics.median(ratios)


def _by_study(images: Images, values: np.ndarray) -> np.ndarray:
    sizes = np.bincount(images.study)
    columns = values.reshape(len(values), -1).T
    means = np.stack([np.bincount(images.study, column) / sizes for column in columns], axis=1)
    return means.reshape(len(sizes), *values.shape[1:])


def _study_truth(images: Truth, values: np.ndarray) -> np.ndarray:
    truth = np.full(images.study.max() + 1, -1)
    np.maximum.at(truth, images.study, values)
    return truth


def _joints(images: Truth) -> list[int]:
    """The joint types that are present."""
    return [joint for joint in np.unique(_study_truth(images, images.joint)) if joint >= 0]


def _auroc_change(images: Images, f32: Scores, found: Scores) -> float:
    truth = _study_truth(images, images.label)
    one, other = (roc_auc_score(truth, _by_study(images, values.p)) for values in (f32, found))
    return float(abs(one - other))


def _joint_auroc_change(images: Images, f32: Scores, found: Scores) -> float:
    truth = _study_truth(images, images.joint)
    one, other = (
        np.mean([roc_auc_score((truth == k)[truth >= 0], p[truth >= 0, k]) for k in _joints(images)])
        for p in (_by_study(images, values.p_joint) for values in (f32, found))
    )
    return float(abs(one - other))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Mean over images of the correlation of two maps (n, cells); maps that are flat in both count as equal."""
    a, b = (maps - maps.mean(axis=1, keepdims=True) for maps in (one.astype(np.float64), other.astype(np.float64)))
    norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    flat = (a == 0).all(axis=1) & (b == 0).all(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.where(norms > 0, (a * b).sum(axis=1) / norms, flat)
    return float(correlation.mean())
