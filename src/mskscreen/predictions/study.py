"""The one function that derives study rows from image rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from mskscreen.anatomy import JointType
from mskscreen.predictions.rows import FLAG_MIXED_JOINTS, Prediction


@dataclass(frozen=True)
class StudyPrediction:
    """What a model says of one study: the mean over its scored images.

    `flags` are those of its images, and `mixed-joints` where they show different joints, none of them in doubt.
    What no image says is None.
    """

    study: str
    joint: str | None
    p_joint: tuple[float, ...] | None
    p_abnormal: float | None
    abnormal: bool | None
    images: int
    errors: int
    flags: tuple[str, ...] = ()
    patient: str | None = None


class JointTally:
    """Notices studies whose images show different joints, none of them in doubt.

    `first` holds the first joint of each study, and `mixed` that of another with the number of its image, from 1.
    """

    def __init__(self) -> None:
        self.first: dict[str, str] = {}
        self.mixed: dict[str, tuple[int, str]] = {}
        self._images = 0

    def add(self, image: Prediction) -> None:
        """Count an image in its study."""
        self._images += 1
        joint = image.sure_joint
        if joint is not None and self.first.setdefault(image.study, joint) != joint:
            self.mixed.setdefault(image.study, (self._images, joint))


class StudyTally:
    """Gathers image rows, in any order, into study rows: mean probabilities over the scored images of each study.

    Of an image it keeps only the probabilities. The order of the views does not matter (math.fsum).
    """

    def __init__(self, at: float) -> None:
        """`at` is the threshold of the calibrated probability of a study, in (0, 1)."""
        self._at = at
        self._studies: dict[str, _Views] = {}
        self._joints = JointTally()

    def add(self, image: Prediction) -> None:
        """Count an image in its study."""
        self._joints.add(image)
        views = self._studies.setdefault(image.study, _Views(image.patient))
        views.images += 1
        views.flags.update(image.flags)
        views.scored += image.scored
        if image.p_abnormal is not None:
            views.p_abnormal.append(image.p_abnormal)
        if image.p_joint is not None:
            views.p_joint.append(image.p_joint)

    def rows(self) -> Iterator[StudyPrediction]:
        """Study rows in order of first appearance; a study without a scored image has None for its scores."""
        for name, views in self._studies.items():
            mixed = {FLAG_MIXED_JOINTS} if name in self._joints.mixed else set()
            flags = tuple(sorted(views.flags | mixed))
            row = StudyPrediction(
                name, None, None, None, None, views.images, views.images - views.scored, flags, views.patient
            )
            if views.p_abnormal:
                p_abnormal = _mean(views.p_abnormal)
                row = dataclasses.replace(row, p_abnormal=p_abnormal, abnormal=p_abnormal >= self._at)
            if views.p_joint:
                p_joint = tuple(map(_mean, zip(*views.p_joint, strict=True)))
                row = dataclasses.replace(row, joint=JointType(int(np.argmax(p_joint))).label, p_joint=p_joint)
            yield row


@dataclass
class _Views:
    patient: str | None
    images: int = 0
    scored: int = 0
    flags: set[str] = field(default_factory=set)
    p_abnormal: list[float] = field(default_factory=list)
    p_joint: list[tuple[float, ...]] = field(default_factory=list)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def studies(images: Iterable[Prediction], at: float) -> list[StudyPrediction]:
    """Study rows of image rows: see `StudyTally`."""
    tally = StudyTally(at)
    for image in images:
        tally.add(image)
    return list(tally.rows())
