"""Decoders that hold Python's lock, or can end a process, run in processes of their own.

OpenJPEG, CharLS and GDCM decode with the lock held, so threads could not share the work and inference would wait
for them; on some corrupt codestreams GDCM aborts its process, which would end a whole batch. A process serves one
caller at a time and is kept for the next: starting Python and a decoder costs about 0.15 s (November 2026).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy.typing as npt

    from mskscreen.pixels.codestream import Codestream

Codec = Literal["jpeg 2000", "jpeg 2000 reduced", "jpeg-ls", "jpeg"]
# Codec, rows, columns, samples, precision, halvings, length of the frame that follows.
_REQUEST = struct.Struct("<20s5IQ")
# Whether it went well, whether samples are signed, bytes of a sample, length of the samples that follow.
_REPLY = struct.Struct("<??BQ")
_SECONDS = 60
_PIPE = 1 << 20


def decode_apart(codec: Codec, frame: bytes, stream: Codestream, halvings: int = 0) -> npt.NDArray:
    """Samples of a codestream as (rows, columns) or, where there are several a pixel, (rows, columns, samples).

    `halvings` is how often the resolution of JPEG 2000 is halved: 2**n pixels become one, and a remainder one
    more. Raises ValueError where the decoder fails or takes longer than a minute.
    """
    import numpy as np

    shape = tuple(-(-size // 2**halvings) for size in (stream.rows, stream.columns))
    pixels = shape[0] * shape[1] * stream.samples
    head = _REQUEST.pack(codec.encode(), *shape, stream.samples, stream.precision, halvings, len(frame))
    child = _waiting() or _start()
    timer = threading.Timer(_SECONDS, child.kill)
    timer.start()
    whole = False
    try:
        assert child.stdin is not None and child.stdout is not None  # noqa: S101, PT018 - both are pipes
        child.stdin.write(head + frame)
        child.stdin.flush()
        good, signed, width, size = _REPLY.unpack(child.stdout.read(_REPLY.size))
        if good and (width not in (1, 2, 4) or size != pixels * width):
            raise ValueError(f"the {codec} decoder gave {size:,} bytes")
        samples = child.stdout.read(size)
        whole = len(samples) == size
    except (OSError, struct.error) as error:
        raise ValueError(f"the {codec} decoder ended") from error
    finally:
        timer.cancel()
        if whole:
            _idle.append(child)
        else:
            _end(child)
    if not (whole and good):
        raise ValueError(f"the {codec} decoder failed")
    kind = f"<{'i' if signed else 'u'}{width}"
    return np.frombuffer(samples, kind).reshape(shape if stream.samples == 1 else (*shape, stream.samples))


def _waiting() -> subprocess.Popen[bytes] | None:
    """A process that waits for work; one that was ended meanwhile, as where memory is short, does not."""
    with contextlib.suppress(IndexError):  # another thread may take the last one
        while True:
            child = _idle.pop()
            if child.poll() is None:
                return child
            _end(child)
    return None


def _start() -> subprocess.Popen[bytes]:
    from mskscreen.pixels.memory import ENVIRONMENT

    child = subprocess.Popen(  # noqa: S603  our own interpreter and file
        # -P keeps this folder off the child's path; a session of its own keeps Ctrl-C from it.
        [sys.executable, "-P", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, **ENVIRONMENT},
    )
    if sys.platform == "linux":
        import fcntl

        for pipe in filter(None, (child.stdin, child.stdout)):
            # Fewer changes between the processes; a user who has many pipes may be refused.
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
    return child


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was buffered for a process that is no more
                pipe.close()


def _end_all() -> None:
    while _idle:
        _end(_idle.pop())


_idle: deque[subprocess.Popen[bytes]] = deque()
atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    # Two processes that talk to one decoder would get each other's images.
    os.register_at_fork(after_in_child=lambda: _idle.clear())


def _jpeg_2000(frame: bytes, *_: int) -> Any:
    from openjpeg.utils import decode

    return decode(frame)


def _jpeg_2000_reduced(frame: bytes, rows: int, columns: int, _: int, precision: int, halvings: int) -> Any:
    """Unsigned samples of one component at a fraction of the resolution; the detail left out is never decoded."""
    import numpy as np
    from PIL import Image

    image: Any = Image.open(BytesIO(frame), formats=["JPEG2000"])
    # Pillow rounds the reduced size where JPEG 2000 takes the next larger one (T.800, B-15): a size that divides.
    image._size = (columns << halvings, rows << halvings)
    image.reduce = halvings
    image.load()
    # It also moves samples to the top of 8 or 16 bits.
    values = np.asarray(image)
    return values >> np.array(8 * values.itemsize - precision, values.dtype)


def _jpeg_ls(frame: bytes, rows: int, columns: int, samples: int, precision: int, _: int) -> Any:
    import jpeg_ls  # type: ignore[import-untyped]
    import numpy as np

    buffer, about = jpeg_ls.decode_buffer(frame)
    values = np.frombuffer(buffer, "u1" if precision <= 8 else "<u2")
    by_plane = samples > 1 and about["interleave_mode"] == 0
    return values.reshape(samples, rows, columns).transpose(1, 2, 0) if by_plane else values


def _jpeg(frame: bytes, rows: int, columns: int, samples: int, precision: int, _: int) -> Any:
    """JPEG lossless and JPEG of 12 bits, which nothing else in the base install reads."""
    import gdcm
    import numpy as np

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
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
        raise ValueError("GDCM could not decode the JPEG codestream")
    # GDCM hands out bytes as a str with surrogates.
    data = decoded.GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(data, "u1" if precision <= 8 else "<u2")


_CODECS: dict[str, Callable[..., Any]] = {
    "jpeg 2000": _jpeg_2000,
    "jpeg 2000 reduced": _jpeg_2000_reduced,
    "jpeg-ls": _jpeg_ls,
    "jpeg": _jpeg,
}


def _serve() -> None:
    """Answer requests until there are no more."""
    # What a decoder prints must not get between the replies.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while len(head := sys.stdin.buffer.read(_REQUEST.size)) == _REQUEST.size:
        codec, *about, length = _REQUEST.unpack(head)
        frame = sys.stdin.buffer.read(length)
        try:
            array = _CODECS[codec.rstrip(b"\0").decode()](frame, *about)
            samples = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
            replies.write(_REPLY.pack(True, array.dtype.kind == "i", array.dtype.itemsize, len(samples)))
            replies.write(samples)
        except Exception:  # the caller says which file it was; decoders quote header values
            replies.write(_REPLY.pack(False, False, 1, 0))
        replies.flush()


if __name__ == "__main__":
    _serve()
