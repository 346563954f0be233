"""The table of abnormalities: what can happen in each region, how often, and where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mskscreen.anatomy import JointType
from mskscreen.errors import MskscreenError
from mskscreen.phantom.body import CARPALS, digit_bones
from mskscreen.phantom.pathology.arthrosis import arthrosis
from mskscreen.phantom.pathology.articulations import articulations
from mskscreen.phantom.pathology.context import Context, Facts, Site, choice
from mskscreen.phantom.pathology.dislocations import dislocation, subluxation
from mskscreen.phantom.pathology.effusion import effusion, soft_tissue_swelling
from mskscreen.phantom.pathology.fractures import fracture
from mskscreen.phantom.pathology.lesions import lesion
from mskscreen.phantom.pathology.metalwork import metalwork
from mskscreen.phantom.patient import Patient
from mskscreen.phantom.scene import Scene

Effect = Callable[[Context, np.random.Generator], tuple[Scene, Facts]]
SitePlan = Callable[[JointType, int, Patient, np.random.Generator], Site]


class Kind(NamedTuple):
    """One kind of abnormality: `site` draws where (image-free), `make` edits the scene of a view."""

    name: str
    site: SitePlan
    make: Effect


_RAYS = tuple(bone for digit in (1, 2, 3, 4, 5) for bone in digit_bones(digit))
_METACARPALS = tuple(f"{digit}mc" for digit in (1, 2, 3, 4, 5))
# Bones of each region with how often something happens in them; sites outside a field are drawn again.
_BONES: Mapping[JointType, Mapping[str, float]] = {
    JointType.HUMERUS: {"humerus": 8, "clavicle": 0.5, "scapula": 0.4, "radius": 0.5, "ulna": 0.5},
    JointType.WRIST: {
        "radius": 5,
        "ulna": 2.5,
        "scaphoid": 1.5,
        **dict.fromkeys(CARPALS[1:], 0.45),
        **dict.fromkeys(_METACARPALS, 0.7),
    },
    JointType.FOREARM: {"radius": 5, "ulna": 5, "humerus": 0.7},
    JointType.HAND: {**dict.fromkeys(_RAYS, 1.0), **dict.fromkeys(CARPALS, 0.25), "radius": 0.3},
    JointType.ELBOW: {"humerus": 4, "radius": 3, "ulna": 3.5},
    JointType.SHOULDER: {"humerus": 5, "clavicle": 3, "scapula": 2},
}


def region_bones(joint: JointType, digit: int) -> Mapping[str, float]:
    """Bones of a region and their weights; a finger's study is about its own bones, seldom about a neighbour's."""
    if joint is not JointType.FINGER:
        return _BONES[joint]
    neighbour = digit - 1 if digit == 5 else digit + 1
    own, next_to = digit_bones(digit), digit_bones(neighbour)
    return {**dict.fromkeys(next_to, 0.12), **dict.fromkeys(own[1:], 1.0), own[0]: 0.4}


def anywhere(joint: JointType, digit: int, _: Patient, rng: np.random.Generator) -> Site:
    """A site anywhere on any bone of the region."""
    return Site(choice(region_bones(joint, digit), rng), rng.uniform(0.04, 0.96), rng.uniform(0, 2 * np.pi))


def at_joint(joint: JointType, digit: int, _: Patient, rng: np.random.Generator) -> Site:
    """The proximal end of a bone that takes part in one of the region's joints."""
    table = articulations(joint, digit)
    names = {found.bone: share for found, share in table.items()}
    return Site(choice(names, rng), 0.02, rng.uniform(0, 2 * np.pi))


def at_fat_pads(_: JointType, __: int, ___: Patient, rng: np.random.Generator) -> Site:
    """The fossae of the distal humerus."""
    return Site("humerus", 0.9, rng.uniform(0, 2 * np.pi))


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("fracture", anywhere, fracture),
        Kind("dislocation", at_joint, dislocation),
        Kind("subluxation", at_joint, subluxation),
        Kind("metalwork", anywhere, metalwork),
        Kind("lesion", anywhere, lesion),
        Kind("arthrosis", at_joint, arthrosis),
        Kind("effusion", at_fat_pads, effusion),
        Kind("swelling", anywhere, soft_tissue_swelling),
    )
}

# Shares of the abnormal studies of a region, in the order of KINDS.
_SHARES: Mapping[JointType, tuple[float, ...]] = {
    JointType.HUMERUS: (0.5, 0.03, 0.02, 0.3, 0.14, 0.0, 0.0, 0.01),
    JointType.WRIST: (0.44, 0.05, 0.03, 0.24, 0.09, 0.1, 0.0, 0.05),
    JointType.FOREARM: (0.5, 0.03, 0.0, 0.3, 0.13, 0.0, 0.0, 0.04),
    JointType.FINGER: (0.4, 0.1, 0.06, 0.13, 0.09, 0.15, 0.0, 0.07),
    JointType.HAND: (0.4, 0.08, 0.04, 0.19, 0.1, 0.14, 0.0, 0.05),
    JointType.ELBOW: (0.42, 0.09, 0.04, 0.22, 0.08, 0.07, 0.08, 0.0),
    JointType.SHOULDER: (0.34, 0.15, 0.06, 0.25, 0.1, 0.1, 0.0, 0.0),
}


def choose_kind(joint: JointType, views: Sequence[str], kind: str | None, rng: np.random.Generator) -> Kind:
    """The kind asked for, or one drawn by how often it occurs in the region and can show in these views.

    Raises MskscreenError for a kind that the region does not have.
    """
    shares = {name: share for name, share in zip(KINDS, _SHARES[joint], strict=True) if share > 0}
    if kind is not None:
        if kind not in shares:
            raise MskscreenError(f"{joint.label} has no abnormality {kind!r}; choose one of {', '.join(shares)}")
        return KINDS[kind]
    # Fat pads lie in front of and behind the humerus: only a lateral view tells them from muscle.
    if "lateral" not in views:
        shares.pop("effusion", None)
    return KINDS[choice(shares, rng)]
