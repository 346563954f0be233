"""Where abnormalities lie: masks of phantoms, a CSV of boxes or masks, COCO, or a folder of YOLO labels."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mskscreen.data.tree import inside
from mskscreen.errors import DataError
from mskscreen.evaluation.keys import keys
from mskscreen.phantom.manifest import FILE, read_manifest

Mask = npt.NDArray[np.bool_]
_LARGEST = 1 << 28
# GRAZPEDWRI-DX (Nagy et al., Scientific Data 2022); "text" is a marker on the image and no finding.
_YOLO = (
    *("bone anomaly", "bone lesion", "foreign body", "fracture", "metal", "periosteal reaction"),
    *("pronator sign", "soft tissue"),
)


@dataclass(frozen=True)
class Truth:
    """What is known of one image; `mask` gives bool (rows, columns) for the size of the radiograph.

    `kind`, `joint`, `view` and `patient` are None where the source does not tell; `twin` is the same image without
    its abnormality. Images whose abnormality cannot be seen have no truth.
    """

    mask: Callable[[int, int], Mask]
    kind: str | None = None
    joint: str | None = None
    view: str | None = None
    patient: str | None = None
    twin: Path | None = None


class Truths:
    """Truth by image: found by the key of the file, else by its name where only one image bears it."""

    def __init__(self, known: Mapping[str, Truth]) -> None:
        self._known = {str(keys(name, name)[0]): truth for name, truth in known.items()}
        names: dict[str, list[str]] = {}
        for key in self._known:
            names.setdefault(PurePosixPath(key).name, []).append(key)
        self._by_name = {name: found[0] for name, found in names.items() if len(found) == 1}

    def get(self, file: str) -> Truth | None:
        """The truth of a file, or None."""
        key = str(keys(file, file)[0])
        return self._known.get(key) or self._known.get(self._by_name.get(PurePosixPath(key).name, ""))


def read_truth(path: Path) -> Truths:
    """Read a truth by what it is.

    A folder of phantoms or its manifest.parquet; a CSV with the columns `image` and either `x`, `y`, `width`,
    `height` in pixels or `mask` (a file beside it), one row a finding, optionally `kind`, `joint`, `view`,
    `patient`; a COCO file with boxes or polygons (FracAtlas); a folder of YOLO labels (GRAZPEDWRI-DX).
    Raises DataError.
    """
    try:
        if path.name == FILE or (path / FILE).is_file():
            return Truths(dict(_phantoms(path.parent if path.name == FILE else path)))
        if path.is_dir():
            return Truths(dict(_yolo(path)))
        if path.suffix.lower() == ".csv":
            return Truths(dict(_table(path)))
        if path.suffix.lower() == ".json":
            return Truths(dict(_coco(path)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error, RecursionError) as error:
        raise DataError(f"{path}: not a truth that can be read ({type(error).__name__}: {error})") from error
    raise DataError(f"{path}: a truth is a folder of phantoms, a .csv, a COCO .json, or a folder of YOLO labels")


def _phantoms(folder: Path) -> Iterator[tuple[str, Truth]]:
    for row in read_manifest(folder):
        if row.mask is not None and not row.occult:
            twin = folder / row.twin if row.twin else None
            mask = _stored(folder, row.mask)
            truth = Truth(mask, row.kind, row.joint, row.views, row.patient, twin)
            yield row.image, truth
            if row.dicom:
                # The twin is a PNG, whose display differs from that of the DICOM file everywhere.
                yield row.dicom, replace(truth, twin=None)


def _table(path: Path) -> Iterator[tuple[str, Truth]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault(row["image"].strip(), []).append(row)
    for image, group in found.items():
        first = group[0]
        if first.get("mask"):
            parts = [_stored(path.parent, row["mask"].strip()) for row in group]
        else:
            parts = [_polygon(_corners(*(float(row[k]) for k in ("x", "y", "width", "height")))) for row in group]
        kind, joint, view, patient = (first.get(name) or None for name in ("kind", "joint", "view", "patient"))
        yield image, Truth(_union(parts), kind, joint, view, patient)


def _coco(path: Path) -> Iterator[tuple[str, Truth]]:
    coco = json.loads(path.read_text(encoding="utf-8"))
    kinds = {category["id"]: str(category["name"]) for category in coco.get("categories", ())}
    drawn: dict[Any, list[dict[str, Any]]] = {}
    for annotation in coco["annotations"]:
        drawn.setdefault(annotation["image_id"], []).append(annotation)
    for image in coco["images"]:
        group = drawn.get(image["id"], [])
        size = (int(image["height"]), int(image["width"])) if "height" in image and "width" in image else None
        parts = [_polygon(points, size) for annotation in group for points in _outlines(annotation)]
        if parts:
            yield str(image["file_name"]), Truth(_union(parts), kinds.get(group[0].get("category_id")))


def _outlines(annotation: Mapping[str, Any]) -> list[list[tuple[float, float]]]:
    polygons = annotation.get("segmentation")
    if isinstance(polygons, list) and polygons:
        return [list(zip(map(float, p[::2]), map(float, p[1::2]), strict=True)) for p in polygons]
    return [_corners(*map(float, annotation["bbox"]))]


def _yolo(folder: Path) -> Iterator[tuple[str, Truth]]:
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise DataError(f"{folder}: holds neither {FILE} nor YOLO labels (*.txt)")
    for file in files:
        boxes = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        known = [
            (_YOLO[int(box[0])], [float(part) for part in box[1:5]]) for box in boxes if int(box[0]) < len(_YOLO)
        ]
        if known:
            parts = [_polygon(_corners(x - w / 2, y - h / 2, w, h), (1, 1)) for _, (x, y, w, h) in known]
            patient = file.stem.split("_")[0] if file.stem.count("_") > 2 else None
            yield f"{file.stem}.png", Truth(_union(parts), known[0][0], "wrist", patient=patient)


def _corners(x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


def _polygon(points: list[tuple[float, float]], size: tuple[int, int] | None = None) -> Callable[[int, int], Mask]:
    """A filled outline in pixels of an image of `size` (rows, columns), by default the radiograph's own."""

    def mask(rows: int, columns: int) -> Mask:
        if rows * columns > _LARGEST:
            raise DataError(f"a radiograph of {rows} x {columns} pixels is too large for a mask; reduce it")
        down, across = (rows / size[0], columns / size[1]) if size else (1.0, 1.0)
        return _filled([(x * across, y * down) for x, y in points], rows, columns)

    return mask


def _filled(corners: list[tuple[float, float]], rows: int, columns: int) -> Mask:
    """Pixels whose centres lie within an outline, by the even-odd rule; the first pixel spans 0 to 1."""
    found = np.zeros((rows, columns), bool)
    x, y = np.arange(columns) + 0.5, np.arange(rows) + 0.5
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        crossed = np.flatnonzero((y0 <= y) != (y1 <= y))
        if len(crossed):
            at = x0 + (y[crossed] - y0) / (y1 - y0) * (x1 - x0)
            found[crossed] ^= x < at[:, None]
    return found


def _stored(folder: Path, name: str) -> Callable[[int, int], Mask]:
    """A mask on disk below `folder`, of the size of its radiograph.

    Raises PathError where it would lie elsewhere.
    """
    path = folder / inside(name)

    def mask(rows: int, columns: int) -> Mask:
        try:
            with Image.open(path) as picture:
                if picture.size != (columns, rows):
                    raise DataError(f"{path}: size {picture.size} is not the radiograph's {(columns, rows)}")
                return np.asarray(picture.convert("L")) > 0
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: the mask cannot be read ({error})") from error

    return mask


def _union(parts: list[Callable[[int, int], Mask]]) -> Callable[[int, int], Mask]:
    def mask(rows: int, columns: int) -> Mask:
        found: Mask = np.logical_or.reduce([part(rows, columns) for part in parts])
        return found

    return mask
