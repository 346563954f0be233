import numpy as np
import pytest

from mskscreen.anatomy import JointType
from mskscreen.errors import MskscreenError
from mskscreen.phantom.body import pose_body
from mskscreen.phantom.patient import draw_patient
from mskscreen.phantom.positioning import POSITIONS, draw_angles
from mskscreen.phantom.seeds import stream
from mskscreen.phantom.skeleton import Skeleton
from mskscreen.phantom.views import PROJECTIONS, draw_camera, projections, turn_on_plate

SKELETON = Skeleton.load()
ALL = [(joint, entry) for joint, table in PROJECTIONS.items() for entry in table]


def posed(seed, entry, digit=3, laterality=None):
    patient = draw_patient(stream(seed, "anatomy"), SKELETON.bones)
    if laterality:
        patient = type(patient)(**{**patient.__dict__, "laterality": laterality})
    return pose_body(SKELETON, patient, draw_angles(entry.position, digit, stream(seed, "pose")))


def camera_of(body, joint, entry, seed, digit=3, long_side=512):
    return draw_camera(body, joint, entry, digit, long_side, stream(seed, "view", 0))


def fields(joint, count):
    """Views of a region as often as departments take them: projection, digit, body and camera."""
    table = PROJECTIONS[joint]
    shares = np.array([entry.share for entry in table])
    for seed in range(count):
        rng = stream(seed, "choice")
        entry = table[rng.choice(len(table), p=shares / shares.sum())]
        digit = int(rng.choice(entry.digits))
        body = posed(seed, entry, digit)
        yield entry, digit, body, camera_of(body, joint, entry, seed, digit, 128)


def shown(camera, *points):
    column, row = camera.project(np.array(points)).T
    return (column >= 0) & (column < camera.columns) & (row >= 0) & (row < camera.rows)


def test_every_region_has_projections_in_known_positions():
    assert set(PROJECTIONS) == set(JointType)
    assert all(entry.position in POSITIONS for _, entry in ALL)
    assert {entry.position for _, entry in ALL} == set(POSITIONS)


def test_an_unknown_view_is_refused_with_the_known_ones():
    with pytest.raises(MskscreenError, match="scaphoid"):
        projections(JointType.WRIST, "axillary")


@pytest.mark.parametrize(("joint", "entry"), ALL, ids=lambda value: getattr(value, "name", ""))
def test_the_field_holds_the_region_and_has_the_long_side_asked_for(joint, entry):
    anchors = {
        JointType.HAND: ("3mc", 0.8),
        JointType.WRIST: ("capitate", 0.5),
        JointType.FOREARM: ("radius", 0.5),
        JointType.ELBOW: ("humerus", 0.97),
        JointType.HUMERUS: ("humerus", 0.5),
        JointType.SHOULDER: ("humerus", 0.06),
    }
    digit = entry.digits[0]
    bone, fraction = anchors.get(joint, ("thumbprox" if digit == 1 else f"{digit}proxph", 0.8))
    inside = 0
    for seed in range(20):
        body = posed(seed, entry, digit)
        camera = camera_of(body, joint, entry, seed, digit, 300)
        assert max(camera.rows, camera.columns) == 300
        column, row = camera.project(body.point(bone, fraction))[0]
        inside += 0 <= column < camera.columns and 0 <= row < camera.rows
    assert inside >= 17


def test_a_left_hand_is_the_mirror_image_of_a_right_one():
    entry = PROJECTIONS[JointType.HAND][0]
    right, left = posed(4, entry, laterality="right"), posed(4, entry, laterality="left")
    points = np.array([right.centre(bone) for bone in ("1mc", "3mc", "5mc", "radius")])
    a = camera_of(right, JointType.HAND, entry, 4)
    b = camera_of(left, JointType.HAND, entry, 4)
    mirrored = b.project(points)
    assert np.allclose(a.project(points)[:, 1], mirrored[:, 1])
    assert np.allclose(a.project(points)[:, 0], a.columns - 1 - mirrored[:, 0])


def test_in_a_right_hand_pa_the_thumb_is_on_the_left_when_fingers_point_up():
    entry = PROJECTIONS[JointType.HAND][0]
    checked = 0
    for seed in range(30):
        body = posed(seed, entry, laterality="right")
        camera = camera_of(body, JointType.HAND, entry, seed)
        wrist, tip, thumb, little = camera.project(
            np.array([body.centre("capitate"), body.distal("3distph"), body.centre("1mc"), body.centre("5mc")])
        )
        if abs(tip[0] - wrist[0]) < 0.3 * (wrist[1] - tip[1]):
            checked += 1
            assert thumb[0] < little[0]
    assert checked >= 10


def test_a_shoulder_ap_shows_the_patients_right_on_the_left():
    entry = PROJECTIONS[JointType.SHOULDER][0]
    body = posed(1, entry, laterality="right")
    camera = camera_of(body, JointType.SHOULDER, entry, 1)
    head, sternum = camera.project(np.array([body.proximal("humerus"), np.zeros(3)]))
    assert head[0] < sternum[0]


def test_a_lateral_lays_the_metacarpals_over_each_other():
    spread = {}
    for entry in PROJECTIONS[JointType.HAND]:
        widths = []
        for seed in range(8):
            body = posed(seed, entry)
            camera = camera_of(body, JointType.HAND, entry, seed)
            heads = camera.project(np.array([body.centre(f"{digit}mc") for digit in (2, 3, 4, 5)]))
            widths.append(np.ptp(heads, axis=0).max() * camera.pixel / body.patient.scale)
        spread[entry.name] = np.mean(widths)
    assert spread["lateral"] < 0.6 * spread["PA"]
    assert spread["PA oblique"] < spread["PA"]


def ends_shown(joint, bone):
    return np.array(
        [shown(camera, body.proximal(bone), body.distal(bone)) for *_, body, camera in fields(joint, 40)]
    )


def test_a_humerus_is_taken_with_shoulder_or_elbow_or_both():
    ends = ends_shown(JointType.HUMERUS, "humerus")
    assert ends.any(axis=1).all()
    assert 0.4 < ends.all(axis=1).mean() < 0.8
    assert (ends.mean(axis=0) < 0.95).all()


def test_a_forearm_is_taken_with_both_joints():
    assert ends_shown(JointType.FOREARM, "radius").all(axis=1).mean() > 0.75


def test_a_finger_is_taken_with_much_of_the_hand():
    heads = [
        shown(camera, *(body.distal(f"{digit}mc") for digit in (2, 3, 4, 5))).sum()
        for *_, body, camera in fields(JointType.FINGER, 40)
    ]
    assert np.mean(np.array(heads) == 4) > 0.4
    assert min(heads) < 2


def test_a_shoulder_is_taken_with_half_the_chest_now_and_then():
    midline = [
        shown(camera, body.proximal("clavicle"))[0]
        for entry, _, body, camera in fields(JointType.SHOULDER, 60)
        if entry.name not in ("Y view", "axillary")
    ]
    assert 0.25 < np.mean(midline) < 0.85


def test_elbows_are_taken_from_nearly_straight_to_sharply_bent():
    flexion = [
        np.degrees(np.arccos(body.axis("humerus") @ body.axis("ulna")))
        for *_, body, _ in fields(JointType.ELBOW, 80)
    ]
    counts, _ = np.histogram(flexion, bins=[0, 30, 60, 90, 120, 145])
    assert counts.sum() == 80
    assert counts[:4].min() >= 8
    assert counts[4] >= 2


def test_limbs_lie_straight_slanted_or_across_the_plate_and_shoulders_mostly_straight():
    turns = {}
    for joint in (JointType.HAND, JointType.SHOULDER):
        turns[joint] = np.abs(
            [
                np.degrees(turn_on_plate(body, joint, entry.name, digit, camera))
                for entry, digit, body, camera in fields(joint, 60)
            ]
        )
    hand = turns[JointType.HAND]
    assert np.mean(hand < 10) > 0.4
    assert np.mean((hand > 75) & (hand < 105)) > 0.04
    assert hand.max() > 120
    assert 0.01 < np.mean(turns[JointType.SHOULDER] > 30) < 0.15


def test_the_turn_on_the_plate_is_that_of_the_hand_on_the_image():
    for entry, digit, body, camera in fields(JointType.HAND, 12):
        turn = turn_on_plate(body, JointType.HAND, entry.name, digit, camera)
        wrist, knuckle = camera.project(np.array([body.proximal("3mc"), body.distal("3mc")]))
        along = (knuckle - wrist) / np.linalg.norm(knuckle - wrist)
        assert along == pytest.approx([np.sin(turn), -np.cos(turn)], abs=0.1)
