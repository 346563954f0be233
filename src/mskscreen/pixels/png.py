"""The frame of a PNG file (ISO/IEC 15948): for whoever compresses its lines himself, and its checksums."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

from mskscreen.errors import DecodeError

UP = 2  # the filter of a line that is stored less the one above it
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2
_ANCILLARY = 0x20  # the bit of a chunk's first letter that says that the picture does not depend on it


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


def check_chunks(data: bytes, name: str) -> None:
    """Refuse a file of which a chunk that the picture depends on differs from its checksum.

    Pillow does not look at those of the pixels, and shows what a damaged file decodes to. Where the file ends
    early this is for the decoder to say. Raises DecodeError.
    """
    view = memoryview(data)
    position, kind = len(_SIGNATURE), b""
    while kind != b"IEND" and position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            return
        if not kind[0] & _ANCILLARY and zlib.crc32(view[position + 4 : end]) != int.from_bytes(
            view[end : end + 4]
        ):
            raise DecodeError(f"{name}: the file is damaged (a checksum is wrong); copy or export it again")
        position = end + 4
