"""The standard projections of the seven regions and how departments frame them.

A camera is chosen from the patient's pose alone; it never knows whether, or where, there is a pathology.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mskscreen.anatomy import JointType
from mskscreen.errors import MskscreenError
from mskscreen.phantom.body import Body, digit_bones
from mskscreen.phantom.frames import Matrix, Vector, across, cross, unit
from mskscreen.phantom.scene import Camera
from mskscreen.phantom.skeleton import rotation


class Projection(NamedTuple):
    """One standard projection: `around` and `tilt` in degrees turn the beam about the limb's long axis and
    towards `Axes.up`; `share` is how often a department takes it.
    """

    name: str
    position: str
    around: float
    tilt: float
    share: float
    digits: tuple[int, ...] = (1, 2, 3, 4, 5)


class Framing(NamedTuple):
    """What a field takes in: centred on a point `fraction` along a bone (0 proximal), shifted along and
    across the limb (metres), with its length along the limb and its width as a share of that.
    """

    bone: str
    fraction: float
    shift: tuple[float, float]
    length: tuple[float, float]
    width: tuple[float, float]
    share: float


_LONG_FINGERS = (2, 3, 4, 5)
PROJECTIONS: Mapping[JointType, tuple[Projection, ...]] = {
    JointType.HAND: (
        Projection("PA", "hand flat", 0, 0, 0.4),
        Projection("PA oblique", "hand oblique", -45, 0, 0.35),
        Projection("lateral", "hand on edge", -90, 0, 0.25),
    ),
    JointType.WRIST: (
        Projection("PA", "hand flat", 0, 0, 0.35),
        Projection("oblique", "hand oblique", -45, 0, 0.22),
        Projection("lateral", "hand on edge", -90, 0, 0.3),
        # Departments tilt the beam towards the elbow; to do so changes pixels (docs/phantoms.md, limits).
        Projection("scaphoid", "ulnar deviation", 0, 22, 0.13),
    ),
    JointType.FINGER: (
        Projection("PA", "hand flat", 0, 0, 0.3, _LONG_FINGERS),
        Projection("oblique", "hand oblique", -45, 0, 0.3),
        Projection("lateral", "fist", -90, 0, 0.3),
        Projection("thumb AP", "thumb away", 0, 0, 0.3, (1,)),
    ),
    JointType.FOREARM: (
        Projection("AP", "supinated", 0, 0, 0.5),
        Projection("lateral", "forearm on edge", -90, 0, 0.5),
    ),
    JointType.ELBOW: (
        Projection("AP", "half flexed", 0, 0, 0.38),
        Projection("lateral", "elbow bent", -90, 0, 0.27),
        Projection("lateral", "right angle", -90, 0, 0.15),
        Projection("oblique", "half flexed", 42, 0, 0.1),
        Projection("oblique", "half flexed", -42, 0, 0.1),
    ),
    JointType.HUMERUS: (
        Projection("AP", "arm at side", 0, 0, 0.55),
        Projection("lateral", "arm turned in", 0, 0, 0.45),
    ),
    JointType.SHOULDER: (
        Projection("AP internal rotation", "internal rotation", 0, 0, 0.26),
        Projection("AP external rotation", "external rotation", 0, 0, 0.26),
        Projection("Grashey", "neutral rotation", 0, 0, 0.2),
        Projection("Y view", "neutral rotation", 0, 0, 0.16),
        Projection("axillary", "abducted", 0, 0, 0.12),
    ),
}

# Fields in metres for an adult of average size. FINGER bones stand for the digit's own: {d}proxph and so on.
_FRAMINGS: Mapping[JointType, tuple[Framing, ...]] = {
    JointType.HAND: (
        Framing("3mc", 0.9, (0.02, 0.012), (0.19, 0.25), (0.62, 0.9), 0.8),
        Framing("3mc", 0.4, (0.025, 0.015), (0.22, 0.3), (0.6, 0.95), 0.2),
    ),
    JointType.WRIST: (
        Framing("capitate", 0.2, (0.02, 0.01), (0.14, 0.2), (0.45, 0.8), 0.6),
        Framing("3mc", 0.2, (0.03, 0.012), (0.18, 0.26), (0.45, 0.8), 0.25),
        Framing("radius", 0.8, (0.03, 0.012), (0.18, 0.26), (0.4, 0.7), 0.15),
    ),
    JointType.FINGER: (
        Framing("proximal phalanx", 0.95, (0.012, 0.006), (0.09, 0.14), (0.3, 0.65), 0.4),
        Framing("proximal phalanx", 0.6, (0.016, 0.014), (0.13, 0.19), (0.45, 0.85), 0.4),
        Framing("metacarpal", 0.8, (0.02, 0.02), (0.17, 0.24), (0.55, 0.9), 0.2),
    ),
    JointType.FOREARM: (
        Framing("radius", 0.5, (0.015, 0.01), (0.31, 0.4), (0.3, 0.6), 0.7),
        Framing("radius", 0.35, (0.03, 0.01), (0.26, 0.36), (0.35, 0.65), 0.15),
        Framing("radius", 0.68, (0.03, 0.01), (0.26, 0.36), (0.35, 0.65), 0.15),
    ),
    JointType.ELBOW: (
        Framing("humerus", 0.98, (0.02, 0.012), (0.15, 0.23), (0.55, 0.95), 0.7),
        Framing("humerus", 0.9, (0.03, 0.02), (0.21, 0.3), (0.5, 0.95), 0.3),
    ),
    JointType.HUMERUS: (
        Framing("humerus", 0.5, (0.015, 0.012), (0.36, 0.46), (0.34, 0.65), 0.5),
        Framing("humerus", 0.3, (0.03, 0.015), (0.26, 0.37), (0.45, 0.8), 0.28),
        Framing("humerus", 0.72, (0.03, 0.015), (0.24, 0.35), (0.4, 0.75), 0.22),
    ),
    JointType.SHOULDER: (
        Framing("humerus", 0.06, (0.025, 0.02), (0.2, 0.28), (0.75, 1.2), 0.6),
        Framing("scapula", 0.6, (0.03, 0.03), (0.26, 0.36), (0.8, 1.3), 0.3),
        Framing("humerus", 0.16, (0.03, 0.02), (0.26, 0.34), (0.6, 1.0), 0.1),
    ),
}
# The head leans away: no more than the joint and its neighbours is on the plate.
_AXILLARY = (Framing("humerus", 0.06, (0.03, 0.028), (0.16, 0.25), (0.8, 1.25), 1.0),)


class Axes(NamedTuple):
    """Directions of the region in the world: `up` is upwards on the plate, `beam` from tube to plate."""

    up: Vector
    beam: Vector


def projections(joint: JointType, view: str | None = None) -> tuple[Projection, ...]:
    """The projections of a region, or those of them that are called `view`.

    Raises MskscreenError where the region has no view of that name.
    """
    table = PROJECTIONS[joint]
    if view is None:
        return table
    chosen = tuple(entry for entry in table if entry.name == view)
    if not chosen:
        known = ", ".join(dict.fromkeys(entry.name for entry in table))
        raise MskscreenError(f"{joint.label} has no view {view!r}; choose one of {known}")
    return chosen


def _axes(body: Body, joint: JointType, view: str, digit: int) -> Axes:
    if joint in (JointType.HAND, JointType.WRIST):
        up = body.axis("3mc")
        radial = across(body.centre("2mc") - body.centre("5mc"), up)
        return Axes(up, cross(radial, up))
    if joint is JointType.FINGER:
        bones = digit_bones(digit)
        up = unit(body.distal(bones[-1]) - body.proximal(bones[1]))
        radial = across(body.flexion_axis(digit), up)
        # The back of the thumb, not its pulp, lies on the plate of an AP view.
        return Axes(up, cross(radial, up) * (-1.0 if digit == 1 else 1.0))
    if joint is JointType.FOREARM:
        up = unit(body.proximal("radius") + body.proximal("ulna") - body.distal("radius") - body.distal("ulna"))
        radial = across(body.distal("radius") - body.distal("ulna"), up)
        return Axes(up, cross(radial, up))
    if joint is JointType.SHOULDER:
        return _shoulder_axes(body, view)
    up = -body.axis("humerus")
    # Both views of the humerus are taken from the front; it is the arm that turns.
    front = np.array([1.0, 0.0, 0.0]) if joint is JointType.HUMERUS else body.transforms["humerus"][:3, 0]
    return Axes(up, across(-front, up))


def _shoulder_axes(body: Body, view: str) -> Axes:
    """Beams by the thorax (x forward, y up) or by the blade of the scapula, which points forward and out."""
    if view == "axillary":
        # From beside the hip up through the axilla past the chest, front of the patient at the top of the plate.
        return Axes(np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.87, -0.5]))
    up = np.array([0.0, 1.0, 0.0])
    blade = across(body.axis("scapula"), up)
    if view == "Y view":
        return Axes(up, -blade)
    if view == "Grashey":
        return Axes(up, cross(up, -blade) if cross(up, -blade)[0] < 0 else cross(up, blade))
    return Axes(up, np.array([-1.0, 0.0, 0.0]))


def _focus(body: Body, framing: Framing, digit: int) -> Vector:
    bones = digit_bones(digit)
    bone = {"proximal phalanx": bones[1], "metacarpal": bones[0]}.get(framing.bone, framing.bone)
    return body.point(bone, framing.fraction)


def _plate_angle(joint: JointType, rng: np.random.Generator) -> float:
    """Angle (radians) between limb and plate: mostly straight, often slanted, seldom otherwise."""
    kind = rng.random()
    # A patient sits or stands before the plate for a shoulder: it is seldom turned.
    if kind < (0.93 if joint is JointType.SHOULDER else 0.62):
        return rng.normal(0, 0.09)
    if kind < 0.84:
        return rng.normal(0, 0.4)
    if kind < 0.92:
        return rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.1)
    return rng.uniform(-np.pi, np.pi)


def draw_camera(
    body: Body, joint: JointType, projection: Projection, digit: int, long_side: int, rng: np.random.Generator
) -> Camera:
    """The camera of a projection of a posed body; `long_side` is the longer of rows and columns.

    A left arm is the mirror image of the skeleton's right one, so its camera has a left-handed pixel grid.
    """
    up, beam = _axes(body, joint, projection.name, digit)
    beam = rotation(up, np.radians(projection.around) + rng.normal(0, 0.09)) @ beam
    right = cross(beam, up)
    beam = unit(rotation(right, np.radians(projection.tilt) + rng.normal(0, 0.04)) @ beam)
    up = across(up, beam)
    right = cross(beam, up)

    framings = _AXILLARY if projection.name == "axillary" else _FRAMINGS[joint]
    share = np.array([framing.share for framing in framings])
    framing = framings[rng.choice(len(framings), p=share / share.sum())]
    size = body.patient.scale**0.8
    length = rng.uniform(*framing.length) * size
    width = length * rng.uniform(*framing.width)
    shift = rng.normal(0, framing.shift) * size
    centre = _focus(body, framing, digit) + up * shift[0] + right * shift[1]
    if joint is JointType.FOREARM and rng.random() < 0.3:
        up, right = -up, -right
    angle = _plate_angle(joint, rng)
    return _camera(centre, _rolled(up, right, angle), beam, _field(length, width, angle), long_side, rng, body)


def turn_on_plate(body: Body, joint: JointType, view: str, digit: int, camera: Camera) -> float:
    """Angle (radians, clockwise on the image) between the upward axis of the region and the top of the plate."""
    up, _ = _axes(body, joint, view, digit)
    return float(np.arctan2(up @ camera.du, -(up @ camera.dv)))


def _rolled(up: Vector, right: Vector, angle: float) -> Matrix:
    return np.stack([np.cos(angle) * right - np.sin(angle) * up, np.cos(angle) * up + np.sin(angle) * right])


def _field(length: float, width: float, angle: float) -> tuple[float, float]:
    """Height and width of the plate that holds a field lying at an angle, its corners cut a little."""
    c, s = abs(np.cos(angle)), abs(np.sin(angle))
    cut = 1 - 0.3 * s * c
    return (length * c + width * s) * cut, (length * s + width * c) * cut


def _camera(
    centre: Vector,
    plate: Matrix,
    beam: Vector,
    field: tuple[float, float],
    long_side: int,
    rng: np.random.Generator,
    body: Body,
) -> Camera:
    right, up = plate
    height, width = field
    pixel = max(height, width) / long_side
    rows, columns = max(32, round(height / pixel)), max(32, round(width / pixel))
    step = right if body.patient.laterality == "right" else -right
    du, dv = step * pixel, -up * pixel
    return Camera(
        source=centre - beam * rng.uniform(0.95, 1.3),
        origin=centre - du * (columns - 1) / 2 - dv * (rows - 1) / 2,
        du=du,
        dv=dv,
        rows=rows,
        columns=columns,
    )
