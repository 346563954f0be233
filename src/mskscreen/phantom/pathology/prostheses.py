"""Prostheses of shoulder, elbow and radial head: the bone end is cut off and metal takes its place."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mskscreen.phantom.body import Body
from mskscreen.phantom.frames import Vector, across, along, unit
from mskscreen.phantom.pathology.articulations import glenoid
from mskscreen.phantom.pathology.context import Context, Facts, Piece, with_pieces
from mskscreen.phantom.pathology.implants import Solids, ball, rod, screw
from mskscreen.phantom.scene import Material, Scene

Made = tuple[Scene, Solids, Facts]


class Prosthesis(NamedTuple):
    """Where a prosthesis fits (bone, fraction), how often it is chosen there, and what makes it."""

    fits: Callable[[str, float], bool]
    share: float
    make: Callable[[Context, np.random.Generator], Made]


def _cut(scene: Scene, body: Body, bone: str, point: Vector, keep: Vector) -> Scene:
    return with_pieces(scene, bone, (Piece((body.clip(bone, point, keep),), np.eye(4)),))


def _stem(body: Body, bone: str, first: float, last: float, radius: float, material: Material) -> Solids:
    stations = np.linspace(first, last, 5)
    points = [body.point(bone, float(f)) for f in stations]
    widths = np.linspace(1.0, 0.62, 4) * radius
    return tuple(rod(a, b, float(r), material) for (a, b), r in zip(pairwise(points), widths, strict=True))


def shoulder(context: Context, rng: np.random.Generator) -> Made:
    """Anatomical (a metal head on a stem) or reversed (a ball on the glenoid, a cup on the stem)."""
    body, size = context.body, context.body.patient.scale
    reverse = rng.random() < 0.5
    length, thick = rng.uniform(0.3, 0.42), rng.uniform(0.0048, 0.0062) * size
    bulk = rng.uniform(0.92, 1.08)
    head = body.transforms["humerus"][:3, 3]
    socket = glenoid(body)
    medial = across(socket - head, body.axis("humerus"))
    neck = unit(medial - 0.9 * body.axis("humerus"))
    radius = 0.0235 * size * bulk
    resection = head - neck * 0.25 * radius
    scene = _cut(context.furnish(body), body, "humerus", resection, -neck)
    solids = list(_stem(body, "humerus", 0.09, length, thick, Material.TITANIUM))
    collar = body.point("humerus", 0.09)
    solids.append(rod(collar, resection, thick * 1.15, Material.TITANIUM))
    axes = along(neck, medial)
    if reverse:
        out = unit(head - socket)
        sphere = socket + out * 0.35 * radius
        solids.append(ball(sphere, along(out, axes[:, 0]), np.full(3, 0.8 * radius), Material.STEEL, 0.8))
        solids.append(rod(socket, socket - out * 0.022 * size, 0.0035 * size, Material.TITANIUM))
        for lean in (-0.5, 0.5):
            tip = socket - unit(out + lean * np.array([0.0, 1.0, 0.0])) * 0.03 * size
            solids += screw(socket, tip, 0.0022 * size, Material.TITANIUM)
        solids.append(
            rod(resection - neck * 0.003 * size, resection + neck * 0.005 * size, 0.8 * radius, Material.STEEL)
        )
    else:
        solids.append(ball(resection, axes, (radius, radius, 0.72 * radius), Material.STEEL, 0.8))
    return scene, tuple(solids), {"reverse": reverse, "stem_fraction": round(length, 2)}


def elbow(context: Context, rng: np.random.Generator) -> Made:
    """A hinge with a stem in the humerus and one in the ulna."""
    body, size = context.body, context.body.patient.scale
    up, down = rng.uniform(0.62, 0.72), rng.uniform(0.3, 0.42)
    thick = rng.uniform(0.0036, 0.0048) * size
    centre = body.transforms["ulna"][:3, 3]
    axis = body.axis("humerus")
    side = across(body.proximal("radius") - centre, axis)
    scene = _cut(context.furnish(body), body, "humerus", centre - axis * 0.012 * size, -axis)
    scene = _cut(scene, body, "radius", body.point("radius", 0.06), body.axis("radius"))
    solids = [
        *_stem(body, "humerus", 0.95, up, thick, Material.TITANIUM),
        *_stem(body, "ulna", 0.08, down, 0.75 * thick, Material.TITANIUM),
        rod(centre - side * 0.017 * size, centre + side * 0.017 * size, 0.0065 * size, Material.STEEL, 0.8),
        rod(centre, body.point("humerus", 0.95), 1.4 * thick, Material.TITANIUM),
        rod(centre, body.point("ulna", 0.08), 1.1 * thick, Material.TITANIUM),
    ]
    return scene, tuple(solids), {"humeral_stem": round(up, 2), "ulnar_stem": round(down, 2)}


def radial_head(context: Context, rng: np.random.Generator) -> Made:
    """A metal radial head on a short smooth stem."""
    body, size = context.body, context.body.patient.scale
    last, bulk = rng.uniform(0.16, 0.22), rng.uniform(0.95, 1.1)
    scene = _cut(context.furnish(body), body, "radius", body.point("radius", 0.075), body.axis("radius"))
    top, neck = body.point("radius", 0.03), body.point("radius", 0.06)
    solids = (
        rod(top - body.axis("radius") * 0.003 * size, neck, 0.0112 * size * bulk, Material.STEEL, 0.8),
        rod(neck, body.point("radius", 0.09), 0.005 * size, Material.STEEL),
        *_stem(body, "radius", 0.09, last, 0.0032 * size, Material.STEEL),
    )
    return scene, solids, {"stem_fraction": round(last, 2)}


PROSTHESES: dict[str, Prosthesis] = {
    "shoulder prosthesis": Prosthesis(
        lambda bone, at: bone in ("humerus", "scapula") and at < 0.4, 0.22, shoulder
    ),
    "elbow prosthesis": Prosthesis(
        lambda bone, at: (bone == "humerus" and at > 0.8) or (bone == "ulna" and at < 0.2), 0.14, elbow
    ),
    "radial head prosthesis": Prosthesis(lambda bone, at: bone == "radius" and at < 0.2, 0.35, radial_head),
}
