"""One row of the predictions table: what a model says of one image."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any

import numpy as np

from mskscreen.anatomy import JointType
from mskscreen.contract import ModelContract
from mskscreen.errors import DataError, short

FLAG_ERROR = "error"
FLAG_LOW_CONFIDENCE = "low-confidence-joint"
FLAG_CONFLICT = "conflict"
FLAG_NOVEL = "not-like-training-data"
FLAG_UNAPPROVED = "unapproved-precision"
FLAG_MIXED_JOINTS = "mixed-joints"


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    `pred1` (2,) and `pred2` (7,) are the raw scores in the release's order; `p_abnormal` and `p_joint` (7,)
    are calibrated probabilities; `abnormal` is the decision at the operating point in force. They are None,
    and `error` says why in one sentence, where the image could not be scored; those of a task that the model did
    not learn are None throughout. `novelty` is the distance from the training data, None where the model gives
    none; `patient` is known of a MURA tree alone. `digest` is the SHA-256 of the decode record.
    """

    file: str
    study: str
    joint: str | None = None
    p_joint: tuple[float, ...] | None = None
    p_abnormal: float | None = None
    abnormal: bool | None = None
    pred1: tuple[float, ...] | None = None
    pred2: tuple[float, ...] | None = None
    flags: tuple[str, ...] = ()
    error: str | None = None
    patient: str | None = None
    novelty: float | None = None
    digest: str | None = None

    @property
    def scored(self) -> bool:
        """Whether the model says anything of the image."""
        return self.p_abnormal is not None or self.p_joint is not None


def softmax(scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax over the last axis of `scores` / `temperature`, in float64."""
    scaled = np.asarray(scores, np.float64) / temperature
    scaled = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return typing.cast(np.ndarray, scaled / scaled.sum(axis=-1, keepdims=True))


def score(
    contract: ModelContract,
    pred1: np.ndarray,
    pred2: np.ndarray,
    *,
    at: str = "balanced",
    novelty: float | None = None,
) -> dict[str, Any]:
    """Fields of a Prediction that follow from the raw scores `pred1` (2,) and `pred2` (7,) of one image.

    Those of a task that the model did not learn are None.
    Raises DataError where the contract has no operating point `at` or a score or the novelty is not finite.
    """
    require_finite("scores are", pred1, pred2)
    require_finite("novelty is", np.array(novelty or 0.0))
    found: dict[str, Any] = dict.fromkeys(("joint", "p_joint", "p_abnormal", "abnormal", "pred1", "pred2"))
    flags = []
    if "abnormality" in contract.tasks:
        p_abnormal = float(softmax(pred1, contract.calibration.abnormality_temperature)[1])
        abnormal = p_abnormal >= threshold(contract, at)
        found |= {"p_abnormal": p_abnormal, "abnormal": abnormal, "pred1": tuple(map(float, pred1))}
    if "joint" in contract.tasks:
        p_joint = softmax(pred2, contract.calibration.joint_temperature)
        joint = JointType(int(p_joint.argmax())).label
        found |= {"joint": joint, "p_joint": tuple(map(float, p_joint)), "pred2": tuple(map(float, pred2))}
        if p_joint.max() < contract.joint_confidence:
            flags.append(FLAG_LOW_CONFIDENCE)
    if contract.novelty and novelty is not None and novelty > contract.novelty.threshold:
        flags.append(FLAG_NOVEL)
    return {**found, "novelty": novelty, "flags": tuple(flags)}


def require_finite(what: str, *values: np.ndarray) -> None:
    """Raise DataError where one of a model's outputs, `what` they are in words, is not a number."""
    if not all(np.isfinite(value).all() for value in values):
        raise DataError(f"the model's {what} not finite; the model file is damaged or the precision overflows")


def threshold(contract: ModelContract, at: str) -> float:
    """Calibrated probability of the operating point named `at`.

    Raises DataError where the contract lacks it.
    """
    try:
        return contract.operating_points[at]
    except KeyError:
        known = short(", ".join(sorted(contract.operating_points)))
        raise DataError(f"{contract.title} has no operating point '{at}'; it has {known}") from None
