"""Exposure: Beer-Lambert by hand, photon statistics, scatter and the tube."""

from dataclasses import replace

import numpy as np
import pytest

from mskscreen.phantom.attenuation import linear_attenuation, spectrum
from mskscreen.phantom.physics import draw_noise, primary
from mskscreen.phantom.physics import expose as expose_with
from mskscreen.phantom.scene import Exposure, Layers, Material

QUIET = Exposure(quanta=1e12, scatter=0.0, blur=0.0, electronic_noise=0.0)


def expose(layers: Layers, exposure: Exposure, rng: np.random.Generator) -> np.ndarray:
    shape = next(iter(layers.paths.values())).shape
    return expose_with(layers, exposure, draw_noise(shape, rng))


def slab(size: int = 64, **thicknesses: float) -> Layers:
    """Uniform layers (metres) of the named materials."""
    return Layers(
        {Material[name]: np.full((size, size), metres, np.float32) for name, metres in thicknesses.items()}
    )


@pytest.mark.parametrize(
    ("material", "energy", "by_hand"),
    [
        # Mass attenuation (cm2/g) x density (g/cm3) x 100, from NISTIR 5632.
        (Material.BONE, 40.0, 0.6655 * 1.92 * 100),
        (Material.SOFT, 60.0, 0.2048 * 1.06 * 100),
        (Material.STEEL, 50.0, 1.958 * 7.874 * 100),
        # Between two entries: a straight line on logarithms.
        (Material.BONE, np.sqrt(40.0 * 50.0), np.sqrt(0.6655 * 0.4242) * 192),
    ],
)
def test_coefficients_are_those_of_the_table(material: Material, energy: float, by_hand: float) -> None:
    assert linear_attenuation(material, np.array([energy]))[0] == pytest.approx(by_hand, rel=1e-9)


def test_slab_phantom_follows_beer_lambert() -> None:
    """3 cm of soft tissue with 8 mm of bone at 60 kV, summed by hand over the four bins of the spectrum."""
    table = {
        20: (4.001, 0.8230),
        30: (1.331, 0.3790),
        40: (0.6655, 0.2688),
        50: (0.4242, 0.2264),
        60: (0.3148, 0.2048),
    }
    expected = 0.0
    for energy, weight in zip(*spectrum(60.0), strict=True):
        low = int(energy // 10) * 10
        share = np.log(energy / low) / np.log((low + 10) / low)
        bone, soft = (a ** (1 - share) * b**share for a, b in zip(table[low], table[low + 10], strict=True))
        expected += weight * np.exp(-(bone * 1.92 * 0.8 + soft * 1.06 * 3.0))
    layers = slab(BONE=0.008, SOFT=0.03)
    assert primary(layers, 60.0)[0, 0] == pytest.approx(expected, rel=1e-5)
    detected = expose(layers, replace(QUIET, kilovolts=60.0), np.random.default_rng(0))
    assert detected.mean() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kilovolts", [45.0, 60.0, 85.0])
def test_four_bins_stand_for_the_whole_spectrum(kilovolts: float) -> None:
    energies, weights = spectrum(kilovolts, bins=20)
    exponent = (
        linear_attenuation(Material.BONE, energies) * 0.01 + linear_attenuation(Material.SOFT, energies) * 0.04
    )
    fine = (weights * np.exp(-exponent)).sum()
    assert primary(slab(BONE=0.01, SOFT=0.04), kilovolts)[0, 0] == pytest.approx(fine, rel=0.06)


def test_harder_beams_go_through_and_flatten_bone() -> None:
    intensities = [
        (primary(slab(SOFT=0.05), kv)[0, 0], primary(slab(SOFT=0.05, BONE=0.01), kv)[0, 0]) for kv in (50, 80)
    ]
    (soft50, bone50), (soft80, bone80) = intensities
    assert soft80 > soft50
    assert bone80 / soft80 > bone50 / soft50


def test_every_pixel_is_attenuated_by_what_lies_in_its_own_way() -> None:
    layers = slab(SOFT=0.0, BONE=0.0)
    layers.paths[Material.SOFT][40:50, 7:30] = 0.05
    layers.paths[Material.BONE][45:48, 20:60] = 0.01
    found = primary(layers, 60)
    for row, column in ((0, 0), (39, 10), (40, 6), (40, 7), (46, 25), (46, 59), (46, 60), (63, 63)):
        alone = slab(
            1, SOFT=layers.paths[Material.SOFT][row, column], BONE=layers.paths[Material.BONE][row, column]
        )
        assert found[row, column] == pytest.approx(primary(alone, 60)[0, 0], rel=1e-6)
    assert found[0, 0] == pytest.approx(1, rel=1e-6)


def test_quantum_noise_is_that_of_poisson() -> None:
    layers = slab(200, SOFT=0.05)
    mean = primary(layers, 55.0)[0, 0]
    for quanta in (50.0, 2e4):
        exposure = Exposure(quanta=quanta, scatter=0.0, blur=0.0, electronic_noise=0.0)
        detected = expose(layers, exposure, np.random.default_rng(1)) * quanta
        assert detected.mean() == pytest.approx(mean * quanta, rel=0.02)
        assert detected.var() == pytest.approx(mean * quanta, rel=0.05)


def test_blur_correlates_quantum_noise_but_not_electronic_noise() -> None:
    def correlation(exposure: Exposure) -> float:
        noise = expose(slab(200, SOFT=0.02), exposure, np.random.default_rng(1))
        return float(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1])

    assert correlation(Exposure(quanta=1e4, scatter=0, blur=0.8, electronic_noise=0)) > 0.5
    assert abs(correlation(Exposure(quanta=1e12, scatter=0, blur=0.8, electronic_noise=0.01))) < 0.05


def edge(exposure: Exposure) -> tuple[float, float]:
    """Mean intensity behind 4 cm of tissue beside, and with, 2 cm of bone."""
    bone = np.zeros((128, 128), np.float32)
    bone[:, 64:] = 0.02
    layers = Layers({Material.BONE: bone, Material.SOFT: np.full_like(bone, 0.04)})
    detected = expose(layers, exposure, np.random.default_rng(0))
    return float(detected[:, 40:56].mean()), float(detected[:, 72:88].mean())


@pytest.mark.parametrize("blur", [0.4, 0.6, 0.95])
def test_an_edge_has_the_transfer_function_that_is_declared(blur: float) -> None:
    soft = np.zeros((8, 256), np.float32)
    soft[:, 128:] = 0.03
    image = expose(Layers({Material.SOFT: soft}), replace(QUIET, blur=blur), np.random.default_rng(0))
    line_spread = np.diff(image[4].astype(float))
    measured = np.abs(np.fft.rfft(line_spread / line_spread.sum()))
    frequencies = np.fft.rfftfreq(len(line_spread))
    shifted = np.exp(-2 * (np.pi * blur * (frequencies[:, None] + np.arange(-4, 5))) ** 2).sum(axis=1)
    np.testing.assert_allclose(measured, shifted / shifted[0], atol=6e-3)


def test_scatter_to_primary_ratio_is_that_declared_behind_one_mean_free_path() -> None:
    primary_alone, with_scatter = (
        expose(slab(SOFT=0.027), replace(QUIET, scatter=ratio), np.random.default_rng(0)) for ratio in (0.0, 0.5)
    )
    ratio = (with_scatter / primary_alone - 1)[32, 32]
    assert ratio == pytest.approx(0.5 * -np.log(primary_alone[32, 32]), rel=0.02)
    assert ratio == pytest.approx(0.5, rel=0.05)


def test_scatter_lowers_contrast_and_a_grid_restores_most_of_it() -> None:
    contrasts = []
    for scatter, grid in ((0.0, False), (1.0, True), (1.0, False)):
        soft, bone = edge(Exposure(quanta=1e10, scatter=scatter, grid=grid, electronic_noise=0))
        contrasts.append(soft / bone)
    assert contrasts[0] > contrasts[1] > contrasts[2]
    assert contrasts[0] - contrasts[1] < 0.6 * (contrasts[0] - contrasts[2])


def test_heel_effect_tilts_the_field_without_changing_its_mean() -> None:
    exposure = replace(QUIET, heel=(0.2, 0.0))
    flat, tilted = (expose(slab(SOFT=0.01), e, np.random.default_rng(0)) for e in (QUIET, exposure))
    assert tilted[-1].mean() / tilted[0].mean() == pytest.approx(1.2, rel=0.03)
    assert tilted.mean() == pytest.approx(flat.mean(), rel=0.01)


def test_same_seed_gives_the_same_bytes() -> None:
    layers = slab(BONE=0.01, SOFT=0.2)
    images = [expose(layers, Exposure(), np.random.default_rng(seed)).tobytes() for seed in (1, 1, 2)]
    assert images[0] == images[1] != images[2]
    assert expose(layers, Exposure(), np.random.default_rng(1)).min() >= 0
