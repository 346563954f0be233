"""Which files to screen: files, folders and glob patterns become a list of paths."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mskscreen.pixels.raster import raster_format

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".dcm", ".dicom"}
_IGNORED = {"__MACOSX", "DICOMDIR"}


def find_radiographs(name: str | Path) -> Iterator[Path]:
    """The files that a name stands for: itself, the images below a folder, or the matches of a pattern.

    Below a folder a file counts by its suffix or, where that says nothing, by its first bytes; hidden files
    (macOS writes `._*`), `__MACOSX` and `DICOMDIR` are passed over, and links to folders are not followed. What
    lies beside a MURA release (masks, notes) is not searched. The order is that of names, with numbers in them
    taken as numbers. A name that does not exist stands for itself.
    """
    path = Path(name)
    if path.is_dir():
        yield from _below(path)
    elif path.exists() or not glob.has_magic(str(name)):
        yield path
    else:
        for match in sorted(glob.glob(str(name), recursive=True), key=_natural):  # noqa: PTH207 - absolute patterns
            yield from _below(Path(match)) if Path(match).is_dir() else (Path(match),)


def printable(path: Path) -> str:
    """A path as text that any table can hold, also where the file's name is not UTF-8."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def _below(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        releases = [name for name in folders if name.startswith("MURA-v")]
        folders[:] = sorted(filter(_wanted, releases or folders), key=_natural)
        for file in sorted(filter(_wanted, files), key=_natural):
            path = Path(here, file)
            if path.suffix.lower() in SUFFIXES or _looks_like_image(path):
                yield path


def _wanted(name: str) -> bool:
    return not name.startswith(".") and name not in _IGNORED


def _natural(name: str) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isascii() and part.isdigit() else (-1, part)
        for part in re.split(r"([0-9]+)", name)
    ]


def _looks_like_image(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            head = stream.read(132)
    except OSError:
        return False
    if head[128:] == b"DICM" or raster_format(head):
        return True
    from mskscreen.pixels.dicom import looks_like_dicom

    # Old archives hold files without the preamble.
    return looks_like_dicom(head)
