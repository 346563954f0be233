"""Projection of a scene: what lies along every ray, by material, and where the abnormality casts its shadow."""

from __future__ import annotations

import numpy as np

from mskscreen.phantom.projector import cast_bones, solid_path
from mskscreen.phantom.scene import BonePart, Camera, Layers, Material, Scene
from mskscreen.phantom.tissue import thickness

_LUNG_AIR = np.float32(0.75)  # inflated lung is 0.26 g/cm3
_MARROW = np.float32(0.9)  # soft tissue that a bone displaces per metre of solid bone

_Known = dict[tuple[object, ...], tuple[tuple[slice, slice], np.ndarray]]  # paths of solids already cast


def trace(scene: Scene, camera: Camera) -> Layers:
    """Path lengths (metres) of every material of `scene`, and the mask of its regions of interest.

    Bone lengths are those of solid cortical bone of the same mineral. Bone and solids displace soft tissue, then
    fat. The mask is None without a region of interest.
    """
    return _layers(scene, camera, _bone(scene.bones, camera), *_tissue(scene, camera), {})


def trace_twins(scene: Scene, other: Scene, camera: Camera) -> tuple[Layers, Layers]:
    """`trace` of two scenes that have most bones and solids in common: those are cast only once."""
    parts = {_identity(part): part for part in scene.bones}
    others = {_identity(part): part for part in other.bones}
    common = _bone(tuple(part for key, part in parts.items() if key in others), camera)
    own = _bone(tuple(part for key, part in parts.items() if key not in others), camera)
    others_own = _bone(tuple(part for key, part in others.items() if key not in parts), camera)
    tissue = _tissue(scene, camera)
    others_tissue = tissue if other.tissue == scene.tissue else _tissue(other, camera)
    known: _Known = {}
    return (
        _layers(scene, camera, common + own, *tissue, known),
        _layers(other, camera, common + others_own, *others_tissue, known),
    )


def _identity(part: BonePart) -> tuple[object, ...]:
    return part.bone, part.transform.tobytes(), part.density, part.cortex, part.clips, part.edits


def _bone(parts: tuple[BonePart, ...], camera: Camera) -> np.ndarray:
    path = _empty(camera)
    cast_bones(path, parts, camera)
    return path


def _layers(
    scene: Scene, camera: Camera, bone: np.ndarray, soft: np.ndarray, fat: np.ndarray, known: _Known
) -> Layers:
    paths = {Material.BONE: bone}
    displaced = bone * _MARROW
    for solid in scene.solids:
        outline = solid.shape, solid.transform.tobytes(), solid.half
        window, path = known[outline] if outline in known else solid_path(solid, camera)
        known[outline] = window, path
        if solid.displaces:
            displaced[window] += path * np.float32(min(solid.density, 1.0))
        if solid.material not in paths:
            paths[solid.material] = _empty(camera)
        paths[solid.material][window] += path * np.float32(solid.density)
    remaining = np.maximum(displaced - soft, 0)
    added = paths.get(Material.SOFT, 0), paths.get(Material.FAT, 0)
    paths[Material.SOFT] = np.maximum(soft - displaced, 0) + added[0]
    paths[Material.FAT] = np.maximum(fat - remaining, 0) + added[1]
    return Layers(paths, _mask(scene, camera))


def _tissue(scene: Scene, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Soft tissue and fat (metres) before bones and solids displace any."""
    layers = {name: [c for c in scene.tissue if c.layer == name] for name in ("skin", "muscle", "lung")}
    total = thickness(layers["skin"], camera)
    soft = np.minimum(thickness(layers["muscle"], camera), total) if layers["muscle"] else total
    if layers["lung"]:
        removed = _LUNG_AIR * thickness(layers["lung"], camera)
        kept = np.clip(1 - removed / np.maximum(total, np.float32(1e-6)), 0, 1)
        total, soft = total * kept, soft * kept
    return soft, total - soft


def _mask(scene: Scene, camera: Camera) -> np.ndarray | None:
    if not scene.region_of_interest:
        return None
    mask = np.zeros((camera.rows, camera.columns), bool)
    for solid in scene.region_of_interest:
        window, path = solid_path(solid, camera)
        mask[window] |= path > 0
    return mask


def _empty(camera: Camera) -> np.ndarray:
    return np.zeros((camera.rows, camera.columns), np.float32)
