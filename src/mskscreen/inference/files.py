"""Which files to screen: files, folders and glob patterns become a list of paths."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mskscreen.pixels.raster import raster_format

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".dcm", ".dicom"}
_IGNORED = {"__MACOSX", "DICOMDIR"}


_ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"}


def find_radiographs(name: str | Path, passed: Counter[str] | None = None) -> Iterator[Path]:
    """The files that a name stands for: itself, the images below a folder, or the matches of a pattern.

    Below a folder a file counts by its suffix or, where that says nothing, by its first bytes; hidden files
    (macOS writes `._*`), `__MACOSX` and `DICOMDIR` are passed over, and links to folders are not followed. What
    lies beside a MURA release (masks, notes) is not searched. The order is that of names, with numbers in them
    taken as numbers. A name that does not exist stands for itself. `passed` counts by kind what was passed over
    below folders, save for what is hidden: see `passed_over`.
    """
    passed = Counter() if passed is None else passed
    path = Path(name)
    # Unlike the methods of Path these have an answer for a name that is too long, or that may not be looked up.
    if os.path.isdir(path):  # noqa: PTH112
        yield from _below(path, passed)
    elif os.path.exists(path) or not glob.has_magic(str(name)):  # noqa: PTH110
        yield path
    else:
        for match in sorted(glob.glob(str(name), recursive=True), key=_natural):  # noqa: PTH207 - absolute patterns
            yield from _below(Path(match), passed) if Path(match).is_dir() else (Path(match),)


def passed_over(passed: Counter[str]) -> str:
    """What `find_radiographs` has counted in words, such as `1 linked folder, 2 files of other kinds`."""
    return ", ".join(
        f"{count} {one if count == 1 else many}" for one, many in _KINDS.items() if (count := passed[one])
    )


def printable(path: Path) -> str:
    """A path as text that any table can hold, also where the file's name is not UTF-8."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def file_named(name: str) -> Path:
    """The file to which `printable` gave a name, where there is one."""
    path = Path(name)
    if os.path.exists(path):  # noqa: PTH110 - as in find_radiographs
        return path
    return Path(re.sub(r"\\(udc[89a-f][0-9a-f])", lambda found: chr(int(found[1][1:], 16)), name))


_LINK, _UNREADABLE, _BESIDE = "linked folder", "folder that cannot be read", "folder beside a MURA release"
_ARCHIVE, _OTHER = "archive", "file of another kind"
_KINDS = {
    _LINK: "linked folders",
    _UNREADABLE: "folders that cannot be read",
    _BESIDE: "folders beside a MURA release",
    _ARCHIVE: "archives",
    _OTHER: "files of other kinds",
}


def _below(folder: Path, passed: Counter[str]) -> Iterator[Path]:
    for here, folders, files in os.walk(folder, onerror=lambda _: passed.update((_UNREADABLE,))):
        releases = [name for name in folders if name.startswith("MURA-v")]
        if releases:
            passed[_BESIDE] += sum(map(_wanted, folders)) - len(releases)
        folders[:] = sorted(filter(_wanted, releases or folders), key=_natural)
        passed[_LINK] += sum(Path(here, name).is_symlink() for name in folders)
        for file in sorted(filter(_wanted, files), key=_natural):
            path = Path(here, file)
            if path.suffix.lower() in SUFFIXES or _looks_like_image(path):
                yield path
            else:
                passed[_ARCHIVE if path.suffix.lower() in _ARCHIVES else _OTHER] += 1


def _wanted(name: str) -> bool:
    return not name.startswith(".") and name not in _IGNORED


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Key of the order; of names that differ in leading zeros alone, the names themselves decide."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isascii() and part.isdigit() else (-1, part) for part in parts], name


def _looks_like_image(path: Path) -> bool:
    try:
        if not path.is_file():  # to open a pipe is to wait for its writer
            return False
        with path.open("rb") as stream:
            head = stream.read(132)
    except OSError:
        return False
    if head[128:] == b"DICM" or raster_format(head):
        return True
    from mskscreen.pixels.dicom import looks_like_dicom

    # Old archives hold files without the preamble.
    return looks_like_dicom(head)
