"""The one place that says when two rows speak of the same study or the same image.

MURA writes the label into the folder of a study (`study1_positive`) and a predictions table leaves it out, a
manifest may be absolute and a table relative: both sides of every join go through these functions.
"""

from __future__ import annotations

from mskscreen.anatomy import JointType
from mskscreen.mura_path import mura_path


def study_key(text: str) -> str:
    """Key of a study: `XR_HAND/patient11185/study1` for MURA, else the text without a trailing slash."""
    found = mura_path(text)
    return _plain(text) if found is None else found.study_key


def keys(image: str | None, study: str) -> tuple[str | None, str]:
    """Keys of one row: of its image (None without one) and of its study.

    A MURA file name tells its study with the joint, which the name of the study alone may not.
    """
    found = None if image is None else mura_path(image)
    if image is None or found is None or found.image is None:
        return image and _plain(image), study_key(study)
    name = found.study_key
    return f"{name}/{found.image}", name if found.joint else study_key(study)


def joint_index(text: str) -> int:
    """Index of a joint type given as its name, its MURA folder or its DICOM body part; -1 for anything else."""
    joint = JointType.from_body_part(text.strip().upper().removeprefix("XR_"))
    return -1 if joint is None else int(joint)


def _plain(text: str) -> str:
    return text.strip().replace("\\", "/").removeprefix("./").rstrip("/")
