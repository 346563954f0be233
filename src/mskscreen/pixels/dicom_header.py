"""Header values of a DICOM image, read without trust.

A value that only steers the display falls back to a stated default with a warning; one that says where the pixels
lie is an error when it is missing or out of range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement

from mskscreen.errors import DecodeError
from mskscreen.pixels.grayscale import Lut, Pipeline, Window

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
# Beyond these a rescale is a broken header, and arithmetic on it leaves the range of doubles.
_LARGEST = 1e12


@dataclass(frozen=True)
class FrameHeader:
    """Where the stored bits of one frame lie (DICOM PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    planar: int


class Header:
    """Access to a data set that collects warnings; `name` is what errors call the file."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.dataset = dataset
        self.name = name
        self.warnings: list[str] = []

    def text(self, keyword: str, index: int = 0) -> str:
        """The value at `index` as printable text of at most 64 characters, empty where there is none."""
        value = self._item(keyword, index)
        text = "" if value is None else "".join(c for c in str(value) if c.isprintable())
        return text.strip()[:64]

    def number(self, keyword: str, index: int = 0) -> float | None:
        """First value, or the one at `index`, as a finite number, or None."""
        try:
            value = float(self._item(keyword, index))
        except (TypeError, ValueError, OverflowError):
            return None
        return value if math.isfinite(value) else None

    def numbers(self, keyword: str) -> list[float]:
        """All values as finite numbers; an empty list where one of them is none."""
        first = self._item(keyword)
        count = 0 if first is None or first == "" else self.dataset[keyword].VM
        values = [self.number(keyword, index) for index in range(count)]
        return [] if None in values else [value for value in values if value is not None]

    def frame(self) -> FrameHeader:
        """The frame's layout.

        Raises DecodeError where it is missing, contradictory or of a kind that is not read.
        """
        photometric = self.text("PhotometricInterpretation").upper()
        if photometric not in (*MONOCHROME, PALETTE, *COLOUR):
            raise self._error("PhotometricInterpretation", f"'{photometric}' is not read")
        colour = photometric in COLOUR
        samples = self._integer("SamplesPerPixel", 1, 4, 3 if colour else 1)
        if samples != (3 if colour else 1):
            raise self._error("SamplesPerPixel", f"{samples} does not fit {photometric}")
        allocated = self._integer("BitsAllocated", 1, 32)
        if allocated not in (1, 8, 16, 32):
            raise self._error("BitsAllocated", f"{allocated} is not read")
        stored = self._integer("BitsStored", 1, allocated, allocated)
        return FrameHeader(
            rows=self._integer("Rows", 1, 65535),
            columns=self._integer("Columns", 1, 65535),
            samples=samples,
            frames=self._frames(),
            bits_allocated=allocated,
            bits_stored=stored,
            high_bit=self._integer("HighBit", stored - 1, allocated - 1, stored - 1),
            signed=bool(self._integer("PixelRepresentation", 0, 1, 0)),
            photometric=photometric,
            planar=self._integer("PlanarConfiguration", 0, 1, 0) if colour else 0,
        )

    def pipeline(self, frame: FrameHeader) -> Pipeline:
        """The grayscale pipeline that the header asks for."""
        modality_lut = self._lut("ModalityLUTSequence", frame.signed)
        slope, intercept = (1.0, 0.0) if modality_lut else self._rescale()
        lowest = -(2.0 ** (frame.bits_stored - 1)) if frame.signed else 0.0
        highest = lowest + 2.0**frame.bits_stored - 1
        negative = modality_lut is None and min(slope * lowest, slope * highest) + intercept < 0
        shape = self.text("PresentationLUTShape").upper()
        return Pipeline(
            bits=frame.bits_stored,
            signed=frame.signed,
            slope=slope,
            intercept=intercept,
            modality_lut=modality_lut,
            voi=self._lut("VOILUTSequence", negative) or self._window(),
            # PS3.3 C.8.11.3.1.2 demands INVERSE of MONOCHROME1, so the two together are one inversion.
            inverted=frame.photometric == "MONOCHROME1" or shape == "INVERSE",
            padding=self._padding(frame),
        )

    def palette(self, frame: FrameHeader) -> list[Lut]:
        """The red, green and blue tables of a palette image.

        Raises DecodeError where one is missing.
        """
        luts = []
        for colour in ("Red", "Green", "Blue"):
            keyword = f"{colour}PaletteColorLookupTable"
            lut = _read_lut(self.dataset, f"{keyword}Descriptor", f"{keyword}Data", frame.signed)
            if lut is None:
                raise self._error(f"{keyword}Data", "is missing or too short")
            luts.append(lut)
        return luts

    def _item(self, keyword: str, index: int = 0) -> Any:
        try:
            value = self.dataset.get(keyword)
        except Exception:  # pydicom's converters fail in many ways on a broken value
            self.warnings.append(f"{keyword} is not readable")
            return None
        if isinstance(value, str | bytes) or not hasattr(value, "__len__"):
            value = [value]
        return value[index] if index < len(value) else None

    def _integer(self, keyword: str, low: int, high: int, default: int | None = None) -> int:
        value = self._item(keyword)
        if value is None or value == "":
            if default is None:
                raise self._error(keyword, "is missing")
            if keyword != "HighBit":
                self.warnings.append(f"{keyword} is missing; {default} was assumed")
            return default
        if not isinstance(value, int) or not low <= value <= high:
            raise self._error(keyword, f"is not an integer between {low} and {high}")
        return int(value)

    def _frames(self) -> int:
        if self.text("NumberOfFrames") in ("", "0"):
            return 1
        return self._integer("NumberOfFrames", 1, 2**31 - 1)

    def _rescale(self) -> tuple[float, float]:
        if not self.text("RescaleSlope") and not self.text("RescaleIntercept"):
            return 1.0, 0.0
        slope = self.number("RescaleSlope") if self.text("RescaleSlope") else 1.0
        intercept = self.number("RescaleIntercept") if self.text("RescaleIntercept") else 0.0
        usable = slope is not None and 1 / _LARGEST < abs(slope) < _LARGEST
        if not usable or intercept is None or abs(intercept) > _LARGEST:
            self.warnings.append("RescaleSlope or RescaleIntercept is not usable; the rescale was not applied")
            return 1.0, 0.0
        return float(slope or 1.0), intercept

    def _window(self) -> Window | None:
        given = self.text("WindowCenter") or self.text("WindowWidth")
        center, width = self.number("WindowCenter"), self.number("WindowWidth")
        function = self.text("VOILUTFunction").upper() or "LINEAR"
        if function not in _FUNCTIONS:
            self.warnings.append("VOILUTFunction is unknown; LINEAR was applied")
            function = "LINEAR"
        if center is not None and width is not None and width >= (1 if function == "LINEAR" else 1 / _LARGEST):
            if (count := self.dataset["WindowCenter"].VM) > 1:
                self.warnings.append(f"the first of {count} windows was applied")
            return Window(center, width, function)
        if given or "WindowWidth" in self.dataset:
            self.warnings.append(
                "WindowCenter or WindowWidth is empty or out of range; the window was not applied"
            )
        return None

    def _padding(self, frame: FrameHeader) -> tuple[int, int] | None:
        values = []
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
            value = self._item(keyword)
            if isinstance(value, bytes) and len(value) == 2:
                value = int.from_bytes(value, "little")
            if isinstance(value, int):
                # Written as US for signed pixels and the other way round; the stored bits are what counts, and
                # those above them can only repeat the sign.
                code = value & (2**frame.bits_stored - 1)
                wrapped = frame.signed and code >= 2 ** (frame.bits_stored - 1)
                stored = code - 2**frame.bits_stored * wrapped
                if (value - code) % 2**frame.bits_allocated in (0, (stored - code) % 2**frame.bits_allocated):
                    values.append(stored)
                    continue
                self.warnings.append(f"{keyword} is none of the values that pixels can have; it was not applied")
            if keyword == "PixelPaddingValue":
                return None
        return min(values), max(values)

    def _lut(self, sequence: str, signed_input: bool) -> Lut | None:
        try:
            items = self.dataset.get(sequence)
        except Exception:  # as in _item
            items = None
            self.warnings.append(f"{sequence} is not readable")
        if not items:
            return None
        lut = _read_lut(items[0], "LUTDescriptor", "LUTData", signed_input)
        if lut is None:
            self.warnings.append(f"{sequence} is malformed; it was not applied")
        elif len(items) > 1:
            self.warnings.append(f"the first of {len(items)} tables of {sequence} was applied")
        return lut

    def _error(self, keyword: str, reason: str) -> DecodeError:
        return DecodeError(f"{self.name}: DICOM field {keyword} {reason}; export the image again")


def _read_lut(item: Dataset, descriptor: str, data: str, signed_input: bool) -> Lut | None:
    """A LUT (DICOM PS3.3 C.11.1.1), or None where it is malformed; LUT data may be US, SS or OW."""
    head, words = _words(item, descriptor), _words(item, data)
    if head is None or words is None or head.size != 3:
        return None
    count, first, bits = int(head[0]) or 65536, int(head[1]), int(head[2])
    if signed_input and first >= 32768:
        first -= 65536
    if words.size < count and bits <= 8:
        words = words.astype("<u2").view(np.uint8).astype(np.uint16)  # two entries a word
    if words.size < count:
        return None
    entries = words[:count]
    if not 1 <= bits <= 16:
        bits = max(8, int(entries.max()).bit_length())
    return Lut(first, bits, entries)


def _words(item: Dataset, keyword: str) -> npt.NDArray[np.uint16] | None:
    """The 16-bit words of an element, whatever its VR and byte order."""
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in item:
        return None
    element = item.get_item(tag)
    value = element.value
    if isinstance(value, bytes):
        little = element.is_little_endian if isinstance(element, RawDataElement) else item.original_encoding[1]
        order = ">u2" if little is False else "<u2"
        return np.frombuffer(value[: len(value) // 2 * 2], order).astype(np.uint16)
    try:
        return (np.atleast_1d(np.asarray(value, np.int64)) & 0xFFFF).astype(np.uint16)
    except (TypeError, ValueError, OverflowError):
        return None
