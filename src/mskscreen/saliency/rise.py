"""RISE: which parts of an image raise a score, told from random masks alone (Petsiuk et al., arXiv:1806.07421).

The map is debiased: the mean score with a pixel visible less the mean score with it hidden. Plain random masks
leave noise of two kinds in it, and a design takes away both. Every mask comes with its complement, which cancels
all that depends on how much is visible. Masks that share a shift of the grid are rows of a Hadamard matrix with
cells and signs shuffled: any two cells are hidden together exactly as often as apart, so that the effect of one
cell does not leak into another. Each mask is by itself still what RISE draws: each cell visible with
probability 1/2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mskscreen.saliency.target import Explained, Score

# Blocks before their spread says anything about the standard error.
_LEAST_BLOCKS = 4
_CHUNK = 32
_HOT = 0.25
# The shift at which the nodes of the grid lie on the edges of its cells.
_CENTRED = 0.5
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Settings:
    """How far RISE goes.

    `passes` is the most it may spend, rounded up to whole blocks; `cells` the cells of the mask's grid along each
    side; `bound` ends it where the largest standard error of a pixel is below this share of the map's
    largest absolute value, 0 never. `fine` spends half of the passes on a grid of twice the cells, where the
    upper quarter of the coarse map lies.
    """

    passes: int = 4096
    cells: int = 7
    seed: int = 0
    bound: float = 0.1
    fine: bool = False

    @property
    def most(self) -> int:
        """Passes of a map that does not converge: whole blocks, of each mask and its complement."""
        grids = 2 if self.fine else 1
        # The part of the fine grid that is varied has as many cells as the coarse one.
        block = 2 * _order((self.cells + 1) ** 2)
        return grids * math.ceil(self.passes / grids / block) * block


def rise(
    score: Score, image: npt.NDArray[np.float32], settings: Settings, advance: Advance = lambda _: None
) -> Explained:
    """Map (H, W) of an `image` (1, H, W) in [0, 1]: how much each place raises `score` when it is visible.

    Hidden is black. Memory does not depend on the number of masks.
    """
    rng = np.random.default_rng(settings.seed)
    share = 0.5 if settings.fine else 1.0
    coarse = _estimate(score, image, settings.cells, None, settings.passes * share, settings.bound, rng, advance)
    if not settings.fine:
        return coarse
    cells = 2 * settings.cells + 1
    active = _hot(coarse.values, cells)
    fine = _estimate(score, image, cells, active, settings.passes * share, settings.bound, rng, advance)
    # A coarse cell has the effect of all the fine cells below it: brought to the same area, detail replaces it.
    down, across = (_hats(size, cells, _CENTRED) for size in image.shape[1:])
    looked_at = down @ active @ across.T
    values = fine.values + (1 - looked_at) * coarse.values * (settings.cells / cells) ** 2
    errors = [e for e in (coarse.error, fine.error) if e is not None]
    converged = coarse.converged and fine.converged
    return Explained(values.astype(np.float32), coarse.passes + fine.passes, max(errors, default=None), converged)


def _estimate(
    score: Score,
    image: npt.NDArray[np.float32],
    cells: int,
    active: npt.NDArray[np.bool_] | None,
    passes: float,
    bound: float,
    rng: np.random.Generator,
    advance: Advance,
) -> Explained:
    """Average blocks of masks until the passes are spent or the map has converged."""
    mean = np.zeros(image.shape[1:])
    squares = np.zeros(image.shape[1:])
    blocks = spent = 0
    error, converged = None, False
    while spent < passes and not converged:
        down, across, signs = _block(image.shape[1:], cells, active, rng)
        found = down @ _effects(score, image, down, across, signs, active, advance) @ across.T
        blocks, spent = blocks + 1, spent + 2 * len(signs)
        step = found - mean
        mean += step / blocks
        squares += step * (found - mean)
        if blocks >= _LEAST_BLOCKS:
            error = math.sqrt(float(squares.max()) / (blocks - 1) / blocks)
            converged = error <= bound * float(np.abs(mean).max())
    return Explained(mean.astype(np.float32), spent, error, converged if bound else None)


def _effects(
    score: Score,
    image: npt.NDArray[np.float32],
    down: npt.NDArray,
    across: npt.NDArray,
    signs: npt.NDArray,
    active: npt.NDArray[np.bool_] | None,
    advance: Advance,
) -> npt.NDArray:
    """Mean score with a cell visible less with it hidden, on the grid of a block."""
    total = np.zeros(signs.shape[1:])
    always = 0.0 if active is None else (down @ ~active @ across.T).astype(np.float32)
    for chunk in _chunks(signs):
        # A mask is (1 + m) / 2 and its complement (1 - m) / 2; cells that are not varied stay visible in both.
        m = np.einsum("yi,nij,xj->nyx", down, chunk, across, optimize=True)
        pairs = np.concatenate([1 + m + always, 1 - m + always]) / 2
        scores = score((pairs[:, None] * image).astype(np.float32, copy=False))
        difference = scores[: len(chunk)] - scores[len(chunk) :]
        total += np.tensordot(difference, chunk, 1)
        advance(len(pairs))
    return total / len(signs)


def _chunks(signs: npt.NDArray) -> Iterator[npt.NDArray]:
    for start in range(0, len(signs), _CHUNK):
        yield signs[start : start + _CHUNK]


def _block(
    shape: tuple[int, ...], cells: int, active: npt.NDArray[np.bool_] | None, rng: np.random.Generator
) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray]:
    """Interpolation along both axes with a random shift, and the signs (n, cells + 1, cells + 1) of cells."""
    offsets = rng.random(2) if active is None else np.full(2, _CENTRED)
    down, across = (_hats(size, cells, offset) for size, offset in zip(shape, offsets, strict=True))
    where = np.ones((cells + 1, cells + 1), bool) if active is None else active
    count = int(where.sum())
    matrix = _hadamard(count)
    chosen = rng.permutation(len(matrix))[:count]
    signs = np.zeros((len(matrix), *where.shape), np.float32)
    signs[:, where] = matrix[:, chosen] * rng.choice(np.array([-1, 1], np.float32), count)
    return down, across, signs


def _hats(size: int, cells: int, offset: float) -> npt.NDArray[np.float32]:
    """Matrix (size, cells + 1) of linear interpolation between the centres of cells, shifted by a part of one."""
    position = np.clip((np.arange(size) + 0.5) * cells / size - 0.5 + offset, 0, cells)
    hats: npt.NDArray = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(cells + 1)))
    return hats.astype(np.float32)


def _order(least: int) -> int:
    """The smallest power of two that is `least` or more."""
    return 1 << (least - 1).bit_length()


def _hadamard(least: int) -> npt.NDArray[np.float32]:
    """Sylvester's Hadamard matrix of the smallest order that is `least` or more."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < _order(least):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def _hot(values: npt.NDArray[np.float32], cells: int) -> npt.NDArray[np.bool_]:
    """Cells of a finer grid, (cells + 1, cells + 1), in which the upper quarter of a map (H, W) lies."""
    rows, columns = values.shape
    down, across = (np.minimum(np.arange(cells + 1) * size // cells, size - 1) for size in (rows, columns))
    at = values[np.ix_(down, across)]
    hot: npt.NDArray[np.bool_] = at > np.quantile(at, 1 - _HOT)
    return hot if hot.any() else np.ones_like(hot)
