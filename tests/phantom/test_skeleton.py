"""Forward kinematics: rigid bones that turn about their joints, and landmarks that know which end is which."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mskscreen.phantom.geometry import load_meshes
from mskscreen.phantom.skeleton import Skeleton, rotation

SKELETON = Skeleton.load()
FINGERS = [[f"{finger}{part}" for part in ("mc", "proxph", "midph", "distph")] for finger in "2345"]


def turn_between(a: np.ndarray, b: np.ndarray) -> float:
    """Angle of the rotation that takes one transform's axes to the other's."""
    cosine = (np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2
    return float(np.arccos(np.clip(cosine, -1, 1)))


def within_range(name: str) -> st.SearchStrategy[float]:
    low, high = SKELETON.ranges[name]
    return st.floats(low, high)


@settings(max_examples=25)
@given(st.fixed_dictionaries({name: within_range(name) for name in SKELETON.ranges}))
def test_any_pose_moves_bones_rigidly(angles: dict[str, float]) -> None:
    for transform in SKELETON.pose(angles).values():
        np.testing.assert_allclose(transform[:3, :3] @ transform[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(transform[:3, :3]) > 0


@settings(max_examples=25)
@given(st.fixed_dictionaries({name: within_range(name) for name in ("elbow_flexion", "pro_sup", "flexion")}))
def test_joint_centres_keep_their_distance(angles: dict[str, float]) -> None:
    bent, straight = SKELETON.pose(angles), SKELETON.pose({})
    for parent, bone in pairwise(("humerus", "ulna", "radius", "lunate")):
        distances = [np.linalg.norm(pose[bone][:3, 3] - pose[parent][:3, 3]) for pose in (bent, straight)]
        assert distances[0] == pytest.approx(distances[1], abs=1e-12)


def test_flexing_the_elbow_turns_the_forearm_about_it() -> None:
    straight, bent = SKELETON.pose({}), SKELETON.pose({"elbow_flexion": 0.8})
    np.testing.assert_allclose(bent["ulna"][:3, 3], straight["ulna"][:3, 3])
    np.testing.assert_allclose(bent["humerus"], straight["humerus"])
    for bone in ("ulna", *SKELETON.descendants("ulna")):
        assert turn_between(straight[bone], bent[bone]) == pytest.approx(0.8)
    # The hand comes forward (x) and up (y).
    assert np.all((bent["3mc"] - straight["3mc"])[:2, 3] > 0.05)


def test_raising_the_arm_carries_the_scapula() -> None:
    rest, raised = SKELETON.pose({}), SKELETON.pose({"shoulder_elv": 1.5})
    assert 0.3 < turn_between(rest["scapula"], raised["scapula"]) < 1.0
    assert turn_between(rest["humerus"], raised["humerus"]) == pytest.approx(1.5, abs=0.05)


def test_thorax_stays() -> None:
    np.testing.assert_array_equal(SKELETON.pose({"shoulder_elv": 1.0})["thorax"], np.eye(4))


@pytest.mark.parametrize("joint", ["knee_flexion", "acromioclavicular_r1"])
def test_joints_that_cannot_be_set_are_refused(joint: str) -> None:
    with pytest.raises(KeyError, match=joint):
        SKELETON.pose({joint: 0.1})


def test_descendants_follow_the_limb() -> None:
    assert SKELETON.descendants("1mc") == ("thumbprox", "thumbdist")
    assert set(SKELETON.descendants("clavicle")) == set(SKELETON.bones) - {"thorax", "clavicle"}
    assert SKELETON.descendants("3distph") == ()


@pytest.mark.parametrize("chain", [["humerus", "radius"], ["1mc", "thumbprox", "thumbdist"], *FINGERS])
def test_ends_of_neighbours_meet(chain: list[str]) -> None:
    pose = SKELETON.pose({})
    for near, far in pairwise(chain):
        distal = pose[near] @ [*SKELETON.bones[near].distal, 1]
        proximal = pose[far] @ [*SKELETON.bones[far].proximal, 1]
        assert np.linalg.norm(distal - proximal) < 0.025


def test_radius_of_a_shaft_is_that_of_its_mesh() -> None:
    shape = SKELETON.bones["2mc"]
    vertices = load_meshes()["2mc"].vertices - shape.proximal
    along = vertices @ shape.axis
    middle = vertices[np.abs(along / shape.length - 0.5) < 0.05]
    outwards = middle - middle.mean(axis=0)
    outwards -= np.outer(outwards @ shape.axis, shape.axis)
    assert shape.radius_at(0.5) == pytest.approx(np.linalg.norm(outwards, axis=1).mean(), rel=0.1)
    assert shape.radius_at(0.5) < shape.radius_at(0.9)


def test_rotation_by_a_quarter_turn() -> None:
    np.testing.assert_allclose(rotation(np.array([0, 0, 2.0]), np.pi / 2) @ [1, 0, 0], [0, 1, 0], atol=1e-15)
