"""The frame of a PNG file (ISO/IEC 15948), for whoever filters and compresses the lines in a way of its own."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

UP = 2  # the filter of a line that is stored less the one above it
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2


def png_file(shape: tuple[int, ...], data: Iterable[bytes]) -> bytes:
    """A file of 8 bits of an image of `shape` (rows, columns) or (rows, columns, 3); `data` are its IDAT chunks.

    Together these are the zlib stream of all lines, each behind the number of its filter.
    """
    rows, columns = shape[:2]
    header = struct.pack(">IIBBBBB", columns, rows, 8, _GREY if len(shape) == 2 else _RGB, 0, 0, 0)
    chunks = [(b"IHDR", header), *((b"IDAT", part) for part in data), (b"IEND", b"")]
    return _SIGNATURE + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
