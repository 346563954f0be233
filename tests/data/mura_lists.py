"""Copies of MURA made in code: its lists as they occur in the field, with or without files, and no pixel of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mskscreen.data.counts import ALL, HIDDEN, PUBLISHED

FIRST_PATIENT = {"train": 1, "valid": 11185, "test": 11968}


@dataclass(frozen=True)
class Study:
    """A study to be listed: `suffix` off leaves the label out of the folder name; one without a label, as in the
    hidden test set, is on no list of labels."""

    region: str
    patient: str
    number: int
    label: int | None
    images: int
    split: str = "train"
    suffix: bool = True

    @property
    def folder(self) -> str:
        word = ("_negative", "_positive")[self.label] if self.suffix and self.label is not None else ""
        return f"{self.split}/{self.region}/{self.patient}/study{self.number}{word}"

    @property
    def files(self) -> list[str]:
        return [f"{self.folder}/image{i + 1}.png" for i in range(self.images)]


def published_studies(*, hidden: bool = False) -> Iterator[Study]:
    """Studies with exactly the published counts: patients under several joints, and with both labels."""
    for split, joints in PUBLISHED.items():
        if split == HIDDEN:
            continue
        taken = 0
        for joint, counts in joints.items():
            if joint == ALL:
                continue
            labels = [0] * counts.negative_studies + [1] * counts.positive_studies
            images = [
                *_spread(counts.negative_images, counts.negative_studies),
                *_spread(counts.positive_images, counts.positive_studies),
            ]
            for i, (label, number) in enumerate(zip(labels, images, strict=True)):
                place = (taken + i % counts.patients) % joints[ALL].patients
                patient = f"patient{FIRST_PATIENT[split] + place:05d}"
                yield Study(f"XR_{joint.upper()}", patient, i // counts.patients + 1, label, number, split)
            taken += counts.patients
    if hidden:
        counts = PUBLISHED[HIDDEN][ALL]
        for i, number in enumerate(_spread(counts.unlabelled_images, counts.unlabelled_studies)):
            patient = f"patient{FIRST_PATIENT[HIDDEN] + i % counts.patients:05d}"
            yield Study("XR_HAND", patient, i // counts.patients + 1, None, number, HIDDEN)


def _spread(total: int, parts: int) -> list[int]:
    return [total // parts + (i < total % parts) for i in range(parts)]


def write_lists(
    root: Path,
    studies: Iterable[Study],
    *,
    release: str = "MURA-v1.1",
    end: str = "\n",
    files: bytes | None = b"x",
) -> Path:
    """Write the four lists of a release below `root` and, unless `files` is None, files of that content."""
    folder = root / release
    folder.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {}
    for study in studies:
        lines.setdefault(f"{study.split}_image_paths.csv", []).extend(f"{release}/{file}" for file in study.files)
        if study.label is not None:
            labels = lines.setdefault(f"{study.split}_labeled_studies.csv", [])
            labels.append(f"{release}/{study.folder}/,{study.label}")
        if files is not None:
            (folder / study.folder).mkdir(parents=True)
            for file in study.files:
                (folder / file).write_bytes(files)
    for name, rows in lines.items():
        (folder / name).write_bytes("".join(row + end for row in rows).encode())
    return folder
