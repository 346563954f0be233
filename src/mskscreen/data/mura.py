"""The MURA release (Rajpurkar et al., arXiv:1712.06957), read from its own lists.

The lists are the truth; the disk only tells how large a listed file is. Copies in the field differ: lists of
v1.0 and v1.1, folders whose label suffix was removed or renamed, missing files, and what macOS leaves behind.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mskscreen.anatomy import JointType
from mskscreen.data.findings import Findings
from mskscreen.data.manifest import Manifest
from mskscreen.data.tree import PathError, Tree, inside
from mskscreen.errors import DataError
from mskscreen.mura_path import SPLITS, MuraPath, mura_path, unlabelled

_PREFIX = re.compile(r"^(?:\./)?MURA-v[\d.]+/")
_IMAGE = re.compile(r"^image(\d{1,6})\.\w+$")
_LABELS = {"0": 0, "1": 1}
_MACOS = ("._", "__MACOSX", ".DS_Store")


def strip_release(text: str) -> str:
    """A listed path without the name of the release before it and the slash behind it."""
    return _PREFIX.sub("", text.strip()).rstrip("/")


def study_path(relative: str) -> MuraPath | None:
    """The study of a path such as `train/XR_ELBOW/patient00011/study1_negative`, or None for another layout."""
    found = mura_path(relative)
    return found if found and found.split and found.joint and found.study_folder == relative else None


def image_key(relative: str) -> str:
    """Identity of an image or study path of the release whatever the label suffix of its study folder."""
    return unlabelled(strip_release(relative))


def read_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number (from 1) and fields of each line of a CSV that is not empty.

    Raises DataError that names file and line where a line is not CSV.
    """
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        # Strict, or a quote that is never closed would swallow all that follows it.
        reader = csv.reader(stream, strict=True)
        line = 0
        try:
            for fields in reader:
                if any(fields):
                    yield line + 1, fields
                line = reader.line_num
        except csv.Error as error:
            raise DataError(f"{path.name}:{line + 1}: not a line of CSV ({error})") from error


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
    studies: set[str] = set()
    for split in SPLITS:
        if lists := _lists(folder, split):
            reader = _Split(tree, findings, *lists)
            rows += reader.rows()
            studies |= {place for place, _ in reader.on_disk.values()}
    _say_what_is_ignored(tree, studies, findings)
    if (folder.parent / "__MACOSX").is_dir():
        findings.add("macOS file ignored", "__MACOSX")
    return Manifest.from_rows(folder, rows, "mura", links=links), findings


class _Split:
    """Reads the lists of one split."""

    def __init__(self, tree: Tree, findings: Findings, images: Path | None, labels: Path | None) -> None:
        self.tree, self.findings, self.images = tree, findings, images
        self.file = (images or labels or Path()).name
        # By folder as listed: line, study and label.
        self.labels: dict[str, tuple[int, MuraPath, int | None]] = {}
        # The same without label suffix, for image lists that have none; None where two studies share the key.
        self.by_key: dict[str, int | None] = {}
        # By folder as listed: the folder that stands for it on disk, and the names in it.
        self.on_disk: dict[str, tuple[str, frozenset[str]]] = {}
        if labels:
            self._read_labels(labels)

    def rows(self) -> list[dict[str, Any]]:
        """Rows in the order of the list."""
        rows: list[dict[str, Any]] = []
        seen: set[str] = set()
        for line, study, name in self._listed():
            relative = f"{study.study_folder}/{name}"
            if relative in seen:
                self.findings.add("image listed twice", self.file, line, refused=True)
                continue
            seen.add(relative)
            if row := self._row(line, study, name):
                rows.append(row)
        listed = {image_key(relative) for relative in seen}
        for folder, (actual, names) in self.on_disk.items():
            self._unlisted(folder, actual, names, listed)
        keys = {row["study"] for row in rows}
        for line, study, _ in self.labels.values():
            if _key(study) not in keys:
                self.findings.add("study without images", self.labels_file, line)
        return rows

    def _listed(self) -> Iterator[tuple[int, MuraPath, str]]:
        """Line, study and file name of each image of the split."""
        if self.images is None:
            self.findings.add("no list of images: they are those in the folders of the listed studies", self.file)
            for line, listed, _ in self.labels.values():
                names = filter(_IMAGE.match, self._folder_on_disk(line, listed)[1])
                for name in sorted(names, key=lambda text: (len(text), text)):
                    yield line, listed, name
            return
        for line, relative, _ in self._paths(self.images):
            parent, _, name = relative.rpartition("/")
            if study := study_path(parent):
                yield line, study, name
            else:
                self.findings.add("not a path of the release", self.file, line, refused=True)

    def _read_labels(self, path: Path) -> None:
        self.labels_file = path.name
        for line, relative, fields in self._paths(path):
            study = study_path(relative)
            label = _LABELS.get(fields[1].strip()) if len(fields) > 1 else None
            if study is None:
                self.findings.add("not a study of the release", path.name, line, refused=True)
                continue
            if label is None:
                self.findings.add("label other than 0 or 1", path.name, line, refused=True)
            elif study.label not in (None, label):
                self.findings.add("label differs from the folder name", path.name, line)
            if relative in self.labels and self.labels[relative][2] != label:
                self.findings.add("study listed with two labels", path.name, line, refused=True)
                label = None
            key = _key(study)
            again = relative in self.labels and self.by_key[key] == label
            self.by_key[key] = label if again or key not in self.by_key else None
            self.labels[relative] = (line, study, label)

    def _paths(self, path: Path) -> Iterator[tuple[int, str, list[str]]]:
        """Line, path without the release, and fields of each line whose path stays inside and is not of macOS."""
        for line, fields in read_lines(path):
            try:
                relative = inside(strip_release(fields[0]))
            except PathError as error:
                self.findings.add(str(error), path.name, line, refused=True)
                continue
            if any(part.startswith(_MACOS) for part in relative.split("/")):
                self.findings.add("macOS file ignored", path.name, line)
            else:
                yield line, relative, fields

    def _folder_on_disk(self, line: int, study: MuraPath) -> tuple[str, frozenset[str]]:
        """The folder that stands for `study` on disk, whatever its label suffix, and the names in it."""
        folder = study.study_folder
        if folder not in self.on_disk:
            self.on_disk[folder] = folder, frozenset()
            plain = f"{study.patient_folder}/{study.study}"
            for place in (folder, plain, f"{plain}_negative", f"{plain}_positive"):
                if place != folder and place in self.labels:
                    continue
                try:
                    names = self.tree.names(place)
                except PathError as error:
                    self.findings.add(str(error), self.file, line)
                    break
                if names is not None:
                    self.on_disk[folder] = place, names
                    break
        return self.on_disk[folder]

    def _row(self, line: int, study: MuraPath, name: str) -> dict[str, Any] | None:
        folder, names = self._folder_on_disk(line, study)
        try:
            status = self.tree.stat(f"{folder}/{name}") if name in names else None
        except PathError as error:
            self.findings.add(str(error), self.file, line, refused=True)
            return None
        if status is None:
            self.findings.add("image missing on disk", self.file, line)
        listed = self.labels.get(study.study_folder)
        label = listed[2] if listed else self.by_key.get(_key(study))
        if label is None:
            self.findings.add("image without label", self.file, line)
        number = _IMAGE.match(name)
        return {
            "image": f"{folder}/{name}",
            "study": _key(study),
            "patient": study.patient,
            "joint": _joint(study.joint),
            "view": int(number[1]) if number else None,
            "label": label,
            "split": study.split,
            "bytes": status.st_size if status else None,
        }

    def _unlisted(self, folder: str, actual: str, names: frozenset[str], listed: set[str]) -> None:
        if actual != folder and names:
            self.findings.add("study folder has another label suffix than the list", self.file)
        for name in sorted(names):
            if name.startswith(_MACOS):
                self.findings.add("macOS file ignored", self.file)
            elif image_key(f"{folder}/{name}") not in listed:
                self.findings.add("file on disk but not on the list, ignored", self.file)


def _say_what_is_ignored(tree: Tree, studies: set[str], findings: Findings) -> None:
    """Look into the folders above the listed studies for what macOS left and for folders on no list."""
    known = {"/".join(parts[:depth]) for parts in (study.split("/") for study in studies) for depth in range(1, 5)}
    above = {place.rpartition("/")[0] for place in known}
    for place in sorted(above):
        # Split and region at most: what follows names a patient.
        said = "/".join(place.split("/")[:2]) or "."
        for name in sorted(_names(tree, place)):
            if name.startswith(_MACOS):
                findings.add("macOS file ignored", said)
            elif place and f"{place}/{name}" not in known:
                findings.add("folder on no list, ignored", said)


def _names(tree: Tree, place: str) -> frozenset[str]:
    try:
        return tree.names(place) or frozenset()
    except PathError:
        return frozenset()


def _key(study: MuraPath) -> str:
    """Identity of a study within the release, without its label."""
    return f"{study.patient_folder}/{study.study}"


def _joint(region: str | None) -> str:
    name = region or ""
    try:
        return JointType.from_mura(name).label
    except KeyError:
        return name.removeprefix("XR_").lower()
