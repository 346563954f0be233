"""Normal variants and worn objects that stay negative; they are drawn without knowing the label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mskscreen.anatomy import JointType
from mskscreen.phantom.body import Body
from mskscreen.phantom.frames import Matrix, Vector, along, cross, place, unit
from mskscreen.phantom.patient import AgeGroup, Patient
from mskscreen.phantom.scene import BonePart, DensityEdit, Material, Scene, Shape, Solid
from mskscreen.phantom.soft_tissue import limb_radius

Applied = Callable[[Scene, Body], Scene]


@dataclass(frozen=True)
class Variants:
    """What a patient has or wears: names for the manifest, and the edits that show them."""

    names: tuple[str, ...]
    edits: tuple[Applied, ...]

    def apply(self, scene: Scene, body: Body) -> Scene:
        """The scene with every variant."""
        for edit in self.edits:
            scene = edit(scene, body)
        return scene


# Growth plates: bone -> fraction of its length and the age in years at which it closes. Metacarpals 2-5 grow at
# the distal end, the thumb's and all phalanges at the proximal one.
_PLATES: dict[str, tuple[tuple[float, float], ...]] = {
    "radius": ((0.955, 17), (0.03, 15)),
    "ulna": ((0.965, 17), (0.03, 15)),
    "humerus": ((0.1, 17), (0.955, 14)),
    "1mc": ((0.1, 15),),
    **{f"{digit}mc": ((0.87, 15.5),) for digit in (2, 3, 4, 5)},
    **{f"{digit}{level}": ((0.1, 15.5),) for digit in (2, 3, 4, 5) for level in ("proxph", "midph", "distph")},
    "thumbprox": ((0.1, 15.5),),
    "thumbdist": ((0.1, 15.5),),
}


def _growth_plates(patient: Patient) -> Applied:
    width = 1.4e-3 * float(np.interp(patient.years, (4, 14), (1.0, 0.45)))

    def edit(scene: Scene, body: Body) -> Scene:
        parts: list[BonePart] = []
        for part in scene.bones:
            kept = [part]
            for fraction, closes in _PLATES.get(part.bone, ()):
                if patient.years < closes:
                    kept = [piece for whole in kept for piece in _split(whole, body, fraction, width)]
            parts += kept
        return replace(scene, bones=tuple(parts))

    return edit


def _split(part: BonePart, body: Body, fraction: float, width: float) -> list[BonePart]:
    axis = body.frame(part.bone)[:, 2]
    point = body.point(part.bone, fraction)
    seed = 3.0 * fraction
    far = body.clip(part.bone, point + axis * width / 2, axis, 0.25e-3, seed)
    near = body.clip(part.bone, point - axis * width / 2, -axis, 0.25e-3, seed)
    return [replace(part, clips=(*part.clips, clip)) for clip in (near, far)]


def _sesamoids(rng: np.random.Generator) -> Applied:
    places = [("1mc", side) for side in (-0.35, 0.35)]
    places += [(bone, 0.0) for bone in ("2mc", "5mc") if rng.random() < 0.4]
    sizes = rng.uniform(0.0017, 0.0028, len(places))

    def edit(scene: Scene, body: Body) -> Scene:
        solids = []
        for (bone, side), size in zip(places, sizes, strict=True):
            digit = int(bone[0])
            radial = body.flexion_axis(digit)
            palm = unit(cross(radial, body.axis(bone)))
            radius = body.radius(bone, 0.93)
            centre = body.point(bone, 0.95) + palm * (radius + 0.002) + radial * side * 2 * radius
            half = np.array([1.0, 1.25, 0.8]) * size * body.patient.scale
            axes = along(palm, body.axis(bone))
            solids.append(_solid(Shape.ELLIPSOID, Material.BONE, centre, axes, half, 0.42 * body.patient.density))
        return scene.plus(solids=tuple(solids))

    return edit


def _nutrient_canal(rng: np.random.Generator, joint: JointType) -> Applied:
    bones = (
        ("humerus",) if joint in (JointType.HUMERUS, JointType.SHOULDER) else ("radius", "ulna", "3mc", "2proxph")
    )
    bone = str(rng.choice(bones))
    fraction, azimuth, seed = rng.uniform(0.4, 0.62), rng.uniform(0, 2 * np.pi), rng.uniform(0, 100)

    def edit(scene: Scene, body: Body) -> Scene:
        shape = body.skeleton.bones[bone]
        axis = int(np.abs(shape.axis).argmax())
        across = np.roll(np.eye(3), axis + 1, axis=1)[0] * np.cos(azimuth)
        across += np.roll(np.eye(3), axis + 2, axis=1)[0] * np.sin(azimuth)
        centre = shape.point_at(fraction) + 0.75 * shape.radius_at(fraction) * across
        radii = np.full(3, 0.09 * shape.radius_at(fraction) + 0.3e-3)
        radii[axis] = 0.035 * shape.length
        canal = DensityEdit(_triple(centre), _triple(radii), 0.25, irregularity=0.1, seed=seed)
        return scene.edited(bone, canal)

    return edit


def _old_deformity(rng: np.random.Generator, bone: str) -> Applied:
    fraction, thick, long = rng.uniform(0.3, 0.75), rng.uniform(1.1, 1.22), rng.uniform(2.0, 3.5)
    azimuth = rng.uniform(0, 2 * np.pi)

    def edit(scene: Scene, body: Body) -> Scene:
        frame, radius = body.frame(bone), body.radius(bone, fraction)
        out = frame[:, 0] * np.cos(azimuth) + frame[:, 1] * np.sin(azimuth)
        centre = body.point(bone, fraction) + 0.12 * radius * out
        half = np.array([thick, thick, long]) * radius
        solid = _solid(Shape.ELLIPSOID, Material.BONE, centre, frame, half, 0.13 * body.patient.density)
        return scene.plus(solids=(solid,))

    return edit


def _ring(rng: np.random.Generator, digit: int) -> Applied:
    bone = f"{digit}proxph"
    fraction, width, thick = rng.uniform(0.25, 0.6), rng.uniform(0.001, 0.0024), rng.uniform(0.0005, 0.0009)
    lean = rng.normal(0, 0.15, 2)

    def edit(scene: Scene, body: Body) -> Scene:
        frame = body.frame(bone)
        axis = unit(frame[:, 2] + frame[:, 0] * lean[0] + frame[:, 1] * lean[1])
        radius = 0.97 * limb_radius(body, bone, fraction)
        band = _hoop(body.point(bone, fraction), along(axis, frame[:, 0]), radius, (thick, width), Material.GOLD)
        return scene.plus(solids=band)

    return edit


def _watch(rng: np.random.Generator) -> Applied:
    fraction, size, metal = rng.uniform(0.84, 0.95), rng.uniform(0.014, 0.02), rng.random() < 0.5

    def edit(scene: Scene, body: Body) -> Scene:
        frame = body.frame("radius")
        middle = (body.point("radius", fraction) + body.point("ulna", fraction)) / 2
        palm = unit(cross(body.flexion_axis(3), body.axis("3mc")))
        radius = 1.06 * limb_radius(body, "radius", fraction)
        back = along(-palm, frame[:, 2])
        case = _solid(
            Shape.CYLINDER,
            Material.STEEL,
            middle - palm * (radius + 0.002),
            back,
            np.array([size, size, 0.0035]),
            0.35,
        )
        strap = Material.STEEL if metal else Material.POLYMER
        thick = (0.0007 if metal else 0.0012, 0.008)
        band = _hoop(middle, along(frame[:, 2], palm), radius, thick, strap, density=0.5)
        return scene.plus(solids=(case, *band))

    return edit


def _hoop(
    centre: Vector,
    axes: Matrix,
    radius: float,
    half: tuple[float, float],
    material: Material,
    density: float = 1.0,
) -> tuple[Solid, ...]:
    """A ring of flat links: `half` its half thickness and half width, metres."""
    links = 20
    solids = []
    for angle in np.arange(links) * 2 * np.pi / links:
        out = axes[:, 0] * np.cos(angle) + axes[:, 1] * np.sin(angle)
        size = np.array([half[0], radius * np.tan(np.pi / links), half[1]])
        solids.append(_solid(Shape.BOX, material, centre + out * radius, along(axes[:, 2], out), size, density))
    return tuple(solids)


def _wrapping(rng: np.random.Generator, joint: JointType, digit: int) -> tuple[str, Applied]:
    """A bandage, or a cast of plaster or fibreglass, around the limb of the region."""
    name = str(rng.choice(("bandage", "plaster cast", "fibreglass cast"), p=(0.5, 0.25, 0.25)))
    material, thick, density = {
        "bandage": (Material.POLYMER, 0.003, 0.35),
        "plaster cast": (Material.PLASTER, 0.005, 0.55),
        "fibreglass cast": (Material.POLYMER, 0.004, 0.9),
    }[name]
    bones = {
        JointType.HUMERUS: (("humerus", 0.25, 1.0),),
        JointType.SHOULDER: (("humerus", 0.3, 0.9),),
        JointType.ELBOW: (("humerus", 0.55, 1.0), ("radius", 0.0, 0.8)),
        JointType.FINGER: ((f"{digit}proxph", 0.2, 1.0), (f"{digit}midph", 0.0, 0.9)),
    }.get(joint, (("radius", 0.25, 1.0), ("3mc", -0.3, 0.75)))
    if digit == 1 and joint is JointType.FINGER:
        bones = (("thumbprox", 0.0, 1.0), ("thumbdist", 0.0, 0.7))
    if joint is JointType.FINGER:
        thick *= 0.6
    turns = int(rng.integers(6, 10))
    wobble = rng.normal(0, 0.09, (len(bones), turns, 2))

    def edit(scene: Scene, body: Body) -> Scene:
        solids: list[Solid] = []
        for (bone, first, last), leans in zip(bones, wobble, strict=True):
            for index, lean in enumerate(leans):
                fraction = first + (last - first) * (index + 0.5) / turns
                half = (last - first) / turns * body.length(bone) * _OVERLAP / 2
                solids += _shell(body, bone, fraction, half, thick, lean, material, density / _OVERLAP)
        return scene.plus(solids=tuple(solids))

    return name, edit


_OVERLAP = 3.3
"""Layers of a wrapping: every turn covers most of the one before, which leaves soft bands and no stripes."""


def _shell(
    body: Body,
    bone: str,
    fraction: float,
    half: float,
    thick: float,
    lean: Vector,
    material: Material,
    density: float,
) -> list[Solid]:
    """One turn of a wrapping: a cylinder less the limb inside it."""
    frame = body.frame(bone)
    axis = unit(frame[:, 2] + frame[:, 0] * lean[0] + frame[:, 1] * lean[1])
    centre = body.point(bone, float(np.clip(fraction, 0.03, 0.97)))
    centre = centre + (fraction - np.clip(fraction, 0.03, 0.97)) * body.length(bone) * frame[:, 2]
    inner = limb_radius(body, bone, float(np.clip(fraction, 0, 1)))
    if bone == "radius":
        centre = (centre + body.point("ulna", float(np.clip(fraction, 0.03, 0.97)))) / 2
    elif bone == "3mc":
        inner = 2.6 * inner
    # The hand is flat: its wrapping is an ellipse, wide from the index to the little finger.
    axes = along(axis, frame[:, 0]) @ np.diag([1.0, 0.5 if bone == "3mc" else 1.0, 1.0])
    return [
        _solid(Shape.CYLINDER, material, centre, axes, np.array([r, r, half]), d, displaces=False)
        for r, d in ((1.04 * inner + thick, density), (1.04 * inner, -density))
    ]


def _solid(
    shape: Shape,
    material: Material,
    centre: Vector,
    axes: Matrix,
    half: Vector,
    density: float,
    *,
    displaces: bool = True,
) -> Solid:
    return Solid(shape, material, place(centre, axes), _triple(half), density, displaces)


def _triple(vector: Vector) -> tuple[float, float, float]:
    x, y, z = np.asarray(vector, float).tolist()
    return x, y, z


def draw_variants(rng: np.random.Generator, patient: Patient, joint: JointType, digit: int) -> Variants:
    """The variants of a patient, from the stream `variants`."""
    hand = joint in (JointType.HAND, JointType.WRIST, JointType.FINGER)
    found: list[tuple[str, Applied]] = []
    chances = rng.random(6)
    if patient.age_group is AgeGroup.CHILD:
        found.append(("growth plates", _growth_plates(patient)))
    elif hand or joint is JointType.FOREARM:
        found.append(("sesamoids", _sesamoids(rng)))
    if chances[0] < 0.25:
        found.append(("nutrient canal", _nutrient_canal(rng, joint)))
    if chances[1] < 0.05:
        bone = str(rng.choice(("radius", "ulna", "5mc", "3mc") if joint not in _UPPER else ("humerus",)))
        found.append(("old deformity", _old_deformity(rng, bone)))
    if hand and chances[2] < 0.09 and patient.age_group is not AgeGroup.CHILD:
        found.append(("ring", _ring(rng, int(rng.choice([3, 4, 4, 4, 5, 2])))))
    if joint in (JointType.WRIST, JointType.FOREARM) and chances[3] < 0.03:
        found.append(("watch", _watch(rng)))
    if chances[4] < 0.09:
        found.append(_wrapping(rng, joint, digit))
    return Variants(tuple(name for name, _ in found), tuple(edit for _, edit in found))


_UPPER = (JointType.HUMERUS, JointType.SHOULDER, JointType.ELBOW)
