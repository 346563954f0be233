"""Forward kinematics of the right arm, and the landmarks of its bones.

World axes in the neutral pose (arm hanging): x forward, y up, z to the patient's right; origin at the top of the
sternum. Angles are radians. A left arm is the mirror image, made by whoever builds the camera.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from mskscreen.phantom.geometry import Mesh, load_meshes, load_tree

_STATIONS = 32
_FRACTIONS = (np.arange(_STATIONS) + 0.5) / _STATIONS
UNMOVED, UNTURNED = np.eye(4), np.eye(3)
"""The transform and the rotation that change nothing."""
for _matrix in (UNMOVED, UNTURNED):
    _matrix.flags.writeable = False

# Where upstream leaves bones too far apart, metres in the parent's frame: the carpus floats some
# 3 mm farther from the radius than the cartilage of a radiocarpal joint explains.
_SEATING = {"lunate": (0.0, 0.0032, 0.0)}

# The bone that a bone's proximal end faces; the others face the frame's own origin.
_FACES = {
    "humerus": "scapula",
    "scapula": "humerus",
    "radius": "humerus",
    "ulna": "humerus",
    **dict.fromkeys(("scaphoid", "lunate", "triquetrum", "pisiform"), "radius"),
    **dict.fromkeys(("trapezium", "trapezoid"), "scaphoid"),
    **dict.fromkeys(("capitate", "hamate"), "lunate"),
    "1mc": "trapezium",
    "thumbprox": "1mc",
    "thumbdist": "thumbprox",
    **{f"{finger}mc": "capitate" for finger in "2345"},
    **{f"{finger}proxph": f"{finger}mc" for finger in "2345"},
    **{f"{finger}midph": f"{finger}proxph" for finger in "2345"},
    **{f"{finger}distph": f"{finger}midph" for finger in "2345"},
}


@dataclass(frozen=True)
class Joint:
    """One hinge at the origin of its frame: unit-ish `axis`, range `low` to `high` (radians)."""

    name: str
    axis: np.ndarray
    low: float
    high: float

    def turn(self, angle: float) -> np.ndarray:
        """Rotation matrix (3, 3) by `angle` radians."""
        return _rotated(self._cross, angle)

    @cached_property
    def _cross(self) -> np.ndarray:
        return _cross_matrix(self.axis)


@dataclass(frozen=True)
class Frame:
    """A node of the tree, moved by its `joints` in order; bones give their name to their frame."""

    name: str
    parent: str | None
    position: np.ndarray
    joints: tuple[Joint, ...]


@dataclass(frozen=True)
class BoneShape:
    """Landmarks of one bone in its own frame, metres.

    `proximal` and `distal` are the ends of the long axis, `axis` the unit vector between them, `centre` the
    centroid of the surface, `centreline` (n, 3) and `radii` (n,) the middle and the mean radius of the
    cross-section at evenly spaced stations from the proximal to the distal end.
    """

    name: str
    proximal: np.ndarray
    distal: np.ndarray
    centre: np.ndarray
    centreline: np.ndarray
    radii: np.ndarray

    @cached_property
    def axis(self) -> np.ndarray:
        """Unit vector from the proximal to the distal end."""
        return (self.distal - self.proximal) / self.length

    @cached_property
    def length(self) -> float:
        """Distance between the ends."""
        return float(np.linalg.norm(self.distal - self.proximal))

    def radius_at(self, fraction: float) -> float:
        """Mean radius of the cross-section at `fraction` of the length, 0 proximal to 1 distal."""
        return float(np.interp(fraction, _FRACTIONS, self.radii))

    def point_at(self, fraction: float) -> np.ndarray:
        """Middle of the cross-section at `fraction` of the length: curved bones leave their axis."""
        return np.array([np.interp(fraction, _FRACTIONS, column) for column in self.centreline.T])


@dataclass(frozen=True)
class Skeleton:
    """The right arm and the thorax: frames in order from the trunk outwards, and bones by name."""

    frames: tuple[Frame, ...]
    bones: dict[str, BoneShape]
    couplings: dict[str, tuple[str, tuple[float, ...]]]

    @staticmethod
    @cache
    def load() -> Skeleton:
        """The bundled skeleton (read once)."""
        tree = load_tree()
        frames = []
        for entry in tree["frames"]:
            joints = tuple(Joint(j["name"], np.array(j["axis"]), *j["range"]) for j in entry["joints"])
            position = np.add(entry["position"], _SEATING.get(entry["name"], (0.0, 0.0, 0.0)))
            frames.append(Frame(entry["name"], entry["parent"], position, joints))
        couplings = {name: (c["driver"], tuple(c["polynomial"])) for name, c in tree["couplings"].items()}
        bare = Skeleton(tuple(frames), {}, couplings)
        neutral = bare._frames({})
        meshes = load_meshes()
        bones = {name: _shape(name, mesh, meshes, neutral) for name, mesh in meshes.items()}
        return Skeleton(tuple(frames), bones, couplings)

    @cached_property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Range of every joint that is free (not driven by another), radians, by joint name."""
        joints = (joint for frame in self.frames for joint in frame.joints)
        return {joint.name: (joint.low, joint.high) for joint in joints if joint.name not in self.couplings}

    def pose(self, angles: Mapping[str, float]) -> dict[str, np.ndarray]:
        """World transforms (4x4) of every bone for joint `angles` (radians; absent joints are at 0).

        The origin of a bone that has a joint is the centre of that joint. Raises KeyError for a joint that does
        not exist or is driven by another.
        """
        if unknown := set(angles) - set(self.ranges):
            raise KeyError(f"no free joint named {', '.join(sorted(unknown))}")
        frames = self._frames(angles)
        return {bone: frames.get(bone, UNMOVED.copy()) for bone in self.bones}

    def descendants(self, bone: str) -> tuple[str, ...]:
        """Every bone that moves with `bone`, without itself, from near to far."""
        return self._descendants.get(bone, ())

    @cached_property
    def _descendants(self) -> dict[str, tuple[str, ...]]:
        """What hangs on every bone: the tree lists parents before children."""
        found: dict[str, tuple[str, ...]] = dict.fromkeys(self._parents, ())
        for name, parent in self._parents.items():
            while parent is not None:
                found[parent] = (*found[parent], name)
                parent = self._parents[parent]
        return found

    @cached_property
    def _parents(self) -> dict[str, str | None]:
        """Parent bone of every bone, in the tree's order; frames without a bone are passed over."""
        by_name = {frame.name: frame for frame in self.frames}
        parents: dict[str, str | None] = {}
        for frame in self.frames:
            parent = frame.parent
            while parent is not None and parent not in self.bones:
                parent = by_name[parent].parent
            if frame.name in self.bones:
                parents[frame.name] = parent
        return parents

    def _frames(self, angles: Mapping[str, float]) -> dict[str, np.ndarray]:
        world: dict[str, np.ndarray] = {}
        for frame in self.frames:
            transform = UNMOVED.copy()
            transform[:3, 3] = frame.position
            for joint in frame.joints:
                if angle := self._angle(joint.name, angles):
                    turn = UNMOVED.copy()
                    turn[:3, :3] = joint.turn(angle)
                    transform = transform @ turn
            world[frame.name] = world[frame.parent] @ transform if frame.parent else transform
        return world

    def _angle(self, joint: str, angles: Mapping[str, float]) -> float:
        if joint in self.couplings:
            driver, polynomial = self.couplings[joint]
            value = angles.get(driver, 0.0)
            return float(sum(coefficient * value**power for power, coefficient in enumerate(polynomial)))
        return angles.get(joint, 0.0)


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rotation matrix (3, 3) by `angle` radians about `axis` (Rodrigues' formula)."""
    return _rotated(_cross_matrix(axis), angle)


def _cross_matrix(axis: np.ndarray) -> np.ndarray:
    """The matrix (3, 3) of the vector product with the unit vector along `axis`."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def _rotated(cross: np.ndarray, angle: float) -> np.ndarray:
    return UNTURNED + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def principal_axes(mesh: Mesh) -> np.ndarray:
    """Right-handed axes (3, 3), columns from the longest to the shortest extent of the surface."""
    corners = mesh.triangles
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    middles = corners.mean(axis=1)
    offsets = middles - np.average(middles, axis=0, weights=areas)
    axes = np.linalg.eigh((offsets * areas[:, None]).T @ offsets)[1][:, ::-1]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), range(3)] < 0, -1.0, 1.0)
    if np.linalg.det(axes) < 0:
        axes[:, 2] *= -1
    return axes


def _shape(name: str, mesh: Mesh, meshes: dict[str, Mesh], neutral: dict[str, np.ndarray]) -> BoneShape:
    corners = mesh.triangles
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    centre = np.average(corners.mean(axis=1), axis=0, weights=areas)
    axis = principal_axes(mesh)[:, 0]
    along = (mesh.vertices - centre) @ axis
    first, last = centre + along.min() * axis, centre + along.max() * axis
    reference = np.zeros(3)
    if faced := _FACES.get(name):
        world = meshes[faced].vertices.mean(axis=0) + neutral[faced][:3, 3]
        reference = world - neutral[name][:3, 3]
    if np.linalg.norm(last - reference) < np.linalg.norm(first - reference):
        first, last = last, first
    unit = (last - first) / np.linalg.norm(last - first)
    heights = (corners - first) @ unit
    stations = _FRACTIONS * np.linalg.norm(last - first)
    sections = [_section(corners, heights - station) or (first + station * unit, 0.0) for station in stations]
    middle, radii = (np.array(column) for column in zip(*sections, strict=True))
    return BoneShape(name, first, last, centre, middle, radii)


def _section(corners: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Middle and mean radius of the outline where a mesh passes height 0; None where it does not.

    The outline is averaged by the length of its pieces, so holes in the mesh do little harm.
    """
    above = heights > 0
    crossed = above.any(axis=1) & ~above.all(axis=1)
    if crossed.sum() < 3:
        return None
    cut, heights, above = corners[crossed], heights[crossed], above[crossed]
    ends = []
    for a, b in ((0, 1), (1, 2), (2, 0)):
        step = np.where(above[:, a] != above[:, b], heights[:, a] - heights[:, b], np.nan)
        ends.append(cut[:, a] + (heights[:, a] / step)[:, None] * (cut[:, b] - cut[:, a]))
    middles = np.nanmean(ends, axis=0)
    lengths = np.linalg.norm(np.nanmax(ends, axis=0) - np.nanmin(ends, axis=0), axis=1) + 1e-12
    centre = np.average(middles, axis=0, weights=lengths)
    return centre, float(np.average(np.linalg.norm(middles - centre, axis=1), weights=lengths))
