"""A bone's density at several resolutions, and where in it a ray has nothing to meet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from mskscreen.phantom.compiled import compiled

FULL = 200.0
"""Stored value of solid cortical bone; the remaining range holds sclerotic bone up to 1.27."""

BLOCK = 4
"""Edge of the blocks that tell the ray caster where a volume is empty, in voxels."""


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
