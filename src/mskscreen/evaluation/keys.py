"""The one place that says when two rows speak of the same study or the same image.

MURA writes the label into the folder of a study (`study1_positive`) and a predictions table leaves it out, a
manifest may be absolute and a table relative: both sides of every join go through these functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

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


def numbered(names: Iterable[str]) -> tuple[np.ndarray, list[str]]:
    """The number of each name, from 0 by first appearance, and the names by their numbers."""
    number: dict[str, int] = {}
    codes = [number.setdefault(name, len(number)) for name in names]
    return np.array(codes, np.intp), list(number)


def file_name(key: str) -> str:
    """Last part of the key of an image."""
    return key.rsplit("/", 1)[-1]


def same_end(one: str, other: str) -> bool:
    """Whether one of two paths is the end of the other, in whole parts."""
    return ("/" + one).endswith("/" + other) or ("/" + other).endswith("/" + one)


class Paths:
    """Names of images, found by key, else by the file that they mean, else by the end of a path.

    The end counts where it fits one name alone, and never for MURA, which names its images alike in every study.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._by_key = {str(keys(name, name)[0]): name for name in names}
        self._by_file = {_resolved(name): name for name in self._by_key.values()}
        self._by_end: dict[str, list[str]] = {}
        for key in self._by_key:
            if mura_path(key) is None:
                self._by_end.setdefault(file_name(key), []).append(key)

    def find(self, file: str) -> str | None:
        """The name of the same image, or None."""
        key = str(keys(file, file)[0])
        found = self._by_key.get(key) or self._by_file.get(_resolved(file))
        if found is not None or mura_path(key) is not None:
            return found
        ends = [other for other in self._by_end.get(file_name(key), ()) if same_end(other, key)]
        return self._by_key[ends[0]] if len(ends) == 1 else None


def joint_index(text: str) -> int:
    """Index of a joint type given as its name, its MURA folder or its DICOM body part; -1 for anything else."""
    joint = JointType.from_body_part(text.strip().upper().removeprefix("XR_"))
    return -1 if joint is None else int(joint)


def _plain(text: str) -> str:
    return text.strip().replace("\\", "/").removeprefix("./").rstrip("/")


def _resolved(file: str) -> str:
    try:
        return str(Path(file).resolve())
    except (OSError, ValueError):
        return file
