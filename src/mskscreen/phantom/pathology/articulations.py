"""The joints of the upper limb: which bone meets which, and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mskscreen.anatomy import JointType
from mskscreen.phantom.body import Body, digit_bones
from mskscreen.phantom.frames import Vector


class Articulation(NamedTuple):
    """A joint at the proximal end of `bone`; `moves` go out of joint with it, and all that hangs on them."""

    name: str
    bone: str
    moves: tuple[str, ...]

    def moving(self, body: Body) -> tuple[str, ...]:
        """Every bone that a dislocation takes along."""
        found = list(self.moves)
        for bone in self.moves:
            found += [name for name in body.carried(bone) if name not in found]
        return tuple(found)


_GLENOHUMERAL = Articulation("glenohumeral", "humerus", ("humerus",))
_ELBOW = Articulation("elbow", "ulna", ("ulna", "radius"))
_THUMB_BASE = Articulation("first carpometacarpal", "1mc", ("1mc",))
_LUNATE = Articulation("lunate", "lunate", ("lunate",))


def _finger(digit: int, *, base: bool) -> tuple[Articulation, ...]:
    bones = digit_bones(digit)
    levels = ("interphalangeal",) if digit == 1 else ("proximal interphalangeal", "distal interphalangeal")
    names = (f"{digit} metacarpophalangeal", *(f"{digit} {level}" for level in levels))
    joints = tuple(Articulation(name, bone, (bone,)) for name, bone in zip(names, bones[1:], strict=True))
    if not base:
        return joints
    first = _THUMB_BASE if digit == 1 else Articulation(f"{digit} carpometacarpal", bones[0], (bones[0],))
    return (first, *joints)


_REGIONS: Mapping[JointType, Mapping[Articulation, float]] = {
    JointType.HUMERUS: {_GLENOHUMERAL: 0.6, _ELBOW: 0.4},
    JointType.SHOULDER: {_GLENOHUMERAL: 1.0},
    JointType.ELBOW: {_ELBOW: 1.0},
    JointType.FOREARM: {_ELBOW: 1.0},
    JointType.WRIST: {
        _LUNATE: 0.35,
        _THUMB_BASE: 0.35,
        **dict.fromkeys((_finger(digit, base=True)[0] for digit in (2, 3, 4, 5)), 0.1),
    },
    JointType.HAND: dict.fromkeys((joint for digit in range(1, 6) for joint in _finger(digit, base=True)), 1.0),
}


def articulations(joint: JointType, digit: int) -> Mapping[Articulation, float]:
    """The joints of a region and how often each is affected."""
    if joint is JointType.FINGER:
        return dict.fromkeys(_finger(digit, base=digit == 1), 1.0)
    return _REGIONS[joint]


def articulation_of(joint: JointType, bone: str) -> Articulation:
    """The joint of a region at the proximal end of `bone`; raises KeyError where there is none."""
    for digit in range(1, 6):
        for found in articulations(joint, digit):
            if found.bone == bone:
                return found
    raise KeyError(bone)


def glenoid(body: Body) -> Vector:
    """Middle of the glenoid (world): a head's radius from the joint's centre, towards the blade of the scapula."""
    head = body.transforms["humerus"][:3, 3]
    inward = body.centre("scapula") - head
    inward = inward * np.array([1.0, 0.25, 1.0])
    return head + inward / np.linalg.norm(inward) * 0.024 * body.patient.scale


def meeting_point(body: Body, joint: Articulation) -> Vector:
    """Where the two joint surfaces meet (world), in the middle of the joint space."""
    if joint.bone == "humerus":
        return glenoid(body)
    if joint.bone == "lunate":
        return body.centre("lunate")
    if joint.bone == "ulna":
        return (body.transforms["ulna"][:3, 3] + body.proximal("radius")) / 2
    return body.proximal(joint.bone)
