"""From path lengths to detected intensity: attenuation, scatter, heel effect, noise and blur."""

from __future__ import annotations

import numpy as np

from mskscreen.phantom.attenuation import linear_attenuation, spectrum
from mskscreen.phantom.filters import blur, low_pass
from mskscreen.phantom.scene import Exposure, Layers

_GRID_PASSES = 0.2  # share of scatter behind a typical 8:1 grid
_SCATTER_SPREAD = 0.06  # of the long side
_GAUSSIAN_FROM = 40.0  # quanta a pixel above which a normal distribution stands for Poisson's


def primary(layers: Layers, kilovolts: float) -> np.ndarray:
    """Unscattered intensity (rows, columns) float32 relative to the open beam: Beer-Lambert over the spectrum."""
    energies, weights = spectrum(kilovolts)
    coefficients = {material: linear_attenuation(material, energies) for material in layers.paths}
    shape = next(iter(layers.paths.values())).shape
    total = np.zeros(shape, np.float32)
    for index, weight in enumerate(weights):
        exponent = np.zeros(shape, np.float32)
        for material, path in layers.paths.items():
            exponent -= np.float32(coefficients[material][index]) * path
        total += np.float32(weight) * np.exp(exponent)
    return total


def expose(layers: Layers, exposure: Exposure, rng: np.random.Generator) -> np.ndarray:
    """Detected intensity (rows, columns) float32, 1 in the open beam, never below 0.

    Scatter is a low-pass of what the first interaction takes from the beam. Quantum noise is Poisson's, normal
    where quanta are many; the detector's blur acts on signal and quantum noise, electronic noise comes after it.
    """
    intensity = primary(layers, exposure.kilovolts)
    rows, columns = intensity.shape
    ratio = exposure.scatter * (_GRID_PASSES if exposure.grid else 1.0)
    if ratio > 0:
        depth = -np.log(np.maximum(intensity, np.float32(1e-6)))
        scattered = low_pass(intensity * np.minimum(depth, 3), _SCATTER_SPREAD * max(rows, columns))
        intensity += np.float32(ratio) * scattered
    down = 1 + exposure.heel[0] * (np.arange(rows) / rows - 0.5)
    across = exposure.heel[1] * (np.arange(columns) / columns - 0.5)
    intensity *= (down[:, None] + across[None, :]).astype(np.float32)
    detected = blur(_counted(intensity, exposure.quanta, rng), exposure.blur)
    noise = rng.standard_normal(detected.shape, dtype=np.float32)
    return np.maximum(detected + np.float32(exposure.electronic_noise) * noise, 0)


def _counted(intensity: np.ndarray, quanta: float, rng: np.random.Generator) -> np.ndarray:
    """Detected quanta relative to the open beam, one normal number a pixel: twins keep their noise in step.

    Few quanta follow Poisson's law through the two-thirds power, which is nearly normal (F. J. Anscombe, The
    Statistician 3, 1953), to 0.5 % of the mean and 5 % of the variance from one quantum a pixel on.
    """
    expected = intensity * np.float32(quanta)
    normal = rng.standard_normal(expected.shape, dtype=np.float32)
    counted = expected + np.sqrt(expected) * normal
    few = expected < _GAUSSIAN_FROM
    mean = np.maximum(expected[few], np.float32(1e-3))
    power = np.cbrt(mean) ** 2 * (1 - 1 / (9 * mean)) + np.float32(2 / 3) * mean ** np.float32(1 / 6) * normal[few]
    counted[few] = np.rint(np.maximum(power, 0) ** np.float32(1.5))
    return counted / np.float32(quanta)
