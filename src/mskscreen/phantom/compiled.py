"""The one way this room compiles loops: numba, cached on disk, without the interpreter lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled on first call; kept on disk where any cache folder is writable.

    numba looks in `NUMBA_CACHE_DIR`, beside the source, then in the user's cache; with none of them writable it
    refuses to cache at all, and compiling in memory is better than failing.
    """
    try:
        return numba.njit(function, cache=True, nogil=True, fastmath=True)
    except RuntimeError:
        return numba.njit(function, nogil=True, fastmath=True)
