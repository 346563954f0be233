"""The MURA release (Rajpurkar et al., arXiv:1712.06957), read from its own lists.

The lists are the truth; the disk only tells how large a listed file is. Copies in the field differ: lists of
v1.0 and v1.1, folders whose label suffix was removed or renamed, missing files, and what macOS leaves behind.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mskscreen.anatomy import JointType
from mskscreen.data.findings import Findings
from mskscreen.data.manifest import Manifest
from mskscreen.data.tree import OutsideError, Tree, inside
from mskscreen.errors import DataError

SPLITS = ("train", "valid", "test")
_PREFIX = re.compile(r"^(?:\./)?MURA-v[\d.]+/")
_STUDY = re.compile(r"^(study\d+)(?:_(positive|negative))?$")
_IMAGE = re.compile(r"^image(\d{1,6})\.\w+$")
_LABELS = {"0": 0, "1": 1}


class StudyPath(NamedTuple):
    """A study folder of the release; `folder` is its name on the list, with or without the label suffix."""

    split: str
    region: str
    patient: str
    folder: str

    @property
    def key(self) -> str:
        """Identity of the study, without its label."""
        return "/".join(self[:3]) + "/" + self.number

    @property
    def number(self) -> str:
        """Folder name without the label suffix."""
        return _STUDY.sub(r"\1", self.folder)

    @property
    def suffix(self) -> int | None:
        """The label in the folder name, or None where it has none."""
        match = _STUDY.match(self.folder)
        return {"negative": 0, "positive": 1}.get(match[2]) if match else None


def strip_release(text: str) -> str:
    """A listed path without the name of the release before it and the slash behind it."""
    return _PREFIX.sub("", text.strip()).rstrip("/")


def study_path(relative: str) -> StudyPath | None:
    """The study of a path such as `train/XR_ELBOW/patient00011/study1_negative`, or None for another layout."""
    parts = relative.split("/")
    if len(parts) != 4 or parts[0] not in SPLITS or not parts[1].startswith("XR_") or not _STUDY.match(parts[3]):
        return None
    return StudyPath(*parts)


def image_key(relative: str) -> str:
    """Identity of an image or study path of the release whatever the label suffix of its study folder."""
    return "/".join(_STUDY.sub(r"\1", part) for part in strip_release(relative).split("/"))


def read_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number (from 1) and fields of each line of a CSV that is not empty.

    Raises DataError that names file and line where a line is not CSV.
    """
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        reader = csv.reader(stream)
        try:
            for fields in reader:
                if any(fields):
                    yield reader.line_num, fields
        except csv.Error as error:
            raise DataError(f"{path.name}:{reader.line_num}: not a line of CSV ({error})") from error


def release_folder(root: Path) -> Path | None:
    """The folder that holds the lists: `root` itself or the release inside it."""
    folders = [root, *sorted(root.glob("MURA-v*"))]
    return next((folder for folder in folders if any(_lists(folder, split) for split in SPLITS)), None)


def _lists(folder: Path, split: str) -> tuple[Path | None, Path | None] | None:
    """The image list and the label list of a split (v1.1 has both, v1.0 only labels), or None."""
    images = folder / f"{split}_image_paths.csv"
    names = (f"{split}_labeled_studies.csv", f"{split}.csv")
    labels = next((folder / name for name in names if (folder / name).is_file()), None)
    found = images if images.is_file() else None
    return (found, labels) if found or labels else None


def index_mura(root: Path, *, links: bool = False) -> tuple[Manifest, Findings]:
    """The manifest of a copy of MURA, and what was found while reading it.

    Listed images that are missing on disk keep their row, with null bytes. Raises DataError where `root` holds
    no list of the release.
    """
    folder = release_folder(root)
    if folder is None:
        raise DataError(f"{root}: holds no train_image_paths.csv or valid_image_paths.csv of MURA")
    findings = Findings()
    tree = Tree(folder, links=links)
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        if lists := _lists(folder, split):
            rows += _Split(tree, findings, *lists).rows()
    for place in (folder / "__MACOSX", folder.parent / "__MACOSX"):
        if place.is_dir():
            findings.add("folder __MACOSX ignored", place.name)
    return Manifest.from_rows(folder, rows, "mura", links=links), findings


class _Split:
    """Reads the lists of one split."""

    def __init__(self, tree: Tree, findings: Findings, images: Path | None, labels: Path | None) -> None:
        self.tree, self.findings, self.images = tree, findings, images
        self.file = (images or labels or Path()).name
        # By folder as listed: line, study and label.
        self.labels: dict[str, tuple[int, StudyPath, int | None]] = {}
        # The same without label suffix, for image lists that have none; None where two studies share the key.
        self.by_key: dict[str, int | None] = {}
        if labels:
            self._read_labels(labels)

    def rows(self) -> list[dict[str, Any]]:
        """Rows in the order of the list."""
        rows: list[dict[str, Any]] = []
        seen: set[str] = set()
        on_disk: dict[str, tuple[str, frozenset[str]]] = {}
        for line, study, name in self._listed():
            relative = f"{'/'.join(study)}/{name}"
            if relative in seen:
                self.findings.add("image listed twice", self.file, line, refused=True)
                continue
            seen.add(relative)
            folder = "/".join(study)
            if folder not in on_disk:
                on_disk[folder] = self._folder_on_disk(study)
            if row := self._row(line, study, name, *on_disk[folder]):
                rows.append(row)
        listed = {image_key(relative) for relative in seen}
        for folder, (actual, names) in on_disk.items():
            self._unlisted(folder, actual, names, listed)
        return rows

    def _listed(self) -> Iterator[tuple[int, StudyPath, str]]:
        """Line, study and file name of each image of the split."""
        if self.images is None:
            for line, listed, _ in self.labels.values():
                names = filter(_IMAGE.match, self._folder_on_disk(listed)[1])
                for name in sorted(names, key=lambda text: (len(text), text)):
                    yield line, listed, name
            return
        for line, fields in read_lines(self.images):
            relative = self._safe(fields[0], line)
            if relative is None:
                continue
            parent, _, name = relative.rpartition("/")
            study = study_path(parent)
            if name.startswith("._") or "__MACOSX" in relative:
                self.findings.add("macOS file ignored", self.file, line)
            elif study is None:
                self.findings.add("not a path of the release", self.file, line, refused=True)
            else:
                yield line, study, name

    def _read_labels(self, path: Path) -> None:
        for line, fields in read_lines(path):
            relative = self._safe(fields[0], line, path.name)
            if relative is None:
                continue
            study = study_path(relative)
            label = _LABELS.get(fields[1].strip()) if len(fields) > 1 else None
            if study is None:
                self.findings.add("not a study of the release", path.name, line, refused=True)
                continue
            if label is None:
                self.findings.add("label other than 0 or 1", path.name, line, refused=True)
            elif study.suffix not in (None, label):
                self.findings.add("label differs from the folder name", path.name, line)
            folder = "/".join(study)
            if folder in self.labels and self.labels[folder][2] != label:
                self.findings.add("study listed with two labels", path.name, line, refused=True)
                label = None
            same = folder in self.labels or study.key not in self.by_key
            self.by_key[study.key] = label if same else None
            self.labels[folder] = (line, study, label)

    def _safe(self, text: str, line: int, file: str | None = None) -> str | None:
        try:
            return inside(strip_release(text))
        except OutsideError as error:
            self.findings.add(str(error), file or self.file, line, refused=True)
            return None

    def _folder_on_disk(self, study: StudyPath) -> tuple[str, frozenset[str]]:
        """The folder that stands for `study` on disk, whatever its label suffix, and the names in it."""
        parent = "/".join(study[:3])
        others = (study.number, f"{study.number}_negative", f"{study.number}_positive")
        for name in (study.folder, *others):
            if name != study.folder and f"{parent}/{name}" in self.labels:
                continue
            try:
                names = frozenset(path.name for path in (self.tree.root / parent / name).iterdir())
            except (FileNotFoundError, NotADirectoryError):
                continue
            return f"{parent}/{name}", names
        return f"{parent}/{study.folder}", frozenset()

    def _row(
        self, line: int, study: StudyPath, name: str, folder: str, names: frozenset[str]
    ) -> dict[str, Any] | None:
        try:
            status = self.tree.stat(f"{folder}/{name}") if name in names else None
        except OutsideError as error:
            self.findings.add(str(error), self.file, line, refused=True)
            return None
        if status is None:
            self.findings.add("image missing on disk", self.file, line)
        listed = self.labels.get("/".join(study))
        label = listed[2] if listed else self.by_key.get(study.key)
        if label is None:
            self.findings.add("image without label", self.file, line)
        number = _IMAGE.match(name)
        return {
            "image": f"{folder}/{name}",
            "study": study.key,
            "patient": study.patient,
            "joint": _joint(study.region),
            "view": int(number[1]) if number else None,
            "label": label,
            "split": study.split,
            "bytes": status.st_size if status else None,
        }

    def _unlisted(self, folder: str, actual: str, names: frozenset[str], listed: set[str]) -> None:
        if actual != folder and names:
            self.findings.add("study folder has another label suffix than the list", self.file)
        for name in names:
            if name.startswith("._") or name == ".DS_Store":
                self.findings.add("macOS file ignored", self.file)
            elif image_key(f"{folder}/{name}") not in listed:
                self.findings.add("file on disk but not on the list, ignored", self.file)


def _joint(region: str) -> str:
    try:
        return JointType.from_mura(region).label
    except KeyError:
        return region.removeprefix("XR_").lower()
