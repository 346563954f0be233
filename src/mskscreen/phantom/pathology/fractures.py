"""Fractures: the patterns in which bones break, and which of them fits bone, place and age."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mskscreen.phantom.body import CARPALS
from mskscreen.phantom.frames import Matrix, cross, motion, moved
from mskscreen.phantom.pathology.context import (
    Context,
    Facts,
    Piece,
    choice,
    degrees,
    mark,
    mineral,
    swelling,
    with_pieces,
)
from mskscreen.phantom.pathology.cuts import (
    Injury,
    carry,
    depth_of,
    displacement,
    draw_injury,
    facts_of,
    halves,
    slope,
    surface,
)
from mskscreen.phantom.patient import AgeGroup
from mskscreen.phantom.scene import Scene, Solid

_LONG = ("humerus", "radius", "ulna", "clavicle")


def _simple(context: Context, rng: np.random.Generator, tilt: float) -> tuple[Scene, Facts]:
    bone, radius = context.site.bone, context.radius
    injury = draw_injury(rng, 2 * radius)
    direction = context.azimuth_axes(rng.uniform(0, 2 * np.pi))
    # Fragments that lost contact are pulled past each other by the muscles.
    overriding = rng.uniform(0.1, 0.7)
    forearm = bone in ("radius", "ulna")
    middle = forearm and 0.1 < context.site.fraction < 0.86
    both = middle and injury.angle > 0.14
    if forearm and not both and (bone == "ulna" or middle):
        # One forearm bone splints the other.
        injury = injury._replace(offset=min(injury.offset, 0.45), angle=min(injury.angle, 0.1))
    if bone in CARPALS or bone in ("clavicle", "scapula"):
        injury = injury._replace(angle=min(injury.angle, 0.3), offset=min(injury.offset, 0.35))
    # Broad ends and flat bones part by millimetres, not by their own width.
    injury = injury._replace(offset=min(injury.offset, 0.013 * context.body.patient.scale / (2 * radius)))
    tilt = min(tilt, 0.6) if radius > 0.014 * context.body.patient.scale else tilt
    shorten = overriding if injury.offset > 0.85 else 0.0
    change = displacement(context, injury, direction, shorten)
    facts = facts_of(injury, 2 * radius, tilt)

    # The arm hangs on the lateral clavicle and on the glenoid: there the other fragment moves.
    proximal, distal = halves(context.body, bone, context.point, slope(context.axes, tilt), injury)
    still = np.eye(4)
    near = surface(context.point, context.axes, tilt, radius, depth_of(injury, radius))
    far = replace(near, transform=change @ near.transform)
    if both:
        partner = "ulna" if bone == "radius" else "radius"
        level, lean = rng.uniform(-0.06, 0.06), rng.uniform(0, 0.8)
        scene, extra = _both_bones(context, partner, change, injury, level, lean)
        facts |= {"second_bone": partner, "second_tilt_degrees": degrees(lean)}
    elif bone in ("clavicle", "scapula"):
        scene, extra = context.furnish(context.body), ()
        pieces = (Piece((proximal,), np.linalg.inv(change)), Piece((distal,), still))
        far = replace(near, transform=np.linalg.inv(change) @ near.transform)
        return with_pieces(scene, bone, pieces).plus(region_of_interest=(near, far)), facts
    else:
        scene, extra = carry(context, change), ()
    scene = with_pieces(scene, bone, (Piece((proximal,), still), Piece((distal,), change)))
    return scene.plus(region_of_interest=(near, far, *extra)), facts


def _both_bones(
    context: Context, partner: str, change: Matrix, injury: Injury, level: float, tilt: float
) -> tuple[Scene, tuple[Solid, ...]]:
    """A forearm that bends breaks both bones; the partner breaks `level` of its length away."""
    body = context.body
    lead, other = body.length(context.site.bone), body.length(partner)
    fraction = float(np.clip(context.site.fraction * lead / other + level, 0.08, 0.94))
    there = replace(context, site=context.site._replace(bone=partner, fraction=fraction))
    proximal, distal = halves(body, partner, there.point, slope(there.axes, tilt), injury)
    scene = context.furnish(body.shifted(change, body.carried("radius"), ("radius", "ulna")))
    scene = with_pieces(scene, partner, (Piece((proximal,), np.eye(4)), Piece((distal,), change)))
    near = surface(there.point, there.axes, tilt, there.radius, depth_of(injury, there.radius))
    return scene, (near, replace(near, transform=change @ near.transform))


def transverse(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """A cut straight across the bone."""
    return _simple(context, rng, rng.uniform(0.0, 0.3))


def oblique(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """A cut at 30 to 60 degrees from the transverse plane."""
    return _simple(context, rng, rng.uniform(0.52, 1.05))


def impacted(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """A cut whose fragments are driven into each other: a dense line and a step, no gap."""
    bone, radius = context.site.bone, context.radius
    tilt = rng.uniform(0.0, 0.35)
    injury = draw_injury(rng, 2 * radius)
    injury = injury._replace(gap=0.0, offset=min(injury.offset, 0.4), angle=rng.uniform(0.15, 0.5))
    depth = rng.uniform(0.2, 0.5)
    change = displacement(context, injury, context.azimuth_axes(rng.uniform(0, 2 * np.pi)), depth)
    proximal, distal = halves(context.body, bone, context.point, slope(context.axes, tilt), injury)
    pieces = (Piece((proximal,), np.eye(4)), Piece((distal,), change))
    region = surface(context.point, context.axes, tilt, radius, depth_of(injury, radius) + depth * radius / 2)
    scene = with_pieces(carry(context, change), bone, pieces).plus(region_of_interest=(region,))
    return scene, facts_of(injury, 2 * radius, tilt) | {"impaction_mm": round(depth * radius * 1e3, 1)}


def spiral(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """A helical cut of one turn: two opposed slopes on two sides of the shaft, joined by a long edge."""
    bone, radius, body = context.site.bone, context.radius, context.body
    tilt = rng.uniform(0.85, 1.15)
    injury = draw_injury(rng, 2 * radius)
    injury = injury._replace(offset=min(injury.offset, 0.6), angle=min(injury.angle, 0.25))
    change = displacement(context, injury, context.azimuth_axes(rng.uniform(0, 2 * np.pi)), 0.0)
    axes = context.axes
    rise = radius * np.tan(tilt)
    pieces, regions = [], []
    for side in (1.0, -1.0):
        normal = axes[:, 0] * -side * np.sin(tilt) + axes[:, 2] * np.cos(tilt)
        point = context.point - axes[:, 2] * side * rise / 2
        half = body.clip(bone, context.point, side * axes[:, 1])
        proximal, distal = halves(body, bone, point, normal, injury)
        pieces += [Piece((half, proximal), np.eye(4)), Piece((half, distal), change)]
        regions.append(surface(point, axes, -side * tilt, 0.95 * radius, depth_of(injury, radius)))
    scene = with_pieces(carry(context, change), bone, pieces)
    return scene.plus(region_of_interest=tuple(regions)), facts_of(injury, 2 * radius, tilt)


def comminuted(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """Two converging cuts with a wedge between them, split in two."""
    bone, radius, body, axes = context.site.bone, context.radius, context.body, context.axes
    injury = draw_injury(rng, 2 * radius)
    lower, upper = rng.uniform(0.3, 0.75, 2)
    height = rng.uniform(0.5, 1.2) * radius
    change = displacement(context, injury, context.azimuth_axes(rng.uniform(0, 2 * np.pi)), 0.0)
    drift = rng.uniform(0.12, 0.5) * radius
    spin = rng.normal(0, 0.22, 2)
    first, second = context.point - axes[:, 2] * height / 2, context.point + axes[:, 2] * height / 2
    proximal, beyond = halves(body, bone, first, slope(axes, lower), injury)
    before, distal = halves(body, bone, second, slope(axes, -upper), injury)
    halfway = moved(change, context.point) - context.point
    pieces = [Piece((proximal,), np.eye(4)), Piece((distal,), change)]
    for sign, angle in zip((1.0, -1.0), spin, strict=True):
        split = body.clip(bone, context.point, sign * axes[:, 1], injury.roughness, injury.seed + 7)
        out = halfway / 2 + axes[:, 1] * sign * drift * 0.6 + axes[:, 0] * drift
        pieces.append(Piece((beyond, before, split), motion(context.point, out, axes[:, 1], angle)))
    scene = with_pieces(carry(context, change), bone, pieces)
    depth = height / 2 + injury.gap + 0.35 * radius
    region = mark(context.point + halfway / 2, axes, (1.3 * radius + drift, 1.3 * radius, depth))
    facts = facts_of(injury, 2 * radius, lower) | {"second_tilt_degrees": degrees(-upper), "fragments": 4}
    return scene.plus(region_of_interest=(region,)), facts


def greenstick(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """A child's bone bent and cracked on the tension side, hinged on the cortex opposite."""
    bone, radius, axes = context.site.bone, context.radius, context.axes
    angle = rng.uniform(0.22, 0.55)
    injury = Injury(0.0, angle, 0.0, rng.uniform(0.4, 0.8) * 1e-3, rng.uniform(0, 100))
    hinge = context.point - axes[:, 0] * radius
    change = motion(hinge, np.zeros(3), axes[:, 1], -angle)
    proximal, distal = halves(context.body, bone, context.point, axes[:, 2], injury)
    scene = with_pieces(carry(context, change), bone, (Piece((proximal,), np.eye(4)), Piece((distal,), change)))
    region = mark(
        context.point + axes[:, 0] * 0.3 * radius, axes, (radius, 1.1 * radius, 0.6 * angle * radius + 0.002)
    )
    return scene.plus(region_of_interest=(region,)), facts_of(injury, 2 * radius)


def torus(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """A child's buckled cortex: a ring-shaped bulge, often on one side, with a slight bend."""
    bone, radius, axes, body = context.site.bone, context.radius, context.axes, context.body
    angle, bulge = rng.uniform(0.04, 0.16), rng.uniform(0.12, 0.28)
    lean = rng.uniform(0.0, 0.25)
    injury = Injury(0.0, angle, 0.0, 0.0, 0.0)
    change = motion(context.point - axes[:, 0] * radius, np.zeros(3), axes[:, 1], angle)
    proximal, distal = halves(body, bone, context.point, axes[:, 2], injury)
    scene = with_pieces(carry(context, change), bone, (Piece((proximal,), np.eye(4)), Piece((distal,), change)))
    centre = context.point + axes[:, 0] * lean * radius
    half = np.array([1 + bulge, 1 + bulge, 0.22]) * radius
    ring = mineral(centre, axes, half, 0.45 * body.patient.density)
    region = mark(centre, axes, ((1.15 + bulge) * radius, (1.15 + bulge) * radius, 0.4 * radius))
    facts = facts_of(injury, 2 * radius) | {"bulge_widths": round(bulge / 2, 2)}
    return scene.plus(solids=(ring,), region_of_interest=(region,)), facts


def _corner(context: Context, rng: np.random.Generator, tip: bool) -> tuple[Scene, Facts]:
    """A corner of the bone's end pulled off by a tendon or ligament."""
    bone, radius, body, axes = context.site.bone, context.radius, context.body, context.axes
    outward = axes[:, 2] if tip else -axes[:, 2]
    tilt = rng.uniform(0.6, 1.2)
    normal = axes[:, 0] * np.sin(tilt) + outward * np.cos(tilt)
    point = context.point + axes[:, 0] * rng.uniform(0.15, 0.45) * radius
    gap = float(np.clip(rng.uniform(0.25, 0.8) * radius, 0.9e-3, 5e-3))
    injury = Injury(0.0, rng.uniform(-0.5, 0.5), gap, 0.3e-3, rng.uniform(0, 100))
    change = motion(point, normal * gap, axes[:, 1], injury.angle)
    rest, fragment = halves(body, bone, point, normal, injury)
    # The cut runs on through the bone: it must stop at the end it belongs to.
    limit = body.clip(bone, context.point - outward * 0.9 * radius, outward)
    shaft = body.clip(bone, context.point - outward * 0.9 * radius, -outward)
    pieces = (Piece((shaft,), np.eye(4)), Piece((rest, limit), np.eye(4)), Piece((fragment, limit), change))
    scene = with_pieces(context.furnish(body), bone, pieces)
    centre = point + axes[:, 0] * 0.35 * radius + normal * gap / 2
    frame = np.stack([normal, cross(axes[:, 1], normal), axes[:, 1]], axis=1)
    region = mark(centre, frame, (gap / 2 + 0.5 * radius + 0.5e-3, 0.75 * radius, 0.9 * radius))
    return scene.plus(region_of_interest=(region,)), facts_of(injury, 2 * radius, tilt)


def avulsion(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """A small fragment torn from the nearer end of the bone."""
    tip = context.site.fraction > 0.5
    fraction = 0.95 if tip else 0.06
    scene, facts = _corner(replace(context, site=context.site._replace(fraction=fraction)), rng, tip)
    return scene, facts | {"fraction": fraction}


def tuft(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """The crushed tip of a distal phalanx: several small fragments, slightly apart."""
    site = context.site._replace(fraction=rng.uniform(0.66, 0.8))
    context = replace(context, site=site)
    bone, radius, body, axes = site.bone, max(context.radius, 0.0017), context.body, context.axes
    injury = Injury(0.0, 0.0, rng.uniform(0.9, 2.0) * 1e-3, 0.35e-3, rng.uniform(0, 100))
    tilt = rng.uniform(-0.3, 0.3)
    proximal, distal = halves(body, bone, context.point, slope(axes, tilt), injury)
    pieces = [Piece((proximal,), np.eye(4))]
    spin = rng.normal(0, 0.25, 2)
    for sign, angle in zip((1.0, -1.0), spin, strict=True):
        split = body.clip(bone, context.point, sign * axes[:, 0], injury.roughness, injury.seed + 7)
        out = axes[:, 2] * injury.gap + axes[:, 0] * sign * injury.gap * 0.6
        pieces.append(Piece((distal, split), motion(context.point, out, axes[:, 1], angle)))
    scene = with_pieces(context.furnish(body), bone, pieces)
    tip = body.distal(bone)
    region = mark(
        (context.point + tip) / 2,
        axes,
        (2.0 * radius, 1.6 * radius, float(np.linalg.norm(tip - context.point)) / 2 + 1.5e-3),
    )
    facts = facts_of(injury, 2 * radius, tilt) | {"fraction": round(site.fraction, 3), "fragments": 3}
    return scene.plus(region_of_interest=(region,)), facts


Pattern = Callable[[Context, np.random.Generator], tuple[Scene, Facts]]
PATTERNS: dict[str, Pattern] = {
    pattern.__name__: pattern
    for pattern in (transverse, oblique, spiral, comminuted, impacted, greenstick, torus, avulsion, tuft)
}


def _shares(context: Context) -> dict[str, float]:
    """How often each pattern occurs in the site's bone."""
    bone, fraction = context.site.bone, context.site.fraction
    child = context.body.patient.age_group is AgeGroup.CHILD
    if bone in CARPALS or bone == "scapula":
        return {"transverse": 0.6, "oblique": 0.4}
    shares = {"transverse": 0.34, "oblique": 0.3}
    end = min(fraction, 1 - fraction) < 0.15
    if bone in ("radius", "ulna", "clavicle") and child:
        shares |= {"greenstick": 0.3, "torus": 0.4 if end and bone != "clavicle" else 0.1}
    if not end:
        shares |= {"spiral": 0.16 if bone in _LONG or bone.endswith("mc") else 0.05, "comminuted": 0.2}
    elif bone in ("radius", "humerus"):
        shares |= {"impacted": 0.25, "comminuted": 0.15}
    if bone.endswith(("ph", "prox", "dist")) or bone in ("ulna", "humerus", "1mc"):
        shares["avulsion"] = 0.35 if end else 0.08
    if bone.endswith(("distph", "thumbdist")):
        shares |= {"tuft": 0.5, "spiral": 0.0, "comminuted": 0.0}
    return shares


def fracture(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """A fracture of a pattern that fits bone, place and age, with swelling beside about half of them."""
    name = choice(_shares(context), rng)
    swollen, size = rng.random() < 0.55, rng.uniform(0.04, 0.2)
    scene, facts = PATTERNS[name](context, rng)
    if swollen:
        # Avulsions and tufts lie at the end of the bone, wherever the site was drawn.
        site = context.site._replace(fraction=facts.get("fraction", context.site.fraction))
        scene = scene.plus(tissue=swelling(context.body, site, size, 0.01 + 3 * context.radius))
    return scene, {"subkind": name, "swelling": round(size, 2) if swollen else 0.0} | facts
