"""The bundled bone geometry: surface meshes and the kinematic tree of one right arm.

`tools/bundle_geometry.py` wrote the bundle from the `myo-sim` package; NOTICE says where it comes from. Some
meshes (humerus, radius, ulna, clavicle, scapula, thorax) are coarse and not watertight.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh in the bone's own frame: `vertices` (n, 3) float64 metres, `faces` (m, 3) int64."""

    vertices: np.ndarray
    faces: np.ndarray

    @property
    def triangles(self) -> np.ndarray:
        """Corner points (m, 3, 3) of every face, metres."""
        return self.vertices[self.faces]


@cache
def load_meshes() -> dict[str, Mesh]:
    """Every bone's mesh by name."""
    with np.load(DATA / "bones.npz", allow_pickle=False) as bundle:
        arrays = dict(bundle)
    meshes = {}
    for bone in sorted({name.partition(".")[0] for name in arrays}):
        low, step = arrays[f"{bone}.box"]
        vertices = low + step * arrays[f"{bone}.vertices"]
        meshes[bone] = Mesh(vertices, arrays[f"{bone}.faces"].astype(np.int64))
    return meshes


@cache
def load_tree() -> dict[str, Any]:
    """The kinematic tree: `frames` in order from the clavicle outwards, and `couplings` of joints."""
    tree: dict[str, Any] = json.loads((DATA / "arm.json").read_text())
    return tree


@cache
def digest() -> str:
    """SHA-256 (hex) over the files of the bundle."""
    total = hashlib.sha256()
    for name in ("arm.json", "bones.npz"):
        total.update((DATA / name).read_bytes())
    return total.hexdigest()
