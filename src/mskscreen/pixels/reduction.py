"""How far an image may be read at a fraction of its resolution, because a model looks at a small picture of it.

Only where the reader itself can leave detail out: JPEG 2000 by its wavelet levels, JPEG by the size of its cosine
transforms. What is read keeps a multiple of the model's own resolution, so that the antialiased resize still
decides what the model sees. The margins are the smallest powers of two that change the probability of abnormality
by at most 0.01 for 99 % of phantoms, as `benchmarks/decoding.py` measures it.
"""

from __future__ import annotations

from collections.abc import Callable

# Gives for the (rows, columns) of a source the (rows, columns) that are looked at in the end; None looks at all.
Enough = Callable[[int, int], tuple[int, int]] | None
JPEG_2000_MARGIN, JPEG_MARGIN = 2, 4


def halvings(rows: int, columns: int, enough: Enough, margin: int, most: int) -> int:
    """How often an image may be halved and keep `margin` times what is enough; at most `most` times."""
    if enough is None:
        return 0
    height, width = enough(rows, columns)
    times = 0
    while times < most and rows >= margin * height << (times + 1) and columns >= margin * width << (times + 1):
        times += 1
    return times
