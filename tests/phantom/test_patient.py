from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from mskscreen.phantom.body import digit_bones, pose_body
from mskscreen.phantom.patient import AgeGroup, draw_patient
from mskscreen.phantom.positioning import POSITIONS, draw_angles
from mskscreen.phantom.seeds import stream
from mskscreen.phantom.skeleton import Skeleton
from mskscreen.phantom.volumes import CORTEX

SKELETON = Skeleton.load()


def patients(count):
    return [draw_patient(stream(seed, "anatomy"), SKELETON.bones) for seed in range(count)]


def test_streams_of_one_seed_are_independent_and_repeatable():
    drawn = {name: stream(5, name).random(4).tolist() for name in ("anatomy", "pathology", "view")}
    assert drawn["anatomy"] == stream(5, "anatomy").random(4).tolist()
    assert len({tuple(values) for values in drawn.values()}) == 3
    assert stream(5, "view", 0).random() != stream(5, "view", 1).random()
    assert stream(6, "view").random() != stream(5, "view").random()


def test_children_are_smaller_and_the_elderly_have_less_mineral():
    everyone = patients(300)
    of = {group: [p for p in everyone if p.age_group is group] for group in AgeGroup}
    assert all(len(members) > 20 for members in of.values())
    scale = {group: np.mean([p.scale for p in members]) for group, members in of.items()}
    density = {group: np.mean([p.density for p in members]) for group, members in of.items()}
    assert scale[AgeGroup.CHILD] < 0.9 * scale[AgeGroup.ADULT]
    assert density[AgeGroup.ELDERLY] < 0.8 * density[AgeGroup.ADULT]


def test_the_cortex_thins_with_age_and_varies_among_adults():
    everyone = patients(300)
    grown = [p.cortex for p in everyone if p.age_group is AgeGroup.ADULT]
    old = [p.cortex for p in everyone if p.age_group is AgeGroup.ELDERLY]
    assert {p.cortex for p in everyone} == set(CORTEX)
    assert old.count("thin") / len(old) > 0.4 > 0.2 > grown.count("thin") / len(grown)
    assert 0.4 < grown.count("normal") / len(grown) < 0.9
    patient = everyone[0]
    assert patient.facts["cortex"] == patient.cortex
    body = pose_body(SKELETON, replace(patient, cortex="thick"), {})
    assert body.bone_part("radius").cortex == "thick"


def test_both_sides_are_equally_common():
    left = np.mean([patient.laterality == "left" for patient in patients(400)])
    assert 0.42 < left < 0.58


@pytest.mark.parametrize("position", POSITIONS)
def test_every_position_is_within_the_range_of_the_joints(position):
    for seed in range(5):
        for name, angle in draw_angles(position, 3, stream(seed, "pose")).items():
            low, high = SKELETON.ranges[name]
            assert low - 0.2 <= angle <= high + 0.2, name


def test_a_longer_bone_pushes_what_hangs_on_it_and_leaves_the_joint_space():
    patient = patients(1)[0]
    body = pose_body(SKELETON, patient, {})
    for digit in (2, 3, 4, 5):
        bones = digit_bones(digit)
        for near, far in pairwise(bones):
            gap = np.linalg.norm(body.distal(near) - body.proximal(far))
            plain = SKELETON.pose({})
            original = np.linalg.norm(
                (
                    plain[near] @ [*SKELETON.bones[near].distal, 1]
                    - plain[far] @ [*SKELETON.bones[far].proximal, 1]
                )[:3]
            )
            assert gap == pytest.approx(original * patient.scale, abs=3e-4)


def test_a_broken_radius_takes_the_hand_along_and_a_broken_ulna_does_not():
    body = pose_body(SKELETON, patients(1)[0], {})
    assert {"lunate", "3mc", "5distph"} <= set(body.carried("radius"))
    assert body.carried("ulna") == ()
    change = np.eye(4)
    change[0, 3] = 0.01
    after = body.shifted(change, body.carried("radius"), ("radius",))
    assert np.allclose(after.proximal("radius"), body.proximal("radius"))
    assert np.allclose(after.distal("radius") - body.distal("radius"), [0.01, 0, 0])
    assert np.allclose(after.distal("3distph") - body.distal("3distph"), [0.01, 0, 0])


def test_a_clip_in_bone_coordinates_is_the_plane_in_the_world():
    body = pose_body(SKELETON, patients(3)[2], {"elbow_flexion": 1.0})
    normal = np.array([0.3, -0.5, 0.8])
    point = body.point("radius", 0.4)
    clip = body.clip("radius", point, normal)
    local = np.random.default_rng(0).normal(0, 0.1, (50, 3))
    world = local @ body.transforms["radius"][:3, :3].T + body.transforms["radius"][:3, 3]
    assert np.array_equal(local @ np.array(clip.normal) > clip.offset, (world - point) @ normal > 0)
