"""Where files go: whole or absent, and the user's cache folder."""

from __future__ import annotations

import errno
import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# No room on the disk, in the quota of the user, or in what the process may write.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
MAKE_ROOM = "make room and run the same command again"
_ELSEWHERE = "change its permissions, or choose another place"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and vanishes otherwise.

    It keeps the suffix of `path`, by which some writers and readers tell the format. An error of the file system
    names `path`.
    """
    partial = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        # What fails to write names no file, what fails to open the temporary one.
        if error.errno and error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def discard_partials(folder: Path, suffix: str) -> None:
    """Delete what writers of files of this suffix left in `folder` when they were killed; none may be at work."""
    for left in folder.glob(f".*.partial{suffix}"):
        left.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to `path` whole or not at all, line ends as they are."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that there is no room left.

    Libraries that write by themselves give the number of the system's error in their text alone.
    """
    while error is not None:
        numbers = {int(number) for number in re.findall(r"os error (\d+)", str(error))}
        if _FULL & {*numbers, getattr(error, "errno", None)}:
            return True
        error = error.__cause__
    return False


def remedy(error: OSError) -> str | None:
    """What to do about an error of the file system, where that is known."""
    if disk_full(error):
        return MAKE_ROOM
    return _ELSEWHERE if error.errno in _FORBIDDEN else None


def unwritable(path: Path, *, made: bool = False) -> str | None:
    """Why no file can be written to `path`, with the remedy; None where nothing is known to be in the way.

    Folders that are not there are in the way unless they will be `made`.
    """
    # Unlike the methods of Path these have an answer where a folder may not be looked into.
    if os.path.isdir(path):  # noqa: PTH112
        return "is a folder; name a file"
    folder = path.absolute().parent
    while made and not os.path.lexists(folder):
        folder = folder.parent
    if not os.path.isdir(folder):  # noqa: PTH112
        return "its folder is not there; make it, or choose another place"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"its folder may not be written to; {_ELSEWHERE}"
    if os.path.exists(path) and not os.access(path, os.W_OK):  # noqa: PTH110
        return f"may not be replaced; {_ELSEWHERE}"
    return None


def cache_folder() -> Path:
    """Where what can be made again is kept: `$MSKSCREEN_CACHE`, else the platform's cache folder of the user."""
    if chosen := os.environ.get("MSKSCREEN_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "mskscreen"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mskscreen"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mskscreen"
