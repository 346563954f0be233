"""Joints out of place: the distal bone, with all that hangs on it, leaves the proximal one."""

from __future__ import annotations

import numpy as np

from mskscreen.phantom.body import Body
from mskscreen.phantom.frames import Vector, cross, motion, moved, unit
from mskscreen.phantom.pathology.articulations import Articulation, articulation_of, meeting_point
from mskscreen.phantom.pathology.context import Context, Facts, mark, swelling
from mskscreen.phantom.scene import Scene


def _palmar(body: Body, bone: str) -> Vector:
    digit = int(bone[0]) if bone[0].isdigit() else 1
    return unit(cross(body.flexion_axis(digit), body.axis(bone)))


def _direction(body: Body, joint: Articulation, rng: np.random.Generator) -> tuple[Vector, str]:
    """Where the distal bone goes, in radii of its end, and the name of that direction."""
    way, aside, pull = rng.random(), rng.normal(0, 0.25), rng.uniform(0.1, 0.7)
    if joint.bone == "humerus":
        # World axes: x forward, y up, z to the right; the commonest place is below the coracoid.
        if way < 0.82:
            return np.array([0.6 + aside, -1.0 - 0.6 * pull, -0.75 + aside]), "anterior"
        if way < 0.92:
            return np.array([-1.1, -0.15 + aside, 0.25]), "posterior"
        return np.array([0.2, -1.8, -0.2 + aside]), "inferior"
    frame = body.frame(joint.bone)
    if joint.bone == "ulna":
        back = -unit(body.transforms["humerus"][:3, 0])
        side = unit(cross(body.axis("humerus"), back))
        upwards = -body.axis("humerus")
        if way < 0.75:
            return back * 1.5 + upwards * pull + side * aside * 2, "posterior"
        # Every arm is posed as a right one, whose `side` is towards the body.
        name = "medial" if aside > 0 else "lateral"
        return back * 0.5 + upwards * pull + side * np.sign(aside) * 0.9, name
    palm = _palmar(body, "3mc") if joint.bone == "lunate" else _palmar(body, joint.bone)
    if joint.bone == "lunate":
        return palm * 1.4 + frame[:, 2] * aside, "palmar"
    name = "dorsal" if way < 0.6 else "palmar" if way < 0.72 else "lateral"
    side = cross(palm, frame[:, 2])
    across = {"dorsal": -palm, "palmar": palm, "lateral": np.sign(aside) * side}[name]
    return across + aside * side - pull * frame[:, 2], name


def _out_of_joint(context: Context, rng: np.random.Generator, low: float, high: float) -> tuple[Scene, Facts]:
    body = context.body
    joint = articulation_of(context.joint, context.site.bone)
    direction, name = _direction(body, joint, rng)
    amount, angle, spin = rng.uniform(low, high), rng.normal(0, 0.28), rng.normal(0, 1, 3)
    centre = meeting_point(body, joint)
    radius = body.radius(joint.bone, 0.05 if joint.bone != "lunate" else 0.5)
    spread = 2.0 if joint.bone == "ulna" else 1.0
    shift = direction * radius * amount * spread * (0.85 if joint.bone in ("humerus", "ulna") else 1.9)
    axis = body.frame(joint.bone) @ spin
    change = motion(centre, shift, axis, angle * (2.5 if joint.bone == "lunate" else 1.0) * min(amount, 1.0))
    after = body.shifted(change, joint.moving(body))
    size, swollen = rng.uniform(0.05, 0.2), rng.random() < 0.5
    scene = context.furnish(after)
    if swollen:
        scene = scene.plus(tissue=swelling(after, context.site._replace(fraction=0.1), size, 0.008 + 2 * radius))
    end = moved(change, centre)
    long = float(np.linalg.norm(end - centre))
    towards = unit(end - centre)
    frame = np.stack([towards, *_perpendicular(towards)], axis=1)
    reach = radius * {"ulna": 1.8, "humerus": 0.9}.get(joint.bone, 1.15)
    region = mark((centre + end) / 2, frame, (reach + long / 2, reach, reach))
    facts = {
        "subkind": joint.name,
        "direction": name,
        "displacement_mm": round(1e3 * long, 1),
        "displacement_widths": round(long / (2 * radius), 2),
        "swelling": round(size, 2) if swollen else 0.0,
    }
    return scene.plus(region_of_interest=(region,)), facts


def _perpendicular(axis: Vector) -> tuple[Vector, Vector]:
    first = unit(cross(axis, np.eye(3)[np.abs(axis).argmin()]))
    return first, cross(axis, first)


def dislocation(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """The joint surfaces have lost contact."""
    return _out_of_joint(context, rng, 0.8, 1.4)


def subluxation(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """The joint surfaces are displaced but still touch."""
    return _out_of_joint(context, rng, 0.35, 0.65)
