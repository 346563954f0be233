"""A folder of images from which nothing outside is ever taken."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from mskscreen.errors import DataError


class OutsideError(DataError):
    """A path that would leave the root of a data set."""


def inside(relative: str) -> str:
    """The relative path in its shortest form, with `/` between its parts.

    Raises OutsideError where it is empty, absolute, not UTF-8, or holds `..`, a backslash, a drive or a control
    character. No message repeats the path, which may hold a label.
    """
    if not relative.isascii():
        try:
            relative.encode()
        except UnicodeEncodeError:
            raise OutsideError("path is not UTF-8") from None
    path = PurePosixPath(relative)
    unsafe = path.is_absolute() or ".." in path.parts or not path.parts or relative[1:2] == ":"
    if unsafe or "\\" in relative or any(ord(letter) < 32 for letter in relative):
        raise OutsideError("path leaves the root")
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

        Raises OutsideError where the path or a link on the way leaves the root.
        """
        path = self.root / inside(relative)
        try:
            status = path.lstat()
            if not self.links:
                self._refuse_links_out(path, is_link=stat.S_ISLNK(status.st_mode))
            if stat.S_ISLNK(status.st_mode):
                status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status if stat.S_ISREG(status.st_mode) else None

    def file(self, relative: str) -> Path:
        """Path of a regular file below the root, fit to be opened.

        Raises OutsideError where it leaves the root, DataError where it is missing.
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
            raise OutsideError("link leads out of the root")

    def _is_below(self, path: Path) -> bool:
        real = os.path.realpath(path)
        return real == self._real or real.startswith(self._real.rstrip(os.sep) + os.sep)
