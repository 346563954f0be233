"""The vocabulary of the phantom room: what stands between the tube and the detector.

Anatomy, pathology and variants build a `Scene`; the renderer projects it. All lengths are metres, all
transforms are 4x4 matrices that take local coordinates to world coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

import numpy as np

from mskscreen.phantom.frames import cross


class Material(StrEnum):
    """Materials with an attenuation table; `bone` is cortical bone of density 1.92 g/cm3."""

    BONE = "bone"
    SOFT = "soft"
    FAT = "fat"
    AIR = "air"
    TITANIUM = "titanium"
    STEEL = "steel"
    GOLD = "gold"
    LEAD = "lead"
    PLASTER = "plaster"
    POLYMER = "polymer"


class Shape(StrEnum):
    """Solids with an analytic path length."""

    BOX = "box"
    CYLINDER = "cylinder"
    ELLIPSOID = "ellipsoid"


@dataclass(frozen=True)
class Clip:
    """Keeps the part of a bone where `normal . x > offset` (bone coordinates), with a rough surface.

    `roughness` (metres) is the amplitude of the surface noise and `seed` its phase: two halves of one
    fracture share both, so that they fit.
    """

    normal: tuple[float, float, float]
    offset: float
    roughness: float = 0.0
    seed: float = 0.0


@dataclass(frozen=True)
class DensityEdit:
    """Multiplies the density inside an ellipsoid of a bone (bone coordinates) by `gain`.

    `rim` > 0 adds a sclerotic shell of that fraction of the radius; `irregularity` in [0, 1] roughens the
    outline. A gain below 1 is lytic, above 1 sclerotic.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    gain: float
    rim: float = 0.0
    irregularity: float = 0.3
    seed: float = 0.0


@dataclass(frozen=True)
class BonePart:
    """One bone, or one fragment of it, placed in the world.

    `transform` may scale anisotropically; `density` multiplies the mineral density; `cortex` is a thickness of
    `volumes.CORTEX`.
    """

    bone: str
    transform: np.ndarray
    density: float = 1.0
    clips: tuple[Clip, ...] = ()
    edits: tuple[DensityEdit, ...] = ()
    cortex: str = "normal"


@dataclass(frozen=True)
class Solid:
    """An analytic solid: `half` are half sizes of a box, (radius, radius, half length along z) of a cylinder,
    or semi-axes of an ellipsoid. `density` multiplies the attenuation of its material; a material inside
    tissue displaces it where `displaces` is set.
    """

    shape: Shape
    material: Material
    transform: np.ndarray
    half: tuple[float, float, float]
    density: float = 1.0
    displaces: bool = True


@dataclass(frozen=True)
class Capsule:
    """A tapered capsule of soft tissue from `start` to `end` (world) with its radii at both ends.

    Capsules of one `layer` and `group` merge smoothly; groups of one layer add where one lies behind the other
    and count once where they overlap in depth. `skin` is the outer outline, `muscle` lies inside it and what is
    between is fat (without any muscle all of it is soft tissue), `lung` removes three quarters of either.
    """

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radius_start: float
    radius_end: float
    layer: str = "skin"
    group: str = ""


@dataclass(frozen=True)
class Scene:
    """Everything between tube and detector, and where the truth of the abnormality lies.

    `region_of_interest` are solids whose shadow is the mask; their material does not attenuate.
    """

    bones: tuple[BonePart, ...] = ()
    solids: tuple[Solid, ...] = ()
    tissue: tuple[Capsule, ...] = ()
    region_of_interest: tuple[Solid, ...] = ()

    def plus(self, **parts: tuple) -> Scene:
        """A scene like it with more parts appended, by field name."""
        return replace(self, **{name: getattr(self, name) + tuple(more) for name, more in parts.items()})

    def edited(self, bone: str, *edits: DensityEdit) -> Scene:
        """A scene like it with density edits added to every part of a bone."""
        parts = (replace(part, edits=part.edits + edits) if part.bone == bone else part for part in self.bones)
        return replace(self, bones=tuple(parts))


@dataclass(frozen=True)
class Camera:
    """A cone beam: focal spot `source`, pixel (0, 0) at `origin`, pixel steps `du` (right), `dv` (down), all
    world coordinates in metres; the plane through `origin` lies at the object, so `pixel` is object-plane spacing.
    """

    source: np.ndarray
    origin: np.ndarray
    du: np.ndarray
    dv: np.ndarray
    rows: int
    columns: int

    @cached_property
    def pixel(self) -> float:
        """Pixel spacing in metres at the object plane."""
        return float(np.linalg.norm(self.du))

    @cached_property
    def matrix(self) -> np.ndarray:
        """Projection (3, 4) of homogeneous world points to (column, row, 1) times their depth relative to the
        object plane.
        """
        normal = cross(self.du, self.dv)
        to_source = self.source - self.origin
        depth = normal / -(to_source @ normal)
        across, down = ((step + depth * (to_source @ step)) / self.pixel**2 for step in (self.du, self.dv))
        linear = np.stack([across, down, depth])
        return np.column_stack([linear, -linear @ self.source])

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixel coordinates (n, 2) as (column, row) of world points (n, 3)."""
        projected = np.atleast_2d(points) @ self.matrix[:, :3].T + self.matrix[:, 3]
        return projected[:, :2] / projected[:, 2:]


@dataclass(frozen=True)
class Exposure:
    """How the image was taken: tube and detector.

    `kilovolts` is the peak tube voltage; `quanta` the mean number of detected photons in an unattenuated
    pixel; `scatter` the scatter-to-primary ratio where the primary is 1/e of the open beam, elsewhere in
    proportion to the primary's negative logarithm up to 3; `heel` the intensity drop across the field along and
    across the tube axis; `blur` the standard deviation s of the detector blur in pixels: a Gaussian taken at whole
    pixels, whose transfer function at f cycles a pixel is the sum of G(f + k) over all integers k, in shares of
    that at 0, of G(f) = exp(-2 (pi s f)^2): for an s of 0.4 that is 0.84 at half a cycle, where G is 0.45; `grid`
    leaves a fifth of the scatter.
    """

    kilovolts: float = 55.0
    quanta: float = 2e4
    scatter: float = 0.2
    heel: tuple[float, float] = (0.0, 0.0)
    blur: float = 0.6
    electronic_noise: float = 4e-4
    grid: bool = False


@dataclass(frozen=True)
class Layers:
    """Path lengths in metres through each material, each (rows, columns) float32, and the mask (bool)."""

    paths: dict[Material, np.ndarray] = field(default_factory=dict)
    mask: np.ndarray | None = None
