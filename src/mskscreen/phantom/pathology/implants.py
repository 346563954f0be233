"""The pieces that implants are made of, as solids in the world; lengths in metres."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from mskscreen.phantom.body import Body
from mskscreen.phantom.frames import Matrix, Vector, along, place, unit
from mskscreen.phantom.scene import Material, Shape, Solid

Solids = tuple[Solid, ...]


def rod(start: Vector, end: Vector, radius: float, material: Material, density: float = 1.0) -> Solid:
    """A round rod between two points."""
    length = float(np.linalg.norm(end - start))
    axes = along(end - start, np.array([1.0, 0.3, 0.2]))
    return Solid(Shape.CYLINDER, material, place((start + end) / 2, axes), (radius, radius, length / 2), density)


def ball(centre: Vector, axes: Matrix, half: Iterable[float], material: Material, density: float = 1.0) -> Solid:
    """An ellipsoid."""
    x, y, z = (float(value) for value in half)
    return Solid(Shape.ELLIPSOID, material, place(centre, axes), (x, y, z), density)


def bar(centre: Vector, axes: Matrix, half: Iterable[float], material: Material, density: float = 1.0) -> Solid:
    """A box."""
    x, y, z = (float(value) for value in half)
    return Solid(Shape.BOX, material, place(centre, axes), (x, y, z), density)


def screw(head: Vector, tip: Vector, radius: float, material: Material) -> Solids:
    """A screw: head, core, and threads as a thicker, sparser sleeve around it."""
    inward = unit(tip - head)
    cap = rod(head - inward * radius, head + inward * 0.6 * radius, 1.9 * radius, material)
    return (
        cap,
        rod(head, tip, 0.72 * radius, material),
        rod(head + inward * 2 * radius, tip, radius, material, density=0.35),
    )


def wire(points: Iterable[Vector], radius: float, material: Material) -> Solids:
    """A wire through several points."""
    return tuple(rod(a, b, radius, material) for a, b in pairwise(points))


def plate_and_screws(
    body: Body,
    bone: str,
    span: tuple[float, float],
    outward: Vector,
    holes: int,
    filled: Iterable[bool],
    tilts: np.ndarray,
    width: float,
    material: Material,
) -> Solids:
    """A plate contoured to a bone from `span[0]` to `span[1]` of its length, on the side `outward`.

    One link a hole; the holes that are `filled` hold a screw through both cortices, leaning by `tilts` (n, 2).
    """
    thick = 0.32 * width
    edges = np.linspace(*span, holes + 1)
    surface = [
        body.point(bone, edge) + outward * (0.96 * body.radius(bone, float(edge)) + thick / 2) for edge in edges
    ]
    solids: list[Solid] = []
    for index, (used, tilt) in enumerate(zip(filled, tilts, strict=True)):
        start, end = surface[index], surface[index + 1]
        axes = along(end - start, outward)
        middle = (start + end) / 2
        half = float(np.linalg.norm(end - start)) / 2
        # The waist between the holes shows as a narrower link.
        solids.append(bar(middle, axes, (thick / 2, 0.36 * width, 1.04 * half), material))
        solids.append(bar(middle, axes, (thick / 2, width / 2, 0.62 * half), material))
        if used:
            inward = unit(-axes[:, 0] + axes[:, 1] * tilt[0] + axes[:, 2] * tilt[1])
            depth = 1.9 * body.radius(bone, float((edges[index] + edges[index + 1]) / 2)) + 0.5 * width
            head = middle + axes[:, 0] * thick / 2
            solids += screw(head, head + inward * depth, 0.17 * width + 0.45e-3, material)
    for edge, axis in ((surface[0], -1), (surface[-1], 1)):
        axes = along(surface[-1] - surface[0], outward)
        centre = edge + axis * axes[:, 2] * 0.1 * width
        cap = Solid(
            Shape.CYLINDER,
            material,
            place(centre, along(axes[:, 0], axes[:, 2])),
            (width / 2, width / 2, thick / 2),
        )
        solids.append(cap)
    return tuple(solids)
