"""One writer at a time, and whether there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mskscreen.errors import DataError


@contextmanager
def locked(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; the system frees it even when the process is killed.

    Raises DataError where another process holds it, unless told to wait for that one.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            raise DataError(f"{path}: another process is writing {what}; wait for it to end") from None
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock file `path`; asks for a moment, side by side with others who ask."""
    import fcntl

    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
