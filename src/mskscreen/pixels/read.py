"""The door: decide by content what a source is, and hand it to its decoder."""

from __future__ import annotations

import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mskscreen.errors import DecodeError, LimitError
from mskscreen.pixels.limits import Limits
from mskscreen.pixels.radiograph import Radiograph
from mskscreen.pixels.raster import decode_array, decode_raster, raster_format
from mskscreen.pixels.reduction import Enough

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFAULT = Limits()
# Decoders quote header values in their warnings, which may name the patient; what matters is in the record.
warnings.filterwarnings("ignore", module=r"(pydicom|PIL)\.")


def read_radiograph(
    source: Path | str | bytes | npt.NDArray | Dataset,
    limits: Limits = _DEFAULT,
    *,
    enough: Enough = None,
    name: str = "image",
) -> Radiograph:
    """Turn a file, the bytes of one, an array or a DICOM data set into a radiograph.

    The content decides the format, never the name. `enough`, made by a `Preprocessing`, allows fewer pixels than
    the source has where reading them is quicker and the result for that preprocessing is nearly the same. Raises
    DecodeError where the source cannot be read and LimitError where it asks for more than `limits`; errors name a
    file by its last component alone, since folders may hold labels and names, and any other source `name`.
    """
    try:
        if isinstance(source, str | Path):
            name = Path(source).name
            source = _read_bytes(Path(source), name, limits)
        if isinstance(source, bytes | bytearray | memoryview):
            return _decode_bytes(bytes(source), name, limits, enough)
        if isinstance(source, np.ndarray):
            return decode_array(source, name, limits)
        # Imported late: a run over rasters need not wait for pydicom.
        from mskscreen.pixels.dicom import decode_dataset

        return decode_dataset(source, name, limits, enough)
    except DecodeError:
        raise
    except MemoryError as error:
        raise LimitError(f"{name}: decoding it takes more memory than there is; use a larger machine") from error
    except Exception as error:
        # Decoders fail on hostile bytes in every way there is.
        raise DecodeError.corrupt(name, error) from error


def _read_bytes(path: Path, name: str, limits: Limits) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DecodeError(f"{name}: is not a regular file; name a file")
        limits.check_file(name, status.st_size)
        with path.open("rb") as file:
            data = file.read(limits.file_bytes + 1 if status.st_size == 0 else status.st_size)
    except OSError as error:
        raise DecodeError(
            f"{name}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    limits.check_file(name, len(data))
    return data


def _decode_bytes(data: bytes, name: str, limits: Limits, enough: Enough) -> Radiograph:
    limits.check_file(name, len(data))
    if not data:
        raise DecodeError(f"{name}: is empty, of 0 bytes; copy or export it again")
    # DICOM first: the 128 bytes before its magic word may hold the header of a raster format.
    if data[128:132] != b"DICM" and (kind := raster_format(data)):
        return decode_raster(data, kind, name, limits, enough)
    from mskscreen.pixels.dicom import decode_dicom, looks_like_dicom

    if not looks_like_dicom(data):
        remedy = "unpack it" if data.startswith((b"PK\3\4", b"\x1f\x8b")) else "convert it to one"
        raise DecodeError(f"{name}: its content is none of DICOM, PNG, JPEG, TIFF, BMP, WebP; {remedy}")
    return decode_dicom(data, name, limits, enough)
