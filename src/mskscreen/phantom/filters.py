"""Fast low-pass filters, resampling and powers of single-channel images (rows, columns) float32."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from mskscreen.phantom.compiled import compiled


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur by `sigma` pixels, edges repeated; meant for a sigma of a few pixels at most."""
    if sigma < 0.05:
        return image
    reach = max(1, int(np.ceil(3 * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    across = _along_rows(_edged(image, 0, 0, reach, reach), kernel)
    return _along_columns(_edged(across, reach, reach, 0, 0), kernel)


def low_pass(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur by a large `sigma` (pixels), done on a coarser grid."""
    factor = coarseness(sigma)
    return spread(shrink(image, factor), sigma / factor, factor, image.shape[0], image.shape[1])


def coarseness(sigma: float) -> int:
    """How many pixels may become one before a Gaussian blur by `sigma` pixels."""
    return max(1, int(sigma / 2.5))


def spread(small: np.ndarray, sigma: float, factor: int, rows: int, columns: int) -> np.ndarray:
    """A shrunken image blurred by `sigma` of its own pixels and enlarged to (rows, columns)."""
    small = ndimage.gaussian_filter(small, sigma, mode="nearest")
    return enlarge(_edged(small, 1, 1, 1, 1), factor, rows, columns)


def shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """Mean over blocks of `factor` x `factor` pixels, the last ones filled up by repeating the edge."""
    rows, columns = -(-image.shape[0] // factor), -(-image.shape[1] // factor)
    padded = _edged(image, 0, rows * factor - image.shape[0], 0, columns * factor - image.shape[1])
    return _block_means(padded, factor)


def enlarge(small: np.ndarray, factor: int, rows: int, columns: int) -> np.ndarray:
    """Bilinear enlargement to (rows, columns) of a shrunken image that carries a border of one pixel."""
    across = (np.arange(columns, dtype=np.float32) - (factor - 1) / 2) / factor + 1
    down = (np.arange(rows, dtype=np.float32) - (factor - 1) / 2) / factor + 1
    result = np.empty((rows, columns), np.float32)
    _bilinear(result, small, down.astype(np.float32), across.astype(np.float32))
    return result


def _edged(image: np.ndarray, above: int, below: int, left: int, right: int) -> np.ndarray:
    """`image` with so many rows and columns more, edges repeated; many times as fast as `numpy.pad`."""
    rows, columns = image.shape
    edged = np.empty((above + rows + below, left + columns + right), image.dtype)
    middle = edged[above : above + rows]
    middle[:, left : left + columns] = image
    middle[:, :left], middle[:, left + columns :] = image[:, :1], image[:, -1:]
    edged[:above], edged[above + rows :] = middle[0], middle[-1]
    return edged


@compiled
def bend(image, gamma):  # type: ignore[no-untyped-def]
    """Clip `image` to [0, 1] and raise it to the power `gamma` (float32), in place."""
    last = bent = np.float32(0)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            value = min(max(image[y, x], np.float32(0)), np.float32(1))
            if value != last:
                # What lies outside the field is all of one value.
                last, bent = value, value**gamma
            image[y, x] = bent


@compiled
def _along_rows(padded, kernel):  # type: ignore[no-untyped-def]
    rows, columns = padded.shape[0], padded.shape[1] - kernel.size + 1
    result = np.zeros((rows, columns), np.float32)
    for y in range(rows):
        for n in range(kernel.size):
            weight = kernel[n]
            for x in range(columns):
                result[y, x] += weight * padded[y, x + n]
    return result


@compiled
def _along_columns(padded, kernel):  # type: ignore[no-untyped-def]
    rows, columns = padded.shape[0] - kernel.size + 1, padded.shape[1]
    result = np.zeros((rows, columns), np.float32)
    for y in range(rows):
        for n in range(kernel.size):
            weight = kernel[n]
            for x in range(columns):
                result[y, x] += weight * padded[y + n, x]
    return result


@compiled
def _block_means(image, factor):  # type: ignore[no-untyped-def]
    result = np.zeros((image.shape[0] // factor, image.shape[1] // factor), np.float32)
    scale = np.float32(1 / (factor * factor))
    for y in range(image.shape[0]):
        for x in range(result.shape[1]):
            total = np.float32(0)
            for n in range(x * factor, (x + 1) * factor):
                total += image[y, n]
            result[y // factor, x] += total * scale
    return result


@compiled
def _bilinear(result, small, down, across):  # type: ignore[no-untyped-def]
    rows, columns = result.shape
    line = np.empty(small.shape[1], np.float32)
    left = np.empty(columns, np.uintp)
    share = np.empty(columns)
    for x in range(columns):
        left[x] = min(int(across[x]), small.shape[1] - 2)
        share[x] = across[x] - left[x]
    for y in range(rows):
        i = min(int(down[y]), small.shape[0] - 2)
        fy = down[y] - i
        for x in range(small.shape[1]):
            line[x] = small[i, x] + fy * (small[i + 1, x] - small[i, x])
        for x in range(columns):
            j = left[x]
            result[y, x] = line[j] + share[x] * (line[j + np.uintp(1)] - line[j])
