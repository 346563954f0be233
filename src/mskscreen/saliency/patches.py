"""What a score loses when one patch after the other is replaced.

With an even grey this is occlusion sensitivity (Zeiler and Fergus, arXiv:1311.2901). With the twin of a phantom,
the same image without its abnormality, it is the counterfactual map: what the abnormality itself does to the
score, place by place, which no collection of real radiographs can tell.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mskscreen.saliency.target import Explained, Score

_CHUNK = 64


def occlusion(
    score: Score, image: npt.NDArray[np.float32], cells: int = 8, advance: Callable[[int], None] = lambda _: None
) -> Explained:
    """Map of an `image` (1, H, W) by patches of 1/`cells` of each side, half overlapping, in its mean grey."""
    return _patchwise(score, image, np.full_like(image, image.mean()), cells, 2, advance)


def counterfactual(
    score: Score,
    image: npt.NDArray[np.float32],
    twin: npt.NDArray[np.float32],
    cells: int = 16,
    advance: Callable[[int], None] = lambda _: None,
) -> Explained:
    """Map (cells, cells) of what the score of `image` (1, H, W) owes to what its `twin` (1, H, W) lacks."""
    return _patchwise(score, image, twin, cells, 1, advance)


def _patchwise(
    score: Score,
    image: npt.NDArray[np.float32],
    filling: npt.NDArray[np.float32],
    cells: int,
    overlap: int,
    advance: Callable[[int], None],
) -> Explained:
    """Mean loss (cells * overlap, ...) over the patches that cover each place; equal patches cost no pass."""
    fine = cells * overlap
    down, across = (np.arange(fine + 1) * size // fine for size in image.shape[1:])
    total, count = np.zeros((fine, fine)), np.zeros((fine, fine))
    waiting: list[tuple[slice, slice, npt.NDArray[np.float32]]] = []
    passes = 1
    whole = score(image[None])[0]

    def settle() -> None:
        nonlocal passes
        if waiting:
            losses = whole - score(np.stack([changed for _, _, changed in waiting]))
            for (rows, columns, _), loss in zip(waiting, losses, strict=True):
                total[rows, columns] += loss
            passes += len(waiting)
            advance(len(waiting))
            waiting.clear()

    for i in range(fine - overlap + 1):
        for j in range(fine - overlap + 1):
            rows, columns = slice(i, i + overlap), slice(j, j + overlap)
            count[rows, columns] += 1
            here = (..., slice(down[i], down[i + overlap]), slice(across[j], across[j + overlap]))
            if np.array_equal(image[here], filling[here]):
                continue
            changed = image.copy()
            changed[here] = filling[here]
            waiting.append((rows, columns, changed))
            if len(waiting) == _CHUNK:
                settle()
    settle()
    return Explained((total / count).astype(np.float32), passes)
