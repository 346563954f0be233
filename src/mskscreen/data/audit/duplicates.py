"""Images that occur twice: the same pixels, or nearly the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

# Bits in which two hashes may differ, and correlation that two thumbnails must have. How many copies they find,
# and whether two different studies are taken for one: benchmarks/audit_flags.py.
RADIUS = 10
CORRELATION = 0.98
_TILE = 2048


def near_pairs(hashes: np.ndarray, thumbs: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs (i < j) whose hashes differ in at most RADIUS bits and whose thumbnails correlate by CORRELATION.

    `hashes` (n,) uint64, `thumbs` (n, m) of any values. Every pair of hashes is compared, in tiles: 40,000 images
    are 800 million comparisons of one word each, seconds of work.
    """
    normal = thumbs - thumbs.mean(axis=1, keepdims=True, dtype=np.float32)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    for top in range(0, len(hashes), _TILE):
        for left in range(top, len(hashes), _TILE):
            distance = np.bitwise_count(hashes[top : top + _TILE, None] ^ hashes[None, left : left + _TILE])
            first, second = np.nonzero(distance <= RADIUS)
            first, second = first + top, second + left
            ahead = first < second
            first, second = first[ahead], second[ahead]
            for start in range(0, len(first), _TILE):
                i, j = first[start : start + _TILE], second[start : start + _TILE]
                alike = np.einsum("ij,ij->i", normal[i], normal[j]) >= CORRELATION
                yield from zip(i[alike].tolist(), j[alike].tolist(), strict=True)


def groups(count: int, pairs: Iterator[tuple[int, int]] | Sequence[tuple[int, int]]) -> list[int | None]:
    """Group of each of `count` items that occurs in a pair, directly or through others; None for the rest."""
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    paired = set()
    for i, j in pairs:
        paired |= {i, j}
        low, high = sorted((root(i), root(j)))
        parent[high] = low
    return [root(item) if item in paired else None for item in range(count)]


def exact_pairs(digests: Sequence[str | None]) -> Iterator[tuple[int, int]]:
    """Pairs of items with the same digest: each with the first of its kind."""
    first: dict[str, int] = {}
    for i, digest in enumerate(digests):
        if digest is not None and first.setdefault(digest, i) != i:
            yield first[digest], i
