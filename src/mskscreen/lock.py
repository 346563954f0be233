"""One writer at a time, and whether there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mskscreen.errors import DataError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def take(stream: IO[Any], *, wait: bool = False, shared: bool = False) -> None:
    """Lock an open file until it is closed; the system frees it even when the process is killed.

    Raises BlockingIOError where another process holds it, unless told to wait for that one. Where the system has
    no such locks, as on Windows and some network file systems, nothing is locked.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        return


@contextmanager
def locked(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` while the block runs.

    Raises DataError where another process holds it, unless told to wait for that one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            take(stream, wait=wait)
        except BlockingIOError:
            raise DataError(f"{path}: another process is writing {what}; wait for it to end") from None
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock file `path`; asks for a moment, side by side with others who ask."""
    try:
        with path.open("rb") as stream:
            take(stream, shared=True)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
