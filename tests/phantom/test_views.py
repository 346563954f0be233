import numpy as np
import pytest

from mskscreen.anatomy import JointType
from mskscreen.errors import MskscreenError
from mskscreen.phantom.body import pose_body
from mskscreen.phantom.patient import draw_patient
from mskscreen.phantom.positioning import POSITIONS, draw_angles
from mskscreen.phantom.seeds import stream
from mskscreen.phantom.skeleton import Skeleton
from mskscreen.phantom.views import PROJECTIONS, draw_camera, projections

SKELETON = Skeleton.load()
ALL = [(joint, entry) for joint, table in PROJECTIONS.items() for entry in table]


def posed(seed, entry, digit=3, laterality=None):
    patient = draw_patient(stream(seed, "anatomy"), SKELETON.bones)
    if laterality:
        patient = type(patient)(**{**patient.__dict__, "laterality": laterality})
    return pose_body(SKELETON, patient, draw_angles(entry.position, digit, stream(seed, "pose")))


def camera_of(body, joint, entry, seed, digit=3, long_side=512):
    return draw_camera(body, joint, entry, digit, long_side, stream(seed, "view", 0))


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
