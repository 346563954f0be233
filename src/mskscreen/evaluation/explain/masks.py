"""Masks of findings, drawn for the size of the radiograph: outlines filled, or a picture from disk."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mskscreen.data.tree import inside
from mskscreen.errors import DataError

Mask = npt.NDArray[np.bool_]
# Gives bool (rows, columns) for the size of a radiograph.
Draw = Callable[[int, int], Mask]
_LARGEST = 1 << 28


def corners(x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    """Outline of a box by its upper left corner and its sides."""
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


def polygon(points: list[tuple[float, float]], size: tuple[int, int] | None = None) -> Draw:
    """A filled outline in pixels of an image of `size` (rows, columns), by default the radiograph's own."""

    def mask(rows: int, columns: int) -> Mask:
        if rows * columns > _LARGEST:
            raise DataError(f"a radiograph of {rows} x {columns} pixels is too large for a mask; reduce it")
        down, across = (rows / size[0], columns / size[1]) if size else (1.0, 1.0)
        return _filled([(x * across, y * down) for x, y in points], rows, columns)

    return mask


def _filled(corners: list[tuple[float, float]], rows: int, columns: int) -> Mask:
    """Pixels whose centres lie within an outline, by the even-odd rule; the first pixel spans 0 to 1."""
    found = np.zeros((rows, columns), bool)
    x, y = np.arange(columns) + 0.5, np.arange(rows) + 0.5
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        crossed = np.flatnonzero((y0 <= y) != (y1 <= y))
        if len(crossed):
            at = x0 + (y[crossed] - y0) / (y1 - y0) * (x1 - x0)
            found[crossed] ^= x < at[:, None]
    return found


def stored(folder: Path, name: str) -> Draw:
    """A mask on disk below `folder`, of the size of its radiograph.

    Raises PathError where it would lie elsewhere.
    """
    path = folder / inside(name)

    def mask(rows: int, columns: int) -> Mask:
        try:
            with Image.open(path) as picture:
                if picture.size != (columns, rows):
                    raise DataError(f"{path}: size {picture.size} is not the radiograph's {(columns, rows)}")
                return np.asarray(picture.convert("L")) > 0
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: the mask cannot be read ({error})") from error

    return mask


def run_lengths(counts: list[int], size: tuple[int, int]) -> Draw:
    """A mask as COCO encodes it: lengths of runs outside and inside in turn, down the columns of `size`.

    Raises DataError where they do not fill it.
    """
    rows, columns = size
    known = min(size) > 0 and all(count >= 0 and count % 1 == 0 for count in counts)
    if not known or rows * columns > _LARGEST or sum(counts) != rows * columns:
        raise DataError(
            f"run lengths of {sum(counts)} pixels do not fill {rows} x {columns}; export the masks again"
        )

    def mask(rows: int, columns: int) -> Mask:
        whole = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size[::-1]).T
        down, across = ((np.arange(n) + 0.5) * m / n for n, m in zip((rows, columns), size, strict=True))
        return whole[np.ix_(down.astype(int), across.astype(int))]

    return mask


def of_size(draw: Draw, size: tuple[int, int], name: str) -> Draw:
    """A mask whose source says the `size` of its image: it may be stored larger or smaller, but in one shape.

    It raises DataError for a radiograph of another aspect ratio, as one that is turned.
    """

    def mask(rows: int, columns: int) -> Mask:
        # Each side of each is rounded to a pixel.
        if abs(rows * size[1] - columns * size[0]) > max(rows + columns, sum(size)):
            raise DataError(
                f"{name}: the truth is of an image of {size[0]} x {size[1]} pixels and the radiograph has "
                f"{rows} x {columns}, another aspect ratio; draw it anew or turn the image back"
            )
        return draw(rows, columns)

    return mask


def union(parts: list[Draw]) -> Draw:
    """All that any of the parts marks: drawn once for each size, and kept as compressed bits."""
    kept: dict[tuple[int, int], bytes] = {}

    def mask(rows: int, columns: int) -> Mask:
        size = rows, columns
        if size not in kept:
            found = np.logical_or.reduce([part(rows, columns) for part in parts])
            kept[size] = zlib.compress(np.packbits(found).tobytes(), 1)
        bits = np.frombuffer(zlib.decompress(kept[size]), np.uint8)
        return np.unpackbits(bits, count=rows * columns).reshape(size).view(bool)

    return mask
