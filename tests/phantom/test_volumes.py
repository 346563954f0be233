"""Density volumes: holes do not matter, levels hold the same mineral, rebuilding gives the same bytes."""

from pathlib import Path

import numpy as np
import pytest

from mskscreen.phantom.bone_density import occupancy
from mskscreen.phantom.geometry import load_meshes
from mskscreen.phantom.levels import BLOCK, FULL
from mskscreen.phantom.skeleton import Skeleton
from mskscreen.phantom.volumes import load_volume


def sphere(rings: int = 24) -> np.ndarray:
    """Triangles (n, 3, 3) of a unit sphere."""
    polar, around = np.meshgrid(np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, 2 * rings), indexing="ij")
    points = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], axis=-1)
    a, b, c, d = points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]
    return np.concatenate([np.stack(corners, axis=2).reshape(-1, 3, 3) for corners in ((a, b, c), (a, c, d))])


def solid_volume(triangles: np.ndarray, pitch: float = 0.04) -> float:
    size = int(2.4 / pitch)
    return float(occupancy(triangles, np.full(3, -1.2), pitch, (size, size, size)).sum() * pitch**3)


def test_sphere_has_the_volume_of_a_sphere() -> None:
    assert solid_volume(sphere()) == pytest.approx(4 / 3 * np.pi, rel=0.03)


def test_holes_and_turned_faces_are_repaired() -> None:
    triangles = sphere()
    rng = np.random.default_rng(0)
    holed = triangles[rng.random(len(triangles)) > 0.2]
    turned = triangles.copy()
    turned[rng.random(len(turned)) < 0.01] = turned[rng.random(len(turned)) < 0.01][:1, ::-1]
    assert solid_volume(holed) == pytest.approx(solid_volume(triangles), rel=0.01)
    assert solid_volume(turned) == pytest.approx(solid_volume(triangles), rel=0.02)


def test_volume_follows_the_mesh() -> None:
    level = load_volume("capitate").levels[0]
    corners = load_meshes()["capitate"].triangles
    enclosed = abs(np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum()) / 6
    assert (level.density > 10).sum() * level.pitch**3 == pytest.approx(enclosed, rel=0.1)


def test_levels_hold_the_same_mineral_in_the_same_place() -> None:
    levels = load_volume("3proxph").levels
    masses = [level.density.sum(dtype=float) * level.pitch**3 for level in levels]
    np.testing.assert_allclose(masses, masses[0], rtol=0.01)
    for level in levels:
        indices = np.argwhere(level.density > 0)
        weights = level.density[level.density > 0]
        centre = np.linalg.inv(level.to_grid) @ [*np.average(indices, axis=0, weights=weights), 1]
        if level is levels[0]:
            expected = centre
        np.testing.assert_allclose(centre, expected, atol=0.03 * level.pitch)


def test_shaft_is_a_tube_and_its_ends_are_spongy() -> None:
    shape, level = Skeleton.load().bones["3mc"], load_volume("3mc").levels[0]

    def density(point: np.ndarray) -> float:
        i, j, k = np.rint((level.to_grid @ [*point, 1])[:3]).astype(int)
        return float(level.density[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2].mean() / FULL)

    def ring(fraction: float) -> float:
        across = np.linalg.svd(np.outer(shape.axis, shape.axis))[0][:, 1]
        point, radius = shape.point_at(fraction), shape.radius_at(fraction)
        return max(density(point + across * radius * out) for out in np.linspace(0.5, 1.1, 7))

    assert density(shape.point_at(0.5)) < 0.1
    assert ring(0.5) > 0.8
    assert 0.03 < density(shape.point_at(0.93)) < 0.6


def test_borders_are_empty_and_blocks_cover_the_bone() -> None:
    level = load_volume("lunate").levels[0]
    for axis in range(3):
        sides = np.moveaxis(level.density, axis, 0)
        assert not sides[0].any()
        assert not sides[-1].any()
    i, j, k = level.density.shape
    for leaps in (level.alone, *map(level.leaps, range(3))):
        spread = (leaps < 0).repeat(BLOCK, 0).repeat(BLOCK, 1).repeat(BLOCK, 2)
        assert spread[:i, :j, :k][level.density > 0].all()
        assert spread.mean() < 0.9


@pytest.mark.parametrize("slices", range(3))
def test_rays_meet_no_bone_in_blocks_that_are_clear_along_them(slices: int) -> None:
    level = load_volume("lunate").levels[1]
    leaps = level.leaps(slices)
    bone = np.pad(level.density > 0, [(0, -size % BLOCK) for size in level.density.shape])
    for block in np.argwhere(leaps > 0):
        first, last = block * BLOCK, (block + 1) * BLOCK
        first -= np.where(np.arange(3) == slices, 0, 2)
        last += np.where(np.arange(3) == slices, 0, 3)
        assert not bone[tuple(slice(max(low, 0), high) for low, high in zip(first, last, strict=True))].any()


@pytest.mark.parametrize("slices", range(3))
def test_a_leap_passes_blocks_of_one_kind_wherever_a_slanting_ray_goes(slices: int) -> None:
    leaps = np.moveaxis(load_volume("lunate").levels[1].leaps(slices), slices, 0).astype(int)
    assert leaps.max() > 2
    assert leaps.min() < -2
    for layer, y, x in np.ndindex(leaps.shape):
        leap = leaps[layer, y, x]
        for step in range(abs(leap)):
            around = leaps[layer + step : layer + step + 1, max(y - step, 0) :, max(x - step, 0) :]
            assert (around[:, : min(y, step) + step + 1, : min(x, step) + step + 1] * leap > 0).all()


def test_rebuilding_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    for name in ("first", "second"):
        monkeypatch.setenv("MSKSCREEN_CACHE", str(tmp_path / name))
        load_volume.__wrapped__("pisiform")
        files = sorted((tmp_path / name).rglob("pisiform.normal.*"))
        assert len(files) == 4
        built.append([path.read_bytes() for path in files])
    assert built[0] == built[1]


def test_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MSKSCREEN_CACHE", str(tmp_path / "file"))
    level = load_volume.__wrapped__("pisiform").levels[0]
    assert np.array_equal(level.density, load_volume("pisiform").levels[0].density)


def test_broken_cache_file_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSKSCREEN_CACHE", str(tmp_path))
    whole = load_volume.__wrapped__("pisiform").levels[0].density.copy()
    next(tmp_path.rglob("pisiform.normal.0.npy")).write_bytes(b"\x93NUMPY torn")
    assert np.array_equal(load_volume.__wrapped__("pisiform").levels[0].density, whole)


def test_unknown_bone_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="femur"):
        load_volume("femur")
    with pytest.raises(KeyError, match="paper"):
        load_volume("pisiform", "paper")
