"""The one function that derives study rows from image rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from mskscreen.anatomy import JointType
from mskscreen.predictions.rows import FLAG_MIXED_JOINTS, Prediction

FIRMLY = 5.0
"""How many times as likely one joint must be as another for an image to speak against that other."""


@dataclass(frozen=True)
class StudyPrediction:
    """What a model says of one study: the mean over its scored images.

    `p_joint` (7,) and `p_abnormal` are calibrated probabilities, `abnormal` is the call at the table's threshold;
    `images` counts the images of the study, `errors` those among them that could not be scored. `flags` are those
    of its images, and `mixed-joints` where they contradict each other in the joint (see `JointTally`). What no
    image says is None.
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
    """Notices studies whose images contradict each other: one shows joint A, at least FIRMLY times as likely as
    joint B, and another joint B, as firmly before A.

    `studies` counts those with an image of a joint. `mixed` holds of each that is contradicted the number of the
    image, from 1, that first did so, its joint and the other.
    """

    def __init__(self) -> None:
        self.mixed: dict[str, tuple[int, str, str]] = {}
        self._said: dict[str, int] = {}
        self._images = 0

    @property
    def studies(self) -> int:
        """How many studies hold an image whose joint a model told."""
        return len(self._said)

    def add(self, image: Prediction) -> None:
        """Count an image in its study."""
        self._images += 1
        if image.p_joint is None:
            return
        said, top = self._said.get(image.study, 0), int(np.argmax(image.p_joint))
        for other, p in enumerate(image.p_joint):
            if other == top or image.p_joint[top] < FIRMLY * p:
                continue
            said |= _bit(top, other)
            if said & _bit(other, top):
                labels = JointType(top).label, JointType(other).label
                self.mixed.setdefault(image.study, (self._images, *labels))
        self._said[image.study] = said


def _bit(joint: int, other: int) -> int:
    """Bit of a study's tally that says: an image shows `joint` rather than `other`."""
    return 1 << (joint * len(JointType) + other)


class StudyTally:
    """Gathers image rows, in any order, into study rows: mean probabilities over the scored images of each study.

    Of an image it keeps only the probabilities. The order of the views does not matter (math.fsum).
    """

    def __init__(self, at: float) -> None:
        """`at` is the threshold of the calibrated probability of a study, in [0, 1]."""
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
