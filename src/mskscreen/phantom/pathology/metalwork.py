"""Metal in and on bones: which implant suits a bone, and whether the fracture it was meant for still shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mskscreen.phantom.body import CARPALS
from mskscreen.phantom.frames import motion
from mskscreen.phantom.pathology.context import Context, Facts, Piece, choice, degrees, mark, mineral, with_pieces
from mskscreen.phantom.pathology.cuts import Injury, carry, depth_of, halves, slope, surface
from mskscreen.phantom.pathology.implants import Solids
from mskscreen.phantom.pathology.osteosynthesis import IMPLANTS
from mskscreen.phantom.pathology.prostheses import PROSTHESES
from mskscreen.phantom.patient import AgeGroup
from mskscreen.phantom.scene import Material, Scene


def _healing(context: Context, rng: np.random.Generator, solids: Solids) -> tuple[Scene, Facts]:
    """The bone under an osteosynthesis: whole, healed with callus, or freshly broken and held."""
    state = str(rng.choice(("whole", "healed", "fresh"), p=(0.4, 0.3, 0.3)))
    tilt, azimuth, seed = rng.uniform(0.0, 0.9), rng.uniform(0, 2 * np.pi), rng.uniform(0, 100)
    gap, callus = rng.uniform(0.6e-3, 1.6e-3), rng.uniform(1.12, 1.35)
    body, bone, axes = context.body, context.site.bone, context.azimuth_axes(azimuth)
    scene = context.furnish(body)
    regions, facts = _shadows(solids), Facts(bone_state=state)
    if state == "healed":
        half = np.array([callus, callus, 1.6]) * context.radius
        scene = scene.plus(solids=(mineral(context.point, axes, half, 0.16 * body.patient.density),))
        regions += (mark(context.point, axes, half),)
        facts |= {"callus_widths": round(callus, 2)}
    elif state == "fresh":
        injury = Injury(0.0, 0.0, gap, 0.6e-3, seed)
        change = motion(context.point, axes[:, 2] * gap)
        near, far = halves(body, bone, context.point, slope(axes, tilt), injury)
        scene = with_pieces(carry(context, change), bone, (Piece((near,), np.eye(4)), Piece((far,), change)))
        depth = depth_of(injury, context.radius)
        regions += (surface(context.point + axes[:, 2] * gap / 2, axes, tilt, context.radius, depth),)
        facts["gap_mm"] = round(1e3 * gap, 2)
        facts |= {"tilt_degrees": degrees(tilt), "cut_azimuth_degrees": degrees(azimuth)}
    return scene.plus(solids=solids, region_of_interest=regions), facts


def _shadows(solids: Solids) -> Solids:
    return tuple(replace(solid, material=Material.AIR, density=0.0, displaces=False) for solid in solids)


def _shares(context: Context) -> dict[str, float]:
    """Which implants a bone may carry at the site, and how often."""
    bone, fraction = context.site.bone, context.site.fraction
    if bone in CARPALS:
        return {"screws": 0.6, "k-wires": 0.4}
    if bone == "scapula":
        return {"anchors": 0.6, "plate": 0.2, "screws": 0.2}
    shares = {"plate": 0.4, "screws": 0.17, "k-wires": 0.2, "anchors": 0.08}
    adult = context.body.patient.age_group is not AgeGroup.CHILD
    if bone in ("humerus", "radius", "ulna"):
        shares |= {"nail": 0.16, "external fixator": 0.07}
    elif bone[0].isdigit() or bone.startswith("thumb"):
        tip = bone.endswith(("dist", "distph"))
        shares |= {"external fixator": 0.03, "k-wires": 0.35, "plate": 0.0 if tip else 0.3}
    if bone == "radius" and fraction > 0.82 and adult:
        shares |= {"distal radius plate": 0.6, "nail": 0.0}
    if bone == "ulna" and fraction < 0.25:
        shares["tension band"] = 0.45
    if adult:
        for name, prosthesis in PROSTHESES.items():
            if prosthesis.fits(bone, fraction):
                shares[name] = prosthesis.share
    return shares


def metalwork(context: Context, rng: np.random.Generator) -> tuple[Scene, Facts]:
    """An implant that suits the bone and the place."""
    name = choice(_shares(context), rng)
    if name in PROSTHESES:
        scene, solids, facts = PROSTHESES[name].make(context, rng)
        return scene.plus(solids=solids, region_of_interest=_shadows(solids)), {"subkind": name} | facts
    solids, facts = IMPLANTS[name](context, rng)
    scene, state = _healing(context, rng, solids)
    return scene, {"subkind": name} | facts | state
