"""A folder of images from which nothing outside is ever taken."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mskscreen.errors import DataError

_UNSAFE = re.compile(r"[\x00-\x1f\\]")


class PathError(DataError):
    """A path that cannot be followed, or that would leave the root of a data set."""


def inside(relative: str) -> str:
    """The relative path in its shortest form, with `/` between its parts.

    Raises PathError where it is empty, absolute, not UTF-8, or holds `..`, a drive, a backslash or a control
    character. No message repeats the path, which may hold a label.
    """
    if not relative.isascii():
        try:
            relative.encode()
        except UnicodeEncodeError:
            raise PathError("path is not UTF-8") from None
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or not path.parts or relative[1:2] == ":":
        raise PathError("path leaves the root")
    if _UNSAFE.search(relative):
        raise PathError("path holds a backslash or a control character; write it with /")
    return str(path)


class Tree:
    """The files below `root`: symbolic links that lead out of it are refused unless `links` is set."""

    def __init__(self, root: Path, *, links: bool = False) -> None:
        self.root = root
        self.links = links
        self._real = os.path.realpath(root)
        self._folders: dict[Path, bool] = {}

    def stat(self, relative: str) -> os.stat_result | None:
        """Status of a regular file below the root, or None where there is none.

        Raises PathError where the path or a link on the way leaves the root or cannot be followed.
        """
        path = self.root / inside(relative)
        try:
            status = path.lstat()
            if not self.links:
                self._refuse_links_out(path, is_link=stat.S_ISLNK(status.st_mode))
            if stat.S_ISLNK(status.st_mode):
                status = path.stat()
        except OSError as error:
            _refuse_unless_absent(error)
            return None
        return status if stat.S_ISREG(status.st_mode) else None

    def size_and_time(self, relative: str) -> tuple[int | None, int | None]:
        """Size and time of change (ns) of a file; None for both where there is none or it may not be read."""
        try:
            status = self.stat(relative)
        except PathError:
            status = None
        return (status.st_size, status.st_mtime_ns) if status else (None, None)

    def names(self, relative: str) -> frozenset[str] | None:
        """Names in a folder below the root (the root itself for an empty path), or None where there is none.

        Links are followed, for what lies behind them is refused when it is asked for. Raises PathError where the
        folder cannot be listed.
        """
        try:
            folder = self.root / inside(relative) if relative else self.root
            return frozenset(path.name for path in folder.iterdir())
        except OSError as error:
            _refuse_unless_absent(error)
            return None

    def walk(self, relative: str = ".") -> Iterator[str]:
        """Paths of the files below a folder, sorted within each folder; hidden folders are left out.

        A linked folder is looked into once where links are allowed, and else given as one path, as a file is.
        """
        visited = set()
        for place, folders, names in os.walk(self.root / relative, followlinks=self.links):
            if self.links:
                if (real := os.path.realpath(place)) in visited:
                    folders.clear()
                    continue
                visited.add(real)
            else:
                names += [name for name in folders if Path(place, name).is_symlink()]
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
            yield from (Path(place, name).relative_to(self.root).as_posix() for name in sorted(names))

    def file(self, relative: str) -> Path:
        """Path of a regular file below the root, fit to be opened.

        Raises PathError where it leaves the root, DataError where it is missing.
        """
        if self.stat(relative) is None:
            raise DataError(f"{PurePosixPath(relative).name}: no such file below the root; index the folder again")
        return self.root / relative

    def _refuse_links_out(self, path: Path, *, is_link: bool) -> None:
        folder = path.parent
        # One look-up a folder: 15,000 studies instead of 40,000 files.
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = self._is_below(folder)
        if not known or (is_link and not self._is_below(path)):
            raise PathError("link leads out of the root")

    def _is_below(self, path: Path) -> bool:
        real = os.path.realpath(path)
        return real == self._real or real.startswith(self._real.rstrip(os.sep) + os.sep)


def _refuse_unless_absent(error: OSError) -> None:
    """Raises PathError where more is wrong than an absence: circular links, long names, no permission."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise PathError(f"path cannot be followed ({error.strerror})") from None
