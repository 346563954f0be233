"""Density volumes of the bones: what the meshes enclose, with a cortex and trabecular bone.

A mesh is voxelised by signed crossings along three axes with a majority vote, which repairs holes and bad
winding; a signed distance to the smoothed surface then places cortex and spongiosa on a finer grid. Grids lie
along each bone's own axes. Volumes are built on first use (33 bones of one cortex: 7 s of one core, 121 MB;
2026-11-22) and kept in the user's cache folder, or in `$MSKSCREEN_CACHE`, under a name that changes with geometry
and code.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from mskscreen.phantom.compiled import compiled
from mskscreen.phantom.geometry import digest, load_meshes
from mskscreen.phantom.skeleton import principal_axes
from mskscreen.storage import cache_folder

FULL = 200.0
"""Stored value of solid cortical bone; the remaining range holds sclerotic bone up to 1.27."""

BLOCK = 4
"""Edge of the blocks that tell the ray caster where a volume is empty, in voxels."""

CORTEX = {"thin": 0.6, "normal": 1.0, "thick": 1.3}
"""Factors on the thickness of the cortex. At the middle of the second metacarpal they give cortical indices on
both sides of the 0.43 below which E. Barnett and B. E. C. Nordin call bone osteoporotic (Clin. Radiol. 11, 1960).
"""

_LEVELS = 4
_REACH = 8


class Tissue(NamedTuple):
    """How one bone is built, millimetres: `shape` and `pitch` are the voxels of the distance field and of the
    density, `shaft` and `end` the cortex, `spongy` the mineral fraction of trabecular bone, `smooth` the
    standard deviation that hides the facets of a coarse mesh.
    """

    shape: float
    pitch: float
    shaft: float
    end: float
    spongy: float
    smooth: float


# Set by eye against radiographs of adults; mineral fractions are those of the volume, marrow included.
_CARPALS = ("scaphoid", "lunate", "triquetrum", "pisiform", "trapezium", "trapezoid", "capitate", "hamate")
_TISSUE = {
    "humerus": Tissue(0.9, 0.3, 3.8, 0.8, 0.15, 2.0),
    "radius": Tissue(0.6, 0.3, 2.6, 0.6, 0.18, 1.7),
    "ulna": Tissue(0.6, 0.3, 2.6, 0.6, 0.18, 1.7),
    "clavicle": Tissue(0.7, 0.5, 2.0, 0.7, 0.18, 1.6),
    "scapula": Tissue(0.8, 0.5, 0.9, 0.9, 0.16, 1.3),
    "thorax": Tissue(1.5, 1.2, 0.9, 0.9, 0.14, 1.2),
    **dict.fromkeys(_CARPALS, Tissue(0.4, 0.25, 0.4, 0.4, 0.24, 0.35)),
    **{f"{ray}mc": Tissue(0.45, 0.25, 1.7, 0.4, 0.2, 0.4) for ray in "12345"},
    **dict.fromkeys(("thumbprox", *(f"{ray}proxph" for ray in "2345")), Tissue(0.4, 0.25, 1.4, 0.35, 0.2, 0.35)),
    **{f"{ray}midph": Tissue(0.35, 0.25, 1.1, 0.35, 0.2, 0.35) for ray in "2345"},
    **dict.fromkeys(("thumbdist", *(f"{ray}distph" for ray in "2345")), Tissue(0.3, 0.25, 0.8, 0.3, 0.2, 0.3)),
}


@dataclass(frozen=True)
class Level:
    """One resolution of a volume: `density` (i, j, k) uint8, `to_grid` (4, 4) from bone metres to voxels, `pitch`
    in metres.
    """

    density: np.ndarray
    to_grid: np.ndarray
    pitch: float

    @cached_property
    def clear(self) -> np.ndarray:
        """1 for a block of BLOCK voxels that holds no bone, nor does one that touches it, else 0: uint8."""
        return 1 - ndimage.binary_dilation(self._filled, np.ones((3, 3, 3))).astype(np.uint8)

    def clear_along(self, axis: int) -> np.ndarray:
        """How many blocks of slices of `axis` a ray passes, from a block on, before it may meet bone: uint8.

        Holds for rays within 45 degrees of the axis whose middle sample in the first block lies in it.
        """
        if axis not in self._leaps:
            self._leaps[axis] = _leaps(self._halves, axis)
        return self._leaps[axis]

    @cached_property
    def _leaps(self) -> dict[int, np.ndarray]:
        return {}

    @cached_property
    def filled(self) -> np.ndarray:
        """Centres (n, 3) in bone metres of the blocks that hold bone."""
        centres = np.argwhere(self._filled) * BLOCK + (BLOCK - 1) / 2
        inverse = np.linalg.inv(self.to_grid)
        return centres @ inverse[:3, :3].T + inverse[:3, 3]

    @cached_property
    def _filled(self) -> np.ndarray:
        filled = self._halves
        for axis in range(3):
            filled = _either(filled, axis, (0, 1))
        return filled

    @cached_property
    def _halves(self) -> np.ndarray:
        """Whether half a block (2 x 2 x 2 voxels) holds any bone: bool, an even number of halves each way."""
        halves = np.zeros([-(-size // BLOCK) * 2 for size in self.density.shape], np.bool_)
        _mark_halves(halves, self.density)
        return halves


@dataclass(frozen=True)
class Volume:
    """A bone's density at several resolutions, finest first, each half as fine as the one before."""

    levels: tuple[Level, ...]

    def for_pixel(self, pixel: float) -> Level:
        """The coarsest level that a detector of spacing `pixel` (metres, in bone coordinates) cannot tell from a
        finer one.
        """
        fitting = [level for level in self.levels if level.pitch <= 1.25 * pixel]
        return fitting[-1] if fitting else self.levels[0]


def _either(halves: np.ndarray, axis: int, reach: tuple[int, int]) -> np.ndarray:
    """Blocks along `axis` of which any half from `reach[0]` to `reach[1]`, counted from their first, is set."""
    first, last = reach
    padded = np.moveaxis(np.pad(halves, [(-first, last - 1) if n == axis else (0, 0) for n in range(3)]), axis, 0)
    length = halves.shape[axis]
    either = padded[:length:2].copy()
    for step in range(1, last - first + 1):
        either |= padded[step : step + length : 2]
    return np.moveaxis(either, 0, axis)


def _leaps(halves: np.ndarray, slices: int) -> np.ndarray:
    """`Level.clear_along` the axis `slices`.

    In a block a ray drifts up to two voxels from its middle sample and a bilinear sample reads one more. A ray
    enters no more blocks to the side than it passes, so the distance of a king's moves on a chessboard is clear.
    """
    touched = halves
    for axis in range(3):
        touched = _either(touched, axis, (0, 1) if axis == slices else (-1, 3))
    distance = ndimage.distance_transform_cdt(~touched, "chessboard")
    return np.ascontiguousarray(np.minimum(distance, 255).astype(np.uint8))


@compiled
def _mark_halves(halves, density):  # type: ignore[no-untyped-def]
    for i in range(density.shape[0]):
        for j in range(density.shape[1]):
            for k in range(density.shape[2]):
                if density[i, j, k] > 0:
                    halves[i >> 1, j >> 1, k >> 1] = True


@cache
def load_volume(bone: str, cortex: str = "normal") -> Volume:
    """The density volume of `bone` with a cortex of CORTEX, built and cached on first use.

    Raises KeyError for an unknown bone or cortex.
    """
    tissue, factor = _TISSUE[bone], CORTEX[cortex]
    tissue = tissue._replace(shaft=tissue.shaft * factor, end=tissue.end * factor)
    rotation, low, shape = _grid(bone, tissue.pitch * 1e-3)
    levels = []
    name = f"{bone}.{cortex}"
    densities = _stored(name) or _store(name, _pyramid(_build(bone, tissue, rotation, low, shape)))
    for index, density in enumerate(densities):
        density.flags.writeable = False
        pitch = tissue.pitch * 1e-3 * 2**index
        to_grid = np.eye(4)
        to_grid[:3, :3] = rotation.T / pitch
        # Voxel 0 of a coarse level is the mean of the first 2**index fine voxels.
        to_grid[:3, 3] = -low / pitch - (2**index - 1) / 2 / 2**index
        levels.append(Level(density, to_grid, pitch))
    return Volume(tuple(levels))


def prepare(bones: Iterable[str] | None = None) -> None:
    """Build the volumes of `bones` (default: all) that the cache lacks, as a pool of workers should before it
    starts.
    """
    for bone in bones or _TISSUE:
        for cortex in CORTEX:
            load_volume(bone, cortex)


def _folder() -> Path:
    return cache_folder() / f"volumes-{_key()}"


@cache
def _key() -> str:
    """Changes with the bundle and with every file that decides what a volume holds."""
    here = Path(__file__)
    total = hashlib.sha256(digest().encode())
    for name in (here.name, "geometry.py", "skeleton.py"):
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
            handle, temporary = tempfile.mkstemp(dir=_folder(), suffix=".part")
            with os.fdopen(handle, "wb") as stream:
                np.save(stream, density)
            Path(temporary).replace(_folder() / f"{name}.{index}.npy")
    except OSError:
        return densities
    return _stored(name) or densities


def _grid(bone: str, pitch: float) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """Axes (3, 3), position of voxel 0 along those axes, and size of a grid around `bone`.

    The margin of 2 mm leaves room for smoothing and keeps every border voxel empty.
    """
    mesh = load_meshes()[bone]
    rotation = principal_axes(mesh)
    along = mesh.vertices @ rotation
    low = along.min(axis=0) - 2e-3
    size = np.ceil((along.max(axis=0) + 2e-3 - low) / pitch).astype(int) + 1
    return rotation, low, (int(size[0]), int(size[1]), int(size[2]))


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


def _build(
    bone: str, tissue: Tissue, rotation: np.ndarray, low: np.ndarray, shape: tuple[int, int, int]
) -> np.ndarray:
    """Density (i, j, k) uint8 of one bone on its fine grid."""
    coarse = tissue.shape * 1e-3
    _, coarse_low, coarse_shape = _grid(bone, coarse)
    triangles = load_meshes()[bone].triangles @ rotation
    occupied = occupancy(triangles, coarse_low, coarse, coarse_shape)
    distance = _distance_field(occupied, tissue) * np.float32(coarse)
    phase = np.array([int(value) for value in hashlib.sha256(bone.encode()).digest()[:3]], np.float64)
    density = np.zeros(shape, np.uint8)
    extent = triangles[:, :, 0].min(), triangles[:, :, 0].max()
    parameters = np.array([tissue.shaft, tissue.end, tissue.spongy]) * [1e-3, 1e-3, 1.0]
    pitches = np.array([tissue.pitch * 1e-3, coarse])
    long = bone not in _CARPALS and bone not in ("scapula", "thorax")
    _fill(density, distance, low, pitches, np.array(extent), parameters, long, _spongiosa(), phase)
    return density


def occupancy(triangles: np.ndarray, low: np.ndarray, pitch: float, shape: tuple[int, int, int]) -> np.ndarray:
    """Which voxels (bool, `shape`) lie inside a mesh that may have holes.

    Along each axis a voxel is inside where the signed crossings before it do not cancel; a column whose crossings
    never cancel has met a hole and abstains; the majority of the three axes decides.
    """
    votes = np.zeros(shape, np.float32)
    for axis in range(3):
        order = ((axis + 1) % 3, (axis + 2) % 3, axis)
        steps = np.zeros((shape[order[0]], shape[order[1]], shape[order[2]] + 1), np.int8)
        # Columns a hair off the voxel centres do not run along mesh edges.
        corner = (low - np.array([1.3e-6, 2.1e-6, 0.7e-6]))[list(order)]
        _crossings(steps, np.ascontiguousarray((triangles[:, :, order] - corner) / pitch))
        winding = np.cumsum(steps, axis=2, dtype=np.int8)
        vote = np.where(winding[:, :, -1:] == 0, winding[:, :, :-1] != 0, np.float32(0.5))
        votes += np.transpose(vote, np.argsort(order))
    inside = ndimage.binary_closing(np.pad(votes > 1.4, 2), iterations=1)[2:-2, 2:-2, 2:-2]
    return ndimage.binary_fill_holes(inside)


@compiled
def _crossings(steps, triangles):  # type: ignore[no-untyped-def]
    columns, rows, depth = steps.shape
    for f in range(triangles.shape[0]):
        x0, y0, z0 = triangles[f, 0]
        x1, y1, z1 = triangles[f, 1]
        x2, y2, z2 = triangles[f, 2]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0.0:
            continue
        for i in range(max(0, np.ceil(min(x0, x1, x2))), min(columns - 1, np.floor(max(x0, x1, x2))) + 1):
            for j in range(max(0, np.ceil(min(y0, y1, y2))), min(rows - 1, np.floor(max(y0, y1, y2))) + 1):
                a = ((x1 - i) * (y2 - j) - (x2 - i) * (y1 - j)) / area
                b = ((x2 - i) * (y0 - j) - (x0 - i) * (y2 - j)) / area
                c = 1.0 - a - b
                if a >= 0.0 and b >= 0.0 and c >= 0.0:
                    k = int(np.ceil(a * z0 + b * z1 + c * z2))
                    steps[i, j, min(max(k, 0), depth - 1)] += -1 if area > 0.0 else 1


def _distance_field(occupied: np.ndarray, tissue: Tissue) -> np.ndarray:
    """Signed distance (float32 voxels, positive inside) to a smooth surface through the voxels.

    Smoothing pulls convex ends inwards; adding back half of what a second pass removes undoes most of that.
    """
    distance = _reach(occupied) - _reach(~occupied)
    sigma = max(tissue.smooth / tissue.shape, 0.8)
    smooth = ndimage.gaussian_filter(distance, sigma)
    return smooth + np.float32(0.5) * (smooth - ndimage.gaussian_filter(smooth, sigma))


def _reach(inside: np.ndarray) -> np.ndarray:
    """Distance (float32 voxels) from inside voxels to the surface, no farther than _REACH; 0 outside."""
    squared = np.where(inside, np.int16(_REACH**2), np.int16(0))
    for axis in range(3):
        source = np.moveaxis(squared, axis, 0)
        nearest = source.copy()
        for step in range(1, _REACH):
            square = np.int16(step * step)
            np.minimum(nearest[step:], source[:-step] + square, out=nearest[step:])
            np.minimum(nearest[:-step], source[step:] + square, out=nearest[:-step])
        squared = np.moveaxis(nearest, 0, axis)
    return np.where(inside, np.sqrt(squared, dtype=np.float32) - np.float32(0.5), np.float32(0))


@cache
def _spongiosa() -> np.ndarray:
    """A periodic block (96, 96, 96) float32 of trabecular texture, mean 1: the plates are where a band-limited
    random field crosses zero, which gives the cells and walls of spongy bone.
    """
    size = 96
    rng = np.random.default_rng(20260101)
    frequency = np.fft.fftfreq(size)
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(frequency, frequency, frequency, indexing="ij")))
    band = np.exp(-(((radius - 0.11) / 0.045) ** 2))
    fields = []
    for _ in range(2):
        field = np.fft.ifftn(np.fft.fftn(rng.standard_normal((size,) * 3)) * band).real
        fields.append(field / field.std())
    walls = np.exp(-((fields[0] / 0.3) ** 2)) + 0.8 * np.exp(-((fields[1] / 0.3) ** 2))
    return (walls / walls.mean()).astype(np.float32)


@compiled
def _trilinear(grid, x, y, z):  # type: ignore[no-untyped-def]
    i, j, k = int(x), int(y), int(z)
    fx, fy, fz = x - i, y - j, z - k
    low = (grid[i, j, k] * (1 - fx) + grid[i + 1, j, k] * fx) * (1 - fy)
    low += (grid[i, j + 1, k] * (1 - fx) + grid[i + 1, j + 1, k] * fx) * fy
    high = (grid[i, j, k + 1] * (1 - fx) + grid[i + 1, j, k + 1] * fx) * (1 - fy)
    high += (grid[i, j + 1, k + 1] * (1 - fx) + grid[i + 1, j + 1, k + 1] * fx) * fy
    return low * (1 - fz) + high * fz


@compiled
def _periodic(tile, x, y, z):  # type: ignore[no-untyped-def]
    """Trilinear sample of a periodic block at a non-negative position in voxels."""
    size = tile.shape[0]
    i, j, k = int(x), int(y), int(z)
    fx, fy, fz = x - i, y - j, z - k
    i, j, k = i % size, j % size, k % size
    i1, j1, k1 = (i + 1) % size, (j + 1) % size, (k + 1) % size
    low = (tile[i, j, k] * (1 - fx) + tile[i1, j, k] * fx) * (1 - fy)
    low += (tile[i, j1, k] * (1 - fx) + tile[i1, j1, k] * fx) * fy
    high = (tile[i, j, k1] * (1 - fx) + tile[i1, j, k1] * fx) * (1 - fy)
    high += (tile[i, j1, k1] * (1 - fx) + tile[i1, j1, k1] * fx) * fy
    return low * (1 - fz) + high * fz


@compiled
def _ramp(value):  # type: ignore[no-untyped-def]
    """Smooth step from 0 at `value` 0 to 1 at 1."""
    value = min(max(value, 0.0), 1.0)
    return value * value * (3.0 - 2.0 * value)


@compiled
def _fill(density, distance, low, pitches, extent, parameters, long, spongiosa, phase):  # type: ignore[no-untyped-def]
    """Density from depth: sharp periosteal edge, cortex that thins from shaft to ends, softer endosteal edge, and
    trabecular bone that is dense under the joint surfaces and all but absent in the shaft.
    """
    fine, coarse = pitches
    shaft, end, spongy = parameters
    grain = 0.22e-3
    for i in range(density.shape[0]):
        x = i * fine
        for j in range(density.shape[1]):
            y = j * fine
            for k in range(density.shape[2]):
                z = k * fine
                gx = min(x / coarse, distance.shape[0] - 1.001)
                gy = min(y / coarse, distance.shape[1] - 1.001)
                gz = min(z / coarse, distance.shape[2] - 1.001)
                depth = _trilinear(distance, gx, gy, gz)
                if depth < -0.5 * fine:
                    continue
                fraction = (low[0] + x - extent[0]) / (extent[1] - extent[0])
                middle = 0.0
                if long:
                    middle = _ramp((min(fraction, 1.0 - fraction) - 0.04) / 0.3)
                patch = _periodic(spongiosa, x / 1.6e-3 + phase[0], y / 0.8e-3 + phase[1], z / 0.8e-3 + phase[2])
                patch = 0.5 * (patch - 1.0)
                cortex = (end + (shaft - end) * middle) * (1.0 + 0.15 * patch)
                inner = _ramp((depth - cortex) / (0.5 * fine + 0.3 * cortex) + 0.5)
                stretch = 0.5 if long else 0.85
                grains = _periodic(
                    spongiosa, stretch * x / grain + phase[1], y / grain + phase[2], z / grain + phase[0]
                )
                marrow = spongy * (1.0 - 0.95 * middle) * (1.0 + 0.5 * patch)
                marrow *= (1.0 + 0.9 * np.exp(-max(depth - cortex, 0.0) / 1.5e-3)) * (0.1 + 0.9 * grains)
                value = _ramp(depth / fine + 0.5) * (1.0 - inner + inner * marrow)
                density[i, j, k] = int(min(value * FULL, 255.0) + 0.5)
