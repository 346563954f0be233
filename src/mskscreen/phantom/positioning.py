"""How the arm lies for each standard projection: angles in radians by the names of the skeleton's joints."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Angles = dict[str, float]
Range = tuple[float, float]

# Flexion of each finger at the metacarpophalangeal, proximal and distal interphalangeal joint.
_FLEXION = {finger: tuple(f"{level}{finger}_flexion" for level in ("mcp", "pm", "md")) for finger in (2, 3, 4, 5)}
_SPREAD = {2: 1.0, 3: 0.1, 4: -0.6, 5: -1.0}

_RELAXED: Mapping[str, Range] = {
    "shoulder_elv": (0.1, 0.45),
    "elv_angle": (-0.2, 0.4),
    "shoulder_rot": (-0.4, 0.4),
    "elbow_flexion": (0.0, 0.2),
    "pro_sup": (-0.2, 0.2),
    "deviation": (-0.08, 0.18),
    "flexion": (-0.12, 0.12),
    "cmc_abduction": (-0.4, 0.1),
    "cmc_flexion": (0.1, 0.5),
    "mp_flexion": (-0.3, 0.2),
    "ip_flexion": (-0.4, 0.1),
}
# What a position changes in the relaxed arm. Negative pro_sup supinates.
POSITIONS: Mapping[str, Mapping[str, Range]] = {
    "hand flat": {"pro_sup": (0.9, 1.5)},
    "hand oblique": {"pro_sup": (0.2, 0.9)},
    "hand on edge": {"pro_sup": (-0.3, 0.3)},
    "fist": {"pro_sup": (-0.3, 0.3)},
    "ulnar deviation": {"pro_sup": (0.9, 1.5), "deviation": (0.2, 0.42), "flexion": (-0.25, 0.05)},
    "thumb away": {"pro_sup": (-0.3, 0.6), "cmc_abduction": (-0.4, 0.1), "cmc_flexion": (0.3, 0.65)},
    "supinated": {"pro_sup": (-1.5, -0.8), "elbow_flexion": (0.0, 0.35)},
    "half flexed": {"pro_sup": (-1.5, -0.6), "elbow_flexion": (0.0, 1.0)},
    "elbow bent": {"pro_sup": (-1.3, 0.4), "elbow_flexion": (0.1, 2.27)},
    "right angle": {"pro_sup": (-1.3, 0.2), "elbow_flexion": (1.3, 1.75)},
    "forearm on edge": {"pro_sup": (-1.57, -0.9), "elbow_flexion": (0.5, 1.75)},
    "arm at side": {"shoulder_elv": (0.15, 0.9), "shoulder_rot": (-0.5, 0.4), "elbow_flexion": (0.0, 0.5)},
    "arm turned in": {"shoulder_elv": (0.3, 1.2), "shoulder_rot": (1.0, 1.7), "elbow_flexion": (0.6, 1.7)},
    "internal rotation": {"shoulder_rot": (0.35, 1.1), "shoulder_elv": (0.05, 0.6)},
    "external rotation": {"shoulder_rot": (-1.0, -0.2), "shoulder_elv": (0.05, 0.8)},
    "neutral rotation": {"shoulder_rot": (-0.4, 0.4), "shoulder_elv": (0.05, 0.7)},
    "abducted": {"shoulder_elv": (1.1, 1.55), "shoulder_rot": (-0.5, 0.5), "elv_angle": (0.0, 0.5)},
}


def draw_angles(position: str, digit: int, rng: np.random.Generator) -> Angles:
    """Joint angles of a position; `digit` (1-5) is the finger under examination, which a fist leaves straight."""
    angles = {name: rng.uniform(*span) for name, span in (dict(_RELAXED) | dict(POSITIONS[position])).items()}
    fan = rng.uniform(0.1, 0.45)
    spread = rng.uniform(-0.1, 0.2)
    fist = rng.uniform(0.5, 1.0)
    for finger, joints in _FLEXION.items():
        small = rng.uniform(0.0, 0.16, 3)
        bend = small
        if position == "hand on edge":
            bend = small + fan * (finger - 1) * np.array([0.45, 0.55, 0.25])
        elif position == "hand oblique":
            bend = small + fan * np.array([0.35, 0.4, 0.2])
        elif position == "fist" and finger != digit:
            bend = small + fist * np.array([1.2, 1.5, 0.7])
        angles.update(zip(joints, bend, strict=True))
        angles[f"mcp{finger}_abduction"] = _SPREAD[finger] * (spread + rng.normal(0, 0.03))
    return angles
