"""Projection of bones and analytic solids onto a cone-beam detector: what the compiled loops need, and the calls.

Only pixels that blocks with bone can shadow are visited.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache

import numpy as np

from mskscreen.phantom.levels import BLOCK, FULL, Level
from mskscreen.phantom.raycaster import ROUGHEST, cast_analytic, cast_volume, cover
from mskscreen.phantom.scene import BonePart, Camera, Clip, DensityEdit, Shape, Solid
from mskscreen.phantom.volumes import load_volume

_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
_REACH = (BLOCK + 1) / 2 + 0.02  # voxels from a block's middle to where samples and their rounding end
_KINDS = {Shape.BOX: 0, Shape.CYLINDER: 1, Shape.ELLIPSOID: 2}


def cast_bones(path: np.ndarray, parts: Iterable[BonePart], camera: Camera) -> None:
    """Add to `path` (rows, columns) float32 the metres of solid cortical bone that every ray meets in `parts`."""
    parts = tuple(parts)
    if not parts:
        return
    beam = np.stack([camera.origin - camera.source, camera.du, camera.dv])
    transforms = np.stack([part.transform for part in parts])
    projections, inverses = camera.matrix @ transforms, np.linalg.inv(transforms)
    stretches = np.sqrt((transforms[:, :3, :3] ** 2).sum(axis=1)).mean(axis=1)
    for index in np.flatnonzero(_in_field(parts, projections, camera)):
        part, projection = parts[index], projections[index]
        level = load_volume(part.bone, part.cortex).for_pixel(camera.pixel / float(stretches[index]))
        spans = np.empty((camera.rows, 2), np.int64)
        spans[:, 0], spans[:, 1] = camera.columns, 0
        edges = _REACH * level.pitch**2 * projection[:, :3] @ level.to_grid[:3, :3].T
        cover(spans, _kept_blocks(part, level), projection, edges, camera.columns)
        shadowed = np.flatnonzero(spans[:, 1])
        if not shadowed.size:
            continue
        to_grid = level.to_grid @ inverses[index]
        source = to_grid[:3, :3] @ camera.source + to_grid[:3, 3]
        # The beam through the middle of the bone decides along which axis its slices are taken.
        axis = int(np.abs(np.array(level.density.shape) / 2 - source).argmax())
        order = [axis, (axis + 1) % 3, (axis + 2) % 3]
        steps = np.ascontiguousarray((beam @ to_grid[:3, :3].T)[:, order])
        forms, settings = _edit_forms(part, level, order)
        # Sums of edited samples are rounded, so runs of them end where they always did, at whole blocks.
        tight = forms is None and _within_45_degrees(steps, shadowed, spans)
        leaps = level.leaps(axis) if tight else level.alone
        cast_volume(
            path,
            level.density.reshape(-1),
            leaps.reshape(-1),
            _layout(level.density, order),
            _layout(leaps, order),
            source[order],
            steps,
            beam,
            spans,
            part.density / FULL,
            forms,
            settings,
            level.pitch,
            surface_noise(),
        )


def _in_field(parts: tuple[BonePart, ...], projections: np.ndarray, camera: Camera) -> np.ndarray:
    """Whether the field of the camera meets the box of each part: bool (n,), by their projections (n, 3, 4)."""
    corners = np.stack([_corners(part.bone, part.cortex) for part in parts])
    projected = corners @ projections.transpose(0, 2, 1)
    pixels = projected[..., :2] / projected[..., 2:]
    met = (pixels.max(axis=1) >= 0) & (pixels.min(axis=1) < (camera.columns, camera.rows))
    return met.all(axis=1)


@cache
def _corners(bone: str, cortex: str) -> np.ndarray:
    """Homogeneous corners (8, 4), bone metres, of the box in which samples of a bone are not all 0."""
    level = load_volume(bone, cortex).levels[-1]
    half = (np.array(level.density.shape) + 1) / 2 + 0.02
    voxels = np.column_stack([half * (1 + _CORNERS) - 1.02, np.ones(len(_CORNERS))])
    return voxels @ np.linalg.inv(level.to_grid).T


def _kept_blocks(part: BonePart, level: Level) -> np.ndarray:
    """Centres (n, 3) in bone metres of the blocks with bone that clips may leave some of."""
    centres = level.filled
    for clip in part.clips:
        normal = np.asarray(clip.normal, float)
        reach = ROUGHEST * clip.roughness + (1 + _REACH * np.sqrt(3)) * level.pitch
        centres = centres[centres @ normal - clip.offset > -reach * np.linalg.norm(normal)]
    return centres


def solid_path(solid: Solid, camera: Camera) -> tuple[tuple[slice, slice], np.ndarray]:
    """Metres that every ray runs inside `solid`, antialiased 2 x 2: a window of the image, and its values."""
    half = np.asarray(solid.half, float)
    pixels = camera.project((_CORNERS * half) @ solid.transform[:3, :3].T + solid.transform[:3, 3])
    (left, top), (right, bottom) = pixels.min(axis=0).tolist(), pixels.max(axis=0).tolist()
    x0, y0 = max(math.floor(left) - 1, 0), max(math.floor(top) - 1, 0)
    x1 = max(x0, min(math.ceil(right) + 2, camera.columns))
    y1 = max(y0, min(math.ceil(bottom) + 2, camera.rows))
    window = slice(y0, y1), slice(x0, x1)
    path = np.zeros((y1 - y0, x1 - x0), np.float32)
    if not path.size:
        return window, path
    # In units of its half sizes every solid is a unit cube, cylinder or sphere.
    inverse = np.linalg.inv(solid.transform)[:3] / half[:, None]
    corner = camera.origin + camera.du * x0 + camera.dv * y0
    beam = np.stack([corner - camera.source, camera.du, camera.dv])
    start = inverse[:, :3] @ camera.source + inverse[:, 3]
    cast_analytic(path, _KINDS[solid.shape], start, beam @ inverse[:, :3].T, beam)
    return window, path


def _within_45_degrees(steps: np.ndarray, shadowed: np.ndarray, spans: np.ndarray) -> bool:
    """Whether all rays of the spans lie so near the first axis; those at the corners around them decide."""
    # Rows without a shadow span from behind the last column to 0.
    columns = int(spans[:, 0].min()), int(spans[:, 1].max())
    corners = [steps[0] + x * steps[1] + y * steps[2] for x in columns for y in shadowed[[0, -1]].tolist()]
    return all(max(abs(b), abs(c)) <= abs(a) for a, b, c in np.array(corners).tolist())


@cache
def surface_noise() -> np.ndarray:
    """Periodic rough surface (256, 256) float32 of unit standard deviation, one sample every 0.15 mm."""
    size = 256
    rng = np.random.default_rng(20260102)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = np.inf
    spectrum = (1 / np.hypot(frequency, 0.02)) ** 1.6
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * spectrum).real
    return (field / field.std()).astype(np.float32)


def _layout(grid: np.ndarray, order: list[int]) -> tuple[int, ...]:
    """Three sizes and three strides (elements) of `grid` with its axes in `order`."""
    strides = (grid.shape[1] * grid.shape[2], grid.shape[2], 1)
    return tuple([grid.shape[axis] for axis in order] + [strides[axis] for axis in order])


def _edit_forms(part: BonePart, level: Level, order: list[int]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Clips and edits as three affine forms each of the (reordered) grid coordinates, (n, 3, 4), with their
    settings (n, 5): kind 0 is a clip (sign, roughness, seed), kind 1 an edit (gain, rim, irregularity, seed).
    None where there is nothing to edit, for which the compiler makes a faster loop.
    """
    if not part.clips and not part.edits:
        return None, None
    rows: list[np.ndarray] = []
    settings: list[tuple[float, ...]] = []
    for clip in part.clips:
        forms, sign = _clip_forms(clip)
        rows.append(forms)
        settings.append((0.0, sign, clip.roughness, clip.seed, 0.0))
    for edit in part.edits:
        rows.append(_ellipsoid_forms(edit))
        settings.append((1.0, edit.gain, edit.rim, edit.irregularity, edit.seed))
    to_bone = np.linalg.inv(level.to_grid)
    return np.ascontiguousarray((np.stack(rows) @ to_bone)[:, :, [*order, 3]]), np.array(settings)


def _clip_forms(clip: Clip) -> tuple[np.ndarray, float]:
    """Height above the plane and two coordinates in it, as rows of (3, 4), and which side is kept.

    The normal is turned to a canonical sign first, so that both halves of a fracture share one rough surface.
    """
    normal = np.asarray(clip.normal, float)
    length = np.linalg.norm(normal)
    sign = 1.0 if normal[np.abs(normal).argmax()] > 0 else -1.0
    normal = normal * sign / length
    # The columns of a Householder reflection complete the normal to an orthonormal basis.
    axis = int(np.abs(normal).argmax())
    mirror = normal + np.eye(3)[axis] * (1.0 if normal[axis] > 0 else -1.0)
    basis = np.eye(3) - 2 * np.outer(mirror, mirror) / (mirror @ mirror)
    forms = np.zeros((3, 4))
    forms[:, :3] = normal, basis[axis - 2], basis[axis - 1]
    forms[0, 3] = -clip.offset * sign / length
    return forms, sign


def _ellipsoid_forms(edit: DensityEdit) -> np.ndarray:
    forms = np.zeros((3, 4))
    forms[:, :3] = np.diag(1 / np.asarray(edit.radii, float))
    forms[:, 3] = -np.asarray(edit.centre, float) / np.asarray(edit.radii, float)
    return forms
