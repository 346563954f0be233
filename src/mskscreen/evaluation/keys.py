"""The one place that says when two rows speak of the same study or the same image.

MURA writes the label into the folder of a study (`study1_positive`) and a predictions table leaves it out, a
manifest may be absolute and a table relative: both sides of every join go through these functions.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mskscreen.anatomy import JointType

_MURA = re.compile(
    r"(?:^|/)(?:(?P<joint>XR_[A-Z]+)/)?(?P<patient>patient\d+)/(?P<study>study\d+)"
    r"(?:_(?P<label>positive|negative))?(?:/(?P<image>[^/]+))?/?$"
)


class MuraPath(NamedTuple):
    """What the name of a MURA file or study folder says; None where it does not say it."""

    joint: str | None
    patient: str
    study: str
    label: bool | None
    image: str | None


def mura_path(text: str) -> MuraPath | None:
    """Parts of a MURA path such as `MURA-v1.1/valid/XR_HAND/patient11185/study1_positive/image1.png`, or None."""
    found = _MURA.search(text.replace("\\", "/"))
    if not found:
        return None
    label = None if found["label"] is None else found["label"] == "positive"
    return MuraPath(found["joint"], found["patient"], found["study"], label, found["image"])


def study_key(text: str) -> str:
    """Key of a study: `XR_HAND/patient11185/study1` for MURA, else the text without a trailing slash."""
    found = mura_path(text)
    return _plain(text) if found is None else _study(found)


def keys(image: str | None, study: str) -> tuple[str | None, str]:
    """Keys of one row: of its image (None without one) and of its study.

    A MURA file name tells its study with the joint, which the name of the study alone may not.
    """
    found = None if image is None else mura_path(image)
    if image is None or found is None or found.image is None:
        return image and _plain(image), study_key(study)
    name = _study(found)
    return f"{name}/{found.image}", name if found.joint else study_key(study)


def joint_index(text: str) -> int:
    """Index of a joint type given as its name, its MURA folder or its DICOM body part; -1 for anything else."""
    joint = JointType.from_body_part(text.strip().upper().removeprefix("XR_"))
    return -1 if joint is None else int(joint)


def _plain(text: str) -> str:
    return text.strip().replace("\\", "/").removeprefix("./").rstrip("/")


def _study(path: MuraPath) -> str:
    return "/".join(part for part in (path.joint, path.patient, path.study) if part)
