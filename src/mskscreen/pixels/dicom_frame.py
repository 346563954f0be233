"""One frame of stored bits, from any transfer syntax that radiographs come in."""

from __future__ import annotations

import logging
import struct
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import uid
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import convert_color_space

from mskscreen.errors import DecodeError
from mskscreen.pixels.codec_process import decode_apart
from mskscreen.pixels.codestream import JPEG_2000_START, LOSSLESS, Codestream, read_codestream
from mskscreen.pixels.dicom_header import FrameHeader
from mskscreen.pixels.reduction import Enough, halvings

# Decoders report what a DecodeError says anyway, with values of the header in it.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
_JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
# Named, so that which other plug-ins happen to be installed does not matter.
_PLUGINS = dict.fromkeys(_JPEG, "pillow")
SYNTAXES = (*NATIVE, uid.RLELossless, *_JPEG, *_JPEG_LS, *_JPEG_2000)


def decode_frame(
    data: bytes, vr: str, syntax: uid.UID, header: FrameHeader, name: str, enough: Enough = None
) -> tuple[npt.NDArray, int]:
    """Decode pixel data to the stored bits as unsigned integers: codes (rows, columns) or RGB (rows, columns, 3).

    With `enough` a JPEG 2000 image of one unsigned sample may come at a fraction of its resolution: the number
    beside the codes says how often it was halved. Raises DecodeError where the data are short or contradict the
    header; a corrupt codestream may raise what its decoder raises.
    """
    if syntax in NATIVE:
        expected = _native_length(header)
        if len(data) < expected:
            raise DecodeError(
                f"{name}: DICOM field PixelData holds {len(data):,} of {expected:,} bytes; export the image again"
            )
        if len(data) >= 2 * (expected + expected % 2):
            # Frames that the header does not count, or samples of twice the bits.
            raise DecodeError(
                f"{name}: DICOM field PixelData holds {len(data):,} bytes where Rows, Columns and BitsAllocated "
                f"say {expected:,}; export the image again"
            )
        return _codes(_native(data[: expected + expected % 2], vr, syntax, header), header), 0
    frame = get_frame(data, 0, number_of_frames=1)
    if syntax == uid.RLELossless:
        return _codes(_rgb(_decode_rle(frame, header), header), header), 0
    stream = read_codestream(frame, name)
    _check_codestream(stream, header, name)
    # No bit lies above those of the codestream, wherever they were before it was encoded.
    header = replace(header, high_bit=min(header.high_bit, max(stream.precision, header.bits_stored) - 1))
    if syntax in _JPEG_2000:
        frame = frame[frame.find(JPEG_2000_START) :]
        if times := _halvings(stream, header, enough):
            try:
                return _codes(decode_apart("jpeg 2000 reduced", frame, stream, times), header), times
            except ValueError:
                pass  # a tile may have fewer levels than the header says: decoded whole, it is read nonetheless
        array = _rgb(decode_apart("jpeg 2000", frame, stream), header)
    elif syntax in _JPEG_LS:
        array = _rgb(decode_apart("jpeg-ls", frame, stream), header)
    elif stream.precision > 8 or stream.process == LOSSLESS:
        array = _rgb(decode_apart("jpeg", frame, stream), header)
    else:
        array = _decode_by_pydicom(data, vr, syntax, header)
    return _codes(array, header), 0


def _halvings(stream: Codestream, header: FrameHeader, enough: Enough) -> int:
    if stream.samples > 1 or stream.precision > 16 or header.signed:
        return 0
    return halvings(stream.rows, stream.columns, enough, stream.halvings)


def _native(data: bytes, vr: str, syntax: uid.UID, header: FrameHeader) -> npt.NDArray:
    """Uncompressed samples; the common kinds are what the bytes are, without a copy."""
    big = syntax == uid.ExplicitVRBigEndian
    bits = (16,) if big and vr == "OW" else (8, 16)  # bytes in words of big endian are swapped
    if header.samples == 1 and header.bits_allocated in bits:
        order = ">" if big else "<"
        return np.frombuffer(data, f"{order}u{header.bits_allocated // 8}", header.rows * header.columns).reshape(
            header.rows, header.columns
        )
    return _decode_by_pydicom(data, vr, syntax, header)


def _native_length(header: FrameHeader) -> int:
    """Bytes of an uncompressed frame."""
    bits = header.bits_allocated * header.rows * header.columns * header.samples
    # Two pixels of YBR_FULL_422 share their chroma (PS3.3 C.7.6.3.1.2).
    return -(-(bits * 2 // 3 if header.photometric == "YBR_FULL_422" else bits) // 8)


def _decode_by_pydicom(data: bytes, vr: str, syntax: uid.UID, header: FrameHeader) -> npt.NDArray:
    options: dict[str, Any] = {
        "rows": header.rows,
        "columns": header.columns,
        "number_of_frames": 1,
        "samples_per_pixel": header.samples,
        "photometric_interpretation": header.photometric,
        "bits_allocated": header.bits_allocated,
        "bits_stored": header.bits_stored,
        "pixel_representation": int(header.signed),
        "planar_configuration": header.planar,
        "pixel_keyword": "PixelData",
        "pixel_vr": vr,
        # `_codes` clears the unused bits, and takes the high bit into account.
        "correct_unused_bits": False,
    }
    return get_decoder(syntax).as_array(data, index=0, decoding_plugin=_PLUGINS.get(syntax, ""), **options)[0]


def _decode_rle(frame: bytes, header: FrameHeader) -> npt.NDArray:
    """Decode DICOM RLE (PS3.5 Annex G): one PackBits segment a byte of a sample, the highest byte first.

    Pillow's PackBits decoder stops at the size it is given, so that no segment expands beyond its plane.
    """
    count, *offsets = struct.unpack_from("<16I", frame)
    depth = header.bits_allocated // 8
    if count != depth * header.samples or count == 0:
        raise ValueError("the RLE header does not fit the image")
    ends = [*offsets[1:count], len(frame)]
    size = (header.rows * header.columns, 1)
    # Bytes of little-endian samples, each plane of which a segment fills.
    result = np.empty((header.rows * header.columns, header.samples, depth), np.uint8)
    for segment in range(count):
        packed = frame[offsets[segment] : ends[segment]]
        sample, byte = divmod(segment, depth)
        result[:, sample, depth - 1 - byte] = np.asarray(Image.frombytes("L", size, packed, "packbits", "L"))[0]
    return result.view(f"<u{depth}").reshape(_shape(header))


def _shape(header: FrameHeader) -> tuple[int, ...]:
    return (header.rows, header.columns, header.samples)[: 2 if header.samples == 1 else 3]


def _rgb(array: npt.NDArray, header: FrameHeader) -> npt.NDArray:
    return convert_color_space(array, "YBR_FULL", "RGB") if header.photometric.startswith("YBR_FULL") else array


def _codes(array: npt.NDArray, header: FrameHeader) -> npt.NDArray:
    """Clear what lies above and below the stored bits; overlays and garbage live there."""
    width = max(array.dtype.itemsize, -(-header.bits_allocated // 8))
    signed = np.dtype(f"{array.dtype.kind}{width}")
    container = np.dtype(f"u{width}")
    codes = array.astype(signed, copy=False).view(container)
    shift = header.high_bit + 1 - header.bits_stored
    return cast("npt.NDArray", (codes >> shift if shift else codes) & container.type(2**header.bits_stored - 1))


def _check_codestream(stream: Codestream, header: FrameHeader, name: str) -> None:
    pairs = (
        ("Rows", stream.rows, header.rows),
        ("Columns", stream.columns, header.columns),
        ("SamplesPerPixel", stream.samples, header.samples),
    )
    for field, found, said in pairs:
        if found != said:
            raise DecodeError(
                f"{name}: DICOM field {field} is {said} but its compressed image says {found}; export it again"
            )
    if stream.precision > header.bits_allocated:
        raise DecodeError(
            f"{name}: DICOM field BitsAllocated is {header.bits_allocated} but its compressed image has "
            f"{stream.precision} bits; export the image again"
        )
