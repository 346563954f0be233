"""How far an image may be read at a fraction of its resolution, because a model looks at a small picture of it.

Only where the reader itself can leave detail out: JPEG 2000 by its wavelet levels, JPEG by the size of its cosine
transforms. What is read keeps a multiple of the model's own resolution, so that the antialiased resize still
decides what the model sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

# Gives for the (rows, columns) of a source the (rows, columns) that are enough of it; None wants all.
Enough = Callable[[int, int], tuple[int, int]] | None
Reading = Literal["whole", "safe", "fast"]
# How many times the resolution of a model's input is read. None of these keeps the probability of abnormality
# within 0.01 for 99 % of phantoms (`benchmarks/decoding.py`), so `whole` is the default.
MARGINS: dict[Reading, int | None] = {"whole": None, "safe": 4, "fast": 2}


def halvings(rows: int, columns: int, enough: Enough, most: int) -> int:
    """How often an image may be halved and keep what is enough of it; at most `most` times."""
    if enough is None:
        return 0
    height, width = enough(rows, columns)
    times = 0
    while times < most and rows >= height << (times + 1) and columns >= width << (times + 1):
        times += 1
    return times
