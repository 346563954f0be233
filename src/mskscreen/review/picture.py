"""PNG files of which neither bytes nor size say that two hold the same picture."""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2
_UP = 2
_MOST_CUTS = 64


def write_png(path: Path, pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Write `pixels` (rows, columns) or (rows, columns, 3) as PNG (ISO/IEC 15948), the way of encoding by chance.

    By chance are the share of lines that are less the one above, which lines these are, the level of compression
    and where the data is cut into chunks. Decoded, the pixels are the same always.
    """
    rows, columns = pixels.shape[:2]
    lines = pixels.reshape(rows, -1)
    up = rng.random((rows, 1)) < rng.random()
    above = np.vstack([np.zeros_like(lines[:1]), lines[:-1]])
    filtered = np.hstack([np.where(up, _UP, 0).astype(np.uint8), np.where(up, lines - above, lines)])
    data = zlib.compress(filtered.tobytes(), int(rng.integers(1, 10)))
    cuts = sorted({0, len(data), *rng.integers(0, len(data), rng.integers(_MOST_CUTS)).tolist()})
    header = struct.pack(">IIBBBBB", columns, rows, 8, _GREY if pixels.ndim == 2 else _RGB, 0, 0, 0)
    chunks = [(b"IDAT", data[start:end]) for start, end in pairwise(cuts)]
    with path.open("wb") as stream:
        stream.write(_SIGNATURE)
        for name, content in ((b"IHDR", header), *chunks, (b"IEND", b"")):
            stream.write(struct.pack(">I", len(content)) + name + content)
            stream.write(struct.pack(">I", zlib.crc32(name + content)))
