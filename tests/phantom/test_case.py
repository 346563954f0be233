import json

import numpy as np
import pytest

from mskscreen.anatomy import JointType
from mskscreen.errors import MskscreenError
from mskscreen.phantom.case import make_case
from mskscreen.phantom.render import trace

SIDE = 160


def same(a, b):
    """Whether two scenes hold the same things in the same places."""
    return repr(a) == repr(b)


@pytest.mark.parametrize("joint", JointType, ids=lambda joint: joint.label)
def test_the_abnormal_twin_shares_patient_views_beam_and_variants(joint):
    for seed in range(4):
        normal = make_case(seed, joint, abnormal=False, long_side=SIDE)
        abnormal = make_case(seed, joint, abnormal=True, long_side=SIDE)
        assert [v.view_name for v in normal.views] == [v.view_name for v in abnormal.views]
        for before, after in zip(normal.views, abnormal.views, strict=True):
            assert same(before.scene_normal, after.scene_normal)
            assert before.exposure == after.exposure
            assert repr(before.camera) == repr(after.camera)
            assert before.scene_abnormal is None
            assert after.scene_abnormal is not None
        assert all(abnormal.facts[name] == value for name, value in normal.facts.items())


def test_views_along_the_chest_get_more_photons_and_readout_noise_is_a_number_of_quanta():
    for seed in range(5):
        beams = {}
        for view in ("AP internal rotation", "Y view"):
            beams[view] = make_case(seed, JointType.SHOULDER, view, long_side=SIDE).views[0].exposure
            assert 3 < beams[view].electronic_noise * beams[view].quanta < 20
        assert beams["Y view"].quanta > 2 * beams["AP internal rotation"].quanta


def test_a_seed_always_gives_the_same_case():
    assert repr(make_case(11)) == repr(make_case(11))
    assert repr(make_case(11).facts) != repr(make_case(12).facts)


def test_facts_are_json_and_name_kind_bone_and_place():
    for seed in range(30):
        case = make_case(seed, abnormal=True, long_side=SIDE)
        facts = json.loads(json.dumps(case.facts))
        assert {"joint", "age_group", "laterality", "variants", "kind", "subkind", "bone"} <= set(facts)
        assert {"fraction", "azimuth_degrees"} <= set(facts)
        assert 1 <= len(case.views) <= 4


def test_prevalence_and_regions_are_drawn_as_declared():
    cases = [make_case(seed, long_side=SIDE) for seed in range(120)]
    assert 0.32 < np.mean([case.abnormal for case in cases]) < 0.58
    assert len({case.joint for case in cases}) == 7
    assert len({len(case.views) for case in cases}) >= 3


def test_the_view_and_the_kind_asked_for_come_out():
    case = make_case(3, JointType.ELBOW, view="lateral", kind="effusion", long_side=SIDE)
    assert case.abnormal
    assert case.views[0].view_name == "lateral"
    assert case.facts["kind"] == "effusion"
    thumb = make_case(3, JointType.FINGER, view="thumb AP", long_side=SIDE)
    assert thumb.facts["digit"] == 1
    with pytest.raises(MskscreenError, match="choose one of"):
        make_case(3, JointType.HAND, kind="effusion")


def test_twins_differ_only_near_the_abnormality():
    """A lesion changes nothing outside its own shadow."""
    case = make_case(21, JointType.HUMERUS, kind="lesion", long_side=256)
    view = case.views[0]
    before, after = trace(view.scene_normal, view.camera), trace(view.scene_abnormal, view.camera)
    changed = np.zeros((view.camera.rows, view.camera.columns), bool)
    for material, path in after.paths.items():
        changed |= np.abs(path - before.paths.get(material, 0)) > 1e-4
    assert changed.any()
    assert (changed & after.mask).sum() > 0.9 * changed.sum()


def test_sites_are_redrawn_until_every_view_shows_them():
    shown = []
    for seed in range(40):
        case = make_case(seed, abnormal=True, kind="fracture", long_side=SIDE)
        for view in case.views:
            assert view.scene_abnormal is not None
            centres = np.array([solid.transform[:3, 3] for solid in view.scene_abnormal.region_of_interest])
            column, row = view.camera.project(centres).T
            hit = (column > 0) & (column < view.camera.columns) & (row > 0) & (row < view.camera.rows)
            shown.append(hit.any())
    assert np.mean(shown) > 0.97


def test_left_and_right_cameras_agree_with_the_laterality():
    for seed in range(12):
        case = make_case(seed, long_side=SIDE)
        for view in case.views:
            beam = view.camera.origin - view.camera.source
            handed = np.linalg.det(np.stack([view.camera.du, view.camera.dv, beam]))
            assert (handed > 0) == (case.facts["laterality"] == "right")
