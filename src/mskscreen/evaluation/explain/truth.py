"""Where abnormalities lie: masks of phantoms, a CSV of boxes or masks, COCO, or a folder of YOLO labels."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mskscreen.errors import DataError
from mskscreen.evaluation.explain.masks import Draw, corners, of_size, polygon, run_lengths, stored, union
from mskscreen.evaluation.keys import Paths
from mskscreen.phantom.manifest import FILE, read_manifest

_BOXES = (("x", "y", "width", "height"), ("xmin", "ymin", "xmax", "ymax"))
_CLASSES = "classes.txt"
# A list or a mapping by number, on one line or on several.
_NAMES = re.compile(r"^names:\s*(?:\[([^\]]*)\]|\{([^}]*)\}|((?:\s*(?:-|\d+:)[^\n]*)+))", re.MULTILINE)
_NUMBER = re.compile(r"^(?:-|\d+:)\s*")
# GRAZPEDWRI-DX (Nagy et al., Scientific Data 2022): the names of its files hold the number of the patient, and
# behind the side that of the projection.
_GRAZPEDWRI = re.compile(r"(\d+)_\d+_\d+_WRI-[LR]?(\d?)")
_GRAZPEDWRI_VIEWS = {"1": "ap", "2": "lateral"}
_MARKER = "text"
# Labels in shares of the sides can be drawn for any image, where its own size is not known.
_ANY = (512, 512)
_GRAZPEDWRI_CLASSES = (
    *("bone anomaly", "bone lesion", "foreign body", "fracture", "metal", "periosteal reaction"),
    *("pronator sign", "soft tissue", _MARKER),
)


@dataclass(frozen=True)
class Truth:
    """What is known of one image; `mask` gives bool (rows, columns) for the size of the radiograph.

    `kind`, `joint`, `view`, `patient` and a `size` (rows, columns) that `mask` draws are None where the source
    does not tell; `twin` is the same image without its abnormality. What cannot be seen has no truth.
    """

    mask: Draw
    kind: str | None = None
    joint: str | None = None
    view: str | None = None
    patient: str | None = None
    twin: Path | None = None
    size: tuple[int, int] | None = None


class Truths:
    """Truth by image, found as `Paths` finds it; a name without a suffix stands for an image of any format.

    Equal names of patients mean the same patient in truths of equal `numbering`; `other` is the truth of images
    that are not named.
    """

    def __init__(self, known: Mapping[str, Truth], numbering: str = "", other: Truth | None = None) -> None:
        self._known, self.numbering, self._other = dict(known), numbering, other
        self._paths = Paths(self._known)

    def items(self) -> Iterable[tuple[str, Truth]]:
        """Every truth by the name that its source gives to the image."""
        return self._known.items()

    def find(self, file: str) -> str | None:
        """The name of a file in the source, or None."""
        return self._paths.find(file) or self._paths.find(str(Path(file).parent / Path(file).stem))

    def __getitem__(self, name: str) -> Truth:
        return self._known[name]

    def get(self, file: str) -> Truth | None:
        """The truth of a file; of one that is not named `other`."""
        name = self.find(file)
        return self._other if name is None else self._known[name]


def read_truth(path: Path) -> Truths:
    """Read a truth by what it is.

    A folder of phantoms or its manifest.parquet; a CSV with the columns `image` and `mask` (a file beside it), or
    `x`, `y`, `width`, `height`, or `xmin`, `ymin`, `xmax`, `ymax` in pixels, one row a finding, optionally `kind`,
    `joint`, `view`, `patient`; a COCO file of boxes, polygons or run lengths (FracAtlas); a folder of YOLO labels
    (GRAZPEDWRI-DX), whose classes classes.txt or data.yaml names. An image with findings of two kinds has no kind.
    Raises DataError.
    """
    try:
        if path.name == FILE or (path / FILE).is_file():
            folder = path.parent if path.name == FILE else path
            return Truths(dict(_phantoms(folder)), str(folder.resolve()))
        if path.is_dir():
            return Truths(dict(_yolo(path)))
        if path.suffix.lower() == ".csv":
            return Truths(dict(_table(path)))
        if path.suffix.lower() == ".json":
            return Truths(dict(_coco(path)))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        csv.Error,
        RecursionError,
    ) as error:
        why = f"it lacks the field {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: not a truth that can be read ({why})") from error
    raise DataError(f"{path}: a truth is a folder of phantoms, a .csv, a COCO .json, or a folder of YOLO labels")


def _phantoms(folder: Path) -> Iterator[tuple[str, Truth]]:
    for row in read_manifest(folder):
        if row.mask is not None and not row.occult:
            twin = folder / row.twin if row.twin else None
            mask = union([stored(folder, row.mask)])
            truth = Truth(mask, row.kind, row.joint, row.views, row.patient, twin, (row.rows, row.columns))
            yield row.image, truth
            if row.dicom:
                # The twin is a PNG, whose display differs from that of the DICOM file everywhere.
                yield row.dicom, replace(truth, twin=None)


def _table(path: Path) -> Iterator[tuple[str, Truth]]:
    found: dict[str, list[tuple[dict[str, str], Draw]]] = {}
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, skipinitialspace=True)
        columns = reader.fieldnames or ()
        box = next((names for names in _BOXES if set(names) <= set(columns)), ())
        if "image" not in columns or not (box or "mask" in columns):
            wanted = "; or ".join(f"image, {', '.join(names)}" for names in (("mask",), *_BOXES))
            raise DataError(f"{path}: the columns are {', '.join(columns)}; name them {wanted}")
        for row in reader:
            part = _finding(path, reader.line_num, row, box)
            if part is not None:
                found.setdefault(_cell(row, "image"), []).append((row, part))
    for image, group in found.items():
        kind = _only(_cell(row, "kind") for row, _ in group)
        joint, view, patient = (_cell(group[0][0], name) or None for name in ("joint", "view", "patient"))
        yield image, Truth(union([part for _, part in group]), kind, joint, view, patient)


def _finding(path: Path, line: int, row: Mapping[str, str | None], box: Sequence[str]) -> Draw | None:
    """What a row marks; None where it names neither a mask nor a box."""
    if mask := _cell(row, "mask"):
        return stored(path.parent, mask)
    cells = {name: _cell(row, name) for name in box}
    if not any(cells.values()):
        return None
    for name, text in cells.items():
        if not _is_number(text):
            raise DataError(
                f"{path}: line {line}, column '{name}': '{text}' is no number; fill in {', '.join(box)} in "
                "pixels, or none of them where there is no finding"
            )
    a, b, c, d = map(float, cells.values())
    return polygon(corners(a, b, c, d) if box is _BOXES[0] else corners(a, b, c - a, d - b))


def _cell(row: Mapping[str, str | None], name: str) -> str:
    """The text of a cell; of one that is not there the empty one."""
    return (row.get(name) or "").strip()


def _is_number(text: Any) -> bool:
    try:
        return math.isfinite(float(text))
    except (TypeError, ValueError, OverflowError):
        return False


def _only(values: Iterable[str | None]) -> str | None:
    """The one value that all share, or None."""
    found = set(values)
    return (found.pop() or None) if len(found) == 1 else None


def _coco(path: Path) -> Iterator[tuple[str, Truth]]:
    coco = json.loads(path.read_text(encoding="utf-8"))
    kinds = {category["id"]: str(category["name"]) for category in coco.get("categories", ())}
    drawn: dict[Any, list[dict[str, Any]]] = {}
    for annotation in coco["annotations"]:
        drawn.setdefault(annotation["image_id"], []).append(annotation)
    for image in coco["images"]:
        group = drawn.get(image["id"], [])
        name = f"{path}: image '{Path(image['file_name']).name}'"
        size = (int(image["height"]), int(image["width"])) if "height" in image and "width" in image else None
        if size is not None and min(size) < 1:
            raise DataError(
                f"{name}: {size[0]} x {size[1]} pixels are no size; fill in height and width, or neither"
            )
        parts = [part for annotation in group for part in _parts(annotation, size, name)]
        if parts:
            kind = _only(kinds.get(annotation.get("category_id")) for annotation in group)
            mask = of_size(union(parts), size, name) if size else union(parts)
            yield str(image["file_name"]), Truth(mask, kind, size=size)


def _parts(annotation: Mapping[str, Any], size: tuple[int, int] | None, name: str) -> list[Draw]:
    """What an annotation marks: its polygons, else its run lengths, else its box."""
    marked = annotation.get("segmentation")
    if isinstance(marked, list) and marked:
        outlines = [_numbers(part, name, "a polygon", "x and y in turn") for part in marked]
        return [polygon(list(zip(line[::2], line[1::2], strict=True)), size) for line in outlines]
    if isinstance(marked, dict):
        if not isinstance(marked["counts"], list):
            raise DataError(f"{name}: its run lengths are compressed; write them as a list, or as polygons")
        rows, columns = map(int, marked["size"])
        return [of_size(run_lengths(marked["counts"], (rows, columns)), (rows, columns), name)]
    x, y, width, height = _numbers(annotation["bbox"], name, "its bbox", "x, y, width and height", 4)
    return [polygon(corners(x, y, width, height), size)]


def _numbers(cells: Any, name: str, what: str, wanted: str, count: int | None = None) -> list[float]:
    """Finite numbers, `count` of them or else pairs."""
    known = isinstance(cells, list) and all(_is_number(cell) for cell in cells)
    if not known or (len(cells) % 2 if count is None else len(cells) != count):
        raise DataError(f"{name}: {what} is not {wanted} in pixels; correct it or remove the annotation")
    return list(map(float, cells))


def _yolo(folder: Path) -> Iterator[tuple[str, Truth]]:
    files = [file for file in sorted(folder.rglob("*.txt")) if file.name != _CLASSES]
    if not files:
        raise DataError(f"{folder}: holds neither {FILE} nor YOLO labels (*.txt)")
    named = _classes(folder)
    for file in files:
        graz = _GRAZPEDWRI.match(file.name)
        classes = named or (_GRAZPEDWRI_CLASSES if graz else ())
        known = [(classes[number] if number < len(classes) else None, draw) for number, draw in _labels(file)]
        known = [(kind, draw) for kind, draw in known if kind != _MARKER]
        if known:
            kind = _only(kind for kind, _ in known)
            joint = "wrist" if graz else None
            view, patient = (_GRAZPEDWRI_VIEWS.get(graz[2]), graz[1]) if graz else (None, None)
            mask = union([draw for _, draw in known])
            yield _image(file.relative_to(folder)), Truth(mask, kind, joint, view, patient, size=_ANY)


def _labels(file: Path) -> Iterator[tuple[int, Draw]]:
    """Number of the class and box of every line."""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != 5 or not cells[0].isdecimal() or not all(map(_is_number, cells)):
            raise DataError(
                f"{file}: line {number} is not a box of YOLO; write 'class x y width height', or name a folder "
                "that holds labels alone"
            )
        x, y, width, height = map(float, cells[1:])
        yield int(cells[0]), polygon(corners(x - width / 2, y - height / 2, width, height), (1, 1))


def _image(label: Path) -> str:
    """Where YOLO keeps the image of a label: images/train/a for labels/train/a.txt; its format is not said."""
    parts = ["images" if part == "labels" else part for part in label.with_suffix("").parts]
    return "/".join(parts[1:] if parts[0] == "images" else parts)


def _classes(folder: Path) -> list[str]:
    """Names of the classes, from a file in the folder, in its `labels` or above them; none without a file."""
    labels = next((place for place in (folder, folder.parent) if place.name == "labels"), folder / "labels")
    for place in (folder, labels, *labels.parents[:2]):
        if (place / _CLASSES).is_file():
            return [line.strip() for line in (place / _CLASSES).read_text(encoding="utf-8").splitlines()]
        if (place / "data.yaml").is_file():
            found = _NAMES.search((place / "data.yaml").read_text(encoding="utf-8"))
            items = re.split(r"[,\n]", next(filter(None, found.groups()), "")) if found else []
            return [_NUMBER.sub("", item.strip()).strip("'\"") for item in items if item.strip()]
    return []
