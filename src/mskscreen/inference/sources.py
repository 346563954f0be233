"""What a `Screener` takes: paths, bytes of a file, arrays and pydicom data sets, one or many."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, cast

import numpy as np

from mskscreen.errors import DataError
from mskscreen.inference.files import find_radiographs, printable

if TYPE_CHECKING:
    from pydicom import Dataset

Source = Union[str, Path, bytes, np.ndarray, "Dataset"]
_Bytes = bytes | bytearray | memoryview


def several(sources: Source | Iterable[Source]) -> Iterable[Source]:
    """The sources one by one, also where there is but one; DataError where there is none in it."""
    if isinstance(sources, str | Path):
        found = find_radiographs(sources)
        if (first := next(found, None)) is None:
            raise DataError(f"no radiograph in '{sources}'; name DICOM, PNG, JPEG, TIFF, BMP or WebP files")
        return itertools.chain((first,), found)
    if _is_one(sources):
        return (cast("Source", sources),)
    if not isinstance(sources, Iterable) or isinstance(sources, io.IOBase):  # an open file would give its lines
        raise DataError(
            f"a {type(sources).__name__} is no source; pass paths, bytes, arrays (numpy.asarray of a PIL "
            "image) or pydicom Datasets"
        )
    return cast("Iterable[Source]", sources)


def named(sources: Iterable[Source]) -> Iterator[tuple[str, Source]]:
    """Each image with the name that its row bears; folders and patterns are opened up."""
    for number, source in enumerate(sources):
        if isinstance(source, str | Path):
            path = None
            for path in find_radiographs(source):
                yield printable(path), path
            if path is None:  # one source of many; its row says that it cannot be read
                yield printable(Path(source)), source
        else:
            yield f"{_kind(source)}-{number}", source


def _kind(source: object) -> str:
    if isinstance(source, np.ndarray | _Bytes):
        return "array" if isinstance(source, np.ndarray) else "bytes"
    return "dataset" if _is_one(source) else type(source).__name__


def _is_one(sources: Any) -> bool:
    """Whether `sources` is a single image: texts, arrays and data sets could be iterated over, too."""
    # Who holds a data set has imported pydicom; who does not need not wait for it.
    pydicom = sys.modules.get("pydicom")
    return isinstance(sources, str | Path | _Bytes | np.ndarray) or (
        pydicom is not None and isinstance(sources, pydicom.Dataset)
    )
