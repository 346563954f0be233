"""One frame of stored bits, from any transfer syntax that radiographs come in."""

from __future__ import annotations

import logging
from typing import Any, cast

import gdcm
import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder

from mskscreen.errors import DecodeError
from mskscreen.pixels.codestream import Codestream, read_codestream
from mskscreen.pixels.dicom_header import FrameHeader

# Decoders report what a DecodeError says anyway, with values of the header in it.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
gdcm.Trace.WarningOff()
gdcm.Trace.ErrorOff()

NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
_CODESTREAMS = (
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
)
SYNTAXES = (*NATIVE, uid.RLELossless, *_CODESTREAMS)


def decode_frame(data: bytes, vr: str, syntax: uid.UID, header: FrameHeader, name: str) -> npt.NDArray:
    """Decode pixel data to the stored bits as unsigned integers: codes (rows, columns) or RGB (rows, columns, 3).

    Raises DecodeError where the data are short or contradict the header; a corrupt codestream may raise what its
    decoder raises.
    """
    if syntax in NATIVE:
        bits = header.bits_allocated * header.rows * header.columns * header.samples
        subsampled = header.photometric == "YBR_FULL_422"
        expected = -(-(bits * 2 // 3 if subsampled else bits) // 8)
        if len(data) < expected:
            raise DecodeError(
                f"{name}: DICOM field PixelData holds {len(data):,} of {expected:,} bytes; export the image again"
            )
    elif syntax in _CODESTREAMS:
        frame = get_frame(data, 0, number_of_frames=1)
        stream = read_codestream(frame, name)
        _check_codestream(stream, header, name)
        if syntax == uid.JPEGExtended12Bit and stream.precision > 8 and header.samples == 1:
            return _codes(_decode_extended(frame, stream), header)
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
        # The unused bits are cleared below, where the high bit is taken into account.
        "correct_unused_bits": False,
    }
    array, _ = get_decoder(syntax).as_array(data, index=0, **options)
    return _codes(array, header)


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


def _decode_extended(frame: bytes, stream: Codestream) -> npt.NDArray[np.uint16]:
    """Decode gray JPEG extended of 12 bits, which pydicom leaves out although GDCM reads it."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    pixel_data = gdcm.Tag(0x7FE0, 0x0010)
    encoded, decoded = gdcm.DataElement(pixel_data), gdcm.DataElement(pixel_data)
    encoded.SetValue(fragments.__ref__())
    codec = gdcm.JPEGCodec()
    codec.SetNumberOfDimensions(2)
    codec.SetDimensions((stream.columns, stream.rows, 1))
    # With 16 bits allocated GDCM would try its 16-bit decoder first, and complain on stderr.
    codec.SetPixelFormat(gdcm.PixelFormat(1, stream.precision, stream.precision, stream.precision - 1, 0))
    kind = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    codec.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    if not codec.Decode(encoded, decoded):
        raise ValueError("GDCM could not decode JPEG extended")
    # GDCM hands out bytes as a str with surrogates.
    buffer = decoded.GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(buffer, np.uint16).reshape(stream.rows, stream.columns)
