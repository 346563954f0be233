"""Osteosynthesis: what holds a bone together, each device as the solids that it consists of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mskscreen.phantom.body import CARPALS, Body
from mskscreen.phantom.frames import Vector, along, cross, unit
from mskscreen.phantom.pathology.context import Context, Facts
from mskscreen.phantom.pathology.implants import Solids, bar, plate_and_screws, rod, screw, wire
from mskscreen.phantom.patient import AgeGroup
from mskscreen.phantom.scene import Material, Solid

_LARGE = ("humerus", "radius", "ulna", "clavicle", "scapula")

# Width of a plate and radius of screw, wire and nail, metres at adult size.
_PLATE = {"humerus": 0.0145, "radius": 0.0105, "ulna": 0.0105, "clavicle": 0.0105, "scapula": 0.009}
_SMALL_PLATE = 0.0055


def _metal(rng: np.random.Generator) -> Material:
    return Material.TITANIUM if rng.random() < 0.55 else Material.STEEL


def _around(body: Body, bone: str, azimuth: float) -> Vector:
    frame = body.frame(bone)
    return frame[:, 0] * np.cos(azimuth) + frame[:, 1] * np.sin(azimuth)


def plate(context: Context, rng: np.random.Generator) -> tuple[Solids, Facts]:
    """A plate along the bone around the site, with screws in most of its holes."""
    body, site, size = context.body, context.site, context.body.patient.scale
    large = site.bone in _LARGE
    holes = int(rng.integers(5, 11)) if large else int(rng.integers(4, 7))
    length = holes * (rng.uniform(0.0115, 0.0145) if large else rng.uniform(0.0052, 0.0066)) * size
    span = min(0.85, length / body.length(site.bone))
    start = float(np.clip(site.fraction - span / 2, 0.05, 0.95 - span))
    width = _PLATE.get(site.bone, _SMALL_PLATE) * rng.uniform(0.85, 1.15) * size
    filled = rng.random(holes) < 0.82
    filled[[0, -1]] = True
    material = _metal(rng)
    tilts = rng.normal(0, 0.08, (holes, 2))
    outward = _around(body, site.bone, site.azimuth)
    solids = plate_and_screws(
        body, site.bone, (start, start + span), outward, holes, filled.tolist(), tilts, width, material
    )
    facts = {
        "holes": holes,
        "screws": int(filled.sum()),
        "length_mm": round(1e3 * span * body.length(site.bone)),
        "material": str(material),
    }
    return solids, facts


def distal_radius_plate(context: Context, rng: np.random.Generator) -> tuple[Solids, Facts]:
    """A palmar locking plate: a shaft with two or three screws and a broad head with a fan of pegs."""
    body, size = context.body, context.body.patient.scale
    palm = unit(cross(body.flexion_axis(3), body.axis("3mc")))
    material = _metal(rng)
    shaft = int(rng.integers(3, 6))
    pegs = int(rng.integers(4, 7))
    width = 0.009 * size * rng.uniform(0.9, 1.15)
    fan = rng.normal(0, 0.1, (pegs, 2))
    tilts = rng.normal(0, 0.06, (shaft, 2))
    top = rng.uniform(0.9, 0.94)
    axis = body.frame("radius")[:, 2]
    outward = unit(palm - axis * (palm @ axis))
    span = (top - shaft * 0.0115 * size / body.length("radius"), top)
    solids = list(plate_and_screws(body, "radius", span, outward, shaft, [True] * shaft, tilts, width, material))
    side = cross(axis, outward)
    head = body.point("radius", top + 0.02) + outward * 0.9 * body.radius("radius", top)
    thick = 0.0013 * size
    axes = along(axis, outward)
    solids.append(bar(head, axes, (thick, 0.0115 * size, 0.0042 * size), material))
    for place, lean in zip(np.linspace(-0.85, 0.85, pegs), fan, strict=True):
        start = head + side * place * 0.0105 * size + axis * (0.002 * size * (-1) ** round(10 * place))
        inward = unit(-outward + axis * (0.12 + lean[0]) + side * (lean[1] - 0.15 * place))
        solids += screw(start, start + inward * 1.75 * body.radius("radius", 0.94), 0.0012 * size, material)
    return tuple(solids), {"shaft_screws": shaft, "pegs": pegs, "material": str(material)}


def screws(context: Context, rng: np.random.Generator) -> tuple[Solids, Facts]:
    """One to three lag or cannulated screws across the site."""
    body, site = context.body, context.site
    count = int(rng.integers(1, 4)) if site.bone not in CARPALS else 1
    material = _metal(rng)
    radius = (0.0021 if site.bone in _LARGE else 0.00105) * body.patient.scale * rng.uniform(0.85, 1.2)
    leans, places = rng.normal(0, 0.35, count), rng.uniform(-0.5, 0.5, count)
    steep = rng.uniform(0.5, 1.3)
    axes = context.axes
    solids: list[Solid] = []
    for index in range(count):
        direction = unit(axes[:, 0] + axes[:, 2] * np.tan(np.pi / 2 - steep) * 0.6 + axes[:, 1] * leans[index])
        reach = context.radius / np.sin(steep) * 1.15 + 1.5 * radius
        middle = context.point + axes[:, 2] * places[index] * 2.2 * context.radius * (count > 1)
        solids += screw(middle - direction * reach, middle + direction * reach, radius, material)
    return tuple(solids), {"screws": count, "material": str(material)}


def k_wires(context: Context, rng: np.random.Generator) -> tuple[Solids, Facts]:
    """One to four wires across the site, their ends cut outside the bone, some bent."""
    site, size = context.site, context.body.patient.scale
    count = int(rng.integers(1, 4)) + (rng.random() < 0.2)
    radius = (0.0009 if site.bone in _LARGE else 0.0006) * size * rng.uniform(0.85, 1.2)
    length = (rng.uniform(0.045, 0.085) if site.bone in _LARGE else rng.uniform(0.024, 0.05)) * size
    leans = rng.normal(0, 0.28, (count, 2))
    starts = rng.normal(0, 0.35, (count, 2))
    bent = rng.random() < 0.5
    sign = 1.0 if rng.random() < 0.5 else -1.0
    axes = context.axes
    solids: list[Solid] = []
    for lean, start in zip(leans, starts, strict=True):
        direction = unit(axes[:, 2] * sign + axes[:, 0] * lean[0] + axes[:, 1] * lean[1])
        middle = context.point + (axes[:, 0] * start[0] + axes[:, 1] * start[1]) * context.radius
        points = [middle - direction * length * 0.45, middle + direction * length * 0.55]
        if bent:
            points.append(points[-1] + unit(axes[:, 0] + 0.3 * direction) * 0.006 * size)
        solids += wire(points, radius, Material.STEEL)
    return tuple(solids), {"wires": count, "bent": bent, "material": "steel"}


def nail(context: Context, rng: np.random.Generator) -> tuple[Solids, Facts]:
    """An intramedullary nail with locking screws, or the thin elastic ones of a child."""
    body, site, size = context.body, context.site, context.body.patient.scale
    elastic = body.patient.age_group is AgeGroup.CHILD or site.bone != "humerus"
    material = Material.TITANIUM
    first, last = rng.uniform(0.04, 0.1), rng.uniform(0.8, 0.93)
    count = int(rng.integers(1, 3)) if elastic else 1
    radius = (rng.uniform(0.0009, 0.0014) if elastic else rng.uniform(0.0035, 0.0045)) * size
    angles, places = rng.uniform(0, np.pi, 4), rng.uniform(0.02, 0.06, 4)
    stations = np.linspace(first, last, 9)
    solids: list[Solid] = []
    for index in range(count):
        bow = 0.5 * (1 if index else -1) * (count > 1)
        out = _around(body, site.bone, site.azimuth)
        points = [
            body.point(site.bone, float(f))
            + out * bow * body.radius(site.bone, float(f)) * np.sin(np.pi * n / 8) * 0.6
            for n, f in enumerate(stations)
        ]
        solids += wire(points, radius, material)
    locks = 0 if elastic else int(rng.integers(2, 5))
    for index in range(locks):
        fraction = first + places[index] if index % 2 == 0 else last - places[index]
        across = _around(body, site.bone, float(angles[index]))
        point = body.point(site.bone, float(fraction))
        reach = 1.1 * body.radius(site.bone, float(fraction)) + 0.002 * size
        solids += screw(point - across * reach, point + across * reach, 0.0021 * size, material)
    return tuple(solids), {"elastic": elastic, "nails": count, "locking_screws": locks, "material": str(material)}


def anchors(context: Context, rng: np.random.Generator) -> tuple[Solids, Facts]:
    """Suture anchors: short wide screws under the cortex, where a tendon or ligament was fixed."""
    count = int(rng.integers(1, 4))
    size = context.body.patient.scale * (1.0 if context.site.bone in _LARGE else 0.55)
    directions, places = rng.normal(0, 0.4, (count, 2)), rng.uniform(-0.7, 0.7, count)
    axes = context.axes
    solids: list[Solid] = []
    for lean, spot in zip(directions, places, strict=True):
        inward = unit(-axes[:, 0] + axes[:, 1] * lean[0] + axes[:, 2] * lean[1])
        start = context.point + axes[:, 0] * 0.9 * context.radius + axes[:, 2] * spot * 0.014 * size * (count > 1)
        end = start + inward * 0.0115 * size
        solids += [
            rod(start, end, 0.0013 * size, Material.TITANIUM),
            rod(start, end, 0.0023 * size, Material.TITANIUM, 0.4),
        ]
    return tuple(solids), {"anchors": count, "material": "titanium"}


def tension_band(context: Context, rng: np.random.Generator) -> tuple[Solids, Facts]:
    """Two wires down the olecranon and a figure of eight around them."""
    body, size = context.body, context.body.patient.scale
    frame = body.frame("ulna")
    back = -unit(
        body.transforms["humerus"][:3, 0] - frame[:, 2] * (body.transforms["humerus"][:3, 0] @ frame[:, 2])
    )
    side = cross(frame[:, 2], back)
    tip = body.proximal("ulna")
    length, gape = rng.uniform(0.055, 0.085) * size, 0.0045 * size
    thin, thick = rng.uniform(0.0004, 0.0006) * size, rng.uniform(0.0007, 0.001) * size
    solids: list[Solid] = []
    for sign in (1, -1):
        start = tip - frame[:, 2] * 0.004 * size + side * sign * gape
        solids.append(rod(start, start + frame[:, 2] * length, thick, Material.STEEL))
    surface = [tip + frame[:, 2] * along_bone * size + back * 0.0105 * size for along_bone in (0.0, 0.024, 0.048)]
    left, right = surface[0] + side * 1.6 * gape, surface[0] - side * 1.6 * gape
    far_left, far_right = surface[2] + side * 1.4 * gape, surface[2] - side * 1.4 * gape
    solids += wire((left, surface[1], far_right, far_left, surface[1], right, left), thin, Material.STEEL)
    return tuple(solids), {"wires": 2, "material": "steel"}


def fixator(context: Context, rng: np.random.Generator) -> tuple[Solids, Facts]:
    """An external fixator: pins into the bone on both sides of the site, clamps, and a rod outside the skin."""
    body, site, size = context.body, context.site, context.body.patient.scale
    outward = _around(body, site.bone, site.azimuth)
    wrist = site.bone == "radius" and site.fraction > 0.8
    reach = rng.uniform(0.14, 0.24)
    near = [site.fraction - reach, site.fraction - 0.6 * reach]
    bones = [(site.bone, float(np.clip(f, 0.05, 0.95))) for f in near]
    if wrist:
        bones += [("2mc", 0.3), ("2mc", 0.7)]
        outward = _around(body, "radius", 0.3)
    else:
        bones += [(site.bone, float(np.clip(site.fraction + share * reach, 0.05, 0.95))) for share in (0.6, 1.0)]
    radius = (0.0021 if site.bone in _LARGE else 0.001) * size
    distance = (rng.uniform(0.05, 0.07) if site.bone in _LARGE else rng.uniform(0.02, 0.03)) * size
    axis = unit(body.point(*bones[-1]) - body.point(*bones[0]))
    base = body.point(*bones[0])
    solids: list[Solid] = []
    for bone, fraction in bones:
        point = body.point(bone, fraction)
        foot = point - outward * 1.1 * body.radius(bone, fraction)
        on_rod = base + axis * ((point - base) @ axis) + outward * distance
        solids.append(
            rod(foot, on_rod + outward * 0.008 * size, radius * (0.7 if bone == "2mc" else 1), Material.STEEL)
        )
        cube = np.full(3, 0.008 * size if site.bone in _LARGE else 0.004 * size)
        solids.append(bar(on_rod, along(axis, outward), cube, Material.TITANIUM, 0.5))
    ends = [base + axis * ((body.point(*b) - base) @ axis) + outward * distance for b in (bones[0], bones[-1])]
    rods = (0.0045 if site.bone in _LARGE else 0.002) * size
    carbon = rng.random() < 0.4
    material, density = (Material.POLYMER, 1.4) if carbon else (Material.TITANIUM, 1.0)
    over = axis * 0.02 * size
    solids.append(rod(ends[0] - over, ends[1] + over, rods, material, density))
    return tuple(solids), {"pins": len(bones), "rod": "carbon" if carbon else "metal", "wrist": wrist}


IMPLANTS: dict[str, Callable[[Context, np.random.Generator], tuple[Solids, Facts]]] = {
    "plate": plate,
    "distal radius plate": distal_radius_plate,
    "screws": screws,
    "k-wires": k_wires,
    "nail": nail,
    "anchors": anchors,
    "tension band": tension_band,
    "external fixator": fixator,
}
