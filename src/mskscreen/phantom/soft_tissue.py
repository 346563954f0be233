"""A patient's soft tissue: skin, muscle, the fat planes between muscles, and the lungs.

Measures are metres on an adult of average build; pieces of one group flow into each other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mskscreen.phantom.body import Body, digit_bones
from mskscreen.phantom.frames import Vector, along, cross, place, unit
from mskscreen.phantom.scene import Capsule, Material, Shape, Solid

# Radii of the skin around the metacarpal and the phalanges, at both ends of each.
_FINGER_RADII = ((0.0145, 0.0135), (0.0112, 0.0096), (0.0094, 0.0084), (0.0082, 0.0066))
_THUMB_RADII = ((0.0165, 0.015), (0.0128, 0.0115), (0.0108, 0.0078))
# Along forearm and upper arm, by the fraction of the bone's length.
_FOREARM_RADII = ((0.0, 0.22, 0.7, 1.0), (0.037, 0.04, 0.028, 0.0245))
_ARM_RADII = ((0.0, 0.5, 1.0), (0.052, 0.046, 0.037))


class _Piece(NamedTuple):
    start: Vector
    end: Vector
    near: float
    far: float
    group: str


def _hand(body: Body) -> list[_Piece]:
    size = body.patient.scale
    pieces = []
    for digit in range(1, 6):
        bones = digit_bones(digit)
        radii = _THUMB_RADII if digit == 1 else _FINGER_RADII
        for bone, (near, far) in zip(bones, radii, strict=True):
            end = body.distal(bone)
            if bone == bones[-1]:
                end = end + 0.0028 * size * body.axis(bone)
            group = "palm" if bone.endswith("mc") else f"digit {digit}"
            pieces.append(_Piece(body.proximal(bone), end, near, far, group))
    for first, second in ((2, 3), (3, 4), (4, 5)):
        a, b = f"{first}mc", f"{second}mc"
        start = (body.proximal(a) + body.proximal(b)) / 2
        end = (body.distal(a) + body.distal(b)) / 2 + 0.004 * size * body.axis(a)
        pieces.append(_Piece(start, end, 0.0152, 0.012, "palm"))
    # The web of the thumb is a fan that thins towards its free edge.
    for share, radius in ((0.2, 0.0155), (0.45, 0.013), (0.7, 0.0105), (0.92, 0.008)):
        thumb = body.proximal("1mc") + share * (body.distal("1mc") - body.proximal("1mc"))
        index = body.proximal("2mc") + 0.85 * share * (body.distal("2mc") - body.proximal("2mc"))
        pieces.append(_Piece(thumb, index, radius, radius, "palm"))
    palm = cross(body.flexion_axis(3), body.axis("3mc")) * 0.008 * size
    for bone, radius in (("5mc", 0.012), ("2mc", 0.011)):
        pieces.append(
            _Piece(body.proximal(bone) + palm, body.distal(bone) + 0.6 * palm, radius, 0.8 * radius, "palm")
        )
    return pieces


def _arm(body: Body) -> list[_Piece]:
    elbow = (body.proximal("radius") + body.proximal("ulna")) / 2
    wrist = (body.distal("radius") + body.distal("ulna")) / 2
    quarter, lower = elbow + 0.22 * (wrist - elbow), elbow + 0.7 * (wrist - elbow)
    top, bottom = body.proximal("humerus"), body.distal("humerus")
    middle = (top + bottom) / 2
    return [
        _Piece(top, middle, 0.052, 0.046, "arm"),
        _Piece(middle, bottom, 0.046, 0.037, "arm"),
        _Piece(bottom, quarter, 0.037, 0.04, "forearm"),
        _Piece(quarter, lower, 0.04, 0.028, "forearm"),
        _Piece(lower, wrist, 0.028, 0.0245, "forearm"),
        _Piece(body.proximal("ulna"), body.point("ulna", 0.3), 0.018, 0.026, "forearm"),
        _Piece(body.distal("radius"), body.point("radius", 0.85), 0.0205, 0.023, "forearm"),
        _Piece(body.distal("ulna"), body.point("ulna", 0.85), 0.0185, 0.0215, "forearm"),
        *(_Piece(wrist, body.proximal(f"{digit}mc"), 0.021, 0.0165, "palm") for digit in range(1, 6)),
    ]


def _trunk(body: Body) -> list[_Piece]:
    """Chest, neck and shoulder; the world's origin is the top of the sternum, z the patient's right."""
    size = body.patient.scale

    def at(x: float, y: float, z: float) -> Vector:
        return np.array([x, y, z]) * size

    head = body.proximal("humerus")
    arm = body.axis("humerus") * size
    armpit = at(-0.05, -0.16, 0.125)
    # The folds of the axilla thin out as the arm is raised to the side.
    raised = float(np.clip(body.axis("humerus")[2], 0, 1))
    fold = 1 - 0.65 * raised
    return [
        _Piece(at(-0.055, -0.1, 0.05), at(-0.05, -0.45, 0.055), 0.105, 0.12, "trunk"),
        _Piece(at(-0.055, -0.1, -0.05), at(-0.05, -0.45, -0.055), 0.105, 0.12, "trunk"),
        _Piece(
            at(-0.035, 0.24 - 0.14 * raised, -0.01 - 0.2 * max(0.0, raised - 0.5)),
            at(-0.055, -0.08, 0.0),
            0.058,
            0.075,
            "trunk",
        ),
        _Piece(at(-0.06, 0.005, 0.03), head - at(0.01, 0.012, 0.02), 0.072, 0.05, "trunk"),
        _Piece(head - at(0.0, 0.02, 0.02), armpit, 0.055 * fold, 0.05 * fold, "trunk"),
        _Piece(head, head + arm * 0.13, 0.056, 0.05, "arm"),
        _Piece(head + arm * 0.06, armpit, 0.042 * fold, 0.045 * fold, "trunk"),
    ]


def _lungs(body: Body) -> list[_Piece]:
    size = body.patient.scale
    return [
        _Piece(
            np.array([-0.055, -0.03, side * 0.055]) * size,
            np.array([-0.05, -0.34, side * 0.08]) * size,
            0.04,
            0.075,
            f"lung {side}",
        )
        for side in (1, -1)
    ]


def _capsule(piece: _Piece, layer: str, factor: float) -> Capsule:
    (ax, ay, az), (bx, by, bz) = piece.start.tolist(), piece.end.tolist()
    return Capsule((ax, ay, az), (bx, by, bz), piece.near * factor, piece.far * factor, layer, piece.group)


def soft_tissue(body: Body, *, trunk: bool) -> tuple[Capsule, ...]:
    """Skin and muscle of the arm, and of the chest with its lungs where `trunk` is set."""
    size = body.patient.scale * body.patient.build
    fat = body.patient.fat
    # Fingers have little fat of their own; it grows towards the elbow and is less again over the chest.
    regions = [(_hand(body), 0.6 * fat), (_arm(body), fat)]
    if trunk:
        regions.append((_trunk(body), 0.7 * fat))
    capsules = []
    for pieces, inset in regions:
        capsules += [_capsule(piece, "skin", size) for piece in pieces]
        capsules += [_capsule(piece, "muscle", size * (1 - inset)) for piece in pieces]
    if trunk:
        capsules += [_capsule(piece, "lung", body.patient.scale) for piece in _lungs(body)]
    return tuple(capsules)


def limb_radius(body: Body, bone: str, fraction: float) -> float:
    """About how far the skin lies from the middle of the limb, metres, beside a point of a bone."""
    size = body.patient.scale * body.patient.build
    for digit in range(1, 6):
        bones = digit_bones(digit)
        if bone in bones:
            near, far = (_THUMB_RADII if digit == 1 else _FINGER_RADII)[bones.index(bone)]
            return (near + (far - near) * fraction) * size
    if bone in ("radius", "ulna"):
        return float(np.interp(fraction, *_FOREARM_RADII)) * size
    if bone in ("humerus", "scapula", "clavicle"):
        return float(np.interp(fraction, *_ARM_RADII)) * size
    return 0.021 * size


def limb_group(bone: str) -> str:
    """The group of soft tissue that surrounds a bone."""
    for digit in range(1, 6):
        if bone in digit_bones(digit)[1:]:
            return f"digit {digit}"
    return {"radius": "forearm", "ulna": "forearm", "humerus": "arm", "scapula": "trunk", "clavicle": "trunk"}.get(
        bone, "palm"
    )


def cervical_spine(body: Body) -> tuple[Solid, ...]:
    """Vertebrae from the thorax up into the neck, which the skeleton lacks."""
    size = body.patient.scale
    neck = _trunk(body)[2]
    bottom = np.array([-0.076, -0.045, 0.0]) * size
    top = neck.start - np.array([0.018, 0.0, 0.0]) * size
    axes = along(top - bottom, np.array([1.0, 0.0, 0.0]))
    half = (0.012 * size, 0.018 * size, 0.0078 * size)
    density = 0.2 * body.patient.density
    return tuple(
        Solid(Shape.ELLIPSOID, Material.BONE, place(bottom + share * (top - bottom), axes), half, density)
        for share in np.linspace(0, 1, 14)
    )


class _Plane(NamedTuple):
    """A sheet of fat beside a stretch of a bone: `out` radii of the limb away towards (x, y) of its frame, of
    half `thickness` metres.
    """

    bone: str
    first: float
    last: float
    out: float
    towards: tuple[float, float]
    thickness: float


_PLANES = (
    _Plane("humerus", 0.3, 0.85, 0.42, (1.0, 0.2), 1.0e-3),
    _Plane("humerus", 0.35, 0.9, 0.4, (-0.3, 1.0), 0.8e-3),
    _Plane("radius", 0.05, 0.6, 0.4, (1.0, 0.3), 0.9e-3),
    _Plane("radius", 0.1, 0.55, 0.45, (-0.4, 1.0), 0.8e-3),
    _Plane("ulna", 0.15, 0.6, 0.42, (-1.0, 0.4), 0.8e-3),
    _Plane("radius", 0.76, 0.97, 0.34, (-1.0, 0.0), 0.7e-3),
)


def fat_planes(body: Body) -> tuple[Solid, ...]:
    """Thin sheets of fat between the muscle groups of arm and forearm, seen where the beam runs along them."""
    sheets = []
    for plane in _PLANES:
        frame = body.frame(plane.bone)
        middle = (plane.first + plane.last) / 2
        radius = limb_radius(body, plane.bone, middle)
        outward = unit(frame[:, 0] * plane.towards[0] + frame[:, 1] * plane.towards[1])
        centre = body.point(plane.bone, middle) + outward * plane.out * radius
        half = (
            plane.thickness * (0.4 + 5 * body.patient.fat) * body.patient.scale,
            0.35 * radius,
            (plane.last - plane.first) / 2 * body.length(plane.bone),
        )
        sheets.append(Solid(Shape.ELLIPSOID, Material.FAT, place(centre, along(frame[:, 2], outward)), half))
    return tuple(sheets)
