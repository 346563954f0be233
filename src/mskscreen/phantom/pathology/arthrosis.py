"""Arthrosis: a narrowed joint space, osteophytes at its margins, sclerosis and cysts beneath its surfaces."""

from __future__ import annotations

import numpy as np

from mskscreen.phantom.frames import along, motion, unit
from mskscreen.phantom.pathology.articulations import articulation_of, meeting_point
from mskscreen.phantom.pathology.context import Context, Facts, mark, mineral
from mskscreen.phantom.scene import DensityEdit, Scene


def arthrosis(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """Moderate to severe wear of one joint."""
    joint = articulation_of(context.joint, context.site.bone)
    body, patient = context.body, context.body.patient
    centre = meeting_point(body, joint)
    radius = body.radius(joint.bone, 0.05)
    axis = body.axis(joint.bone)
    if joint.bone == "humerus":
        axis = unit(body.transforms["humerus"][:3, 3] - centre)
    elif joint.bone == "ulna":
        axis, radius = body.axis("humerus"), 1.5 * radius
    axes = along(axis, body.frame(joint.bone)[:, 0])
    grade = rng.uniform(0.5, 1.0)
    closing = -axis * grade * min(0.45 * radius, 2.2e-3 * patient.scale)
    lean = axes[:, 0] * rng.normal(0, 0.1) * radius
    scene = context.furnish(body.shifted(motion(centre, closing + lean), joint.moving(body)))

    spurs = int(rng.integers(3, 8))
    angles, sizes = rng.uniform(0, 2 * np.pi, spurs), rng.uniform(0.28, 0.55, spurs) * (0.6 + 0.6 * grade)
    heights, slants = rng.uniform(-0.4, 0.4, spurs), rng.uniform(0.2, 1.0, spurs)
    solids = []
    for angle, size, height, slant in zip(angles, sizes, heights, slants, strict=True):
        out = axes[:, 0] * np.cos(angle) + axes[:, 1] * np.sin(angle)
        where = centre + out * radius * 1.0 + axis * height * radius
        beak = along(unit(out + np.sign(height) * slant * axis), axis)
        solids.append(mineral(where, beak, np.array([0.45, 0.55, 1.0]) * size * radius, 0.55 * patient.density))
    # Eburnated bone on either side of the joint line, strongest where the load goes through.
    dense, off = rng.uniform(0.45, 0.75) * grade, rng.normal(0, 0.2)
    for side, share in ((-1, 0.28), (1, 0.24)):
        where = centre + axis * side * share * radius + axes[:, 0] * off * radius
        solids.append(mineral(where, axes, np.array([0.75, 0.75, 0.2]) * radius, dense * patient.density))
    cysts = int(rng.integers(0, 3))
    spots, bores = rng.uniform(-0.5, 0.5, (2, 2)), rng.uniform(0.16, 0.3, 2)
    edits = []
    transform = body.transforms[joint.bone]
    for spot, bore in list(zip(spots, bores, strict=True))[:cysts]:
        world = centre + axes @ np.array([spot[0], spot[1], 0.5]) * radius
        local = np.linalg.inv(transform[:3, :3]) @ (world - transform[:3, 3])
        edits.append(DensityEdit(tuple(local.tolist()), (bore * radius,) * 3, 0.05, 0.3, 0.2, angles[0]))
    scene = scene.edited(joint.bone, *edits)
    region = mark(centre, axes, np.array([1.25, 1.25, 0.62]) * radius)
    facts = {
        "subkind": joint.name,
        "grade": round(grade, 2),
        "narrowing_mm": round(1e3 * float(np.linalg.norm(closing)), 1),
        "osteophytes": spurs,
        "sclerosis": round(dense, 2),
        "cysts": cysts,
    }
    return scene.plus(solids=tuple(solids), region_of_interest=(region,)), facts
