"""Compares a copy of MURA with the published counts (arXiv:1712.06957, table 1, and the public lists).

Of the 40,561 images 556 are of the hidden test set, which is published as a whole only, without joints and labels;
a copy without it is complete.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mskscreen.data.manifest import Manifest


class Counts(NamedTuple):
    """Studies and images by label, and patients, of one joint type in one split."""

    negative_studies: int = 0
    positive_studies: int = 0
    negative_images: int = 0
    positive_images: int = 0
    patients: int = 0
    unlabelled_studies: int = 0
    unlabelled_images: int = 0
    missing_files: int = 0


ALL = "all"
HIDDEN = "test"
# Patients of `all` are fewer than the sum over joints: 1,467 of train appear under several joints.
PUBLISHED = {
    "train": {
        "elbow": Counts(1094, 660, 2925, 2006, 1711),
        "finger": Counts(1280, 655, 3138, 1968, 1865),
        "forearm": Counts(590, 287, 1164, 661, 865),
        "hand": Counts(1497, 521, 4059, 1484, 1945),
        "humerus": Counts(321, 271, 673, 599, 587),
        "shoulder": Counts(1364, 1457, 4211, 4168, 2694),
        "wrist": Counts(2134, 1326, 5765, 3987, 3267),
        ALL: Counts(8280, 5177, 21935, 14873, 11184),
    },
    "valid": {
        "elbow": Counts(92, 66, 235, 230, 152),
        "finger": Counts(92, 83, 214, 247, 166),
        "forearm": Counts(69, 64, 150, 151, 129),
        "hand": Counts(101, 66, 271, 189, 159),
        "humerus": Counts(68, 67, 148, 140, 132),
        "shoulder": Counts(99, 95, 285, 278, 173),
        "wrist": Counts(140, 97, 364, 295, 207),
        ALL: Counts(661, 538, 1667, 1530, 783),
    },
    HIDDEN: {ALL: Counts(patients=206, unlabelled_studies=207, unlabelled_images=556)},
}


def count(manifest: Manifest) -> dict[str, dict[str, Counts]]:
    """Counts of a manifest by split and joint, in the form of PUBLISHED."""
    cells: dict[tuple[str, str], list[int]] = {}
    for i, (split, joint) in enumerate(zip(manifest["split"], manifest["joint"], strict=True)):
        for name in (joint or "unknown", ALL):
            cells.setdefault((split or "none", name), []).append(i)
    table: dict[str, dict[str, Counts]] = {}
    for (split, name), rows in cells.items():
        table.setdefault(split, {})[name] = _count(manifest.take(rows))
    return table


def _count(rows: Manifest) -> Counts:
    labels, images = rows["label"], rows["image"]
    # A study is a folder here, as in the published counts: two folders of one number are two studies.
    folders = {(image.rpartition("/")[0], label) for image, label in zip(images, labels, strict=True)}
    studies = [label for _, label in folders]
    return Counts(
        studies.count(0),
        studies.count(1),
        list(labels).count(0),
        list(labels).count(1),
        len(set(rows["patient"])),
        studies.count(None),
        list(labels).count(None),
        list(rows["bytes"]).count(None),
    )


class Difference(NamedTuple):
    """One published count beside what was found."""

    split: str
    joint: str
    measure: str
    published: int
    found: int

    @property
    def difference(self) -> int:
        """How many more were found than published."""
        return self.found - self.published


def compare(found: dict[str, dict[str, Counts]]) -> list[Difference]:
    """Every count of the release beside the one found, then those of splits or joints it does not have.

    The hidden test set is compared as a whole, where it is there.
    """
    cells = [
        *((s, j) for s, joints in PUBLISHED.items() for j in joints if s != HIDDEN or s in found),
        *((s, j) for s, joints in found.items() for j in joints if s != HIDDEN and j not in PUBLISHED.get(s, {})),
    ]
    return [
        Difference(split, joint, measure, published, there)
        for split, joint in cells
        for measure, published, there in zip(
            Counts._fields,
            PUBLISHED.get(split, {}).get(joint, Counts()),
            found.get(split, {}).get(joint, Counts()),
            strict=True,
        )
    ]


def describe(differences: Iterable[Difference]) -> list[str]:
    """What a partial copy lacks, in sentences."""
    rows = list(differences)
    sentences = []
    for split in dict.fromkeys(row.split for row in rows):
        joints = dict.fromkeys(row.joint for row in rows if row.split == split and row.joint != ALL)
        absent = [joint for joint in joints if _images(rows, split, joint) == 0]
        if _images(rows, split, ALL) == 0:
            sentences.append(f"the split {split} is absent")
        elif absent:
            sentences.append(f"the split {split} lacks {', '.join(absent)}")
    totals: dict[str, int] = {}
    for row in rows:
        if row.joint == ALL and row.measure in ("unlabelled_images", "missing_files"):
            totals[row.measure] = totals.get(row.measure, 0) + row.difference
    if totals.get("missing_files"):
        sentences.append(f"{totals['missing_files']:,} listed images are not on disk")
    if totals.get("unlabelled_images"):
        sentences.append(f"{totals['unlabelled_images']:,} images have no label")
    return sentences


def _images(rows: Iterable[Difference], split: str, joint: str) -> int:
    measures = ("negative_images", "positive_images", "unlabelled_images")
    return sum(row.found for row in rows if row[:2] == (split, joint) and row.measure in measures)
