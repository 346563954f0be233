"""From path lengths to detected intensity: attenuation, scatter, heel effect, noise and blur.

Scatter, grids and the heel effect are described in J. T. Bushberg, J. A. Seibert, E. M. Leidholdt and J. M. Boone,
The Essential Physics of Medical Imaging (3rd edition, 2012), the modulation transfer function in ICRU Report 54,
Medical Imaging: The Assessment of Image Quality (1996). Their sizes, here and in `case`, are our choice.
"""

from __future__ import annotations

import numpy as np

from mskscreen.phantom.attenuation import linear_attenuation, spectrum
from mskscreen.phantom.compiled import compiled
from mskscreen.phantom.filters import blur, coarseness, shrink, spread
from mskscreen.phantom.scene import Exposure, Layers

_GRID_PASSES = 0.2  # share of scatter that a grid lets through
_SCATTER_SPREAD = 0.06  # standard deviation of the scatter's spread, of the long side
_ROWS_AT_ONCE = 32  # few enough to stay in the cache of the core
_GAUSSIAN_FROM = np.float32(40)  # quanta a pixel above which a normal distribution stands for Poisson's


def primary(layers: Layers, kilovolts: float) -> np.ndarray:
    """Unscattered intensity (rows, columns) float32 relative to the open beam: Beer-Lambert over the spectrum."""
    energies, weights = spectrum(kilovolts)
    present = {material: path for material, path in layers.paths.items() if path.any()}
    coefficients = [linear_attenuation(material, energies).astype(np.float32) for material in present]
    total = np.zeros(next(iter(layers.paths.values())).shape, np.float32)
    for start in range(0, len(total), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        exponent, term = np.empty_like(total[rows]), np.empty_like(total[rows])
        for index, weight in enumerate(weights):
            exponent.fill(0)
            for path, coefficient in zip(present.values(), coefficients, strict=True):
                np.multiply(path[rows], coefficient[index], out=term)
                exponent -= term
            np.exp(exponent, out=exponent)
            exponent *= np.float32(weight)
            total[rows] += exponent
    return total


def draw_noise(shape: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Normal numbers of `shape`, float32: a field for the quanta and one for the electronics, shared by twins."""
    quantum, electronic = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    return quantum, electronic


def expose(layers: Layers, exposure: Exposure, noise: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Detected intensity (rows, columns) float32, 1 in the open beam, never below 0; `noise` is of `draw_noise`.

    Scatter is a low-pass of what the first interaction takes from the beam. Quantum noise is Poisson's, normal
    where quanta are many; the detector's blur acts on signal and quantum noise, electronic noise comes after it.
    """
    intensity = primary(layers, exposure.kilovolts)
    rows, columns = intensity.shape
    ratio = exposure.scatter * (_GRID_PASSES if exposure.grid else 1.0)
    if ratio > 0:
        intensity += np.float32(ratio) * _scattered(intensity)
    down = 1 + exposure.heel[0] * (np.arange(rows, dtype=np.float32) / rows - 0.5)
    across = exposure.heel[1] * (np.arange(columns, dtype=np.float32) / columns - 0.5)
    quantum, electronic = noise
    _count(intensity, down, across, np.float32(exposure.quanta), quantum)
    detected = blur(intensity, exposure.blur)
    detected += np.float32(exposure.electronic_noise) * electronic
    return np.maximum(detected, 0, out=detected)


def _scattered(intensity: np.ndarray) -> np.ndarray:
    """Scatter per unit of the scatter-to-primary ratio.

    It spreads so far that what is taken from the beam may be reckoned from means over blocks.
    """
    rows, columns = intensity.shape
    sigma = _SCATTER_SPREAD * max(rows, columns)
    factor = coarseness(sigma)
    small = shrink(intensity, factor)
    small *= np.minimum(-np.log(np.maximum(small, np.float32(1e-6))), 3)
    return spread(small, sigma / factor, factor, rows, columns)


@compiled
def _count(intensity, down, across, quanta, normal):  # type: ignore[no-untyped-def]
    """Replace intensities by detected quanta relative to the open beam, behind the heel effect `down` + `across`.

    One normal number a pixel: twins keep their noise in step. Few quanta follow Poisson's law through the
    two-thirds power, which is nearly normal (F. J. Anscombe, J. R. Stat. Soc. B 15, 1953, 229), to 1.2 % of the
    mean and 5 % of the variance from one quantum a pixel on.
    """
    third, half, one = np.float32(1 / 3), np.float32(0.5), np.float32(1)
    for y in range(intensity.shape[0]):
        for x in range(intensity.shape[1]):
            expected = intensity[y, x] * (down[y] + across[x]) * quanta
            if expected >= _GAUSSIAN_FROM:
                counted = expected + np.sqrt(expected) * normal[y, x]
            else:
                root = max(expected, np.float32(1e-3)) ** third
                power = root * root - (one / root - np.float32(6) * np.sqrt(root) * normal[y, x]) / np.float32(9)
                counted = np.floor(max(power, np.float32(0)) ** np.float32(1.5) + half)
            intensity[y, x] = counted / quanta
