"""Cuts through a bone: how far the fragments part, and what the distal one carries with it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mskscreen.phantom.body import Body
from mskscreen.phantom.frames import Matrix, Vector, cross, motion
from mskscreen.phantom.pathology.context import Context, Facts, degrees, mark
from mskscreen.phantom.scene import Clip, Scene, Solid


class Injury(NamedTuple):
    """How far the fragments parted: `offset` in widths of the bone, `angle` in radians, `gap` in metres."""

    offset: float
    angle: float
    gap: float
    roughness: float
    seed: float


def draw_injury(rng: np.random.Generator, width: float) -> Injury:
    """The severity of a fracture of a bone `width` metres wide.

    About a fifth are hardly displaced, at most a third by more than half the width.
    """
    grade = rng.random()
    low, high = ((0.03, 0.12), (0.12, 0.5), (0.5, 1.1))[int(np.searchsorted((0.2, 0.68), grade))]
    angle = rng.uniform(0.02, 0.1) if grade < 0.2 else rng.uniform(0.08, 0.5)
    return Injury(
        offset=rng.uniform(low, high),
        angle=angle,
        gap=float(np.clip(width * rng.uniform(0.09, 0.28), 0.8e-3, 3.4e-3)),
        roughness=float(rng.uniform(0.5, 1.3) * 1e-3 * np.sqrt(width / 0.016)),
        seed=rng.uniform(0, 100),
    )


def facts_of(injury: Injury, width: float, tilt: float = 0.0) -> Facts:
    """The injury as the manifest has it; `tilt` (radians) is the cut's, from the transverse plane."""
    return {
        "tilt_degrees": degrees(tilt),
        "displacement_widths": round(injury.offset, 2),
        "angulation_degrees": degrees(injury.angle),
        "gap_mm": round(injury.gap * 1e3, 2),
        "width_mm": round(width * 1e3, 1),
    }


def slope(axes: Matrix, tilt: float) -> Vector:
    """Normal of a cut that leans from the transverse plane by `tilt` towards the axes' x."""
    return axes[:, 0] * np.sin(tilt) + axes[:, 2] * np.cos(tilt)


def halves(body: Body, bone: str, point: Vector, normal: Vector, injury: Injury) -> tuple[Clip, Clip]:
    """Clips of the proximal and the distal side of one cut; `normal` points distally."""
    rough = (injury.roughness, injury.seed)
    return body.clip(bone, point, -normal, *rough), body.clip(bone, point, normal, *rough)


def surface(point: Vector, axes: Matrix, tilt: float, radius: float, depth: float) -> Solid:
    """The region of a fracture surface: a lens as wide as the bone, `depth` (metres) thick on either side."""
    normal = slope(axes, tilt)
    steepest = cross(axes[:, 1], normal)
    frame = np.stack([steepest, cross(normal, steepest), normal], axis=1)
    return mark(point, frame, (1.15 * radius / np.cos(tilt), 1.15 * radius, depth))


def displacement(context: Context, injury: Injury, direction: Matrix, shorten: float) -> Matrix:
    """Motion of the distal fragment: sideways along the direction's x, bent about its y, apart or shortened."""
    side = direction[:, 0] * injury.offset * 2 * context.radius
    apart = direction[:, 2] * (injury.gap - shorten * context.radius)
    return motion(context.point, side + apart, direction[:, 1], injury.angle)


def carry(context: Context, change: Matrix) -> Scene:
    """The scene after everything distal of the site's bone went with `change`."""
    bone = context.site.bone
    return context.furnish(context.body.shifted(change, context.body.carried(bone), (bone,)))


def depth_of(injury: Injury, radius: float) -> float:
    """Half the thickness of the region of a cut through a bone of `radius`, metres."""
    return injury.gap / 2 + 1.5 * injury.roughness + max(0.0012, 0.22 * radius)
