import numpy as np
import pytest

from mskscreen.anatomy import JointType
from mskscreen.phantom.case import make_case
from mskscreen.phantom.patient import AgeGroup, draw_patient
from mskscreen.phantom.render import trace
from mskscreen.phantom.scene import Material
from mskscreen.phantom.seeds import stream
from mskscreen.phantom.skeleton import Skeleton
from mskscreen.phantom.variants import draw_variants

SIDE = 160


def cases(count, **settings):
    return [make_case(seed, long_side=SIDE, **settings) for seed in range(count)]


def test_children_have_growth_plates_and_adults_have_none():
    for case in cases(30, joint=JointType.HAND, abnormal=False):
        child = case.facts["age_group"] == AgeGroup.CHILD
        assert child == ("growth plates" in case.facts["variants"])
        pieces = sum(part.bone == "3proxph" for part in case.views[0].scene_normal.bones)
        assert pieces == (2 if child else 1)


def test_long_bones_grow_at_both_ends_and_metacarpals_at_the_end_radiographers_expect():
    """Thumb metacarpal and phalanges at the proximal end, the other metacarpals at the distal one."""
    child = next(
        case
        for case in (make_case(seed, JointType.FOREARM, abnormal=False, long_side=SIDE) for seed in range(200))
        if case.facts["years"] < 13 and case.facts["age_group"] == AgeGroup.CHILD
    )
    bones, ends = Skeleton.load().bones, {}
    for part in child.views[0].scene_normal.bones:
        for clip in part.clips:
            from_near = clip.offset - np.dot(clip.normal, bones[part.bone].proximal)
            fraction = from_near / np.dot(clip.normal, bones[part.bone].distal - bones[part.bone].proximal)
            ends.setdefault(part.bone, set()).add("proximal" if fraction < 0.5 else "distal")
    assert all(ends[bone] == {"proximal", "distal"} for bone in ("radius", "ulna", "humerus"))
    assert all(ends[bone] == {"distal"} for bone in ("2mc", "3mc", "4mc", "5mc"))
    assert all(ends[bone] == {"proximal"} for bone in ("1mc", "thumbprox", "thumbdist", "2proxph", "5distph"))


def test_a_plaster_cast_has_no_stripes():
    """The layers of its turns add up to about the same everywhere between its ends."""
    seed = next(
        s for s in range(400) if "plaster cast" in make_case(s, JointType.ELBOW, long_side=SIDE).facts["variants"]
    )
    solids = make_case(seed, JointType.ELBOW, long_side=SIDE).views[0].scene_normal.solids
    turns = [solid for solid in solids if solid.material is Material.PLASTER and solid.density > 0]
    for turn in (turns[: len(turns) // 2], turns[len(turns) // 2 :]):
        axis = turn[0].transform[:3, 2]
        middles = np.array([solid.transform[:3, 3] @ axis for solid in turn])
        halves = np.array([solid.half[2] for solid in turn])
        at = np.linspace(*np.quantile(middles, [0.25, 0.75]), 50)
        layers = (np.abs(at[:, None] - middles) < halves).sum(axis=1)
        assert layers.max() <= 1.5 * layers.min()


def test_variants_do_not_know_the_label():
    """The same variants with and without an abnormality, and never a region of interest of their own."""
    for seed in range(20):
        normal, abnormal = (make_case(seed, abnormal=label, long_side=SIDE) for label in (False, True))
        assert normal.facts["variants"] == abnormal.facts["variants"]
        assert all(not view.scene_normal.region_of_interest for view in normal.views)


def test_every_variant_occurs():
    found = set()
    for seed in range(600):
        patient = draw_patient(stream(seed, "anatomy"), Skeleton.load().bones)
        found |= set(draw_variants(stream(seed, "variants"), patient, JointType.WRIST, 3).names)
    worn = {"ring", "watch", "bandage", "plaster cast", "fibreglass cast"}
    assert found == worn | {"growth plates", "sesamoids", "nutrient canal", "old deformity"}


@pytest.mark.parametrize(
    ("name", "material"),
    [("plaster cast", Material.PLASTER), ("ring", Material.GOLD), ("bandage", Material.POLYMER)],
)
def test_worn_objects_show_and_are_nowhere_negative(name, material):
    seed = next(s for s in range(400) if name in make_case(s, JointType.HAND, long_side=SIDE).facts["variants"])
    view = make_case(seed, JointType.HAND, long_side=SIDE).views[0]
    path = trace(view.scene_normal, view.camera).paths[material]
    assert path.max() > 3e-4
    assert path.min() > -1e-5
    assert np.mean(path > 3e-4) < 0.9
