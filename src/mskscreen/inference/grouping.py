"""Which study an image belongs to, under a name that does not give away a label."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Literal, get_args

from mskscreen.errors import DataError
from mskscreen.mura_path import mura_path, unlabelled

StudyBy = Literal["auto", "folder", "none"]


def check_study_by(by: str) -> None:
    """Raise DataError for what is no way to group."""
    if by not in get_args(StudyBy):
        raise DataError(f"study_by is '{by}'; name one of {', '.join(get_args(StudyBy))}")


def group(file: str, dicom: Mapping[str, str] | None, by: StudyBy = "auto") -> tuple[str, str | None]:
    """Study and patient of an image.

    `auto` takes the DICOM Study Instance UID (0020,000D), else the folders of a MURA tree, else the image
    alone; `folder` takes the folder that holds it and `none` the image alone. The patient is known from a MURA
    tree only; that of a DICOM file is not shown. Whoever takes `by` from a user checks it first, once.
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
