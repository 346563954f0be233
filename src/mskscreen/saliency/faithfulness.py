"""Whether a model uses what a map says it uses: measures that need the model, and no truth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from mskscreen.saliency.target import Score

STEPS = 32
PERTURBATIONS = 48
_CELLS = 8

Values = npt.NDArray[np.float32]


def insertion_deletion(score: Score, image: Values, values: Values) -> dict[str, float]:
    """Areas under the probability of the class while pixels come or go in the order of a map (H, W).

    Petsiuk et al., arXiv:1806.07421: `insertion` begins with a blurred `image` (1, H, W) and puts the highest
    pixels back first, higher is better; `deletion` blackens them, lower is better. Pixels where the map is NaN,
    the margin of a letterbox, stay as they are, and shares are of the others. 33 passes each.
    """
    order = _ranking(values)
    places = np.full(values.size, -1)
    places[order] = np.arange(len(order))
    position = places.reshape(values.shape)
    blurred = _blurred(image)
    found = {}
    for name, shown, hidden in (("insertion", image, blurred), ("deletion", np.zeros_like(image), image)):
        counts = np.linspace(0, len(order), STEPS + 1)
        images = (np.where(position < 0, image, np.where(position < n, shown, hidden)) for n in counts)
        p = np.concatenate([_probability(score(one.astype(np.float32)[None])) for one in images])
        found[name] = float(np.trapezoid(p, dx=1 / STEPS))
    return found


def infidelity(score: Score, image: Values, maps: dict[str, Values], seed: int = 0) -> dict[str, float]:
    """Share of what random blackening does to the score that a map (H, W) does not foretell; 0 is best.

    Yeh et al., arXiv:1901.09392, for maps of contributions: the evidence that a mask takes away, times the factor
    that fits best, against the fall of the score. The factor makes maps of any scale comparable. The passes, 1 and
    48, are shared by all maps.
    """
    rng = np.random.default_rng(seed)
    height, width = image.shape[1:]
    taken = np.stack(
        [
            np.asarray(
                Image.fromarray((rng.random((_CELLS, _CELLS)) < rng.uniform(0.1, 0.6)).astype(np.float32)).resize(
                    (width, height), Image.Resampling.BILINEAR
                )
            )
            for _ in range(PERTURBATIONS)
        ]
    )
    whole = score(image[None])[0]
    fall = np.concatenate([whole - score((image * (1 - mask))[None]) for mask in taken])
    power = float((fall * fall).sum())
    found = {}
    for name, values in maps.items():
        foretold = np.einsum("nyx,yx->n", taken, values.astype(np.float64))
        square = float((foretold * foretold).sum())
        factor = max(float((foretold * fall).sum()) / square, 0.0) if square > 0 else 0.0
        found[name] = float(((factor * foretold - fall) ** 2).sum()) / power if power > 0 else float("nan")
    return found


def road(score: Score, image: Values, values: Values, seed: int = 0) -> float:
    """ROAD: probability left without the least relevant pixels less that without the most relevant ones.

    Rong et al., arXiv:2202.00449. Removed pixels are filled with noise around the weighted mean of their
    neighbours, so that the hole itself tells the model nothing; the mean over 20, 40, 60 and 80 % removed, higher
    is better. Pixels where the map (H, W) is NaN, the margin of a letterbox, are never removed, and the shares are
    of the others. 8 passes. Needs scipy.
    """
    order = _ranking(values)
    rng = np.random.default_rng(seed)
    images = []
    for ranked in (order[::-1], order):
        for share in (0.2, 0.4, 0.6, 0.8):
            gone = np.zeros(values.size, bool)
            gone[ranked[: round(share * len(order))]] = True
            images.append(_imputed(image[0], gone.reshape(values.shape), rng)[None])
    p = _probability(score(np.stack(images)))
    return float(p[:4].mean() - p[4:].mean())


def _ranking(values: Values) -> npt.NDArray[np.int64]:
    """Pixels of a map from the highest to the lowest, without those that are NaN."""
    order: npt.NDArray[np.int64] = np.argsort(-values.ravel(), kind="stable")
    return order[: int(np.isfinite(values).sum())]


def _imputed(image: Values, gone: npt.NDArray[np.bool_], rng: np.random.Generator) -> Values:
    """Each missing pixel is the weighted mean of its eight neighbours, known or not, and a little noise."""
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import cg

    height, width = image.shape
    number = np.full((height + 2, width + 2), -1)
    number[1:-1, 1:-1][gone] = np.arange(gone.sum())
    known = np.pad(np.where(gone, 0, image).astype(np.float64), 1)
    inside = np.pad(np.ones((height, width), bool), 1)
    y, x = np.nonzero(number >= 0)
    total, right = np.zeros(len(y)), np.zeros(len(y))
    rows, columns, weights = [], [], []
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if dy == dx == 0:
                continue
            weight = 1 / 6 if dy == 0 or dx == 0 else 1 / 12
            near = y + dy, x + dx
            total += weight * inside[near]
            right += weight * known[near]
            other = number[near]
            rows.append(np.flatnonzero(other >= 0))
            columns.append(other[other >= 0])
            weights.append(np.full(int((other >= 0).sum()), -weight))
    diagonal = np.arange(len(y))
    system = coo_array(
        (
            np.r_[total, np.concatenate(weights)],
            (np.r_[diagonal, np.concatenate(rows)], np.r_[diagonal, np.concatenate(columns)]),
        )
    ).tocsr()
    # The system is symmetric and positive definite; a thousandth of a grey level is enough.
    solution, _ = cg(system, right, rtol=1e-4, maxiter=500)
    filled = image.copy()
    filled[gone] = solution + rng.normal(0, 0.01, len(solution))
    return np.clip(filled, 0, 1).astype(np.float32)


def _blurred(image: Values) -> Values:
    """The image with all detail gone: what insertion begins with."""
    grey = Image.fromarray(np.round(image[0] * 255).astype(np.uint8))
    radius = max(image.shape) / 20
    return (np.asarray(grey.filter(ImageFilter.GaussianBlur(radius)), np.float32) / np.float32(255))[None]


def _probability(log_odds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    p: npt.NDArray[np.float64] = 1 / (1 + np.exp(-log_odds))
    return p
