"""Data sets described by a table: FracAtlas, GRAZPEDWRI-DX, LERA, and a plain CSV of one's own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mskscreen.anatomy import JointType
from mskscreen.data.findings import Findings
from mskscreen.data.manifest import Manifest, own_studies
from mskscreen.data.mura import read_lines
from mskscreen.data.tree import PathError, Tree, inside
from mskscreen.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".dcm")
_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
_SPLITS = {"": None, "train": "train", "test": "test", **dict.fromkeys(("valid", "val", "validation"), "valid")}
_REGIONS = ("hand", "leg", "hip", "shoulder")
_COCO = "Annotations/COCO JSON/COCO_fracture_masks.json"


def region(text: str | None) -> str | None:
    """Joint type or other region named by a source (`XR ELBOW`, `Elbow`, `KNEE`), in lower case; None if empty."""
    name = (text or "").strip().upper().replace("_", " ").removeprefix("XR ")
    joint = JointType.from_body_part(name)
    return joint.label if joint is not None else name.lower() or None


class Table:
    """A CSV with a header, whose rows name images below a root."""

    def __init__(self, path: Path, root: Path, required: tuple[str, ...], *, links: bool) -> None:
        if not path.is_file():
            raise DataError(f"{path}: no such file; it lists the images of this data set")
        self.path, self.file = path, path.name
        self.required = required
        self.tree, self.links = Tree(root, links=links), links
        self.findings = Findings()
        self.rows: dict[str, dict[str, Any]] = {}

    def records(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Line number and fields by column name.

        Raises DataError where the header lacks a required column or names one twice.
        """
        lines = read_lines(self.path)
        header = [name.strip().lower() for name in next(lines, (1, []))[1]]
        if missing := [name for name in self.required if name not in header]:
            raise DataError(f"{self.file}:1: the header lacks the column '{missing[0]}'")
        if twice := next((name for name in header if name and header.count(name) > 1), None):
            raise DataError(f"{self.file}:1: two columns are named '{twice}'; keep one")
        for line, fields in lines:
            if len(fields) < len(header) or any(fields[len(header) :]):
                kind = "line has too few fields" if len(fields) < len(header) else "line has too many fields"
                self.findings.add(kind, self.file, line, refused=True)
                continue
            yield line, dict(zip(header, map(str.strip, fields), strict=False))

    def add(self, line: int, image: str, **columns: Any) -> None:
        """Add a row for the image at a path relative to the root, unless that leaves the root or was added."""
        try:
            image = inside(image)
            status = self.tree.stat(image)
        except PathError as error:
            self.findings.add(str(error), self.file, line, refused=True)
            return
        if image in self.rows:
            self.findings.add("image listed twice", self.file, line, refused=True)
            return
        if status is None:
            self.findings.add("image missing on disk", self.file, line)
        self.rows[image] = {"image": image, "bytes": status.st_size if status else None, **columns}

    def label(self, text: str, line: int) -> int | None:
        """0, 1, or None where the field is empty or (a finding) anything else."""
        if text and text not in _LABELS:
            self.findings.add("label other than 0 or 1", self.file, line, refused=True)
        return _LABELS.get(text)

    def result(self, source: str) -> tuple[Manifest, Findings]:
        """Manifest and findings."""
        rows = list(self.rows.values())
        return Manifest.from_rows(self.tree.root, rows, source, links=self.links), self.findings


def index_csv(root: Path, *, links: bool = False) -> tuple[Manifest, Findings]:
    """A plain CSV: column `path` relative to its folder, and any of patient, study, joint, label, split, view.

    A study may be named within its patient: see `own_studies`. Raises DataError where a split has another name
    than train, valid (also val, validation) or test.
    """
    table = Table(root, root.parent, ("path",), links=links)
    for line, record in table.records():
        view = record.get("view", "")
        number = int(view) if re.fullmatch(r"[0-9]{1,6}", view) else None
        if view and number is None:
            table.findings.add("view is not a number", table.file, line, refused=True)
        table.add(
            line,
            record["path"],
            patient=record.get("patient") or None,
            study=record.get("study") or None,
            joint=region(record.get("joint")),
            label=table.label(record.get("label", ""), line),
            split=_split(table, record.get("split", ""), line),
            view=number,
        )
    studies, patients = ([row[name] for row in table.rows.values()] for name in ("study", "patient"))
    for row, study in zip(table.rows.values(), own_studies(studies, patients), strict=True):
        row["study"] = study
    return table.result("csv")


def _split(table: Table, text: str, line: int) -> str | None:
    """The split as a manifest names it: under any other name an evaluation set would be trained on."""
    if text.lower() not in _SPLITS:
        raise DataError(
            f"{table.file}:{line}: split '{text}' is none of train, valid, test; correct it or leave it empty"
        )
    return _SPLITS[text.lower()]


def index_fracatlas(root: Path, *, links: bool = False) -> tuple[Manifest, Findings]:
    """FracAtlas (Abedeen et al., Scientific Data 2023, CC BY 4.0): label 1 is a fracture.

    The source names no patient and no study. It knows four regions, so its `hand` may show a wrist or a forearm;
    an image of several regions has none. The official split covers fractured images only. The COCO file is used
    to find labels that contradict the drawn masks.
    """
    table = Table(root / "dataset.csv", root, ("image_id", "fractured", *_REGIONS), links=links)
    splits = dict(_fracatlas_splits(root))
    fractured = table.tree.names("images/Fractured") or frozenset()
    masked = _masked_images(root / _COCO)
    for line, record in table.records():
        name = record["image_id"]
        label = table.label(record["fractured"], line)
        shown = [place for place in _REGIONS if record[place] == "1"]
        folder = "Fractured" if label or (label is None and name in fractured) else "Non_fractured"
        if masked is not None and label is not None and (name in masked) != bool(label):
            table.findings.add("label contradicts the fracture masks", table.file, line)
        table.add(
            line,
            f"images/{folder}/{name}",
            joint=shown[0] if len(shown) == 1 else None,
            label=label,
            split=splits.get(name),
        )
    return table.result("fracatlas")


def _fracatlas_splits(root: Path) -> Iterator[tuple[str, str]]:
    for split in ("train", "valid", "test"):
        path = root / "Utilities" / "Fracture Split" / f"{split}.csv"
        if path.is_file():
            yield from ((fields[0].strip(), split) for _, fields in read_lines(path))


def _masked_images(path: Path) -> frozenset[str] | None:
    """Names of the images with at least one annotation in a COCO file, or None where it is absent."""
    if not path.is_file():
        return None
    try:
        coco = json.loads(path.read_text(encoding="utf-8"))
        annotated = {annotation["image_id"] for annotation in coco["annotations"]}
        return frozenset(image["file_name"] for image in coco["images"] if image["id"] in annotated)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path.name}: not a COCO file ({error})") from error


def index_grazpedwri(root: Path, *, links: bool = False) -> tuple[Manifest, Findings]:
    """GRAZPEDWRI-DX (Nagy et al., Scientific Data 2022, CC BY 4.0): wrists of children.

    Label 1 is a visible fracture. Flags of this table are 1 or empty, so an empty `fracture_visible` is label 0,
    except where `diagnosis_uncertain` is set: then the label is null.
    """
    table = Table(root / "dataset.csv", root, ("filestem", "patient_id", "study_number"), links=links)
    folders = [".", *sorted(path.name for path in root.glob("images*") if path.is_dir())]
    where = {path.name: folder for folder in folders for path in (root / folder).iterdir()}
    for line, record in table.records():
        name = f"{record['filestem']}.png"
        number = record["patient_id"], record["study_number"]
        table.add(
            line,
            f"{where.get(name, 'images')}/{name}",
            patient=record["patient_id"] or None,
            study="/".join(number) if all(number) else None,
            joint=JointType.WRIST.label,
            label=_visible_fracture(table, record, line),
        )
    return table.result("grazpedwri-dx")


def _visible_fracture(table: Table, record: Mapping[str, str], line: int) -> int | None:
    uncertain = table.label(record.get("diagnosis_uncertain", ""), line)
    visible = record.get("fracture_visible")
    if uncertain or visible is None:
        return None
    return table.label(visible or "0", line)


def index_lera(root: Path, *, links: bool = False) -> tuple[Manifest, Findings]:
    """LERA (Stanford AIMI): `labels.csv` without header lists folder, region and label.

    Images lie below the folder, which is a patient. Its regions are of the lower limb: no joint types of this
    software.
    """
    table = Table(root / "labels.csv", root, (), links=links)
    for line, fields in read_lines(table.path):
        if len(fields) < 3:
            table.findings.add("line has too few fields", table.file, line, refused=True)
            continue
        name, shown, label = (text.strip() for text in fields[:3])
        try:
            files = list(table.tree.walk(inside(name)))
        except PathError as error:
            table.findings.add(str(error), table.file, line, refused=True)
            continue
        images = [file for file in files if _is_image(file)]
        if not images:
            table.findings.add("folder without images", table.file, line)
        for _ in range(len(files) - len(images)):
            table.findings.add("file that is no image, or a linked folder, ignored", table.file, line)
        value = table.label(label, line)
        for image in images:
            study = image.rpartition("/")[0]
            table.add(line, image, patient=name, study=study, joint=region(shown), label=value)
    return table.result("lera")


def _is_image(file: str) -> bool:
    """Whether a name is that of an image and not of what macOS leaves beside it."""
    name = file.rpartition("/")[2].lower()
    return name.endswith(IMAGE_SUFFIXES) and not name.startswith(".")
