"""Where a pixel of the model's input lies on the source, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Geometry:
    """Mapping between a source of `rows` x `columns` pixels and an input of `height` x `width`.

    The source fills a box of `box_height` x `box_width` at (`top`, `left`) of the input; the rest is black. Points
    are (x, y) = (column, row) in pixels with the centre of the first pixel at (0, 0); its outer edges, which a
    resize keeps aligned, lie at -0.5.
    """

    rows: int
    columns: int
    height: int
    width: int
    top: int
    left: int
    box_height: int
    box_width: int

    @classmethod
    def squash(cls, rows: int, columns: int, height: int, width: int) -> Geometry:
        """The whole input is filled and the aspect ratio is not kept, as the published release did."""
        return cls(rows, columns, height, width, 0, 0, height, width)

    @classmethod
    def letterbox(cls, rows: int, columns: int, height: int, width: int) -> Geometry:
        """The aspect ratio is kept (to the rounding of a pixel) and the source lies in the middle."""
        scale = min(height / rows, width / columns)
        box_height = min(height, max(1, round(rows * scale)))
        box_width = min(width, max(1, round(columns * scale)))
        top, left = (height - box_height) // 2, (width - box_width) // 2
        return cls(rows, columns, height, width, top, left, box_height, box_width)

    def to_input(self, xy: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Points (..., 2) of the source as points of the input."""
        return (np.asarray(xy, np.float64) + 0.5) * self._scale + self._offset - 0.5

    def to_source(self, xy: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Points (..., 2) of the input as points of the source; those on the black margin fall outside of it."""
        return (np.asarray(xy, np.float64) + 0.5 - self._offset) / self._scale - 0.5

    def map_to_source(
        self, values: npt.NDArray, rows: int | None = None, columns: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Resample a map (h, w) whose cells tile the input evenly onto the source: float32 (rows, columns).

        `rows` and `columns` default to the source's own; another size samples the same frame more coarsely or
        finely. Bilinear between the centres of cells, constant beyond the outermost ones.
        """
        h, w = values.shape
        down = _interpolation(h, self.height, self.top, self.box_height, self.rows if rows is None else rows)
        across = _interpolation(
            w, self.width, self.left, self.box_width, self.columns if columns is None else columns
        )
        return down @ values.astype(np.float32) @ across.T

    @property
    def _scale(self) -> npt.NDArray[np.float64]:
        return np.array([self.box_width / self.columns, self.box_height / self.rows])

    @property
    def _offset(self) -> npt.NDArray[np.float64]:
        return np.array([self.left, self.top], np.float64)


def _interpolation(cells: int, size: int, start: int, box: int, samples: int) -> npt.NDArray[np.float32]:
    """Matrix (samples, cells) of linear interpolation along one axis of the input, sampled evenly over the box."""
    position = ((np.arange(samples) + 0.5) * box / samples + start) * cells / size - 0.5
    position = np.clip(position, 0, cells - 1)
    lower = np.minimum(position.astype(np.intp), max(cells - 2, 0))
    weight = position - lower
    matrix = np.zeros((samples, cells), np.float32)
    line = np.arange(samples)
    matrix[line, lower] = 1 - weight
    matrix[line, np.minimum(lower + 1, cells - 1)] += weight
    return matrix
