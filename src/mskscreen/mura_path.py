"""How MURA names its files: the one grammar of its paths (Rajpurkar et al., arXiv:1712.06957).

The label stands in the name of the study folder (`study1_positive`); what identifies a study leaves it out.
"""

from __future__ import annotations

import re
from typing import NamedTuple

SPLITS = ("train", "valid", "test")
_PATH = re.compile(
    rf"(?:^|/)(?:(?:(?P<split>{'|'.join(SPLITS)})/)?(?P<joint>XR_[A-Z]+)/)?(?P<patient>patient\d+)/(?P<study>study\d+)"
    r"(?:_(?P<label>positive|negative))?(?:/(?P<image>[^/]+))?/?$"
)
_LABEL = re.compile(r"(study\d+)_(?:positive|negative)(?=/|$)")


class MuraPath(NamedTuple):
    """What the name of a MURA file or study folder says; None where it does not say it.

    `joint` is the folder, as in `XR_HAND`; `label` is whether the study is called abnormal.
    """

    split: str | None
    joint: str | None
    patient: str
    study: str
    label: bool | None
    image: str | None

    @property
    def study_key(self) -> str:
        """The study without its label, as in `XR_HAND/patient11185/study1`: numbers begin anew for each joint."""
        return _joined(self.joint, self.patient, self.study)

    @property
    def patient_folder(self) -> str:
        """Folder of the patient, as in `valid/XR_HAND/patient11185`."""
        return _joined(self.split, self.joint, self.patient)

    @property
    def study_folder(self) -> str:
        """Folder of the study as it is written, with or without the label."""
        suffix = "" if self.label is None else ("_negative", "_positive")[self.label]
        return f"{self.patient_folder}/{self.study}{suffix}"


def _joined(*parts: str | None) -> str:
    return "/".join(part for part in parts if part is not None)


def mura_path(text: str) -> MuraPath | None:
    """Parts of a MURA path such as `MURA-v1.1/valid/XR_HAND/patient11185/study1_positive/image1.png`, or None.

    Whatever comes before the split, the joint or the patient is passed over.
    """
    found = _PATH.search(text.replace("\\", "/"))
    if not found:
        return None
    label = None if found["label"] is None else found["label"] == "positive"
    return MuraPath(found["split"], found["joint"], found["patient"], found["study"], label, found["image"])


def unlabelled(path: str) -> str:
    """A path without the label that MURA writes into its study folders."""
    return _LABEL.sub(r"\1", path)
