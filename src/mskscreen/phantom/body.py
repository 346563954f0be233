"""A patient in a pose: where every bone lies, and the scene of bones that follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np

from mskscreen.phantom.frames import Matrix, Vector, along, moved, place, unit
from mskscreen.phantom.patient import Patient, Shape
from mskscreen.phantom.scene import BonePart, Clip
from mskscreen.phantom.skeleton import UNTURNED, Skeleton

_AVERAGE = Shape(1.0, 1.0, 1.0)
CARPALS = ("scaphoid", "lunate", "triquetrum", "pisiform", "trapezium", "trapezoid", "capitate", "hamate")
_CARRY_NOTHING = frozenset(("ulna", "clavicle", "scapula", "thorax", *CARPALS))


def digit_bones(digit: int) -> tuple[str, ...]:
    """Bones of a finger from the metacarpal to the tip; the thumb (1) has no middle phalanx."""
    if digit == 1:
        return ("1mc", "thumbprox", "thumbdist")
    return (f"{digit}mc", f"{digit}proxph", f"{digit}midph", f"{digit}distph")


@dataclass(frozen=True)
class Body:
    """The bones of one patient in one pose.

    `transforms` take bone coordinates to the world (4x4, with the patient's scale and shape); `ends` are the
    proximal and distal end of every bone in the world. A fracture moves the distal end without the transform.
    """

    skeleton: Skeleton
    patient: Patient
    transforms: Mapping[str, Matrix]
    ends: Mapping[str, tuple[Vector, Vector]]

    def proximal(self, bone: str) -> Vector:
        """Proximal end (world)."""
        return self.ends[bone][0]

    def distal(self, bone: str) -> Vector:
        """Distal end (world)."""
        return self.ends[bone][1]

    def centre(self, bone: str) -> Vector:
        """Centroid (world)."""
        return moved(self.transforms[bone], self.skeleton.bones[bone].centre)

    def axis(self, bone: str) -> Vector:
        """Unit vector from the proximal to the distal end (world)."""
        return unit(self.distal(bone) - self.proximal(bone))

    def length(self, bone: str) -> float:
        """Distance between the ends, metres."""
        return float(np.linalg.norm(self.distal(bone) - self.proximal(bone)))

    def point(self, bone: str, fraction: float) -> Vector:
        """Middle of the unbroken bone's cross-section at `fraction` of its length, 0 proximal to 1 distal."""
        return moved(self.transforms[bone], self.skeleton.bones[bone].point_at(fraction))

    def radius(self, bone: str, fraction: float) -> float:
        """Mean radius of the cross-section at `fraction`, metres, at least 1 mm."""
        shape = self.patient.shapes.get(bone, _AVERAGE)
        girth = (shape.girth + shape.depth) / 2 * self.patient.scale
        return max(0.001, self.skeleton.bones[bone].radius_at(float(np.clip(fraction, 0.03, 0.97))) * girth)

    def frame(self, bone: str) -> Matrix:
        """Rotation (3, 3) that goes with the bone: z along its axis, x towards its own x."""
        if bone not in self._frames:
            transform = self.transforms[bone]
            local = self.skeleton.bones[bone].axis
            self._frames[bone] = along(transform[:3, :3] @ local, transform[:3, 0])
        return self._frames[bone]

    @cached_property
    def _frames(self) -> dict[str, Matrix]:
        return {}

    def flexion_axis(self, digit: int) -> Vector:
        """The axis about which a finger bends towards the palm: it points to the radial side (world)."""
        bone = "thumbprox" if digit == 1 else f"{digit}midph"
        joints = next(frame.joints for frame in self.skeleton.frames if frame.name == bone)
        axis = unit(self.transforms[bone][:3, :3] @ joints[0].axis)
        return -axis if digit == 1 else axis

    def carried(self, bone: str) -> tuple[str, ...]:
        """Bones that go with the distal end of `bone`; the hand hangs on the radius, not on the ulna."""
        if bone in _CARRY_NOTHING:
            return ()
        return self.skeleton.descendants(bone)

    def shifted(self, change: Matrix, whole: Iterable[str], distal_of: Iterable[str] = ()) -> Body:
        """The body with the bones `whole`, and the distal ends of `distal_of`, moved by `change`."""
        transforms, ends = dict(self.transforms), dict(self.ends)
        for bone in whole:
            transforms[bone] = change @ transforms[bone]
            ends[bone] = (moved(change, ends[bone][0]), moved(change, ends[bone][1]))
        for bone in distal_of:
            ends[bone] = (ends[bone][0], moved(change, ends[bone][1]))
        return replace(self, transforms=transforms, ends=ends)

    def bone_part(self, bone: str) -> BonePart:
        """The whole bone as a part of a scene."""
        return BonePart(bone, self.transforms[bone], self.patient.density, cortex=self.patient.cortex)

    def clip(self, bone: str, point: Vector, normal: Vector, roughness: float = 0.0, seed: float = 0.0) -> Clip:
        """The clip that keeps the side of a bone to which `normal` points from `point` (both world)."""
        transform = self.transforms[bone]
        local = transform[:3, :3].T @ normal
        size = np.linalg.norm(local)
        offset = (normal @ (point - transform[:3, 3])) / size
        nx, ny, nz = (float(v) for v in local / size)
        return Clip((nx, ny, nz), float(offset), roughness, seed)


@cache
def _stretched_along(x: float, y: float, z: float) -> Matrix:
    """Axes (3, 3) in which a bone of this long axis is stretched: the third is the long one."""
    return along(np.array([x, y, z]), np.array([1.0, 0.3, 0.2]))


def pose_body(skeleton: Skeleton, patient: Patient, angles: Mapping[str, float]) -> Body:
    """The patient with the joints at `angles` (radians)."""
    transforms = dict(skeleton.pose(angles))
    for bone, shape in patient.shapes.items():
        if bone == "thorax":
            continue
        landmarks = skeleton.bones[bone]
        axes = _stretched_along(*landmarks.axis.tolist())
        stretch = axes @ np.diag(shape) @ axes.T
        transform = transforms[bone]
        turn, near = transform[:3, :3], landmarks.proximal
        transforms[bone] = place(transform[:3, 3] + turn @ (near - stretch @ near), turn @ stretch)
        # The ulna and radius grow by the same factor: only one of them may push the hand.
        if bone not in ("ulna", "scapula", "clavicle"):
            longer = turn @ (stretch - UNTURNED) @ (landmarks.distal - landmarks.proximal)
            for child in skeleton.descendants(bone):
                transforms[child][:3, 3] += longer
    size = np.diag([patient.scale] * 3 + [1.0])
    transforms = {bone: size @ transform for bone, transform in transforms.items()}
    ends = {
        bone: (moved(transform, skeleton.bones[bone].proximal), moved(transform, skeleton.bones[bone].distal))
        for bone, transform in transforms.items()
    }
    return Body(skeleton, patient, transforms, ends)
