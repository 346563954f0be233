"""From a mesh to densities: what it encloses, with a cortex and trabecular bone.

A mesh is voxelised by signed crossings along three axes with a majority vote, which repairs holes and bad
winding; a signed distance to the smoothed surface then places cortex and spongiosa on a finer grid.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from mskscreen.phantom.compiled import compiled
from mskscreen.phantom.geometry import load_meshes
from mskscreen.phantom.levels import FULL
from mskscreen.phantom.skeleton import principal_axes

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
TISSUE = {
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


class Grid(NamedTuple):
    """A grid around a bone: its axes as columns (3, 3), where voxel 0 lies along them (metres), and its size."""

    axes: np.ndarray
    low: np.ndarray
    shape: tuple[int, int, int]


def grid(bone: str, pitch: float) -> Grid:
    """The grid of voxels of `pitch` (metres) along a bone's own axes.

    The margin of 2 mm leaves room for smoothing and keeps every border voxel empty.
    """
    mesh = load_meshes()[bone]
    axes = principal_axes(mesh)
    along = mesh.vertices @ axes
    low = along.min(axis=0) - 2e-3
    size = np.ceil((along.max(axis=0) + 2e-3 - low) / pitch).astype(int) + 1
    return Grid(axes, low, (int(size[0]), int(size[1]), int(size[2])))


def build(bone: str, tissue: Tissue, fine: Grid) -> np.ndarray:
    """Density (i, j, k) uint8 of one bone on its grid of `tissue.pitch`."""
    coarse = tissue.shape * 1e-3
    _, coarse_low, coarse_shape = grid(bone, coarse)
    triangles = load_meshes()[bone].triangles @ fine.axes
    occupied = occupancy(triangles, coarse_low, coarse, coarse_shape)
    distance = _distance_field(occupied, tissue) * np.float32(coarse)
    phase = np.array([int(value) for value in hashlib.sha256(bone.encode()).digest()[:3]], np.float64)
    density = np.zeros(fine.shape, np.uint8)
    extent = triangles[:, :, 0].min(), triangles[:, :, 0].max()
    parameters = np.array([tissue.shaft, tissue.end, tissue.spongy]) * [1e-3, 1e-3, 1.0]
    pitches = np.array([tissue.pitch * 1e-3, coarse])
    long = bone not in _CARPALS and bone not in ("scapula", "thorax")
    _fill(density, distance, fine.low, pitches, np.array(extent), parameters, long, _spongiosa(), phase)
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
