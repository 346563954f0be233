"""Phantom images and masks as two memory-mapped arrays, ready for training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from mskscreen.anatomy import JointType
from mskscreen.phantom.manifest import FILE, Row, read_manifest
from mskscreen.pixels import Preprocessing, read_radiograph


@dataclass(frozen=True)
class PhantomArrays:
    """The images of a phantom data set that can be learned from, after preprocessing.

    `images` and `masks` are uint8 (n, H, W), `abnormal` and `joint` int64 (n,), `rows` the manifest's. A
    twin, where the set has one, is a normal image more; `twins` int64 (n,) is its index, or -1.
    """

    images: np.ndarray
    masks: np.ndarray
    abnormal: np.ndarray
    joint: np.ndarray
    twins: np.ndarray
    rows: list[Row]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def paired(self) -> np.ndarray:
        """Indices of the images that have a twin."""
        return np.flatnonzero(self.twins >= 0)

    @cached_property
    def alone(self) -> np.ndarray:
        """Indices of the images that neither have a twin nor are one."""
        return np.setdiff1d(np.arange(len(self)), np.concatenate([self.paired, self.twins[self.paired]]))


def load_arrays(folder: Path, preprocessing: Preprocessing, *, occult: bool = False) -> PhantomArrays:
    """Preprocess the data set in `folder`, or map what an earlier call left beside its manifest.

    Images in which the abnormality is `occult` are left out unless asked for: nothing can be learned from a label
    that cannot be seen. The arrays are named by a digest of manifest and preprocessing, and get their names once
    they are whole.
    """
    rows = [row for row in read_manifest(folder) if occult or not row.occult]
    paired = np.flatnonzero([row.twin is not None for row in rows])
    twins = np.full(len(rows) + len(paired), -1)
    twins[paired] = len(rows) + np.arange(len(paired))
    rows += [replace(row, image=row.twin, twin=None, mask=None, label=0, kind=None) for row in rows if row.twin]
    parameters = f"{preprocessing}{' with occult' if occult else ''}"
    digest = hashlib.sha256((folder / FILE).read_bytes() + parameters.encode()).hexdigest()[:16]
    names = [folder / f"{part}-{digest}.npy" for part in ("images", "masks")]
    if not all(name.exists() for name in names):
        partials = [name.with_suffix(".partial") for name in names]
        shape = (len(rows), preprocessing.height, preprocessing.width)
        arrays = [np.lib.format.open_memmap(name, mode="w+", dtype=np.uint8, shape=shape) for name in partials]
        for index, row in enumerate(rows):
            for array, path in zip(arrays, (row.image, row.mask), strict=True):
                if path is not None:
                    array[index] = np.rint(preprocessing(read_radiograph(folder / path))[0] * 255)
        for array, partial, name in zip(arrays, partials, names, strict=True):
            array.flush()
            partial.replace(name)
    images, masks = (np.load(name, mmap_mode="r") for name in names)
    joints = np.array([JointType[row.joint.upper()] for row in rows], np.int64)
    abnormal = np.array([row.label for row in rows], np.int64)
    return PhantomArrays(images, masks, abnormal, joints, twins, rows)


def describe(folders: Iterable[Path]) -> str:
    """SHA-256 of the manifests of data sets, one after the other: the digest of the data in a contract."""
    return hashlib.sha256(b"".join((folder / FILE).read_bytes() for folder in folders)).hexdigest()
