"""Who is examined: age group, size, bone and soft tissue, and the side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np


class AgeGroup(StrEnum):
    """Groups that differ in the skeleton: open growth plates, grown, thinned."""

    CHILD = "child"
    ADULT = "adult"
    ELDERLY = "elderly"


class Shape(NamedTuple):
    """Factors on one bone: girth in two directions across its axis, and length."""

    girth: float
    depth: float
    length: float


class _Group(NamedTuple):
    share: float
    years: tuple[float, float]
    density: tuple[float, float]
    girth: float


# Densities are relative to a healthy adult; the lower end of the elderly is severe osteoporosis.
_GROUPS = {
    AgeGroup.CHILD: _Group(0.17, (4, 15), (0.62, 0.9), 0.95),
    AgeGroup.ADULT: _Group(0.55, (18, 62), (0.82, 1.15), 1.0),
    AgeGroup.ELDERLY: _Group(0.28, (63, 92), (0.5, 0.88), 1.0),
}
# Bones that must grow together, or joints would come apart.
_PAIRED = {"ulna": "radius", "scapula": "clavicle"}
# Bone that loses mineral is resorbed from within: the cortex follows density, with a spread of its own.
_CORTEX_SPREAD = 0.1
_THIN_BELOW, _THICK_ABOVE = 0.74, 1.04


@dataclass(frozen=True)
class Patient:
    """One patient; every study of a case shows the same one.

    `scale` multiplies the adult skeleton, `density` its mineral, `build` the girth of the soft tissue; `cortex`
    names the thickness of the cortex (`volumes.CORTEX`); `fat` is the share of a limb's radius that is
    subcutaneous fat.
    """

    age_group: AgeGroup
    years: float
    laterality: str
    scale: float
    density: float
    cortex: str
    build: float
    fat: float
    shapes: Mapping[str, Shape]

    @property
    def facts(self) -> dict[str, float | str]:
        """The parameters that describe the patient in a manifest."""
        return {
            "age_group": str(self.age_group),
            "years": round(self.years, 1),
            "laterality": self.laterality,
            "scale": round(self.scale, 3),
            "density": round(self.density, 3),
            "cortex": self.cortex,
            "build": round(self.build, 3),
            "fat": round(self.fat, 3),
        }


def draw_patient(rng: np.random.Generator, bones: Iterable[str]) -> Patient:
    """A patient from the stream `anatomy`; `bones` are the names that receive a shape of their own."""
    groups = list(_GROUPS)
    age_group = groups[rng.choice(len(groups), p=[_GROUPS[name].share for name in groups])]
    group = _GROUPS[age_group]
    years = rng.uniform(*group.years)
    size = float(np.clip(rng.normal(1.0, 0.065), 0.85, 1.15))
    # Arm length grows nearly linearly from about 0.6 of the adult at four years.
    grown = 0.6 + 0.4 * (years - 4) / 13 if age_group is AgeGroup.CHILD else 1.0
    shapes = {name: Shape(*np.clip(rng.normal(1.0, (0.055, 0.055, 0.03)), 0.86, 1.14)) for name in sorted(bones)}
    for name, partner in _PAIRED.items():
        if name in shapes and partner in shapes:
            shapes[name] = shapes[name]._replace(length=shapes[partner].length)
    girth = group.girth
    laterality = "right" if rng.random() < 0.5 else "left"
    density = rng.uniform(*group.density)
    build, fat = float(np.clip(rng.normal(1.0, 0.11), 0.8, 1.3)), rng.uniform(0.07, 0.24)
    return Patient(
        age_group=age_group,
        years=years,
        laterality=laterality,
        scale=size * grown,
        density=density,
        cortex=_cortex(density + rng.normal(0.0, _CORTEX_SPREAD)),
        build=build,
        fat=fat,
        shapes={name: Shape(s.girth * girth, s.depth * girth, s.length) for name, s in shapes.items()},
    )


def _cortex(strength: float) -> str:
    return "thin" if strength < _THIN_BELOW else "thick" if strength > _THICK_ABOVE else "normal"
