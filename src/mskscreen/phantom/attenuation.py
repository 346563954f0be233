"""Mass attenuation coefficients and the spectrum of a tungsten tube.

Coefficients (cm2/g, with coherent scattering): J. H. Hubbell and S. M. Seltzer, Tables of X-Ray Mass Attenuation
Coefficients, NISTIR 5632 (1995, web version 1.4), tables 3 and 4; cortical bone, soft tissue and adipose tissue
are the ICRU-44 mixtures, steel is iron, polymer is polyethylene. Gypsum is mixed from the elements of table 3 by
weight (CaSO4 2H2O: Ca 0.2328, S 0.1862, O 0.5576, H 0.0234). Compared on 2026-11-22 with the tables of Elam, Ravel
and Sieber (2002) as the package xraydb ships them: every value within 0.3 %. Spectrum: H. A. Kramers,
Philosophical Magazine 46 (1923) 836.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from mskscreen.phantom.scene import Material

KILOELECTRONVOLTS = (20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0)

_ALUMINIUM = (2.699, (3.441, 1.128, 0.5685, 0.3681, 0.2778, 0.2018, 0.1704))

# Density g/cm3, then cm2/g at the energies above. Plaster is a set bandage, which is half air.
_TABLE: dict[Material, tuple[float, tuple[float, ...]]] = {
    Material.BONE: (1.92, (4.001, 1.331, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855)),
    Material.SOFT: (1.06, (0.8230, 0.3790, 0.2688, 0.2264, 0.2048, 0.1823, 0.1693)),
    Material.FAT: (0.95, (0.5677, 0.3063, 0.2396, 0.2123, 0.1974, 0.1800, 0.1688)),
    Material.AIR: (1.205e-3, (0.7779, 0.3538, 0.2485, 0.2080, 0.1875, 0.1662, 0.1541)),
    Material.TITANIUM: (4.54, (15.85, 4.972, 2.214, 1.213, 0.7661, 0.4052, 0.2721)),
    Material.STEEL: (7.874, (25.68, 8.176, 3.629, 1.958, 1.205, 0.5952, 0.3717)),
    Material.GOLD: (19.32, (78.83, 27.52, 12.98, 7.256, 4.528, 2.185, 5.158)),
    Material.LEAD: (11.35, (86.36, 30.32, 14.36, 8.041, 5.021, 2.419, 5.549)),
    Material.PLASTER: (1.1, (4.781, 1.562, 0.7611, 0.4723, 0.3426, 0.2340, 0.1908)),
    Material.POLYMER: (0.93, (0.4315, 0.2706, 0.2275, 0.2084, 0.1970, 0.1823, 0.1719)),
}

_INHERENT_FILTER = 0.25  # cm of aluminium, the least total filtration of IEC 60601-1-3 above 70 kV


def linear_attenuation(material: Material, kiloelectronvolts: np.ndarray) -> np.ndarray:
    """Linear attenuation coefficients (1/m) at photon energies of 20 to 100 keV.

    Interpolated on logarithms; the K edges of gold (80.7 keV) and lead (88.0 keV) are smeared between 80 and
    100 keV. Energies outside the table take its end values.
    """
    density, coefficients = _TABLE[material]
    return _interpolated(kiloelectronvolts, coefficients) * density * 100


def _interpolated(kiloelectronvolts: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    energies = np.log(np.asarray(kiloelectronvolts, float))
    return np.exp(np.interp(energies, np.log(KILOELECTRONVOLTS), np.log(coefficients)))


@cache
def spectrum(kilovolts: float, bins: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Mean photon energies (keV) and their shares of the detected signal for a tungsten anode at `kilovolts`.

    Kramers' law, N(E) proportional to (kV - E) / E, behind 2.5 mm of aluminium, weighted by energy as an
    integrating detector does. The bins hold equal shares; photons below 15 keV do not leave the filter.
    """
    energies = np.arange(15.0, kilovolts, 0.25)
    density, coefficients = _ALUMINIUM
    signal = (kilovolts - energies) * np.exp(-_interpolated(energies, coefficients) * density * _INHERENT_FILTER)
    share = np.cumsum(signal) / signal.sum()
    which = np.minimum((share * bins).astype(int), bins - 1)
    weights = np.bincount(which, signal, bins)
    means = np.bincount(which, signal * energies, bins) / weights
    return means, weights / weights.sum()
