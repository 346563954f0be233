"""Which study an image belongs to, under a name that does not give away a label."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Literal

from mskscreen.mura_path import mura_path, unlabelled

StudyBy = Literal["auto", "folder", "none"]


def group(file: str, dicom: Mapping[str, str] | None, by: StudyBy = "auto") -> tuple[str, str | None]:
    """Study and patient of an image.

    `auto` takes the DICOM Study Instance UID (0020,000D), else the folders of a MURA tree, else the image
    alone; `folder` takes the folder that holds it and `none` the image alone. The patient is known from a MURA
    tree only; that of a DICOM file is not shown.
    """
    name = PurePath(file).as_posix()
    found = mura_path(name)
    mura = found if found and found.image is not None else None
    patient = mura.patient if mura else None
    if by == "folder":
        return unlabelled(PurePath(name).parent.as_posix()), patient
    if by == "auto" and dicom and dicom.get("study_instance_uid"):
        return dicom["study_instance_uid"], patient
    if by == "auto" and mura:
        return mura.study_key, patient
    return unlabelled(name), patient
