from dataclasses import replace

import numpy as np
import pytest

from mskscreen.anatomy import JointType
from mskscreen.phantom.body import pose_body
from mskscreen.phantom.case import make_case
from mskscreen.phantom.frames import across
from mskscreen.phantom.pathology.context import Context
from mskscreen.phantom.pathology.cuts import draw_injury
from mskscreen.phantom.pathology.fractures import PATTERNS
from mskscreen.phantom.pathology.kinds import KINDS, region_bones
from mskscreen.phantom.pathology.osteosynthesis import IMPLANTS
from mskscreen.phantom.pathology.prostheses import PROSTHESES
from mskscreen.phantom.patient import AgeGroup, draw_patient
from mskscreen.phantom.positioning import draw_angles
from mskscreen.phantom.render import trace
from mskscreen.phantom.scene import Material, Scene, Shape
from mskscreen.phantom.seeds import stream
from mskscreen.phantom.skeleton import Skeleton
from mskscreen.phantom.views import PROJECTIONS

SIDE = 200
SKELETON = Skeleton.load()
METALS = {Material.TITANIUM, Material.STEEL, Material.GOLD, Material.LEAD}
WHERE = {"effusion": JointType.ELBOW, "swelling": JointType.WRIST}


def a_case(kind, seed, joint=None):
    where = joint if joint is not None else WHERE.get(kind, JointType.HAND)
    view = "lateral" if kind == "effusion" else None
    return make_case(seed, where, view=view, kind=kind, long_side=SIDE)


def changed(view):
    before, after = trace(view.scene_normal, view.camera), trace(view.scene_abnormal, view.camera)
    total = np.zeros((view.camera.rows, view.camera.columns), np.float32)
    for material in set(before.paths) | set(after.paths):
        total += np.abs(after.paths.get(material, 0) - before.paths.get(material, 0))
    return total, after.mask


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_changes_the_image_inside_its_mask(kind):
    for seed in range(3):
        view = a_case(kind, seed).views[0]
        difference, mask = changed(view)
        assert mask.any()
        assert mask.mean() < 0.25
        # A finger out of joint moves as a whole: beyond its joint, too, the image changes.
        assert difference[mask].mean() > 1.5 * difference[~mask].mean()


@pytest.mark.parametrize("kind", ["fracture", "lesion", "metalwork"])
def test_masks_stay_on_the_shadow_of_bone_and_metal(kind):
    shares = []
    for seed in range(12):
        case = a_case(kind, seed, JointType.FOREARM)
        view = case.views[0]
        layers = trace(replace(view.scene_abnormal, tissue=()), view.camera)
        solid = sum(layers.paths.get(name, 0) for name in (Material.BONE, *METALS, Material.POLYMER))
        if layers.mask.any():
            shares.append(np.mean(solid[layers.mask] > 1e-4))
    assert np.median(shares) > 0.6


def test_metal_is_masked_by_its_own_shadow():
    for seed in range(6):
        view = a_case("metalwork", seed, JointType.ELBOW).views[0]
        before = set(map(repr, view.scene_normal.solids))
        added = [s for s in view.scene_abnormal.solids if repr(s) not in before and s.material in METALS]
        layers = trace(Scene(solids=tuple(added)), view.camera)
        metal = sum(path for name, path in layers.paths.items() if name in METALS) > 1e-5
        mask = trace(view.scene_abnormal, view.camera).mask
        assert metal.any()
        assert (metal & mask).sum() > 0.98 * metal.sum()


def test_no_metal_but_jewellery_without_metalwork():
    for seed in range(40):
        case = make_case(seed, abnormal=False, long_side=SIDE)
        worn = {"ring", "watch"} & set(case.facts["variants"])
        metal = METALS & {solid.material for view in case.views for solid in view.scene_normal.solids}
        assert bool(metal) == bool(worn)


def test_at_most_a_third_of_fractures_are_displaced_by_more_than_half_a_width():
    rng = stream(0, "severity")
    offsets = np.array([draw_injury(rng, 0.015).offset for _ in range(2000)])
    assert 0.2 < np.mean(offsets > 0.5) < 1 / 3
    assert np.median(offsets) < 0.5


def test_a_displaced_radius_takes_the_hand_along():
    for seed in range(60):
        case = make_case(seed, JointType.FOREARM, kind="fracture", long_side=SIDE)
        if case.facts["bone"] != "radius" or case.facts["subkind"] not in ("transverse", "oblique"):
            continue
        scenes = (case.views[0].scene_normal, case.views[0].scene_abnormal)
        hands = [next(part for part in scene.bones if part.bone == "3mc") for scene in scenes]
        moved = np.linalg.norm(hands[0].transform[:3, 3] - hands[1].transform[:3, 3])
        assert moved > 0.3e-3
        return
    pytest.fail("no simple fracture of the radius in sixty studies")


def test_forearms_that_bend_break_both_bones():
    found = 0
    for seed in range(40):
        case = make_case(seed, JointType.FOREARM, kind="fracture", long_side=SIDE)
        if partner := case.facts.get("second_bone"):
            found += 1
            pieces = [part for part in case.views[0].scene_abnormal.bones if part.bone == partner]
            assert len(pieces) >= 2
            assert case.facts["angulation_degrees"] > 7
    assert found >= 2


def test_abnormalities_spread_over_the_whole_bone_and_all_bones():
    patient = draw_patient(stream(0, "anatomy"), Skeleton.load().bones)
    rng = stream(0, "site")
    sites = [KINDS["lesion"].site(JointType.HAND, 3, patient, rng) for _ in range(600)]
    counts, _ = np.histogram([site.fraction for site in sites], bins=4, range=(0, 1))
    assert counts.min() > 0.2 * len(sites)
    assert {site.bone for site in sites} == set(region_bones(JointType.HAND, 3))


def drawn(kind, joint, count, *, scale=1.0):
    """Contexts, scenes and facts of an abnormality as studies of a region draw it, on a child and an adult."""
    entry = PROJECTIONS[joint][0]
    groups = {}
    for seed in range(20):
        patient = draw_patient(stream(seed, "anatomy"), SKELETON.bones)
        groups.setdefault(patient.age_group, replace(patient, scale=patient.scale * scale))
    digit = entry.digits[0]
    for group in (AgeGroup.CHILD, AgeGroup.ADULT):
        body = pose_body(SKELETON, groups[group], draw_angles(entry.position, digit, stream(0, "pose")))
        for number in range(count // 2):
            rng = stream(number, kind, joint.label, group)
            site = KINDS[kind].site(joint, digit, body.patient, rng)
            context = Context(body, joint, site, lambda _: Scene())
            yield context, *KINDS[kind].make(context, rng)


def everywhere(kind, count):
    return [facts for joint in JointType for _, _, facts in drawn(kind, joint, count)]


def test_every_pattern_of_fracture_occurs_with_its_cut():
    facts = everywhere("fracture", 80)
    assert {fact["subkind"] for fact in facts} == set(PATTERNS)
    tilts = {name: [fact["tilt_degrees"] for fact in facts if fact["subkind"] == name] for name in PATTERNS}
    assert max(tilts["transverse"]) < 18 < 29 < min(tilts["oblique"])
    assert max(tilts["oblique"]) < 61
    assert set(tilts["torus"]) == {0.0}
    assert all(
        "second_tilt_degrees" in fact for fact in facts if "second_bone" in fact or fact.get("fragments") == 4
    )


def test_every_implant_and_prosthesis_occurs():
    facts = everywhere("metalwork", 120)
    assert {fact["subkind"] for fact in facts} == set(IMPLANTS) | set(PROSTHESES)
    assert {fact.get("bone_state") for fact in facts} == {"whole", "healed", "fresh", None}


def test_every_lesion_occurs_with_what_shapes_it():
    facts = everywhere("lesion", 12)
    assert {fact["subkind"] for fact in facts} == {"lytic", "sclerotic"}
    lytic = [fact for fact in facts if fact["subkind"] == "lytic"]
    assert {fact["transition"] for fact in lytic} == {"narrow", "wide", "expansile"}
    for fact in lytic:
        assert (fact["holes"] > 1) == (fact["rim"] == 0) == (fact["transition"] == "wide")
        assert ("widening" in fact) == (fact["transition"] == "expansile")
    assert all(0.9 <= fact["stretch"] <= 1.6 for fact in facts if fact["subkind"] == "sclerotic")


def test_an_effusion_says_how_far_the_pad_is_lifted():
    facts = [facts for *_, facts in drawn("effusion", JointType.ELBOW, 10)]
    assert len({fact["lift"] for fact in facts}) > 3
    assert all(0.25 <= fact["sail"] <= 0.6 for fact in facts)


def test_lesions_are_as_large_as_the_patient_makes_them():
    whole, half = (drawn("lesion", JointType.ELBOW, 30, scale=scale) for scale in (1.0, 0.5))
    for (*_, large), (*_, small) in zip(whole, half, strict=True):
        assert np.array(small["size_mm"]) == pytest.approx(np.array(large["size_mm"]) / 2, abs=0.11)


def test_no_plate_is_longer_than_its_bone():
    lengths = [
        (facts["length_mm"], 1e3 * context.body.length(context.site.bone))
        for context, _, facts in drawn("metalwork", JointType.HAND, 120)
        if facts["subkind"] == "plate"
    ]
    assert len(lengths) > 10
    assert all(plate <= 0.85 * bone + 0.5 for plate, bone in lengths)
    assert any(plate > 0.8 * bone for plate, bone in lengths)


def inside(solid, points):
    local = (points - solid.transform[:3, 3]) @ np.linalg.inv(solid.transform[:3, :3]).T
    return solid.shape is Shape.ELLIPSOID and bool((((local / solid.half) ** 2).sum(axis=1) < 1).all())


def test_under_metal_a_cut_and_callus_are_in_the_mask():
    states = set()
    for context, scene, facts in drawn("metalwork", JointType.FOREARM, 60):
        if (state := facts.get("bone_state")) not in ("fresh", "healed"):
            continue
        states.add(state)
        if state == "fresh":
            axes, tilt = context.azimuth_axes(np.radians(facts["cut_azimuth_degrees"])), facts["tilt_degrees"]
            steepest = axes[:, 0] - axes[:, 2] * np.tan(np.radians(tilt))
            ends = [sign * way for way in (steepest, axes[:, 1]) for sign in (0.85, -0.85)]
        else:
            ends = list(0.9 * facts["callus_widths"] * np.vstack([context.axes.T[:2], -context.axes.T[:2]]))
        points = context.point + context.radius * np.array(ends)
        assert any(inside(solid, points) for solid in scene.region_of_interest)
    assert states == {"fresh", "healed"}


def test_elbows_go_out_of_joint_in_the_direction_that_is_named():
    names = []
    for seed in range(60):
        context = next(drawn("dislocation", JointType.ELBOW, 2))[0]
        after = []
        context = replace(context, furnish=lambda body, after=after: after.append(body) or Scene())
        _, facts = KINDS["dislocation"].make(context, stream(seed, "effect"))
        before = context.body
        shift = after[0].transforms["ulna"][:3, 3] - before.transforms["ulna"][:3, 3]
        axis = before.axis("humerus")
        outward = across(before.proximal("radius") - before.proximal("ulna"), axis)
        backward = -across(before.transforms["humerus"][:3, 0], axis)
        names.append(facts["direction"])
        ways = {"posterior": backward, "lateral": outward, "medial": -outward}
        assert shift @ ways[facts["direction"]] > 1e-3
    assert set(names) == {"posterior", "lateral", "medial"}
    assert 0.1 < np.mean(np.array(names) != "posterior") < 0.4


def test_the_swelling_of_a_torn_off_end_lies_beside_that_end():
    found = set()
    for seed in range(250):
        case = make_case(seed, JointType.FINGER, kind="fracture", long_side=SIDE)
        facts = case.facts
        if facts["subkind"] not in ("avulsion", "tuft") or not facts["swelling"]:
            continue
        found.add(facts["subkind"])
        view = case.views[0]
        before = set(map(repr, view.scene_normal.tissue))
        swollen = [piece for piece in view.scene_abnormal.tissue if repr(piece) not in before]
        part = next(part for part in view.scene_normal.bones if part.bone == facts["bone"])
        shape = SKELETON.bones[part.bone]
        start = np.append(np.array(swollen[0].start), 1.0)
        local = (np.linalg.inv(part.transform) @ start)[:3]
        fraction = (local - shape.proximal) @ shape.axis / shape.length
        assert fraction == pytest.approx(facts["fraction"], abs=0.12)
    assert found == {"avulsion", "tuft"}


def test_no_plate_is_screwed_to_the_tip_of_a_finger():
    shown = [make_case(seed, JointType.FINGER, kind="metalwork", long_side=SIDE).facts for seed in range(150)]
    tips = [facts["subkind"] for facts in shown if facts["bone"].endswith(("distph", "thumbdist"))]
    assert len(tips) > 10
    assert "plate" not in tips
