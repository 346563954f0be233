"""The bundle: every bone of the arm, to scale, and a bundler that keeps shapes."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mskscreen.phantom.geometry import DATA, load_meshes, load_tree

SCRIPT = Path(__file__).parents[2] / "tools" / "bundle_geometry.py"


@pytest.fixture(scope="module")
def bundler() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bundle_geometry", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_bundle_holds_one_arm_and_the_thorax() -> None:
    meshes = load_meshes()
    assert sum(name.endswith("mc") for name in meshes) == 5
    assert sum("ph" in name for name in meshes if name[0] in "2345") == 12
    assert {"thumbprox", "thumbdist", "scaphoid", "pisiform", "radius", "ulna", "humerus", "thorax"} <= set(meshes)
    assert len(meshes) == 33
    assert {frame["name"] for frame in load_tree()["frames"]} >= set(meshes) - {"thorax"}


@pytest.mark.parametrize(("bone", "shortest", "longest"), [("humerus", 0.26, 0.38), ("2mc", 0.055, 0.08)])
def test_bones_are_in_metres(bone: str, shortest: float, longest: float) -> None:
    vertices = load_meshes()[bone].vertices
    assert shortest < np.ptp(vertices, axis=0).max() < longest


@pytest.mark.parametrize("bone", ["scaphoid", "capitate", "3proxph"])
def test_small_bones_are_closed_surfaces(bone: str) -> None:
    faces = load_meshes()[bone].faces
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    counts = np.unique(edges, axis=0, return_counts=True)[1]
    assert (counts == 2).mean() > 0.999


def test_bundle_is_about_one_megabyte() -> None:
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 1.1e6


def test_quantising_moves_no_corner_and_turns_no_face(bundler: ModuleType) -> None:
    triangles = np.random.default_rng(0).uniform(-0.1, 0.1, (200, 3, 3))
    packed = bundler.quantise(triangles)
    low, step = packed["box"]
    restored = (low + step * packed["vertices"])[packed["faces"]]
    assert restored.shape == triangles.shape
    # Faces are reordered and rotated: compare each with its nearest original by centre.
    nearest = np.linalg.norm(restored.mean(1)[:, None] - triangles.mean(1)[None], axis=2).argmin(axis=1)
    assert sorted(nearest) == list(range(200))
    for face, original in zip(restored, triangles[nearest], strict=True):
        turns = [np.roll(original, -shift, axis=0) for shift in range(3)]
        assert min(np.abs(face - turn).max() for turn in turns) <= step.max()
