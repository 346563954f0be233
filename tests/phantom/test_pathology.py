from dataclasses import replace

import numpy as np
import pytest

from mskscreen.anatomy import JointType
from mskscreen.phantom.case import make_case
from mskscreen.phantom.pathology.fractures import draw_injury
from mskscreen.phantom.pathology.kinds import KINDS, region_bones
from mskscreen.phantom.pathology.prostheses import PROSTHESES
from mskscreen.phantom.patient import draw_patient
from mskscreen.phantom.render import trace
from mskscreen.phantom.scene import Material, Scene
from mskscreen.phantom.seeds import stream
from mskscreen.phantom.skeleton import Skeleton

SIDE = 200
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


def test_many_kinds_of_metalwork_and_fractures_occur():
    metal, breaks = set(), set()
    for seed in range(100):
        joint = (JointType.ELBOW, JointType.WRIST, JointType.SHOULDER, JointType.FOREARM, JointType.HAND)[seed % 5]
        metal.add(make_case(seed, joint, kind="metalwork", long_side=64).facts["subkind"])
        breaks.add(make_case(seed, joint, kind="fracture", long_side=64).facts["subkind"])
    assert metal >= {"plate", "screws", "k-wires", "nail", "anchors", "external fixator"}
    assert metal & set(PROSTHESES)
    assert breaks >= {"transverse", "oblique", "spiral", "comminuted", "avulsion"}
