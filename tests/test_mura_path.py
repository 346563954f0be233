"""One grammar of MURA paths: what a name says is read whatever stands before it, and the label can be left out."""

import pytest

from mskscreen.mura_path import mura_path, unlabelled

STUDY = "valid/XR_HAND/patient11185/study2"


@pytest.mark.parametrize("before", ["", "MURA-v1.1/", "/data/train/XR_ELBOW/patient1/", "C:\\data\\"])
@pytest.mark.parametrize(("suffix", "label"), [("", None), ("_positive", True), ("_negative", False)])
@pytest.mark.parametrize(("after", "image"), [("", None), ("/", None), ("/image3.png", "image3.png")])
def test_a_path_says_its_parts_whatever_stands_before_it(before, suffix, label, after, image):
    found = mura_path(before + STUDY + suffix + after)
    assert found == ("valid", "XR_HAND", "patient11185", "study2", label, image)
    assert found.study_key == "XR_HAND/patient11185/study2"
    assert found.study_folder == STUDY + suffix
    assert unlabelled(STUDY + suffix + after) == STUDY + after


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("patient7/study1/a.png", (None, None, "patient7", "study1", None, "a.png")),
        ("XR_HAND/patient7/study1", (None, "XR_HAND", "patient7", "study1", None, None)),
        ("holdout/XR_HAND/patient7/study1", (None, "XR_HAND", "patient7", "study1", None, None)),
        ("inpatient7/study1/a.png", None),
        ("patient7/study1_maybe/a.png", None),
        ("patient7/study1/series/a.png", None),
        ("a.png", None),
    ],
)
def test_what_a_path_does_not_say_is_none(text, parts):
    assert mura_path(text) == parts
