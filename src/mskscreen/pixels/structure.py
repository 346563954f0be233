"""A walk over the elements of a DICOM file that bounds nesting and number before a parser recurses into them.

Encoding: DICOM PS3.5 sections 7.1 (elements), 7.5 (sequences), A.4 (encapsulated pixel data).
"""

from __future__ import annotations

import math
import struct
from io import BytesIO
from typing import NamedTuple

from mskscreen.errors import DecodeError, LimitError
from mskscreen.pixels.limits import Limits

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA = 0x7FE00010
_TRANSFER_SYNTAX = 0x00020010
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_UNDEFINED = 0xFFFFFFFF
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})


class Encoding(NamedTuple):
    """How elements are encoded."""

    implicit: bool
    little: bool


class _Level(NamedTuple):
    """An open sequence or item: where it ends, its encoding, and whether its items are opaque fragments."""

    end: float
    encoding: Encoding
    fragments: bool = False


class _Element(NamedTuple):
    tag: int
    vr: bytes
    length: int
    start: int


class CountingReader(BytesIO):
    """A DICOM file for pydicom, which reads the header of every element as 8 bytes, and few other things so.

    What pydicom sees where `check_structure` saw something else is bounded too: LimitError is raised where it
    reads twice as many headers as `limits` allow.
    """

    def __init__(self, data: bytes, name: str, limits: Limits) -> None:
        super().__init__(data)
        self._name, self._limits, self._left = name, limits, 2 * limits.elements

    def read(self, size: int | None = -1, /) -> bytes:
        """As any stream."""
        self._left -= size == 8
        if self._left < 0:
            raise _too_many(self._name, self._limits)
        return super().read(size)


def read_meta(data: bytes, name: str) -> tuple[int, str | None, Encoding]:
    """Where the data set of a DICOM file begins, its transfer syntax where one is named, and its encoding.

    A file without a syntax is taken by the look of its first element, as old archives demand and as pydicom does.
    Raises DecodeError where an element of the meta group, or a command (PS3.7), is a sequence or has no end.
    """
    position = 132 if data[128:132] == b"DICM" else 0
    syntax = None
    while (element := _read(data, position, Encoding(False, True))) and element.tag >> 16 in (0, 2):
        end = element.start + element.length
        if element.vr == b"SQ" or end > len(data):
            raise DecodeError(f"{name}: the DICOM meta information is truncated or corrupt; export it again")
        if element.tag == _TRANSFER_SYNTAX:
            syntax = data[element.start : end].rstrip(b"\0 ").decode("ascii", "replace")
        position = end
    vr = data[position + 4 : position + 6]
    implicit = not (vr.isalpha() and vr.isupper())
    if syntax is None:
        little = implicit or int.from_bytes(data[position : position + 2], "little") < 0x400
    else:
        little = syntax != _BIG_ENDIAN
    return position, syntax, Encoding(implicit, little)


def check_structure(data: bytes, start: int, encoding: Encoding, name: str, limits: Limits) -> None:
    """Walk the data set that begins at `start`, up to its pixel data.

    Where the bytes stop making sense the walk stops too: what is wrong there is for the parser to say. Raises
    LimitError where there are more elements, or sequences inside each other, than the limits allow.
    """
    levels = [_Level(len(data), encoding)]
    position = start
    for _ in range(limits.elements):
        while len(levels) > 1 and position >= levels[-1].end:
            levels.pop()
        element = _read(data, position, levels[-1].encoding)
        if element is None or (element.tag == _PIXEL_DATA and len(levels) == 1):
            return
        position = element.start
        if element.tag in (_ITEM_END, _SEQUENCE_END):
            if len(levels) > 1:
                levels.pop()
            continue
        inside = _inside(data, element, levels[-1])
        if inside is None:
            position += element.length
            continue
        levels.append(inside)
        if len(levels) > 2 * limits.nesting + 1:  # a sequence and its item are a level each
            raise LimitError(
                f"{name}: DICOM sequences are nested more than {limits.nesting} deep; raise Limits.nesting"
            )
    raise _too_many(name, limits)


def _too_many(name: str, limits: Limits) -> LimitError:
    return LimitError(f"{name}: holds more than {limits.elements:,} DICOM elements; raise Limits.elements")


def _read(data: bytes, position: int, encoding: Encoding) -> _Element | None:
    """The header of the element at `position`, or None at the end."""
    order = "<" if encoding.little else ">"
    if position + 8 > len(data):
        return None
    group, number = struct.unpack_from(order + "HH", data, position)
    tag = group << 16 | number
    vr = data[position + 4 : position + 6]
    # Some writers change to implicit VR within a file.
    if encoding.implicit or group == 0xFFFE or not b"AA" <= vr <= b"ZZ":
        (length,) = struct.unpack_from(order + "I", data, position + 4)
        return _Element(tag, b"", length, position + 8)
    if vr not in _LONG:
        (length,) = struct.unpack_from(order + "H", data, position + 6)
        return _Element(tag, vr, length, position + 8)
    if position + 12 > len(data):
        return None
    (length,) = struct.unpack_from(order + "I", data, position + 8)
    return _Element(tag, vr, length, position + 12)


def _inside(data: bytes, element: _Element, level: _Level) -> _Level | None:
    """The level that an element opens, or None where its value is to be skipped."""
    end = math.inf if element.length == _UNDEFINED else element.start + element.length
    if element.tag == _ITEM:
        return None if level.fragments else _Level(end, level.encoding)
    if element.vr == b"SQ":
        return _Level(end, level.encoding)
    if element.length == _UNDEFINED:
        # PS3.5 section 6.2.2: an unknown value of undefined length is a sequence in implicit little endian.
        encoding = Encoding(True, True) if element.vr == b"UN" else level.encoding
        return _Level(end, encoding, fragments=element.vr in (b"OB", b"OW"))
    item = struct.pack("<HH" if level.encoding.little else ">HH", 0xFFFE, 0xE000)
    if not element.vr and element.length >= 8 and data[element.start : element.start + 4] == item:
        return _Level(end, level.encoding)
    return None
