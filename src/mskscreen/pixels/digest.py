"""The digest of a file, taken while it is decoded."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

# Bytes from which a thread of its own is worth its start.
_LARGE = 1 << 20


def sha256_beside(data: bytes) -> Callable[[], str]:
    """Begin the SHA-256 of `data`; the call that is returned waits for it and gives it in hexadecimal.

    Hashing lets go of Python's lock: what the caller does meanwhile is not held up where a core is free.
    """
    if len(data) < _LARGE:
        digest = hashlib.sha256(data).hexdigest()
        return lambda: digest
    hashed = hashlib.sha256()
    thread = threading.Thread(target=hashed.update, args=(data,), daemon=True)
    thread.start()

    def finish() -> str:
        thread.join()
        return hashed.hexdigest()

    return finish
