"""Whether an abnormality can be seen at all: Rose's criterion on the displayed pair of twins.

A. Rose, "The sensitivity performance of the human eye on an absolute scale", J. Opt. Soc. Am. 38, 196 (1948): a
detail is seen reliably where k = contrast x sqrt(number of pixels) / standard deviation of the surroundings is at
least about 5.
"""

from __future__ import annotations

import numpy as np

ROSE_THRESHOLD = 5.0
_REFERENCE_SIDE = 512
_LEAST_DEVIATION = 2.0 / 255


def rose_k(image: np.ndarray, twin: np.ndarray, mask: np.ndarray) -> float:
    """Visibility k of an abnormality.

    `image` and `twin` are the displayed radiographs with and without it, float (rows, columns) in [0, 1],
    `mask` is bool (rows, columns). The contrast is the root mean square difference inside the mask, from which
    the median difference around it is taken (a display window may move as a whole); the standard deviation is
    that of the twin's pixels in the mask and in a margin around it as wide as the mask's own radius: the noise
    and the anatomy that the eye must look through. Images above 512 pixels are averaged down to no more
    first, so that k does not grow with the pixel count alone. Zero for an empty mask.
    """
    image, twin, mask = (_reduced(array) for array in (image, twin, mask.astype(np.float32)))
    inside = mask > 0.5
    area = int(inside.sum())
    if area == 0:
        return 0.0
    window = _neighbourhood(inside)
    difference, inside, anatomy = image[window] - twin[window], inside[window], twin[window]
    outside = difference[~inside]
    offset = np.median(outside) if outside.size else 0.0
    contrast = float(((difference[inside] - offset) ** 2).mean()) ** 0.5
    return contrast * area**0.5 / max(float(anatomy.std()), _LEAST_DEVIATION)


def _reduced(array: np.ndarray) -> np.ndarray:
    """Average whole blocks so that the long side is at most 512."""
    factor = -(-max(array.shape) // _REFERENCE_SIDE)
    if factor < 2:
        return array
    rows, columns = (size // factor * factor for size in array.shape)
    blocks = array[:rows, :columns].reshape(rows // factor, factor, columns // factor, factor)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def _neighbourhood(inside: np.ndarray) -> tuple[slice, slice]:
    """The rectangle around the mask, wider by the radius of a disc of the same area."""
    margin = max(int((inside.sum() / np.pi) ** 0.5), 4)
    slices = []
    for axis in (1, 0):
        hit = np.flatnonzero(inside.any(axis=axis))
        slices.append(slice(max(int(hit[0]) - margin, 0), int(hit[-1]) + margin + 1))
    return slices[0], slices[1]
