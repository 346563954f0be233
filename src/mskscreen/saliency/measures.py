"""How well a map agrees with a mask, a map with another map, and the maps that know no image at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

TOLERANCE = 0.03
# Maps are compared with masks at no more than this, in pixels of the long side.
_FRAME = 512
_LEVELS = np.linspace(0.05, 0.95, 19)
_RANDOM_CELLS = 16
# Interpolated values that should be equal differ by rounding.
_TIE = 1e-6

Map = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]


def peak(values: Map) -> tuple[float, float]:
    """Row and column of the highest pixel of a map (h, w): the middle of those that share the highest value.

    Where these reach one edge it is their other end: a map of cells is constant beyond the centres of the
    outermost ones (`Geometry.map_to_source`), and there the centre of the cell lies.
    """
    tied = values >= values.max() - _TIE * np.abs(values).max()
    top, left = divmod(int(tied.argmax()), tied.shape[1])
    column = _middle(left, tied[top])
    return _middle(top, tied[:, int(column)]), column


def _middle(low: int, line: Mask) -> float:
    """The middle of the run that begins at `low`; of one at an edge the inner end, of one at both the first."""
    after = np.flatnonzero(~line[low:])
    high = low + int(after[0]) - 1 if len(after) else len(line) - 1
    if high == len(line) - 1:
        return low
    return high if low == 0 else (low + high) / 2


def pointing_game(
    maps: Sequence[Map], masks: Sequence[Mask], tolerance: float = TOLERANCE
) -> npt.NDArray[np.bool_]:
    """Whether the peak of each map (h, w) lies in its mask (H, W), or within `tolerance` of the long side of it.

    Zhang et al., arXiv:1608.00507; the `peak` is the centre of the highest cell.
    """
    hits = []
    for evidence, mask in zip(maps, masks, strict=True):
        centre = (np.array(peak(evidence)) + 0.5) * np.array(mask.shape) / np.array(evidence.shape) - 0.5
        distance = np.linalg.norm(np.argwhere(mask) - centre, axis=1).min(initial=np.inf)
        # Half a pixel: the centre of a cell lies between pixels.
        hits.append(distance <= tolerance * max(mask.shape) + 0.5)
    return np.array(hits, bool)


def agreement(values: Map, mask: Mask, level: float | None = None) -> dict[str, float]:
    """Measures of one map (h, w) against one mask (H, W) that is not empty.

    `pointing` is the pointing game, `iou_otsu` the intersection over union above Otsu's threshold (IEEE Trans. SMC
    1979), `iou_fixed` that above `level` times the map's maximum, `pixel_ap` the average precision of pixels
    (higher than the mask's share of the image, which a constant map has), `energy` the share of the positive
    evidence that lies in the mask (Wang et al., arXiv:1910.01279).
    """
    found = {"pointing": float(pointing_game([values], [mask])[0])}
    resized, inside = _same_frame(values, mask)
    positive = np.maximum(resized, 0)
    total = float(positive.sum())
    # Of a map without evidence the threshold is below 0.
    found["iou_otsu"] = _overlap(positive > max(otsu(positive), 0), inside)
    if level is not None:
        found["iou_fixed"] = _overlap(positive > level * positive.max(), inside)
    found["pixel_ap"] = average_precision(resized.ravel(), inside.ravel())
    found["energy"] = float(positive[inside].sum()) / total if total > 0 else 0.0
    return found


def overlaps(values: Map, mask: Mask) -> list[float]:
    """Intersection over union of a map (h, w) with a mask (H, W), above each level that `fixed_level` weighs."""
    resized, inside = _same_frame(values, mask)
    positive = np.maximum(resized, 0)
    return [_overlap(positive > level * positive.max(), inside) for level in _LEVELS]


def fixed_level(found: Sequence[Sequence[float]]) -> float:
    """The share of its maximum above which a map overlaps its mask best, on average over development images.

    `found` are the `overlaps` of each.
    """
    return float(_LEVELS[np.mean(found, axis=0).argmax()]) if found else 0.5


def otsu(values: Map) -> float:
    """Threshold between two classes of values that keeps the variance within them least, over 256 bins."""
    counts, edges = np.histogram(values, 256)
    middle = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1:][np.nan_to_num(between, nan=-1.0).argmax()])


def average_precision(scores: Map, positive: Mask) -> float:
    """Area under the precision-recall curve of `scores` (n,), not interpolated; equal scores count together."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    last = np.r_[np.flatnonzero(np.diff(scores[order])), len(scores) - 1]
    precision, recall = hits[last] / (last + 1), hits[last] / max(int(hits[-1]), 1)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def rank_correlation(one: Map, other: Map) -> float:
    """Spearman's correlation of two maps of one shape, ties sharing their rank; NaN for constant or empty ones."""
    if not one.size:
        return float("nan")
    a, b = (_ranks(values.ravel()) for values in (one, other))
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 0 else float("nan")


def resample(values: Map, rows: int, columns: int) -> npt.NDArray[np.float32]:
    """A map of the same frame with other cells: averaged where they grow, bilinear where they shrink."""
    picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
    fewer = rows * columns < values.size
    return np.asarray(
        picture.resize((columns, rows), Image.Resampling.BOX if fewer else Image.Resampling.BILINEAR)
    )


def centre_prior(rows: int, columns: int) -> npt.NDArray[np.float32]:
    """A map that points at the middle of every image."""
    y, x = (np.linspace(-1, 1, size) for size in (rows, columns))
    prior: npt.NDArray = np.exp(-2 * (y[:, None] ** 2 + x**2))
    return prior.astype(np.float32)


def random_map(seed: int) -> npt.NDArray[np.float32]:
    """Noise with the grain of a feature map."""
    return np.random.default_rng(seed).random((_RANDOM_CELLS, _RANDOM_CELLS), np.float32)


def _same_frame(values: Map, mask: Mask) -> tuple[npt.NDArray[np.float32], Mask]:
    """Map and mask at the mask's pixels, or fewer where it is large; a mask keeps at least one pixel."""
    factor = min(1.0, _FRAME / max(mask.shape))
    rows, columns = (max(1, round(size * factor)) for size in mask.shape)
    inside = mask
    if factor < 1:
        share = resample(mask.astype(np.float32), rows, columns)
        inside = share >= min(0.5, float(share.max()))
    return resample(values, rows, columns), inside


def _overlap(one: Mask, other: Mask) -> float:
    return float((one & other).sum()) / max(int((one | other).sum()), 1)


def _ranks(values: Map) -> npt.NDArray[np.float64]:
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks: npt.NDArray[np.float64] = (last - (count - 1) / 2)[inverse]
    return ranks
