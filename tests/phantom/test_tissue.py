"""Soft tissue: capsules of one group merge, groups add where one lies behind the other, lungs take away."""

import numpy as np
import pytest

from mskscreen.phantom.render import trace
from mskscreen.phantom.scene import Camera, Capsule, Material, Scene
from mskscreen.phantom.tissue import thickness

PIXELS = 161
STEP = 0.5e-3
CAMERA = Camera(
    np.array([0, 0, 30.0]),
    -np.array([STEP, -STEP, 0]) * (PIXELS - 1) / 2,
    np.array([STEP, 0, 0]),
    np.array([0, -STEP, 0]),
    PIXELS,
    PIXELS,
)


def limb(radius: float = 0.01, depth: float = 0.0, layer: str = "skin", group: str = "") -> Capsule:
    """A capsule along x, 60 mm long, at a depth along the beam."""
    return Capsule((-0.03, 0, depth), (0.03, 0, depth), radius, radius, layer, group)


def centre(*capsules: Capsule) -> float:
    return float(thickness(capsules, CAMERA)[PIXELS // 2, PIXELS // 2])


def test_cylinder_has_the_chords_of_a_cylinder() -> None:
    profile = thickness([limb()], CAMERA)[:, PIXELS // 2]
    off_axis = np.abs(np.arange(PIXELS) - PIXELS // 2) * STEP
    chords = 2 * np.sqrt(np.maximum(0.01**2 - off_axis**2, 0))
    np.testing.assert_allclose(profile[off_axis < 0.009], chords[off_axis < 0.009], rtol=0.03)
    assert not profile[off_axis > 0.0125].any()


def test_one_group_counts_once_and_two_groups_apart_add() -> None:
    single = centre(limb())
    assert single == pytest.approx(0.02, rel=0.01)
    assert centre(limb(), limb(depth=0.03)) < 1.2 * single
    assert centre(limb(group="a"), limb(depth=0.03, group="b")) == pytest.approx(2 * single, rel=0.01)
    assert centre(limb(group="a"), limb(group="b")) == pytest.approx(single, rel=0.01)
    assert centre(limb(group="a"), limb(depth=0.01, group="b")) == pytest.approx(0.03, rel=0.01)


def test_limb_towards_the_beam_is_thicker() -> None:
    slanted = Capsule((-0.01, 0, -0.02), (0.01, 0, 0.02), 0.01, 0.01)
    assert centre(slanted) == pytest.approx(0.02 * np.sqrt(5), rel=0.03)
    upright = Capsule((0, 0, -0.02), (0, 0, 0.02), 0.01, 0.01)
    assert centre(upright) == pytest.approx(0.06, rel=0.03)


def test_fat_lies_between_skin_and_muscle_and_lungs_take_of_both() -> None:
    def paths(*capsules: Capsule) -> tuple[float, float]:
        layers = trace(Scene(tissue=capsules), CAMERA).paths
        return tuple(float(layers[name][PIXELS // 2, PIXELS // 2]) for name in (Material.SOFT, Material.FAT))

    assert paths(limb()) == pytest.approx((0.02, 0), rel=0.01)
    assert paths(limb(), limb(0.008, layer="muscle")) == pytest.approx((0.016, 0.004), rel=0.02)
    assert paths(limb(), limb(0.005, layer="lung"))[0] == pytest.approx(0.0125, rel=0.02)
    assert paths(limb(), limb(0.008, layer="muscle"), limb(0.005, layer="lung")) == pytest.approx(
        (0.01, 0.0025), rel=0.02
    )
