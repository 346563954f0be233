"""Which files are screened, and what makes a study of them."""

import os
from collections import Counter
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mskscreen.inference.files import _natural, find_radiographs, passed_over, printable
from mskscreen.inference.grouping import group
from mskscreen.mura_path import unlabelled


def names(folder: Path, *arguments: str | Path) -> list[str]:
    return [str(path.relative_to(folder)) for name in arguments for path in find_radiographs(name)]


def test_a_folder_is_searched_by_suffix_and_by_content(
    tmp_path: Path, write_png: Callable, write_dicom: Callable
) -> None:
    write_dicom(tmp_path / "dicom" / "IM000001")
    write_dicom(tmp_path / "dicom" / "1.2.840.113")
    whole = (tmp_path / "dicom" / "IM000001").read_bytes()
    (tmp_path / "dicom" / "IM000002").write_bytes(whole[132:])
    write_png(tmp_path / "png.png").rename(tmp_path / "no-suffix")
    write_png(tmp_path / "deep" / "er" / "a.PNG")
    (tmp_path / "broken.jpeg").touch()
    for unseen in (
        "._a.png",
        ".hidden/a.png",
        "__MACOSX/a.png",
        "DICOMDIR",
        "notes.txt",
        "table.csv",
        "empty",
    ):
        (tmp_path / unseen).parent.mkdir(exist_ok=True)
        (tmp_path / unseen).write_bytes(b"x" * 200 if "." in unseen else b"")
    assert sorted(names(tmp_path, tmp_path)) == [
        "broken.jpeg",
        "deep/er/a.PNG",
        "dicom/1.2.840.113",
        "dicom/IM000001",
        "dicom/IM000002",
        "no-suffix",
    ]


def test_the_order_takes_numbers_as_numbers(tmp_path: Path) -> None:
    for name in ("image10.png", "image9.png", "image1.png", "b2/x.png", "b10/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path, tmp_path) == ["image1.png", "image9.png", "image10.png", "b2/x.png", "b10/x.png"]


def test_the_order_is_not_that_in_which_a_file_system_lists_names() -> None:
    names = ("a001.png", "a01.png", "a1.png", "a2.png")
    assert {tuple(sorted(listed, key=_natural)) for listed in permutations(names)} == {names}


def test_a_pipe_below_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert names(tmp_path, tmp_path) == []


def test_a_name_that_cannot_be_looked_up_stands_for_itself(tmp_path: Path) -> None:
    assert names(tmp_path, tmp_path / ("n" * 300)) == ["n" * 300]
    assert names(tmp_path, tmp_path / "\0") == ["\0"]


def test_masks_beside_a_release_are_not_images_of_its_studies(tmp_path: Path, write_png: Callable) -> None:
    image = "valid/XR_HAND/patient00001/study1_positive/image1.png"
    write_png(tmp_path / "phantoms" / "MURA-v1.1" / image)
    write_png(tmp_path / "phantoms" / "masks" / image)
    assert names(tmp_path, tmp_path) == [f"phantoms/MURA-v1.1/{image}"]
    assert names(tmp_path, tmp_path / "phantoms" / "masks") == [f"phantoms/masks/{image}"]


def test_patterns_and_names_that_do_not_exist(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png", "b/c/3.png", "odd[1].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path, tmp_path / "*" / "*.png") == ["a/1.png", "b/2.png"]
    assert names(tmp_path, tmp_path / "b" / "**" / "*.png") == ["b/2.png", "b/c/3.png"]
    assert names(tmp_path, tmp_path / "?") == ["a/1.png", "b/2.png", "b/c/3.png"]
    assert names(tmp_path, tmp_path / "odd[1].png") == ["odd[1].png"]
    assert names(tmp_path, tmp_path / "*.tif") == []
    assert names(tmp_path, tmp_path / "gone.png") == ["gone.png"]


def test_links_to_files_count_and_links_to_folders_do_not(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert names(tmp_path, tmp_path) == ["a.png", "b.png"]


def test_what_is_passed_over_is_counted_by_kind(tmp_path: Path) -> None:
    for name in ("in/a.png", "in/b.gif", "in/c/d.txt", "in/scans.zip", "in/.hidden", "far/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "far")
    passed: Counter[str] = Counter()
    assert [path.name for path in find_radiographs(tmp_path / "in", passed)] == ["a.png"]
    assert passed_over(passed) == "1 linked folder, 1 archive, 2 files of other kinds"
    assert passed_over(Counter()) == ""


def test_a_name_that_is_not_utf8_can_be_printed() -> None:
    path = Path(os.fsdecode(b"/x/\xff\xfe.png"))
    assert printable(path).encode("utf-8").endswith(b".png")


MURA = "MURA-v1.1/valid/XR_ELBOW/patient11186/study1_positive/image2.png"


@pytest.mark.parametrize(
    ("file", "study", "patient"),
    [
        (MURA, "XR_ELBOW/patient11186/study1", "patient11186"),
        ("/data/" + MURA.replace("_positive", "_negative"), "XR_ELBOW/patient11186/study1", "patient11186"),
        (MURA.replace("_positive", ""), "XR_ELBOW/patient11186/study1", "patient11186"),
        ("patient7/study2_negative/image1.png", "patient7/study2", "patient7"),
        ("study1_positive/image1.png", "study1/image1.png", None),
        ("a/b.png", "a/b.png", None),
    ],
)
def test_mura_folders_are_studies_whose_names_hide_the_label(file: str, study: str, patient: str | None) -> None:
    assert group(file, None) == (study, patient)


def test_the_dicom_study_goes_before_the_folder_only_where_it_is_asked_for() -> None:
    dicom = {"study_instance_uid": "1.2.3"}
    assert group(MURA, dicom)[0] == "1.2.3"
    assert group(MURA, {})[0] == "XR_ELBOW/patient11186/study1"
    assert group(MURA, dicom, "folder")[0] == "MURA-v1.1/valid/XR_ELBOW/patient11186/study1"
    assert group(MURA, dicom, "none")[0] == MURA.replace("_positive", "")


@given(
    st.text(max_size=10), st.sampled_from(["auto", "folder", "none"]), st.sampled_from(["positive", "negative"])
)
def test_no_study_gives_away_the_label(tail: str, by: str, label: str) -> None:
    file = f"{tail}/XR_HAND/patient00001/study3_{label}/image1.png"
    other = f"{tail}/XR_HAND/patient00001/study3_{'negative' if label == 'positive' else 'positive'}/image1.png"
    assert group(file, None, by) == group(other, None, by)  # type: ignore[arg-type]
    assert unlabelled(file) == unlabelled(other)


def test_a_digit_that_is_no_number_is_text(tmp_path: Path) -> None:
    for name in ("②", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").touch()
    assert names(tmp_path, tmp_path) == ["2/x.png", "②/x.png"]
