"""Fast PNG files of grayscale images: one filter for all lines and run lengths, which suit noise."""

from __future__ import annotations

import zlib

import numpy as np

from mskscreen.pixels.png import UP, png_file


def png_bytes(image: np.ndarray) -> bytes:
    """`image` (rows, columns) uint8 as a PNG file (ISO/IEC 15948): each line less the one above it.

    Trying all five filters on every line, as libraries do, takes three times as long for 6 % smaller files
    (phantoms at 512 px, 2026-11-27).
    """
    rows, columns = image.shape
    lines = np.empty((rows, columns + 1), np.uint8)
    lines[:, 0] = UP
    lines[0, 1:] = image[0]
    np.subtract(image[1:], image[:-1], out=lines[1:, 1:])
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    return png_file(image.shape, [packer.compress(lines.tobytes()) + packer.flush()])
