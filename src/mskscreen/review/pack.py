"""A pack for readers: pictures, forms and protocol in one folder, and the key outside of it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mskscreen.anatomy import JOINT_LABELS, NOT_FOR_DIAGNOSIS
from mskscreen.errors import DataError
from mskscreen.evaluation.cases import Cases
from mskscreen.evaluation.repredict import find_image
from mskscreen.inference.files import printable
from mskscreen.pixels import displayed
from mskscreen.pixels.raster import raster_format
from mskscreen.review import protocol
from mskscreen.review.forms import write_form
from mskscreen.review.protocol import AIDED, FORMS, PROTOCOL, UNAIDED, Key, ReviewCase, Showing, View
from mskscreen.review.selection import choose, reading_order, showings
from mskscreen.saliency.overlay import draw_overlay
from mskscreen.storage import replacing, write_text

if TYPE_CHECKING:
    from mskscreen.inference import Screened, Screener


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
    that made the table. Pictures are decoded anew and hold nothing but pixels.

    Raises DataError where the pack would hold its key, cases are too few, or an image cannot be read any more.
    """
    if key_path.resolve().is_relative_to(out.resolve()):
        raise DataError(f"{key_path}: the key may not lie in the pack that readers get; name another place")
    files = _Files(cases, root)
    chosen = choose(cases, design.cases, design.seed, files.fit)
    phases = (UNAIDED, AIDED) if screener.engine.contract.map else (UNAIDED,)
    shown = showings(len(chosen), phases, round(design.repeats * len(chosen)), design.seed)
    readers = [f"reader-{number + 1}" for number in range(design.readers)]
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        views = _draw(folder, [files.of(i) for i in chosen], shown, screener, cases.table.threshold, advance)
        codes = {code: len(views[showing.case]) for code, showing in shown.items()}
        (folder / FORMS).mkdir()
        for number, reader in enumerate(readers):
            for phase in phases:
                order = reading_order(shown, phase, number, design.seed)
                write_form(folder / FORMS / f"{reader}-{phase}.csv", reader, phase, order, codes)
        body = protocol.make_protocol(phases, readers, protocol.images_digest(folder))
        rows = tuple(_case(cases, i, views[k]) for k, i in enumerate(chosen))
        key = Key(dict(request or {}), design.seed, cases.table.threshold, rows, shown, body).to_json()
        text = protocol.freeze(body, key)
        write_text(folder / PROTOCOL, text)
        write_text(folder / "README.txt", _instructions(phases))
        folder.chmod(0o755)
        # Pictures were written in the order of the table, which may be sorted by label.
        now = time.time()
        for path in folder.rglob("*"):
            os.utime(path, (now, now))
        # The key first: a pack that is there is then never without its key.
        with replacing(key_path) as partial:
            partial.touch(mode=0o600)
            partial.write_text(key, encoding="utf-8")
        folder.rename(out)
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


class _Files:
    """The images of the cases on disk."""

    def __init__(self, cases: Cases, root: Path | None) -> None:
        self._cases, self._root = cases, root
        self._images = Counter(cases.table.study)

    def of(self, i: int) -> list[tuple[str, Path | None]]:
        """Name in the table and path of each view of case `i`."""
        cases = self._cases
        names = [cases.table.file[row] for row in cases.rows[cases.offsets[i] : cases.offsets[i + 1]].tolist()]
        if self._root is not None:
            return [(name, find_image(self._root, name)) for name in names]
        return [(name, Path(name) if Path(name).is_file() else None) for name in names]

    def fit(self, i: int) -> bool:
        """Whether the case can be shown: every image was scored, is there, and declares no burned-in text."""
        cases = self._cases
        rows = cases.rows[cases.offsets[i] : cases.offsets[i + 1]]
        complete = len(rows) == self._images[cases.table.study[int(rows[0])]]
        return complete and all(path is not None and not _burned_in(path) for _, path in self.of(i))


def _burned_in(path: Path) -> bool:
    """Whether a DICOM file declares text in its pixels (0028,0301), which may name the patient."""
    with path.open("rb") as stream:
        head = stream.read(132)
    if head[128:] != b"DICM" and raster_format(head):
        return False
    from pydicom import dcmread

    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=["BurnedInAnnotation"], force=True)
        return str(header.get("BurnedInAnnotation", "")).strip().upper() == "YES"
    except Exception:  # A hostile header fails in any way; such a file is not shown.
        return True


def _draw(
    folder: Path,
    cases: Sequence[Sequence[tuple[str, Path | None]]],
    shown: Mapping[str, Showing],
    screener: Screener,
    threshold: float,
    advance: Callable[[int], None],
) -> list[tuple[View, ...]]:
    """Write the pictures of all showings, maps of images called abnormal alone; gives the views of each case."""
    from PIL import Image

    place = {
        printable(path): (case, number, name)
        for case, images in enumerate(cases)
        for number, (name, path) in enumerate(images)
        if path
    }
    if len(place) < sum(map(len, cases)):
        raise DataError("two images of the chosen studies are one file; keep one row of each in the table")
    views: dict[tuple[int, int], View] = {}
    for phase in {showing.phase for showing in shown.values()}:
        (folder / phase).mkdir()

    def draw(image: Screened) -> None:
        case, number, name = place[image.prediction.file]
        if image.radiograph is None:
            raise DataError(f"{image.prediction.error}; predict again before making a pack")
        pixels = displayed(image.radiograph)
        p = image.prediction.p_abnormal or 0.0
        evidence = None
        if image.evidence is not None and p >= threshold:
            evidence = screener.preprocessing.geometry(*pixels.shape).map_to_source(image.evidence)
        rows, columns = pixels.shape
        views[case, number] = View(name, rows, columns, _peak(evidence), evidence is not None)
        picture = Image.fromarray(np.round(pixels * 255).astype(np.uint8))
        for code, showing in shown.items():
            if showing.case != case:
                continue
            target = folder / showing.phase / f"{code}-{number + 1}"
            picture.save(target.with_suffix(".png"))
            if showing.phase == AIDED:
                caption = f"{code}, view {number + 1}: abnormal {p:.2f}"
                if evidence is None:
                    caption += ", called normal: no map"
                shown_map = {} if evidence is None else {"HiResCAM": evidence}
                page = draw_overlay(pixels, shown_map, caption, spacing=image.radiograph.spacing)
                page.save(target.with_name(f"{target.name}-map.png"), compress_level=1)

    for _ in screener.stream(list(map(Path, place)), inspect=draw):
        advance(1)
    return [tuple(views[case, number] for number in range(len(images))) for case, images in enumerate(cases)]


def _peak(evidence: np.ndarray | None) -> tuple[float, float] | None:
    if evidence is None or not evidence.max() > 0:
        return None
    row, column = np.unravel_index(int(evidence.argmax()), evidence.shape)
    return float(column), float(row)


def _case(cases: Cases, i: int, views: tuple[View, ...]) -> ReviewCase:
    joint = JOINT_LABELS[cases.joint[i]] if cases.joint[i] >= 0 else "unknown"
    patient = str(cases.patients[int(cases.patient[i])])
    return ReviewCase(str(cases.keys[i]), patient, joint, int(cases.labels[i]), float(cases.p[i]), views)


def _instructions(phases: Sequence[str]) -> str:
    lines = [
        "A reading study of radiographs of the upper limb",
        f"{NOT_FOR_DIAGNOSIS.capitalize()}.",
        "",
        f"Fill in your own form of each phase ({', then '.join(phases)}) from top to bottom; it lies in {FORMS}/.",
        "A row is one case. CODE-1.png, CODE-2.png, ... in the folder of the phase are its radiographs.",
        "",
        f"call        {' or '.join(protocol.CALLS)}",
        "confidence  1 (a guess) to 5 (certain)",
        "box         optional: where you see the abnormality, as VIEW LEFT TOP RIGHT BOTTOM in pixels of the",
        "            radiograph, for example 1 120 340 180 400; several boxes with ; between them",
    ]
    if AIDED in phases:
        lines += [
            "map         the aided phase only: does the map in CODE-1-map.png mark what makes the case abnormal?",
            f"            {', '.join(protocol.JUDGEMENTS)}; leave it empty for a case without a map:",
            "            an image that the model calls normal has none",
            "",
            "The map shows what the model used, not where the lesion is. Begin the aided phase at least four",
            "weeks after the unaided one.",
        ]
    return "\n".join(
        [*lines, "", "Read alone, in the order of the form, and do not go back to change an answer.", ""]
    )
