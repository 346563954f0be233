"""Thickness of soft tissue along every ray, from tapered capsules.

Within a group the projected thicknesses merge by a p-norm (p = 6), which rounds the grooves between capsules as
skin does; groups are united as intervals of depth along the ray, so that a thumb in front of the palm adds to it
and the upper arm inside the shoulder does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mskscreen.phantom.compiled import compiled
from mskscreen.phantom.filters import blur, enlarge
from mskscreen.phantom.frames import cross
from mskscreen.phantom.scene import Camera, Capsule

_SPACING = 1.2e-3
_INTERVALS = 8


def thickness(capsules: Sequence[Capsule], camera: Camera) -> np.ndarray:
    """Metres (rows, columns) float32 inside any of `capsules` along every ray.

    Computed about every 1.2 mm. The squared thickness is what is interpolated: it is linear at an outline, where
    the thickness itself rises like a square root.
    """
    if not capsules:
        return np.zeros((camera.rows, camera.columns), np.float32)
    factor = max(1, round(_SPACING / camera.pixel))
    coarse = replace(
        camera,
        origin=camera.origin + (camera.du + camera.dv) * ((factor - 1) / 2 - factor),
        du=camera.du * factor,
        dv=camera.dv * factor,
        rows=-(-camera.rows // factor) + 2,
        columns=-(-camera.columns // factor) + 2,
    )
    groups = sorted({capsule.group for capsule in capsules})
    ordered = sorted(capsules, key=lambda capsule: groups.index(capsule.group))
    ids = np.array([groups.index(capsule.group) for capsule in ordered])
    squared = _union(_flat(ordered, coarse), ids, coarse.rows, coarse.columns)
    fine = enlarge(blur(squared, 0.6), factor, camera.rows, camera.columns)
    return np.sqrt(fine, out=fine)


def _flat(capsules: Sequence[Capsule], camera: Camera) -> np.ndarray:
    """Capsules (n, 9) as the detector sees them: ends and radii in pixels, depth of both ends and pixel size in
    metres.
    """
    ends = np.array([(capsule.start, capsule.end) for capsule in capsules])
    radii = np.array([(capsule.radius_start, capsule.radius_end) for capsule in capsules])
    pixels = camera.project(ends.reshape(-1, 3)).reshape(-1, 4)
    normal = cross(camera.du, camera.dv)
    normal *= np.sign((camera.origin - camera.source) @ normal) / np.linalg.norm(normal)
    depths = (ends - camera.source) @ normal
    sizes = camera.pixel * depths / ((camera.origin - camera.source) @ normal)
    return np.column_stack([pixels, radii / sizes, depths, sizes.mean(axis=1)])


@compiled
def _union(flat, groups, rows, columns):  # type: ignore[no-untyped-def]
    """Squared length (rows, columns) of the union of the groups' intervals along every ray."""
    near = np.empty((rows, columns, _INTERVALS), np.float32)
    far = np.empty((rows, columns, _INTERVALS), np.float32)
    count = np.zeros((rows, columns), np.uint8)
    power = np.zeros((rows, columns), np.float32)
    moment = np.zeros((rows, columns), np.float32)
    top, bottom, left, right = rows, 0, columns, 0
    for n in range(flat.shape[0]):
        ax, ay, bx, by, ra, rb, za, zb, size = flat[n]
        reach = max(ra, rb) + 1.0
        x0, x1 = max(0, int(min(ax, bx) - reach)), min(columns, int(max(ax, bx) + reach) + 1)
        y0, y1 = max(0, int(min(ay, by) - reach)), min(rows, int(max(ay, by) + reach) + 1)
        top, bottom, left, right = min(top, y0), max(bottom, y1), min(left, x0), max(right, x1)
        dx, dy = bx - ax, by - ay
        flat_length = dx * dx + dy * dy
        inverse = 1.0 / (flat_length + 1e-6)
        along = abs(zb - za) / size
        stretch = np.sqrt(1.0 + along * along / (flat_length + 1e-6))
        for y in range(y0, y1):
            for x in range(x0, x1):
                t = min(max(((x - ax) * dx + (y - ay) * dy) * inverse, 0.0), 1.0)
                radius = ra + (rb - ra) * t
                ux, uy = x - ax - t * dx, y - ay - t * dy
                square = radius * radius - ux * ux - uy * uy
                if square <= 0.0:
                    continue
                half = np.sqrt(square)
                # A ray along a foreshortened capsule runs farther in it, but not beyond its ends.
                chord = size * min(2.0 * half * stretch, 2.0 * half + along)
                weight = (100.0 * chord) ** 6
                power[y, x] += weight
                moment[y, x] += weight * (za + (zb - za) * t)
        if n + 1 < flat.shape[0] and groups[n + 1] == groups[n]:
            continue
        for y in range(top, bottom):
            for x in range(left, right):
                if power[y, x] > 0.0:
                    half = 0.005 * power[y, x] ** (1.0 / 6.0)
                    centre = moment[y, x] / power[y, x]
                    count[y, x] = _insert(near[y, x], far[y, x], count[y, x], centre - half, centre + half)
                    power[y, x] = 0.0
                    moment[y, x] = 0.0
        top, bottom, left, right = rows, 0, columns, 0
    squared = np.zeros((rows, columns), np.float32)
    for y in range(rows):
        for x in range(columns):
            total = 0.0
            for n in range(count[y, x]):
                total += far[y, x, n] - near[y, x, n]
            squared[y, x] = total * total
    return squared


@compiled
def _insert(near, far, count, low, high):  # type: ignore[no-untyped-def]
    """Unite one interval with `count` disjoint ones, in place; the new count. A full list loses its last."""
    kept = 0
    for n in range(count):
        if far[n] < low or near[n] > high:
            near[kept], far[kept] = near[n], far[n]
            kept += 1
        else:
            low, high = min(low, near[n]), max(high, far[n])
    kept = min(kept, near.size - 1)
    near[kept], far[kept] = low, high
    return kept + 1
