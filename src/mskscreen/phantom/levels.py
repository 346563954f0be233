"""A bone's density at several resolutions, and where in it a ray has nothing to meet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mskscreen.phantom.compiled import compiled

FULL = 200.0
"""Stored value of solid cortical bone; the remaining range holds sclerotic bone up to 1.27."""

BLOCK = 4
"""Edge of the blocks that tell the ray caster where a volume is empty, in voxels."""

_LONGEST = 127  # blocks: the most that an int8 tells


@dataclass(frozen=True)
class Level:
    """One resolution of a volume: `density` (i, j, k) uint8, `to_grid` (4, 4) from bone metres to voxels, `pitch`
    in metres.
    """

    density: np.ndarray
    to_grid: np.ndarray
    pitch: float

    @cached_property
    def alone(self) -> np.ndarray:
        """1 for a block of BLOCK voxels that holds no bone, nor does one that touches it, else -1: int8."""
        touched = self._halves
        for axis in range(3):
            touched = _either(touched, axis, (-2, 3))
        return np.where(touched, np.int8(-1), np.int8(1))

    def leaps(self, axis: int) -> np.ndarray:
        """How many blocks of slices of `axis` a ray surely passes, from a block on, that are like it: int8.

        Positive where there is no bone to meet, negative where there may be. Holds for rays within 45 degrees of
        the axis, towards higher slices, whose middle sample in the first block lies in it.
        """
        if axis not in self._known_leaps:
            self._known_leaps[axis] = _leaps(self._halves, axis)
        return self._known_leaps[axis]

    @cached_property
    def _known_leaps(self) -> dict[int, np.ndarray]:
        return {}

    @cached_property
    def filled(self) -> np.ndarray:
        """Centres (n, 3) in bone metres of the blocks that hold bone."""
        filled = self._halves
        for axis in range(3):
            filled = _either(filled, axis, (0, 1))
        centres = np.argwhere(filled) * BLOCK + (BLOCK - 1) / 2
        inverse = np.linalg.inv(self.to_grid)
        return centres @ inverse[:3, :3].T + inverse[:3, 3]

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
    lines = np.moveaxis(halves, axis, 0)
    either = np.zeros((len(lines) // 2, *lines.shape[1:]), np.bool_)
    for step in range(reach[0], reach[1] + 1):
        first = max(0, -(step // 2))  # the first block that has such a half
        found = lines[2 * first + step :: 2][: len(either) - first]
        either[first : first + len(found)] |= found
    return np.moveaxis(either, 0, axis)


def _leaps(halves: np.ndarray, slices: int) -> np.ndarray:
    """`Level.leaps` along the axis `slices`.

    In a block a ray drifts up to two voxels from its middle sample and a bilinear sample reads one more.
    """
    touched = halves
    for axis in range(3):
        touched = _either(touched, axis, (0, 1) if axis == slices else (-1, 3))
    touched = np.ascontiguousarray(np.moveaxis(touched, slices, 0))
    leaps = np.empty(touched.shape, np.int8)
    _count_ahead(leaps, touched)
    return np.ascontiguousarray(np.moveaxis(leaps, 0, slices))


@compiled
def _count_ahead(leaps, touched):  # type: ignore[no-untyped-def]
    """For each block how many of its kind lie ahead along the first axis, itself included, negative if touched.

    From one block to the next a ray moves as a king does on a chessboard, so the least of nine ahead decides.
    """
    layers, rows, columns = touched.shape
    for layer in range(layers - 1, -1, -1):
        for y in range(rows):
            for x in range(columns):
                sign = -1 if touched[layer, y, x] else 1
                ahead = _LONGEST
                if layer + 1 < layers:
                    for j in range(max(y - 1, 0), min(y + 2, rows)):
                        for i in range(max(x - 1, 0), min(x + 2, columns)):
                            ahead = min(ahead, max(sign * leaps[layer + 1, j, i], 0))
                leaps[layer, y, x] = sign * min(ahead + 1, _LONGEST)


@compiled
def _mark_halves(halves, density):  # type: ignore[no-untyped-def]
    for i in range(density.shape[0]):
        for j in range(density.shape[1]):
            for k in range(density.shape[2]):
                if density[i, j, k] > 0:
                    halves[i >> 1, j >> 1, k >> 1] = True
