"""Display processing: bone bright, within range, whatever the style and wherever the field."""

from dataclasses import replace

import numpy as np
import pytest

from mskscreen.phantom.display import DisplayStyle, Family, process, sample_style
from mskscreen.phantom.filters import blur, low_pass
from mskscreen.phantom.physics import primary
from mskscreen.phantom.scene import Layers, Material

STYLES = [sample_style(np.random.default_rng(seed)) for seed in range(40)]


@pytest.fixture(scope="module")
def intensity() -> np.ndarray:
    """A limb across the field with a bone in its middle: 5 cm of tissue, 1 cm of bone."""
    across = np.abs(np.arange(200) - 100)
    soft = np.broadcast_to(
        np.where(across < 60, 0.05 * np.sqrt(np.maximum(1 - (across / 60) ** 2, 0)), 0), (240, 200)
    )
    bone = np.broadcast_to(np.where(across < 12, 0.01, 0.0), (240, 200))
    return primary(Layers({Material.SOFT: soft.astype(np.float32), Material.BONE: bone.astype(np.float32)}), 55.0)


@pytest.mark.parametrize("style", STYLES)
def test_bone_is_brighter_than_flesh_and_flesh_than_air(style: DisplayStyle, intensity: np.ndarray) -> None:
    image = process(intensity, style, np.random.default_rng(0))
    assert image.dtype == np.float32
    assert image.shape == intensity.shape
    assert 0 <= image.min() <= image.max() <= 1
    bone, flesh, air = image[:, 95:105].mean(), image[:, 60:75].mean(), image[:, :30].mean()
    assert bone > flesh + 0.05
    assert flesh >= air - 0.01


def test_every_family_is_sampled() -> None:
    assert {style.family for style in STYLES} == set(Family)


@pytest.mark.parametrize("family", list(Family))
def test_what_lies_outside_the_field_does_not_count(family: Family, intensity: np.ndarray) -> None:
    style = replace(
        next(s for s in STYLES if s.family is family), latitude=np.inf, structure=0.0, detail=0.0, grain=0.0
    )
    field = np.zeros(intensity.shape)
    field[60:180] = 1.0
    spoilt = intensity.copy()
    spoilt[:50] = 1e-4
    inside = [process(array, style, np.random.default_rng(0), field)[60:180] for array in (intensity, spoilt)]
    np.testing.assert_array_equal(inside[0], inside[1])


def test_narrow_latitude_brings_thick_and_thin_parts_together() -> None:
    depth = np.broadcast_to(np.where(np.arange(300) < 150, 0.02, 0.2), (200, 300)).astype(np.float32)
    intensity = primary(Layers({Material.SOFT: depth}), 70.0)
    style = DisplayStyle(
        Family.DETAIL, equalise=0.0, structure=0.0, detail=0.0, slope=0.0, black=0, white=100, air=1.0
    )
    gaps = []
    for latitude in (np.inf, 0.5):
        image = process(intensity, replace(style, latitude=latitude), np.random.default_rng(0))
        gaps.append(image[:, 290].mean() - image[:, 10].mean())
    assert gaps[1] < 0.6 * gaps[0]


def test_uniform_and_empty_fields_do_not_fail() -> None:
    for field in (None, np.zeros((60, 50))):
        image = process(np.ones((60, 50), np.float32), DisplayStyle(Family.FLAT), np.random.default_rng(0), field)
        assert np.isfinite(image).all()


def test_filters_keep_the_mean_and_a_constant() -> None:
    rng = np.random.default_rng(0)
    noise = rng.random((90, 70), dtype=np.float32)
    for filtered in (blur(noise, 1.3), low_pass(noise, 9.0)):
        assert filtered.shape == noise.shape
        assert filtered.mean() == pytest.approx(noise.mean(), rel=0.02)
        assert filtered.std() < 0.5 * noise.std()
    np.testing.assert_allclose(low_pass(np.full((61, 47), 0.3, np.float32), 11.0), 0.3, rtol=1e-5)


def test_low_pass_does_not_shift() -> None:
    distance = np.abs(np.arange(201) - 100)
    spot = np.exp(-0.5 * (np.hypot(distance[:, None], distance) / 5) ** 2).astype(np.float32)
    spread = low_pass(spot, 12.0)
    weights = spread / spread.sum()
    index = np.arange(201)
    for axis in range(2):
        assert (weights.sum(axis) * index).sum() == pytest.approx(100, abs=0.05)
        assert np.sqrt((weights.sum(axis) * (index - 100) ** 2).sum()) == pytest.approx(13, rel=0.05)
