"""Raster files and arrays: PNG, JPEG, TIFF, BMP, WebP through Pillow, NumPy arrays as they are.

Values are divided by the largest that the source's type can hold, so a file of 16 bits keeps its range, and
stretching its contrast is the business of preprocessing. A source of 32-bit integers has no such range in
practice: it is divided by the largest value of the narrowest of 8, 16 and 32 bits that holds it.
"""

from __future__ import annotations

import hashlib
import struct
from functools import cache
from io import BytesIO
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, UnidentifiedImageError

from mskscreen.errors import DecodeError, LimitError
from mskscreen.pixels.codestream import jpeg_scans
from mskscreen.pixels.digest import sha256_beside
from mskscreen.pixels.limits import Limits
from mskscreen.pixels.png import check_chunks
from mskscreen.pixels.radiograph import AS_GIVEN, FULL_RANGE, DecodeRecord, Radiograph, constant_flag
from mskscreen.pixels.reduction import Enough, halvings

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
)
# Bits of a pixel in Pillow's memory; every other mode takes 32.
_PIXEL_BITS = {"1": 8, "L": 8, "P": 8, "I;16": 16, "I;16B": 16, "I;16L": 16}
# What undoes an EXIF orientation (CIPA DC-008, tag 274): quarter turns to the left, then a mirror left to right.
_ORIENTATIONS = {
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (3, True),
    6: (3, False),
    7: (1, True),
    8: (1, False),
}
_ORIENTATION_TAG, _TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_PLANES, _TIFF_SAMPLE_FORMAT = 274, 258, 262, 284, 339
_TIFF_TILE = (322, 323)
_WHITE_IS_ZERO = 0
# Channels that differ by more than this many of 255 levels in more than a thousandth of the pixels are colour;
# less is what JPEG's chroma rounding leaves in a gray image.
_GRAY_LEVELS = 4
_FRAMES_COUNTED = 100
# libjpeg reads blocks of 8 x 8 pixels as 4 x 4, 2 x 2 or 1.
_JPEG_HALVINGS = 3


def raster_format(data: bytes) -> str | None:
    """Name of the raster format that the first bytes announce, or None."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for signature, name in _SIGNATURES if data.startswith(signature)), None)


def decode_raster(data: bytes, kind: str, name: str, limits: Limits, enough: Enough = None) -> Radiograph:
    """Decode a raster file of the format that `raster_format` named; errors call it `name`.

    `enough` is that of `read_radiograph`: a JPEG may be read at a fraction of its resolution. Transparent parts
    are composited on black. Raises DecodeError and LimitError; a corrupt file may raise what Pillow raises.
    """
    _check_before_open(data, kind, name, limits)
    try:
        image = Image.open(BytesIO(data), formats=[kind])
    except Image.DecompressionBombError as error:
        raise LimitError(
            f"{name}: its header asks for more pixels than Pillow ever opens; check the file"
        ) from error
    except UnidentifiedImageError as error:
        if kind != "TIFF":
            raise
        raise _unread_tiff(name) from error
    warnings = _check_opened(image, data, name, limits)
    digest = sha256_beside(data)
    orientation = _orientation(image, warnings)
    tags: Any = getattr(image, "tag_v2", {})
    rows, columns = image.height, image.width
    upright = image.format == "JPEG" and orientation == 1
    times = halvings(rows, columns, enough, _JPEG_HALVINGS) if upright else 0
    # Each block of the cosine transform becomes one pixel; what is left of a block at the edge, too.
    drafted = image.draft(image.mode, (columns >> times, rows >> times)) if times else None
    image.load()
    photometric = image.mode
    values, top, bits, inverted = _gray(image, tags, warnings)
    values, table = _coded(values, top, inverted=inverted)
    if orientation != 1 and kind != "TIFF":  # Pillow turns a TIFF itself
        turns, mirror = _ORIENTATIONS[orientation]
        values = np.rot90(values, turns)
        values = np.ascontiguousarray(np.fliplr(values) if mirror else values)
    record = DecodeRecord(
        format=kind,
        sha256=digest(),
        bits=bits,
        rows=rows if times else values.shape[0],
        columns=columns if times else values.shape[1],
        photometric=photometric,
        inverted=tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO,
        orientation=orientation,
        halvings=times,
        icc_ignored="icc_profile" in image.info,
        warnings=tuple(warnings),
        flags=constant_flag(values, table),
    )
    return Radiograph(values, record, drafted[1] if drafted else None, table)


def decode_array(array: npt.NDArray, name: str, limits: Limits) -> Radiograph:
    """Take an array (rows, columns) of bool, integers or floats in [0, 1], or (rows, columns, 3 or 4) of bytes.

    Floats are taken as canonical: bone bright and ready for display. Raises DecodeError and LimitError.
    """
    colour = array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8
    if not (array.ndim == 2 or colour) or array.dtype.kind not in "biuf":
        raise DecodeError(
            f"{name}: an array of shape {array.shape} and type {array.dtype} is not one gray image; "
            "pass (rows, columns) integers or floats in [0, 1]"
        )
    limits.check_image(name, *array.shape[:2], samples=4 if colour else 1, bits=8 * array.dtype.itemsize)
    warnings: list[str] = []
    window, bits = FULL_RANGE, 8 * array.dtype.itemsize
    if colour:
        values, top, bits, _ = _gray(Image.fromarray(array), {}, warnings)
    elif array.dtype.kind == "f":
        # NaN fails this comparison too.
        if not (array.min() >= 0 and array.max() <= 1):
            raise DecodeError(
                f"{name}: floats must lie in [0, 1]; scale them, or pass the integers of the detector"
            )
        values, top, window = array, 1.0, AS_GIVEN
    else:
        values, top, bits = _integers(array, warnings)
    pixels = np.ascontiguousarray(_unit(values, top))
    record = DecodeRecord(
        format="array",
        sha256=hashlib.sha256(array.tobytes()).hexdigest(),
        bits=bits,
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        photometric="RGB" if colour else "MONOCHROME2",
        window=window,
        warnings=tuple(warnings),
        flags=constant_flag(pixels, None),
    )
    return Radiograph(pixels, record)


def _check_before_open(data: bytes, kind: str, name: str, limits: Limits) -> None:
    """Check what Pillow acts on while it opens the file (canvas of WebP, scans of JPEG) or never (sums of PNG)."""
    if kind == "WEBP":
        columns, rows = _webp_size(data)
        limits.check_image(name, rows, columns, samples=4)
    elif kind == "JPEG":
        jpeg_scans(data, name)
    elif kind == "PNG":
        check_chunks(data, name)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height in the first chunk of a WebP file (RFC 9649); (1, 1) where Pillow will refuse it anyway."""
    chunk, head = data[12:16], data[20:30]
    if len(head) < 10:
        return 1, 1
    if chunk == b"VP8X":
        return 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
    if chunk == b"VP8L":
        packed = int.from_bytes(head[1:5], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", head[6:10])
    return width & 0x3FFF, height & 0x3FFF


def _check_opened(image: Image.Image, data: bytes, name: str, limits: Limits) -> list[str]:
    """Check what the header says before anything is decoded, and return the warnings it gives rise to."""
    warnings = []
    if image.mode == "F":
        raise DecodeError(
            f"{name}: a floating-point raster has no range; save integers, or pass an array in [0, 1]"
        )
    bits = _PIXEL_BITS.get(image.mode, 32)
    limits.check_image(name, image.height, image.width, bits=bits)
    tags: Any = getattr(image, "tag_v2", {})
    signed_bytes = image.mode == "L" and tags.get(_TIFF_SAMPLE_FORMAT) == (2,)
    if signed_bytes or (tags.get(_TIFF_PLANES) == 2 and tags.get(_TIFF_BITS, (8,))[0] == 16):
        # Pillow takes the former for unsigned and the latter for planes of bytes, and shows another picture.
        raise _unread_tiff(name)
    if all(tag in tags for tag in _TIFF_TILE):
        # A tile is decoded whole, and may be larger than the image.
        limits.check_image(name, tags[_TIFF_TILE[1]], tags[_TIFF_TILE[0]], bits=bits)
    if image.format == "MPO":
        warnings.append("further pictures of the MPO file (previews, gain maps) were left out")
    elif frames := _further_frames(image):
        raise DecodeError(f"{name}: holds {frames} frames; split it into files of one frame")
    if image.format == "PNG" and data[24] == 16 and not image.mode.startswith("I"):
        warnings.append("16-bit colour or alpha was read at 8 bits")
    return warnings


def _unread_tiff(name: str) -> DecodeError:
    return DecodeError(
        f"{name}: is damaged, or a TIFF of a kind that is not read; save it as gray of 8 or 16 bits, unsigned"
    )


def _further_frames(image: Image.Image) -> str | None:
    """The number of frames in words where it is more than one, counted no further than is useful."""
    if image.format != "TIFF":
        count = getattr(image, "n_frames", 1)
        return str(count) if count > 1 else None
    count = 1
    try:
        while count < _FRAMES_COUNTED:
            image.seek(count)
            count += 1
    except EOFError:
        pass
    image.seek(0)
    if count == 1:
        return None
    return f"at least {count}" if count == _FRAMES_COUNTED else str(count)


def _orientation(image: Image.Image, warnings: list[str]) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # EXIF is a little TIFF file and fails in as many ways; none is worth the radiograph
        warnings.append("EXIF is not readable; the orientation was taken as upright")
        return 1
    return value if value in _ORIENTATIONS else 1


def _gray(image: Image.Image, tags: Any, warnings: list[str]) -> tuple[npt.NDArray, float, int, bool]:
    """Gray values, the value of white, significant bits, and whether the values are still to be inverted."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        # Pillow hands out unsigned 32-bit samples as signed ones; unsigned is what TIFF means by default.
        if tags.get(_TIFF_SAMPLE_FORMAT, (1,)) == (1,) and image.mode == "I":
            values = values.view(np.uint32)
        white_is_zero = tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO
        if image.mode != "I":
            bits = int(tags.get(_TIFF_BITS, (16,))[0])
            return values, float(2**bits - 1), bits, white_is_zero
        return *_integers(values, warnings), white_is_zero
    if image.mode == "1":
        return np.asarray(image), 1.0, 1, False
    if image.mode == "L" and "transparency" not in image.info:
        return np.asarray(image), 255.0, 8, False
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        alpha = np.asarray(rgba.getchannel("A"), np.float32) / 255
        return np.asarray(luminance(rgba.convert("RGB"), warnings)) * alpha, 255.0, 8, False
    return np.asarray(luminance(image.convert("RGB"), warnings)), 255.0, 8, False


def luminance(image: Image.Image, warnings: list[str]) -> Image.Image:
    """ITU-R BT.601 luminance, which is the gray value itself where the channels agree."""
    red, green, blue = image.split()
    for other in (green, blue):
        histogram = ImageChops.difference(red, other).histogram()
        if sum(histogram[_GRAY_LEVELS + 1 :]) * 1000 > image.width * image.height:
            warnings.append("the image is in colour; its luminance was taken")
            break
    return image.convert("L")


def _integers(values: npt.NDArray, warnings: list[str]) -> tuple[npt.NDArray, float, int]:
    """Values, value of white and bits of an array of bool or integers."""
    if values.dtype.kind == "b":
        return values, 1.0, 1
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        bits = 8 * values.dtype.itemsize
        return values, float(2**bits - 1), bits
    low, high = int(values.min()), int(values.max())
    if low < 0:
        warnings.append(f"signed integers were shifted by {-low} to begin at 0")
        values, high = values.astype(np.float64) - low, high - low
    bits = next((bits for bits in (8, 16, 32) if high < 2**bits), 64)
    return values, float(2**bits - 1), bits


def _coded(
    values: npt.NDArray, top: float, *, inverted: bool
) -> tuple[npt.NDArray, npt.NDArray[np.float32] | None]:
    """Values with the table that makes pixels of them, or the pixels themselves and None."""
    if values.dtype.kind in "bu" and values.dtype.itemsize <= 2 and values.dtype.isnative:
        codes = values.astype(np.uint8) if values.dtype.kind == "b" else values
        table = unit_table(8 * codes.itemsize, top)
        return codes, 1 - table if inverted else table
    pixels = _unit(values, top)
    return np.subtract(1, pixels, out=pixels) if inverted else pixels, None


@cache
def unit_table(bits: int, top: float) -> npt.NDArray[np.float32]:
    """What codes of so many bits stand for where `top` is white."""
    table = _unit(np.arange(2**bits, dtype=f"u{bits // 8}"), top)
    table.flags.writeable = False
    return table


def _unit(values: npt.NDArray, top: float) -> npt.NDArray[np.float32]:
    if values.dtype.itemsize > 4 or (values.dtype.kind in "iu" and values.dtype.itemsize == 4):
        # Wide integers and doubles keep their precision until the division is done.
        return cast("npt.NDArray[np.float32]", np.divide(values, top, dtype=np.float64).astype(np.float32))
    return cast("npt.NDArray[np.float32]", np.divide(values, np.float32(top), dtype=np.float32))
