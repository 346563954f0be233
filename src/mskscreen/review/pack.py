"""A pack for readers: a folder of pictures, forms and protocol for each phase, and the key outside of it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.errors import DataError
from mskscreen.evaluation.cases import Cases
from mskscreen.evaluation.repredict import find_image
from mskscreen.evaluation.table import Table
from mskscreen.inference.files import printable
from mskscreen.pixels import displayed
from mskscreen.pixels.raster import raster_format
from mskscreen.review import protocol
from mskscreen.review.forms import write_form
from mskscreen.review.instructions import handing_out, instructions
from mskscreen.review.picture import write_png
from mskscreen.review.protocol import (
    AIDED,
    FORMS,
    IMAGES,
    PROTOCOL,
    UNAIDED,
    Key,
    ReviewCase,
    Showing,
    View,
)
from mskscreen.review.selection import choose, encoding, reading_order, showings
from mskscreen.saliency.measures import peak
from mskscreen.saliency.overlay import draw_overlay
from mskscreen.storage import replacing, unwritable, write_text

if TYPE_CHECKING:
    from mskscreen.inference import Screened, Screener

README = "README.txt"
# Of a score made again: twice what an approved precision may change scores by on average.
_TOLERANCE = 0.02


@dataclass(frozen=True)
class Design:
    """What a pack is asked to be: `repeats` is the share of cases that each reader sees twice."""

    cases: int
    readers: int
    repeats: float
    seed: int


def make_pack(
    out: Path,
    key_path: Path,
    cases: Cases,
    screener: Screener,
    design: Design,
    *,
    root: Path | None = None,
    request: Mapping[str, Any] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> str:
    """Write the pack `out` whole or not at all, and its key to `key_path`; returns the digest of the protocol.

    `cases` are studies, whose images lie where the table says or, if given, below `root`; `screener` is the model
    that made the table. Pictures are decoded anew and hold nothing but pixels. Without a map of the model there
    is no aided phase.

    Raises DataError where the table is silent on abnormality, the pack would hold its key, the key cannot be
    written, cases are too few, or an image cannot be read any more or has another score than in the table.
    """
    cases.table.require_abnormality("a review")
    if key_path.resolve().is_relative_to(out.resolve()):
        raise DataError(f"{key_path}: the key may not lie in the pack that readers get; name another place")
    out.parent.mkdir(parents=True, exist_ok=True)
    if why := unwritable(key_path):
        raise DataError(f"{key_path}: {why}")
    files = _Files(cases, root)
    chosen = choose(cases, design.cases, design.seed, files.fit)
    phases = phases_of(screener)
    shown = showings(len(chosen), phases, round(design.repeats * len(chosen)), design.seed)
    readers = [f"reader-{number + 1}" for number in range(design.readers)]
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        drawn, pack = folder / "drawn", folder / "pack"
        drawn.mkdir()
        views = _draw(drawn, [files.of(i) for i in chosen], shown, screener, cases.table, design.seed, advance)
        for phase in phases:
            (pack / phase / IMAGES).mkdir(parents=True)
            (pack / phase / FORMS).mkdir()
        # Files of a case were drawn together and in the order of the table, which may be sorted by label: their
        # inodes and times of birth tell it. Those of copies tell the order of the codes.
        for picture in sorted(drawn.iterdir()):
            code = picture.name.partition("-")[0]
            shutil.copyfile(picture, pack / shown[code].phase / IMAGES / picture.name)
        codes = {code: len(views[showing.case]) for code, showing in shown.items()}
        for number, reader in enumerate(readers):
            for phase in phases:
                order = reading_order(shown, phase, number, design.seed)
                write_form(pack / phase / FORMS / f"{reader}-{phase}.csv", reader, phase, order, codes)
        digests = {phase: protocol.images_digest(pack / phase) for phase in phases}
        body = protocol.make_protocol(phases, readers, digests)
        rows = tuple(_case(cases, i, views[k]) for k, i in enumerate(chosen))
        key = Key(dict(request or {}), design.seed, cases.table.threshold, rows, shown, body).to_json()
        text = protocol.freeze(body, key)
        for phase in phases:
            write_text(pack / phase / PROTOCOL, text)
            write_text(pack / phase / README, instructions(phase))
        write_text(pack / README, handing_out(phases))
        now = time.time()
        for path in sorted(pack.rglob("*")):
            os.utime(path, (now, now))
        # The key first: a pack that is there is then never without its key.
        with replacing(key_path) as partial:
            partial.touch(mode=0o600)
            partial.write_text(key, encoding="utf-8")
        pack.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return protocol.digest(text)


def finished(out: Path, key_path: Path, request: Mapping[str, Any]) -> bool:
    """Whether `out` is there already and was asked for in the same words.

    Raises DataError where something else is there, or the key of another pack.
    """
    if not out.exists():
        if key_path.exists():
            raise DataError(f"{key_path}: is the key of another pack; name another file with --key or remove it")
        return False
    if key_path.is_file() and Key.read(key_path).request == request:
        return True
    raise DataError(f"{out}: is there already and is not this pack; name another folder or remove it")


def phases_of(screener: Screener) -> tuple[str, ...]:
    """The phases of a pack of this model: the aided one needs its map."""
    return (UNAIDED, AIDED) if screener.engine.contract.map else (UNAIDED,)


class _Image(NamedTuple):
    """An image of a case: its row in the table, from 0, its name there, and its file where that is found."""

    row: int
    name: str
    path: Path | None


class _Files:
    """The images of the cases on disk."""

    def __init__(self, cases: Cases, root: Path | None) -> None:
        self._cases, self._root = cases, root
        self._images = Counter(cases.table.study)

    def of(self, i: int) -> list[_Image]:
        """The views of case `i`."""
        cases = self._cases
        rows = cases.rows[cases.offsets[i] : cases.offsets[i + 1]].tolist()
        return [_Image(row, cases.table.file[row], self._find(cases.table.file[row])) for row in rows]

    def _find(self, name: str) -> Path | None:
        if self._root is not None:
            return find_image(self._root, name)
        return Path(name) if Path(name).is_file() else None

    def fit(self, i: int) -> bool:
        """Whether the case can be shown: every image was scored, is there, and declares no burned-in text."""
        cases = self._cases
        rows = cases.rows[cases.offsets[i] : cases.offsets[i + 1]]
        complete = len(rows) == self._images[cases.table.study[int(rows[0])]]
        return complete and all(image.path is not None and not _burned_in(image.path) for image in self.of(i))


def _burned_in(path: Path) -> bool:
    """Whether a file is DICOM and `has_burned_in`, or cannot be read."""
    from pydicom import dcmread

    from mskscreen.pixels.dicom import has_burned_in

    try:
        with path.open("rb") as stream:
            head = stream.read(132)
        if head[128:] != b"DICM" and raster_format(head):
            return False
        header = dcmread(path, stop_before_pixels=True, specific_tags=["BurnedInAnnotation"], force=True)
        return has_burned_in(header)
    except Exception:  # A disk or a hostile header fails in any way; such a file is not shown.
        return True


def _draw(
    folder: Path,
    cases: Sequence[Sequence[_Image]],
    shown: Mapping[str, Showing],
    screener: Screener,
    table: Table,
    seed: int,
    advance: Callable[[int], None],
) -> list[tuple[View, ...]]:
    """Write the pictures of all showings, maps of images called abnormal alone; gives the views of each case."""
    place = {
        printable(image.path): (case, number, image)
        for case, images in enumerate(cases)
        for number, image in enumerate(images)
        if image.path
    }
    if len(place) < sum(map(len, cases)):
        raise DataError("two images of the chosen studies are one file; keep one row of each in the table")
    views: dict[tuple[int, int], View] = {}

    def draw(image: Screened) -> None:
        case, number, known = place[image.prediction.file]
        now = image.prediction.p_abnormal
        if image.radiograph is None or now is None:
            raise DataError(f"{image.prediction.error}; predict again before making a pack")
        p = _same_score(table, known.row, now)
        pixels = displayed(image.radiograph)
        evidence = None
        if image.evidence is not None and p >= table.threshold:
            evidence = screener.preprocessing.geometry(*pixels.shape).map_to_source(image.evidence)
        rows, columns = pixels.shape
        views[case, number] = View(known.name, rows, columns, _peak(evidence), evidence is not None)
        picture = np.round(pixels * 255).astype(np.uint8)
        for code, showing in shown.items():
            if showing.case != case:
                continue
            by_chance = encoding(code, number, seed)
            write_png(folder / f"{code}-{number + 1}.png", picture, by_chance)
            if showing.phase == AIDED:
                caption = f"{code}, view {number + 1}: abnormal {p:.2f}"
                if evidence is None:
                    caption += ", called normal: no map"
                shown_map = {} if evidence is None else {"HiResCAM": evidence}
                page = draw_overlay(pixels, shown_map, caption, spacing=image.radiograph.spacing)
                write_png(folder / f"{code}-{number + 1}-map.png", np.asarray(page), by_chance)

    for _ in screener.stream(list(map(Path, place)), inspect=draw):
        advance(1)
    return [tuple(views[case, number] for number in range(len(images))) for case, images in enumerate(cases)]


def _same_score(table: Table, row: int, now: float) -> float:
    """The score of a row of the table.

    Raises DataError where its image now has another one: it is another image, or was predicted otherwise.
    """
    p = float(table.p_abnormal[row])
    if not abs(now - p) <= _TOLERANCE:
        raise DataError(
            f"{table.name}: row {row + 1} says abnormal {p:.3f}, and its image now has {now:.3f}; name the folder "
            "of the images that were predicted, or predict them again with this model"
        )
    return p


def _peak(evidence: np.ndarray | None) -> tuple[float, float] | None:
    if evidence is None or not evidence.max() > 0:
        return None
    row, column = peak(evidence)
    return column, row


def _case(cases: Cases, i: int, views: tuple[View, ...]) -> ReviewCase:
    joint = JOINT_LABELS[cases.joint[i]] if cases.joint[i] >= 0 else "unknown"
    patient = str(cases.patients[int(cases.patient[i])])
    return ReviewCase(str(cases.keys[i]), patient, joint, int(cases.labels[i]), float(cases.p[i]), views)
