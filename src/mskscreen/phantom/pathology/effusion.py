"""Soft-tissue signs: the fat pads of an elbow effusion, and swelling."""

from __future__ import annotations

import numpy as np

from mskscreen.phantom.frames import Vector, across, along, place, unit
from mskscreen.phantom.pathology.context import Context, Facts, mark, swelling
from mskscreen.phantom.scene import Material, Scene, Shape, Solid
from mskscreen.phantom.soft_tissue import limb_group, limb_radius


def _pad(
    centre: Vector, along_bone: Vector, outward: Vector, half: tuple[float, float, float]
) -> tuple[Solid, Solid]:
    """A lens of fat and its shadow: `half` thickness outward, across the elbow, along the bone."""
    axes = along(along_bone, outward)
    return Solid(Shape.ELLIPSOID, Material.FAT, place(centre, axes), half), mark(centre, axes, half)


def effusion(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """Fluid in the elbow lifts the fat pads off the humerus: a sail in front, a dark crescent behind."""
    body = context.body
    size = body.patient.scale
    radius = body.radius("humerus", 0.9)
    axis = body.axis("humerus")
    front = across(body.transforms["humerus"][:3, 0], axis)
    lift, sail, behind = rng.uniform(0.8, 1.3), rng.uniform(0.25, 0.6), rng.random() < 0.8
    thick = rng.uniform(0.0034, 0.0055) * size
    slope = unit(axis + front * sail)
    ahead = body.point("humerus", 0.9) + front * (0.62 * radius * lift + 0.006 * size)
    solids, regions = [], []
    pads = [(ahead, slope, front)]
    if behind:
        pads.append((body.point("humerus", 0.88) - front * (0.62 * radius + 0.005 * size), axis, -front))
    for centre, direction, outward in pads:
        half = (thick, 0.02 * size, 0.016 * size)
        pad, region = _pad(centre, direction, across(outward, direction), half)
        solids.append(pad)
        regions.append(region)
    scene = context.furnish(body).plus(solids=tuple(solids), region_of_interest=tuple(regions))
    facts = {
        "subkind": "fat-pad sign",
        "posterior_pad": behind,
        "thickness_mm": round(2e3 * thick, 1),
        "lift": round(lift, 2),
        "sail": round(sail, 2),
    }
    return scene, facts


def soft_tissue_swelling(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """Swelling beside a bone without a change in it."""
    body, site = context.body, context.site
    size, spread = rng.uniform(0.2, 0.5), rng.uniform(1.2, 2.4)
    # A finger swells all around its joint like a spindle; thicker parts more often on one side.
    around = bool(rng.random() < (0.75 if limb_group(site.bone).startswith("digit") else 0.4))
    limb = limb_radius(body, site.bone, site.fraction)
    sites = [site, site._replace(azimuth=site.azimuth + np.pi)] if around else [site]
    capsules = tuple(capsule for at in sites for capsule in swelling(body, at, size, spread * limb))
    scene = context.furnish(body).plus(tissue=capsules)
    centre, across_limb = context.point, 1.0 + size
    if not around:
        centre, across_limb = centre + context.axes[:, 0] * limb * (0.62 + 0.5 * size), 0.4 + 0.5 * size
    region = mark(centre, context.axes, np.array([across_limb, 0.8, 0.3 + 0.5 * spread]) * limb)
    facts = {
        "subkind": "swelling",
        "swelling": round(size, 2),
        "length_mm": round(1e3 * spread * limb, 1),
        "all_around": around,
    }
    return scene.plus(region_of_interest=(region,)), facts
