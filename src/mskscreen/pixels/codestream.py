"""What compressed images say of themselves, read from their headers alone.

Markers: ITU-T T.81 Annex B (JPEG), T.87 Annex C (JPEG-LS), T.800 Annex A (JPEG 2000).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from mskscreen.errors import DecodeError, LimitError

JPEG_2000_START = b"\xff\x4f\xff\x51"
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_JP2 = b"\0\0\0\x0cjP  "
# Bytes from the start of the codestream to the precision of its first component.
_JPEG2000_HEADER = 43
LOSSLESS = 0xC3
# Start of frame of the processes in use: baseline, extended, progressive, lossless, JPEG-LS.
_START_OF_FRAME = {0xC0, 0xC1, 0xC2, LOSSLESS, 0xF7}
_START_OF_SCAN = b"\xff\xda"
# Markers of a JPEG 2000 header, and the most levels that its standard allows.
_CODING_STYLE, _START_OF_TILE, _HALVINGS = 0x52, 0x90, 32
# A progressive JPEG may repeat scans without end, each a pass over the whole image.
_SCANS = 64
# OpenJPEG keeps kilobytes for each tile before it decodes one.
_TILES = 16_384


class Codestream(NamedTuple):
    """Size, samples and precision (bits) that a codestream announces; `process` is its start-of-frame marker.

    `halvings` is how often the resolution of a JPEG 2000 image can be halved without decoding all of it, where its
    samples are unsigned and begin at the origin of its grid; 0 of any other.
    """

    rows: int
    columns: int
    samples: int
    precision: int
    process: int
    halvings: int = 0


def jpeg_scans(data: bytes, name: str) -> None:
    """Refuse a JPEG of more scans than any encoder writes.

    Raises LimitError.
    """
    # Entropy-coded data cannot hold a marker, so counting needs no parser.
    scans = data.count(_START_OF_SCAN)
    if scans > _SCANS:
        raise LimitError(f"{name}: a JPEG of {scans} scans is hostile; at most {_SCANS} are read")


def read_codestream(frame: bytes, name: str) -> Codestream:
    """Header of a JPEG, JPEG-LS or JPEG 2000 codestream.

    A JP2 file around the codestream, which DICOM does not allow and some writers leave, is looked through.
    Raises DecodeError where there is no codestream or its end is missing, LimitError where it has too many tiles
    or scans.
    """
    if _EOI not in frame[-64:]:
        raise DecodeError(f"{name}: its compressed image is truncated (no end marker); export it again")
    if frame.startswith((JPEG_2000_START, _JP2)) and (start := frame.find(JPEG_2000_START)) >= 0:
        return _jpeg2000(frame[start:], name)
    if frame.startswith(_SOI):
        jpeg_scans(frame, name)
        return _jpeg(frame, name)
    raise DecodeError(f"{name}: its compressed image does not begin with a JPEG codestream; export it again")


def _jpeg(frame: bytes, name: str) -> Codestream:
    position = 2
    while position + 4 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        (length,) = struct.unpack_from(">H", frame, position + 2)
        if marker in _START_OF_FRAME and position + 10 <= len(frame):
            precision, rows, columns, samples = struct.unpack_from(">BHHB", frame, position + 4)
            return Codestream(rows, columns, samples, precision, marker)
        position += 2 + length
    raise DecodeError(f"{name}: its JPEG codestream has no supported start of frame; export it again")


def _jpeg2000(frame: bytes, name: str) -> Codestream:
    if len(frame) < _JPEG2000_HEADER:
        raise DecodeError(f"{name}: its JPEG 2000 header is truncated; export it again")
    right, bottom, left, top, width, height, tile_left, tile_top = struct.unpack_from(">8I", frame, 8)
    samples, precision = struct.unpack_from(">HB", frame, 40)
    if not width or not height or min(right - left, bottom - top) < 1:
        raise DecodeError(f"{name}: its JPEG 2000 header announces an empty image; export it again")
    if -(-(right - tile_left) // width) * -(-(bottom - tile_top) // height) > _TILES:
        raise LimitError(f"{name}: a JPEG 2000 image of more than {_TILES:,} tiles is hostile; encode it in fewer")
    plain = not (left or top or precision & 0x80)
    halvings = _decompositions(frame) if plain else 0
    return Codestream(bottom - top, right - left, samples, (precision & 0x7F) + 1, 0x51, halvings)


def _decompositions(frame: bytes) -> int:
    """Levels of wavelet decomposition in the default coding style (T.800 A.6.1), 0 where it is not found."""
    position = 4 + int.from_bytes(frame[4:6], "big")
    while position + 10 <= len(frame) and frame[position] == 0xFF and frame[position + 1] != _START_OF_TILE:
        if frame[position + 1] == _CODING_STYLE:
            return min(frame[position + 9], _HALVINGS)
        position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return 0
