"""Which study an image belongs to, and names that do not give away a label."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Literal

StudyBy = Literal["auto", "folder", "none"]

# MURA: XR_ELBOW/patient11186/study1_positive/image1.png. The numbers of studies begin anew for each joint.
_MURA = re.compile(r"((?:XR_[A-Z]+/)?(patient\d+)/study\d+)(?:_(?:positive|negative))?/[^/]+$")
_LABEL = re.compile(r"(study\d+)_(?:positive|negative)(?=/|$)")


def unlabelled(name: str) -> str:
    """A path without the label that MURA writes into its study folders."""
    return _LABEL.sub(r"\1", name)


def group(file: str, dicom: Mapping[str, str] | None, by: StudyBy = "auto") -> tuple[str, str | None]:
    """Study and patient of an image.

    `auto` takes the DICOM Study Instance UID (0020,000D), else the folders of a MURA tree, else the image
    alone; `folder` takes the folder that holds it and `none` the image alone. The patient is known from a MURA
    tree only; that of a DICOM file is not shown.
    """
    name = PurePath(file).as_posix()
    mura = _MURA.search(name)
    patient = mura[2] if mura else None
    if by == "folder":
        return unlabelled(PurePath(name).parent.as_posix()), patient
    if by == "auto" and dicom and dicom.get("study_instance_uid"):
        return dicom["study_instance_uid"], patient
    if by == "auto" and mura:
        return mura[1], patient
    return unlabelled(name), patient
