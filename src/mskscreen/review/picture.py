"""PNG files of which neither bytes nor size say that two hold the same picture."""

from __future__ import annotations

import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mskscreen.pixels.png import UP, png_file

_MOST_CUTS = 64


def write_png(path: Path, pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Write `pixels` (rows, columns) or (rows, columns, 3) as PNG (ISO/IEC 15948), the way of encoding by chance.

    By chance are the share of lines that are less the one above, which lines these are, the level of compression
    and where the data is cut into chunks. Decoded, the pixels are the same always.
    """
    lines = pixels.reshape(len(pixels), -1)
    up = rng.random((len(pixels), 1)) < rng.random()
    above = np.vstack([np.zeros_like(lines[:1]), lines[:-1]])
    filtered = np.hstack([np.where(up, UP, 0).astype(np.uint8), np.where(up, lines - above, lines)])
    data = zlib.compress(filtered.tobytes(), int(rng.integers(1, 10)))
    cuts = sorted({0, len(data), *rng.integers(0, len(data), rng.integers(_MOST_CUTS)).tolist()})
    path.write_bytes(png_file(pixels.shape, (data[start:end] for start, end in pairwise(cuts))))
