"""The exposed area of a radiograph and the percentile window inside it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LOW, HIGH = 0.5, 99.5
# Statistics are taken on a grid of at most this many rows and columns: percentiles do not need every pixel.
_GRID = 384
# A border row or column is unexposed where its values spread over less than this part of the image's range.
_FLAT = 0.02
# An extreme value that fills more than this part of the area is blank film, a marker or saturation, not anatomy.
_BLANK = 0.001


class AutoWindow(NamedTuple):
    """What maps to [0, 1], and the area (top, left, bottom, right) in which it was measured."""

    low: float
    high: float
    crop: tuple[int, int, int, int]

    def __str__(self) -> str:
        return f"percentile {LOW}-{HIGH} [{self.low:.6g}, {self.high:.6g}]"


def grid_step(rows: int, columns: int) -> int:
    """Step of the grid on which statistics of an image of this size are taken."""
    return -(-max(rows, columns) // _GRID)


def auto_window(sample: npt.NDArray, valid: npt.NDArray[np.bool_] | None, step: int) -> AutoWindow | None:
    """Percentile window of the exposed area, or None where the area is constant.

    `sample` (h, w) holds every `step`-th row and column of the image, of any real type; `valid` marks the samples
    that are not padding. Flat borders (collimator, film edge) and blank extremes are left out. Mirroring the
    values mirrors the window, so that MONOCHROME1 and MONOCHROME2 twins stay twins.
    """
    values = sample.astype(np.float64)
    if valid is not None:
        values[~valid] = np.nan
        if not valid.any():
            return None
    low, high = np.nanpercentile(values, (1, 99))
    rows, columns = (_extent(values, axis, _FLAT * (high - low)) for axis in (1, 0))
    if not np.isfinite(values[rows, columns]).any():  # what varies across and what varies down lie apart
        rows, columns = (slice(0, size) for size in values.shape)
    inside = values[rows, columns]
    inside = inside[np.isfinite(inside)]
    # Both are judged by their part of the same area: else which is judged first would matter.
    extremes = (inside.min(), inside.max())
    blank = [value for value in extremes if np.count_nonzero(inside == value) > _BLANK * inside.size]
    rest = inside[~np.isin(inside, blank)]
    if rest.size and rest.min() < rest.max():
        inside = rest
    low, high = (float(value) for value in np.percentile(inside, (LOW, HIGH)))
    if not high > low:
        low, high = float(inside.min()), float(inside.max())
    if not high > low:
        return None
    crop = (rows.start * step, columns.start * step, rows.stop * step, columns.stop * step)
    return AutoWindow(low, high, crop)


def _extent(values: npt.NDArray[np.float64], axis: int, flat: float) -> slice:
    """First to last line along the other axis whose 5th to 95th percentile spans more than `flat`."""
    ordered = np.sort(values, axis=axis)  # NaN sorts last
    count = np.isfinite(ordered).sum(axis=axis)
    lower = (0.05 * np.maximum(count - 1, 0)).astype(np.intp)
    upper = np.maximum(count - 1, 0) - lower
    take = [np.take_along_axis(ordered, np.expand_dims(index, axis), axis) for index in (lower, upper)]
    spread = np.squeeze(take[1] - take[0], axis)
    lines = np.flatnonzero(np.where(count > 0, spread, 0) > flat)
    return slice(int(lines[0]), int(lines[-1]) + 1) if lines.size else slice(0, spread.size)
