"""Ray casting: solids against their formulas, bones against their volumes, fragments against the whole."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from mskscreen.phantom import projector
from mskscreen.phantom.levels import FULL
from mskscreen.phantom.projector import cast_bones, solid_path
from mskscreen.phantom.render import trace
from mskscreen.phantom.scene import BonePart, Camera, Clip, DensityEdit, Material, Scene, Shape, Solid
from mskscreen.phantom.skeleton import Skeleton, rotation
from mskscreen.phantom.volumes import load_volume

BONE = "3proxph"


def camera(size: float = 0.06, pixels: int = 120, distance: float = 1.0, mirrored: bool = False) -> Camera:
    """A square detector plane through the origin, seen along -z, of `size` metres."""
    step = size / pixels
    du, dv = np.array([step, 0, 0]), np.array([0, -step, 0])
    if mirrored:
        du = -du
    origin = -(du + dv) * (pixels - 1) / 2
    return Camera(np.array([0, 0, distance]), origin, du, dv, pixels, pixels)


def placed(turn: np.ndarray | None = None, bone: str = BONE) -> np.ndarray:
    """A transform that brings the middle of the bone to the origin, turned by `turn`."""
    transform = np.eye(4)
    transform[:3, :3] = np.eye(3) if turn is None else turn
    transform[:3, 3] = -transform[:3, :3] @ Skeleton.load().bones[bone].centre
    return transform


def shadow(*parts: BonePart, view: Camera | None = None) -> np.ndarray:
    view = view or camera()
    path = np.zeros((view.rows, view.columns), np.float32)
    cast_bones(path, parts, view)
    return path


def lengths(shape: Shape, half: tuple[float, float, float], transform: np.ndarray | None = None) -> np.ndarray:
    view = camera(distance=50.0, pixels=121)
    path = np.zeros((view.rows, view.columns), np.float32)
    window, inside = solid_path(
        Solid(shape, Material.STEEL, np.eye(4) if transform is None else transform, half), view
    )
    path[window] = inside
    return path


@pytest.mark.parametrize(
    ("shape", "half", "volume"),
    [
        (Shape.BOX, (0.01, 0.005, 0.008), 8 * 0.01 * 0.005 * 0.008),
        (Shape.CYLINDER, (0.006, 0.006, 0.009), 2 * np.pi * 0.006**2 * 0.009),
        (Shape.ELLIPSOID, (0.01, 0.005, 0.008), 4 / 3 * np.pi * 0.01 * 0.005 * 0.008),
    ],
)
@pytest.mark.parametrize("angle", [0.0, 0.7, np.pi / 2])
def test_shadow_of_a_solid_holds_its_volume(
    shape: Shape, half: tuple[float, float, float], volume: float, angle: float
) -> None:
    transform = np.eye(4)
    transform[:3, :3] = rotation(np.array([1, 0.4, 0]), angle)
    path = lengths(shape, half, transform)
    assert path.sum() * (0.06 / 121) ** 2 == pytest.approx(volume, rel=0.02)


def test_central_rays_have_the_length_of_the_solid() -> None:
    assert lengths(Shape.BOX, (0.01, 0.005, 0.008))[60, 60] == pytest.approx(0.016, rel=1e-4)
    assert lengths(Shape.CYLINDER, (0.006, 0.006, 0.009))[60, 60] == pytest.approx(0.018, rel=1e-4)
    assert lengths(Shape.ELLIPSOID, (0.01, 0.005, 0.008))[60, 60] == pytest.approx(0.016, rel=1e-3)


@pytest.mark.parametrize("pixels", [60, 120, 300])
@pytest.mark.parametrize("angle", [0.0, 0.6, 1.3])
def test_shadow_of_a_bone_holds_its_mineral(pixels: int, angle: float) -> None:
    level = load_volume(BONE).levels[0]
    mineral = level.density.sum(dtype=float) / FULL * level.pitch**3
    view = camera(pixels=pixels, distance=50.0)
    path = shadow(BonePart(BONE, placed(rotation(np.array([1, 0.3, 0.2]), angle))), view=view)
    assert path.sum() * (0.06 / pixels) ** 2 == pytest.approx(mineral, rel=0.02)


def test_rays_sum_what_trilinear_samples_along_them_would() -> None:
    level, view = load_volume(BONE).levels[0], camera(pixels=240)
    transform = placed(rotation(np.array([0.5, 1, 0.2]), 0.5))
    path = shadow(BonePart(BONE, transform), view=view)
    to_grid = level.to_grid @ np.linalg.inv(transform)
    rows, columns = (index[::37] for index in np.nonzero(path > 1e-3))
    ends = view.origin + rows[:, None] * view.dv + columns[:, None] * view.du - view.source
    steps = np.linspace(0.98, 1.02, 3000)
    points = view.source + ends[:, None] * steps[None, :, None]
    grid = np.moveaxis(points @ to_grid[:3, :3].T + to_grid[:3, 3], -1, 0)
    samples = ndimage.map_coordinates(level.density.astype(np.float32), grid, order=1)
    lengths = np.linalg.norm(ends, axis=1) * (steps[-1] - steps[0])
    # Slices of the volume against 3,000 steps: a few hundredths of a millimetre of cortex.
    np.testing.assert_allclose(path[rows, columns], samples.mean(axis=1) / FULL * lengths, atol=6e-5)


def test_density_scales_and_patients_stretch() -> None:
    plain = shadow(BonePart(BONE, placed()))
    np.testing.assert_allclose(shadow(BonePart(BONE, placed(), density=0.5)), plain / 2, rtol=1e-5)
    wide = np.diag([1.3, 1, 1, 1]) @ placed()
    assert shadow(BonePart(BONE, wide)).sum() == pytest.approx(1.3 * plain.sum(), rel=0.03)


def test_mirrored_camera_mirrors_the_picture() -> None:
    part = BonePart(BONE, placed(rotation(np.array([0, 0, 1.0]), 0.4)))
    np.testing.assert_allclose(shadow(part, view=camera(mirrored=True))[:, ::-1], shadow(part), atol=1e-6)


@pytest.mark.parametrize("normal", [(0.1, 1.0, 0.2), (-0.6, -0.4, 0.5)])
def test_two_halves_of_a_fracture_make_the_whole(normal: tuple[float, float, float]) -> None:
    middle = Skeleton.load().bones[BONE].point_at(0.5)
    offset = float(np.dot(normal, middle))
    near = Clip(normal, offset, roughness=8e-4, seed=2.0)
    far = Clip(tuple(-x for x in normal), -offset, roughness=8e-4, seed=2.0)
    halves = [shadow(BonePart(BONE, placed(), clips=(clip,))) for clip in (near, far)]
    np.testing.assert_allclose(halves[0] + halves[1], shadow(BonePart(BONE, placed())), atol=1e-6)
    assert 0.2 < halves[0].sum() / halves[1].sum() < 5


def test_fracture_surface_depends_on_its_seed() -> None:
    middle = Skeleton.load().bones[BONE].point_at(0.5)
    clips = [Clip((0, 1, 0), float(middle[1]), roughness=1e-3, seed=seed) for seed in (0.0, 1.0)]
    first, second = (shadow(BonePart(BONE, placed(), clips=(clip,))) for clip in clips)
    assert np.abs(first - second).max() > 1e-4


def test_lysis_removes_and_sclerosis_adds_where_it_lies() -> None:
    centre = tuple(float(x) for x in Skeleton.load().bones[BONE].point_at(0.85))
    plain = shadow(BonePart(BONE, placed()))
    change = {
        gain: shadow(BonePart(BONE, placed(), edits=(DensityEdit(centre, (0.003, 0.003, 0.003), gain),))) - plain
        for gain in (0.0, 2.0)
    }
    assert change[0.0].min() < -2e-4
    assert change[0.0].max() < 1e-6
    assert change[2.0].max() > 2e-4
    row, column = np.unravel_index(change[0.0].argmin(), plain.shape)
    far = np.hypot(*np.meshgrid(np.arange(120) - column, np.arange(120) - row)) > 0.012 / (0.06 / 120)
    assert not change[0.0][far].any()


def test_bones_outside_the_field_cost_nothing_and_cast_nothing() -> None:
    away = placed()
    away[0, 3] += 0.5
    assert not shadow(BonePart(BONE, away)).any()


def test_bone_displaces_soft_tissue_and_metal_displaces_both_layers() -> None:
    view = camera()
    metal = Solid(Shape.BOX, Material.TITANIUM, np.eye(4), (0.004, 0.004, 0.004))
    flesh = Solid(Shape.BOX, Material.SOFT, np.eye(4), (0.02, 0.02, 0.02), displaces=False)
    layers = trace(Scene(solids=(metal, flesh), region_of_interest=(metal,)), view)
    assert layers.paths[Material.TITANIUM][60, 60] == pytest.approx(0.008, rel=1e-3)
    assert layers.paths[Material.SOFT][60, 60] == pytest.approx(0.04, rel=1e-3)
    assert layers.mask is not None
    assert np.array_equal(layers.mask, layers.paths[Material.TITANIUM] > 0)
    assert trace(Scene(solids=(flesh,)), view).mask is None


def test_parts_are_drawn_the_same_in_any_order() -> None:
    parts = (BonePart(BONE, placed()), BonePart("3midph", placed()))
    np.testing.assert_allclose(shadow(*parts), shadow(*parts[::-1]), atol=1e-7)
    assert shadow(*parts).tobytes() == shadow(*(replace(part) for part in parts)).tobytes()


def test_cortical_index_of_the_shaft_rises_with_the_cortex_and_the_bone_stays_as_wide():
    """Combined cortical thickness over width (Barnett and Nordin 1960): mid-shaft marrow holds next to no mineral,
    so the ray through the middle meets both walls and nothing else.
    """
    widths, indices = [], []
    for cortex in ("thin", "normal", "thick"):
        row = shadow(BonePart("2mc", placed(bone="2mc"), cortex=cortex), view=camera(size=0.03, pixels=300))
        across = row[145:156].mean(axis=0)
        inside = np.flatnonzero(across > 0.1e-3)
        width = 0.1e-3 * (inside[-1] - inside[0])
        middle = (inside[0] + inside[-1]) // 2
        widths.append(width)
        indices.append(across[middle - 5 : middle + 6].mean() / width)
    assert indices[0] < 0.8 * indices[1] < 0.8 * 0.9 * indices[2]
    np.testing.assert_allclose(widths, widths[1], rtol=0.04)
    assert indices[0] < 0.43 < indices[2]


def test_skipping_changes_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaping through empty blocks leaves out no bone, nor do rays that are not cast: every ray sees the same."""
    rng = np.random.default_rng(3)
    parts = []
    for _ in range(24):
        transform = placed(rotation(rng.standard_normal(3), rng.uniform(-3, 3)))
        transform[:2, 3] += rng.uniform(-0.07, 0.07, 2)
        whole = BonePart(BONE, transform)
        normal = rng.standard_normal(3)
        clip = Clip(tuple(normal), float(normal @ Skeleton.load().bones[BONE].centre), 0.5e-3)
        parts += [whole, replace(whole, clips=(clip,))]
    quick = [shadow(part) for part in parts]
    monkeypatch.setattr(projector, "_within_45_degrees", lambda *_: False)
    np.testing.assert_array_equal(quick, [shadow(part) for part in parts])
    monkeypatch.setattr(projector, "_in_field", lambda parts, *_: np.ones(len(parts), bool))
    monkeypatch.setattr(projector, "cover", lambda spans, *_: spans.__setitem__(slice(None), (0, spans.shape[0])))
    np.testing.assert_array_equal(quick, [shadow(part) for part in parts])
    assert sum(bool(path.any()) for path in quick) in range(12, 48)
