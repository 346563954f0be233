"""Density volumes of the bones: how each is built, and where they are kept.

Grids lie along each bone's own axes. Volumes are built on first use (33 bones of one cortex: 7 s of one core,
121 MB; 2026-11-22) and kept in the user's cache folder, or in `$MSKSCREEN_CACHE`, under a name that changes with
geometry and code.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np

from mskscreen.phantom.bone_density import TISSUE, build, grid
from mskscreen.phantom.geometry import digest
from mskscreen.phantom.levels import Level, Volume
from mskscreen.storage import cache_folder, replacing

CORTEX = {"thin": 0.6, "normal": 1.0, "thick": 1.3}
"""Factors on the thickness of the cortex. At the middle of the second metacarpal they give cortical indices on
both sides of the 0.43 below which E. Barnett and B. E. C. Nordin call bone osteoporotic (Clin. Radiol. 11, 1960).
"""

_LEVELS = 4


@cache
def load_volume(bone: str, cortex: str = "normal") -> Volume:
    """The density volume of `bone` with a cortex of CORTEX, built and cached on first use.

    Raises KeyError for an unknown bone or cortex.
    """
    tissue, factor = TISSUE[bone], CORTEX[cortex]
    tissue = tissue._replace(shaft=tissue.shaft * factor, end=tissue.end * factor)
    finest = grid(bone, tissue.pitch * 1e-3)
    levels = []
    name = f"{bone}.{cortex}"
    densities = _stored(name) or _store(name, _pyramid(build(bone, tissue, finest)))
    for index, density in enumerate(densities):
        density.flags.writeable = False
        pitch = tissue.pitch * 1e-3 * 2**index
        to_grid = np.eye(4)
        to_grid[:3, :3] = finest.axes.T / pitch
        # Voxel 0 of a coarse level is the mean of the first 2**index fine voxels.
        to_grid[:3, 3] = -finest.low / pitch - (2**index - 1) / 2 / 2**index
        levels.append(Level(density, to_grid, pitch))
    return Volume(tuple(levels))


def prepare() -> None:
    """Build the volumes that the cache lacks, as should be done before a pool of workers starts."""
    for bone in TISSUE:
        for cortex in CORTEX:
            load_volume(bone, cortex)


def _folder() -> Path:
    return cache_folder() / f"volumes-{_key()}"


@cache
def _key() -> str:
    """Changes with the bundle and with every file that decides what a volume holds."""
    here = Path(__file__)
    total = hashlib.sha256(digest().encode())
    for name in (here.name, "bone_density.py", "levels.py", "geometry.py", "skeleton.py"):
        total.update(here.with_name(name).read_bytes())
    return total.hexdigest()[:16]


def _stored(name: str) -> tuple[np.ndarray, ...] | None:
    paths = [_folder() / f"{name}.{index}.npy" for index in range(_LEVELS)]
    try:
        return tuple(np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)) for path in paths)
    except (OSError, ValueError):
        return None


def _store(name: str, densities: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Write the levels under their final names once complete; without a writable cache keep them in memory."""
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        for index, density in enumerate(densities):
            with replacing(_folder() / f"{name}.{index}.npy") as partial:
                np.save(partial, density)
    except OSError:
        return densities
    return _stored(name) or densities


def _pyramid(density: np.ndarray) -> tuple[np.ndarray, ...]:
    levels = [density]
    while len(levels) < _LEVELS:
        fine = levels[-1]
        fine = np.pad(fine, [(0, size % 2) for size in fine.shape]).astype(np.uint16)
        halves = fine[::2] + fine[1::2]
        halves = halves[:, ::2] + halves[:, 1::2]
        halves = halves[:, :, ::2] + halves[:, :, 1::2]
        levels.append(((halves + 4) // 8).astype(np.uint8))
    return tuple(levels)
