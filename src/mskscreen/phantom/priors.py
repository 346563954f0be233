"""The image-free baseline of localisation: how often one fixed place hits the abnormality.

A map that points no better than this has learned where abnormalities usually lie, not what they look like.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from mskscreen.errors import DataError
from mskscreen.phantom.manifest import Row

_TOLERANCE = 0.03  # the pointing game's, of the long side
_GRID = 48
_FEW = 12


def location_prior(folder: Path, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Hit rate of the best fixed place per region and view, one line a region and one for all.

    The place, in fractions of width and height, is the one that hits most masks in one half of the studies; it is
    scored on the other half, and the halves change roles. A hit lies in the mask or within 3 % of the long side
    of it. A view with fewer than a dozen masks in the first half falls back to the place of its region.
    Occult images do not count. Raises DataError if no image has a visible abnormality.
    """
    visible = [row for row in rows if row.mask is not None and not row.occult]
    if not visible:
        raise DataError(f"{folder} holds no visible abnormality to find a place for")
    targets = np.stack([_target(folder, row) for row in visible])
    studies = {study: number % 2 for number, study in enumerate(dict.fromkeys(row.study for row in visible))}
    half = np.array([studies[row.study] for row in visible])
    hits = np.zeros(len(visible), bool)
    joints = {
        name: np.array([row.joint == name for row in visible]) for name in sorted({row.joint for row in visible})
    }
    for here in joints.values():
        for scored in (0, 1):
            _score(targets, [row.views for row in visible], here & (half != scored), here & (half == scored), hits)
    return [
        {"joint": name, "images": int(which.sum()), "hit_rate": round(float(hits[which].mean()), 3)}
        for name, which in (joints | {"all": np.ones(len(visible), bool)}).items()
    ]


def within_reach(mask: np.ndarray) -> np.ndarray:
    """Where a point counts as a hit of a mask: bool (48, 48) over the image in fractions of its sides."""
    near = ndimage.distance_transform_edt(~mask) <= _TOLERANCE * max(mask.shape)
    down = (np.arange(_GRID) + 0.5) * mask.shape[0] / _GRID
    across = (np.arange(_GRID) + 0.5) * mask.shape[1] / _GRID
    return np.asarray(near[np.ix_(down.astype(int), across.astype(int))])


def hit_counts(targets: np.ndarray) -> np.ndarray:
    """How many of the `targets` (n, 48, 48) each place hits; of equally good places one amid good ones leads."""
    counts = targets.sum(axis=0).astype(np.float64)
    # The edge of a plateau is the first to miss elsewhere.
    counts += 1e-6 * ndimage.gaussian_filter(counts, 2)
    return np.asarray(counts)


def _target(folder: Path, row: Row) -> np.ndarray:
    with Image.open(folder / str(row.mask)) as stored:
        return within_reach(np.asarray(stored) > 0)


def _score(
    targets: np.ndarray, views: list[str], chosen: np.ndarray, scored: np.ndarray, hits: np.ndarray
) -> None:
    """Mark in `hits` which of the `scored` images the places learned from `chosen` hit."""
    members: dict[str, list[int]] = defaultdict(list)
    for index in np.flatnonzero(chosen):
        members[views[index]].append(int(index))
    everywhere = _best(targets[chosen]) if chosen.any() else (_GRID // 2, _GRID // 2)
    places = {view: _best(targets[own]) for view, own in members.items() if len(own) >= _FEW}
    for index in np.flatnonzero(scored):
        hits[index] = targets[index][places.get(views[index], everywhere)]


def _best(targets: np.ndarray) -> tuple[int, int]:
    counts = hit_counts(targets)
    row, column = np.unravel_index(int(counts.argmax()), counts.shape)
    return int(row), int(column)
