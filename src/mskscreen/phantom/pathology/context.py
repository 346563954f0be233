"""What every abnormality is given, and the few edits of a scene that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from mskscreen.anatomy import JointType
from mskscreen.phantom.body import CARPALS, Body
from mskscreen.phantom.frames import Matrix, Vector, along, place
from mskscreen.phantom.scene import BonePart, Capsule, Clip, Material, Scene, Shape, Solid
from mskscreen.phantom.soft_tissue import limb_group, limb_radius

Facts = dict[str, Any]


class Site(NamedTuple):
    """Where an abnormality sits: `fraction` of a bone's length (0 proximal), `azimuth` around it in radians."""

    bone: str
    fraction: float
    azimuth: float


@dataclass(frozen=True)
class Context:
    """A patient in the pose of one view.

    `furnish` makes the scene of a body with everything that is not pathology. Abnormalities are applied to each
    view of a study with the same random numbers, so they may draw nothing that depends on the pose.
    """

    body: Body
    joint: JointType
    site: Site
    furnish: Callable[[Body], Scene]

    @property
    def point(self) -> Vector:
        """The site on the bone's centreline (world)."""
        return self.body.point(self.site.bone, self.site.fraction)

    @property
    def radius(self) -> float:
        """Radius of the bone at the site, metres."""
        return self.body.radius(self.site.bone, self.site.fraction)

    @property
    def axes(self) -> Matrix:
        """The bone's frame at the site: z along the bone, x at the site's azimuth."""
        return self.azimuth_axes(self.site.azimuth)

    def azimuth_axes(self, azimuth: float) -> Matrix:
        """The bone's frame with x at another azimuth."""
        frame = self.body.frame(self.site.bone)
        return along(frame[:, 2], frame[:, 0] * np.cos(azimuth) + frame[:, 1] * np.sin(azimuth))


class Piece(NamedTuple):
    """A fragment of a bone: what is kept of it (bone coordinates) and how it moved (world)."""

    clips: tuple[Clip, ...]
    change: Matrix


def with_pieces(scene: Scene, bone: str, pieces: Iterable[Piece]) -> Scene:
    """The scene with a bone replaced by fragments of it."""
    pieces = tuple(pieces)
    parts: list[BonePart] = []
    for part in scene.bones:
        if part.bone != bone:
            parts.append(part)
            continue
        parts += [
            replace(part, clips=part.clips + piece.clips, transform=piece.change @ part.transform)
            for piece in pieces
        ]
    return replace(scene, bones=tuple(parts))


def choice(weights: Mapping[str, float], rng: np.random.Generator) -> str:
    """One of the names, each as likely as its weight."""
    share = np.array(list(weights.values()))
    return str(rng.choice(list(weights), p=share / share.sum()))


def degrees(angle: float) -> float:
    """An angle in radians as the manifest has it."""
    return round(float(np.degrees(angle)), 1)


def mark(centre: Vector, axes: Matrix, half: Iterable[float]) -> Solid:
    """An ellipsoid of the region of interest."""
    x, y, z = (float(value) for value in half)
    return Solid(Shape.ELLIPSOID, Material.AIR, place(centre, axes), (x, y, z), density=0.0, displaces=False)


def mineral(centre: Vector, axes: Matrix, half: Iterable[float], density: float) -> Solid:
    """An ellipsoid of bone of a relative density, such as an osteophyte."""
    x, y, z = (float(value) for value in half)
    return Solid(Shape.ELLIPSOID, Material.BONE, place(centre, axes), (x, y, z), density=density)


def swelling(body: Body, site: Site, size: float, spread: float) -> tuple[Capsule, ...]:
    """Swollen soft tissue beside a site: `size` in radii of the limb, `spread` metres along it either way."""
    # Carpal bones lie any way round; the hand swells along its own axis.
    frame = body.frame("3mc" if site.bone in CARPALS else site.bone)
    outward = frame[:, 0] * np.cos(site.azimuth) + frame[:, 1] * np.sin(site.azimuth)
    limb = limb_radius(body, site.bone, site.fraction)
    middle = body.point(site.bone, site.fraction)
    top = middle + outward * limb * (0.2 + size)
    ends = (middle + outward * limb * 0.1 + frame[:, 2] * sign * spread for sign in (1, -1))
    capsules = []
    for end in ends:
        (ax, ay, az), (bx, by, bz) = top.tolist(), end.tolist()
        for layer, share in (("skin", 1.0), ("muscle", 0.93)):
            radii = 0.8 * share * limb, 0.78 * share * limb
            capsules.append(Capsule((ax, ay, az), (bx, by, bz), *radii, layer, limb_group(site.bone)))
    return tuple(capsules)
