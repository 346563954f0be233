"""JPEG lossless and JPEG of 12 bits, decoded by GDCM in a process of its own.

Nothing else in the base install reads them, and GDCM aborts its process on some corrupt codestreams instead of
raising, which would end a whole batch. Starting Python and GDCM costs about 0.12 s an image (November 2026).
"""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mskscreen.pixels.codestream import Codestream

_REQUEST = struct.Struct("<4I")
_SECONDS = 60


def decode_by_gdcm(frame: bytes, stream: Codestream) -> bytes:
    """Samples of a JPEG codestream, colour by pixel, a byte each up to 8 bits and else little-endian words.

    Raises ValueError where GDCM fails, and subprocess.TimeoutExpired where it does not end.
    """
    request = _REQUEST.pack(stream.rows, stream.columns, stream.samples, stream.precision)
    # -P keeps this folder off the child's path.
    child = [sys.executable, "-P", __file__]
    done = subprocess.run(  # noqa: S603  our own interpreter and file
        child,
        input=request + frame,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=_SECONDS,
        check=False,
    )
    size = stream.rows * stream.columns * stream.samples * (1 if stream.precision <= 8 else 2)
    if done.returncode or len(done.stdout) != size:
        raise ValueError("GDCM could not decode the JPEG codestream")
    return done.stdout


def _decode(request: bytes) -> bytes:
    import gdcm

    rows, columns, samples, precision = _REQUEST.unpack_from(request)
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(request[_REQUEST.size :])
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    pixel_data = gdcm.Tag(0x7FE0, 0x0010)
    encoded, decoded = gdcm.DataElement(pixel_data), gdcm.DataElement(pixel_data)
    encoded.SetValue(fragments.__ref__())
    codec = gdcm.JPEGCodec()
    codec.SetNumberOfDimensions(2)
    codec.SetDimensions((columns, rows, 1))
    kind = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2" if samples == 1 else "RGB")
    codec.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    codec.SetPixelFormat(gdcm.PixelFormat(samples, 8 if precision <= 8 else 16, precision, precision - 1, 0))
    codec.SetPlanarConfiguration(0)
    if not codec.Decode(encoded, decoded):
        raise SystemExit(1)
    # GDCM hands out bytes as a str with surrogates.
    return decoded.GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")


if __name__ == "__main__":
    sys.stdout.buffer.write(_decode(sys.stdin.buffer.read()))
