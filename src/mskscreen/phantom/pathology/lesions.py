"""Lesions of bone: lytic and sclerotic, sharply or poorly defined, expansile."""

from __future__ import annotations

import numpy as np

from mskscreen.phantom.pathology.context import Context, Facts, mark, mineral
from mskscreen.phantom.scene import DensityEdit, Scene, Solid


def _radii(context: Context, rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Semi-axes in bone coordinates, longer along the bone, metres at adult size."""
    shape = context.body.skeleton.bones[context.site.bone]
    size = max(
        0.0026,
        rng.uniform(low, high) * min(shape.radius_at(float(np.clip(context.site.fraction, 0.03, 0.97))), 0.013),
    )
    stretch = rng.uniform(1.0, 2.2)
    radii = size * rng.uniform(0.85, 1.15, 3)
    axis = int(np.abs(shape.axis).argmax())
    radii[axis] *= stretch
    return np.minimum(radii, 0.4 * shape.length)


def _local(context: Context, out: float) -> np.ndarray:
    """The site in bone coordinates, `out` radii from the centreline towards the azimuth."""
    world = context.point + context.axes[:, 0] * out * context.radius
    transform = context.body.transforms[context.site.bone]
    return np.linalg.inv(transform[:3, :3]) @ (world - transform[:3, 3])


def _stretch(context: Context) -> np.ndarray:
    """What the patient's size and build make of a metre along each of the bone's axes."""
    return np.linalg.norm(context.body.transforms[context.site.bone][:3, :3], axis=0)


def _region(context: Context, centre: np.ndarray, radii: np.ndarray) -> Solid:
    transform = context.body.transforms[context.site.bone]
    turned = transform.copy()
    turned[:3, :3] = np.linalg.qr(transform[:3, :3])[0]
    turned[:3, :3] *= np.sign(np.sum(turned[:3, :3] * transform[:3, :3], axis=0))
    middle = transform[:3, :3] @ centre + transform[:3, 3]
    return mark(middle, turned[:3, :3], radii * _stretch(context))


def lytic(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """Mineral lost in a rounded area: geographic with a rim, permeative, or blown up with a thin shell."""
    manner = str(rng.choice(("narrow", "wide", "expansile"), p=(0.45, 0.35, 0.2)))
    out = rng.uniform(0.0, 0.65)
    radii = _radii(context, rng, 0.8, 1.4)
    gain, seed = rng.uniform(0.0, 0.15), rng.uniform(0, 100)
    count = int(rng.integers(3, 7))
    rim = rng.uniform(0.12, 0.3)
    scatter, shares = rng.normal(0, 0.6, (count, 3)), rng.uniform(0.3, 0.6, count)
    centre = _local(context, 0.15 if manner == "expansile" else out)
    if manner == "wide":
        # Moth-eaten: a ragged hole with satellites around it.
        holes = [(centre, radii * 0.75)]
        holes += [(centre + spot * radii, radii * share) for spot, share in zip(scatter, shares, strict=True)]
        edits = [
            DensityEdit(tuple(c.tolist()), tuple(r.tolist()), gain, 0.0, 0.9, seed + n)
            for n, (c, r) in enumerate(holes)
        ]
        extent = radii * 1.3
    else:
        edits = [DensityEdit(tuple(centre.tolist()), tuple(radii.tolist()), gain, rim, 0.25, seed)]
        extent = radii * (1 + 0.6 * rim)
    bone = context.site.bone
    region = _region(context, centre, extent)
    scene = context.furnish(context.body).edited(bone, *edits).plus(region_of_interest=(region,))
    facts: Facts = {
        "subkind": "lytic",
        "transition": manner,
        "gain": round(gain, 2),
        "holes": len(edits),
        "rim": 0.0 if manner == "wide" else round(rim, 2),
        "off_centre_radii": 0.15 if manner == "expansile" else round(out, 2),
        "size_mm": [round(2e3 * float(r), 1) for r in radii * _stretch(context)],
    }
    if manner == "expansile":
        widening = rng.uniform(1.15, 1.5)
        scene = _expanded(scene, context, widening, float(radii.max()))
        facts["widening"] = round(widening, 2)
    return scene, facts


def _expanded(scene: Scene, context: Context, widening: float, length: float) -> Scene:
    """A thin shell of bone ballooned beyond the cortex, ground glass inside."""
    half = np.array(
        [widening * context.radius, widening * context.radius, 1.2 * length * context.body.patient.scale]
    )
    density = context.body.patient.density
    shell = mineral(context.point, context.axes, half, 0.42 * density)
    core = mineral(context.point, context.axes, half - 0.9e-3 * context.body.patient.scale, -0.28 * density)
    return scene.plus(solids=(shell, core), region_of_interest=(mark(context.point, context.axes, half),))


def sclerotic(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """Added mineral in the marrow: one dense island, or a cloud of fluffy deposits."""
    count = int(rng.choice((1, 4, 7), p=(0.4, 0.35, 0.25)))
    axes, density = context.axes, context.body.patient.density
    # The section of the scapula is its whole blade.
    radius = min(context.radius, 0.013 * context.body.patient.scale)
    peak = rng.uniform(0.7, 1.1)
    spots = np.clip(rng.normal(0, 0.35, (count, 3)), -0.8, 0.8)
    sizes = rng.uniform(0.35, 0.65, count) if count > 1 else rng.uniform(0.55, 0.9, 1)
    stretch = rng.uniform(0.9, 1.6)
    solids, reach = [], 0.0
    for spot, size in zip(spots, sizes, strict=True):
        where = context.point + axes @ (spot * [0.6, 0.6, 1.8] * (count > 1)) * radius
        for share in (0.6, 0.8, 1.0):
            half = np.array([size, size, size * stretch]) * radius * share
            solids.append(mineral(where, axes, half, peak * density / 3))
        reach = max(reach, abs(spot[2]) * 1.8 * (count > 1) + size * stretch)
    wide = float(max(sizes) + 0.5 * (count > 1))
    region = mark(context.point, axes, np.array([min(wide, 1.1), min(wide, 1.1), reach + 0.1]) * radius)
    scene = context.furnish(context.body).plus(solids=tuple(solids), region_of_interest=(region,))
    facts: Facts = {
        "subkind": "sclerotic",
        "deposits": count,
        "peak_density": round(peak, 2),
        "stretch": round(stretch, 2),
        "size_mm": round(2e3 * reach * radius, 1),
    }
    return scene, facts


def lesion(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """A lytic (two in three) or sclerotic lesion."""
    return lytic(context, rng) if rng.random() < 0.66 else sclerotic(context, rng)
