"""Images of a manifest for calibration and for the gate: which ones, and as the model's input."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.contract import ModelContract
from mskscreen.data.folds import DEVELOPMENT, held_out_rows, training_rows
from mskscreen.data.manifest import HELD_OUT, Manifest
from mskscreen.errors import DataError, MskscreenError
from mskscreen.inference.engines import cores
from mskscreen.inference.order import in_order
from mskscreen.pixels import Preprocessing, read_radiograph

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Truth:
    """What is known of images: `label` (n,) is 1 for abnormal, `joint` (n,) an index or -1.

    `study` (n,) numbers the study from 0.
    """

    label: np.ndarray
    joint: np.ndarray
    study: np.ndarray

    @staticmethod
    def of(manifest: Manifest, rows: Sequence[int] | np.ndarray) -> Truth:
        """That of rows of a manifest, without decoding them."""
        number = {name: index for index, name in enumerate(JOINT_LABELS)}
        return Truth(
            manifest.numbers("label")[rows],
            np.array([number.get(manifest["joint"][row], -1) for row in rows]),
            np.unique([manifest["study"][row] or manifest["image"][row] for row in rows], return_inverse=True)[1],
        )


@dataclass(frozen=True)
class Images(Truth):
    """Model inputs `pixels` (n, 1, H, W) float32 in [0, 1] with what is known of them."""

    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)


def development_fold(manifest: Manifest, contract: ModelContract) -> int:
    """The fold that a model held out where it learned from this very manifest; else that of `data split`."""
    provenance = contract.provenance
    fold = provenance.protocol.get("fold")
    return fold if type(fold) is int and provenance.data_digest == manifest.digest else DEVELOPMENT


def development_rows(manifest: Manifest, fold: int = DEVELOPMENT) -> np.ndarray:
    """Labelled rows of the development fold; without folds, all labelled rows outside the evaluation splits.

    Raises DataError where there are none.
    """
    rows = held_out_rows(manifest, fold) if "fold" in manifest.columns else _not_held_out(manifest)
    rows = rows[manifest.numbers("label")[rows] >= 0]
    if not len(rows):
        raise DataError("the manifest of the gate has no labelled image outside the evaluation splits")
    return rows


def calibration_rows(manifest: Manifest, count: int, seed: int = 0, fold: int = DEVELOPMENT) -> np.ndarray:
    """Rows to calibrate on: drawn by patient and stratified by joint and label.

    From all folds but `fold`, or from all rows outside the evaluation splits. The strata take turns; each gives an
    image of the patient who has given fewest so far. Raises DataError where there is no such image.
    """
    rows = training_rows(manifest, fold) if "fold" in manifest.columns else _not_held_out(manifest)
    if not len(rows):
        raise DataError("the manifest for calibration has no image outside the evaluation splits")
    rows = np.random.default_rng(seed).permutation(rows)
    patients = np.array(manifest.groups, object)[rows]
    cells = zip(manifest["joint"], manifest["label"], strict=True)
    names = np.array([f"{joint} {label}" for joint, label in cells], object)[rows]
    waiting = {name: list(np.flatnonzero(names == name)) for name in sorted(set(names))}
    given = dict.fromkeys(patients, 0)
    chosen: list[int] = []
    while waiting and len(chosen) < count:
        for name in list(waiting)[: count - len(chosen)]:
            here = waiting[name]
            index = min(here, key=lambda i: given[patients[i]])
            here.remove(index)
            given[patients[index]] += 1
            chosen.append(int(rows[index]))
            if not here:
                del waiting[name]
    return np.array(chosen)


def require_apart(calibration: Manifest, drawn: np.ndarray, gate: Manifest, judged: np.ndarray) -> None:
    """Raise DataError where a patient, or the same file, is both calibrated on and judged.

    Patients of two data sets, that is of two roots, may bear the same names.
    """
    shared = _identities(calibration, drawn) & _identities(gate, judged)
    if shared:
        raise DataError(
            f"{len(shared)} patients or images are both in the calibration and in the gate; split the manifest "
            "with: mskscreen data split"
        )


def load_images(
    manifest: Manifest,
    rows: np.ndarray,
    contract: ModelContract,
    folder: Path,
    advance: Callable[[int], None] = lambda _: None,
) -> Images:
    """Decode and preprocess rows of a manifest into an array that is mapped from a file in `folder`.

    An image that cannot be read is left out, and said so in the log. Raises DataError where none can be.
    """
    preprocessing = Preprocessing.parse(contract.preprocessing)
    shape = (len(rows), 1, *contract.input_size)
    pixels = np.lib.format.open_memmap(
        folder / f"images-{len(list(folder.iterdir()))}.npy", mode="w+", dtype=np.float32, shape=shape
    )
    tree, names = manifest.tree, manifest["image"]

    def decode(row: int) -> np.ndarray | None:
        try:
            return preprocessing(read_radiograph(tree.file(names[row])))
        except MskscreenError as error:
            log.warning("left out: row %d of the manifest cannot be read (%s)", row, type(error).__name__)
            return None

    kept: list[int] = []
    with ThreadPoolExecutor(cores()) as pool:
        decoded = in_order((int(row) for row in rows), lambda row: pool.submit(decode, row).result, 2 * cores())
        for row, tensor in zip(rows, decoded, strict=True):
            if tensor is not None:
                pixels[len(kept)] = tensor
                kept.append(int(row))
            advance(1)
    if not kept:
        raise DataError("none of the images of the manifest can be read; index the folder again")
    known = Truth.of(manifest, kept)
    return Images(known.label, known.joint, known.study, pixels[: len(kept)])


def _identities(manifest: Manifest, rows: np.ndarray) -> set[str]:
    groups, digests = manifest.groups, manifest["sha256"]
    root = manifest.root.resolve()
    return {f"{root} {groups[row]}" for row in rows} | {digests[row] for row in rows if digests[row]}


def _not_held_out(manifest: Manifest) -> np.ndarray:
    return np.flatnonzero(~np.isin(np.array(manifest["split"], object), HELD_OUT))
