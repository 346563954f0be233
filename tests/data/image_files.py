"""Small radiograph-like PNG files and functions that a spawned process can import."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import numpy as np
from mura_lists import Study, write_lists
from PIL import Image

from mskscreen.data.manifest import Manifest
from mskscreen.data.mura import index_mura

_HELD: list[object] = []


def limb(seed: int, rows: int = 48, columns: int = 40) -> np.ndarray:
    """A bright, textured limb on a dark ground, uint8 (rows, columns); another one for each seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns]
    coarse = rng.normal(size=(6, 5)).repeat(-(-rows // 6), 0).repeat(-(-columns // 5), 1)[:rows, :columns]
    middle, width = columns * rng.uniform(0.4, 0.6), columns * rng.uniform(0.15, 0.3)
    profile = np.exp(-(((x - middle - y * rng.uniform(-0.1, 0.1)) / width) ** 2))
    image = 200 * profile * (1 + 0.15 * coarse) + rng.normal(size=(rows, columns)) * 2
    return np.clip(image, 0, 255).astype(np.uint8)


def copy_of_mura(root: Path, studies: int, images: int = 3, **size: int) -> Manifest:
    """Manifest of a release with `studies` studies of readable images, a patient each."""
    listed = [Study("XR_HAND", f"patient{i:05d}", 1, i % 2, images) for i in range(1, studies + 1)]
    folder = write_lists(root, listed)
    for seed, file in enumerate(file for study in listed for file in study.files):
        Image.fromarray(limb(seed, **size)).save(folder / file)
    return index_mura(folder)[0]


def square_or_die(number: int) -> int:
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def hold(file: str) -> None:
    """Lock a file until this process ends."""
    stream = open(file)  # noqa: PTH123, SIM115
    fcntl.flock(stream, fcntl.LOCK_EX)
    _HELD.append(stream)
