"""Named random streams: one seed, and nothing that is drawn in one stream moves another.

Drawing a pathology or not therefore changes neither patient nor pose, beam, noise or display, which is what makes
pairs of normal and abnormal twins possible.
"""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """The generator of one purpose of one case, for example `stream(7, "view", 0)`.

    Streams of different names are independent; the same seed and names always give the same numbers, on every
    machine (`zlib.crc32`, unlike `hash`, is not salted).
    """
    keys = [zlib.crc32(str(name).encode()) for name in names]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *keys])))
