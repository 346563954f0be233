"""Relabellings become a second column; the first one, and the files, stay."""

import pytest
from mura_lists import Study, write_lists

from mskscreen.data.mura import index_mura
from mskscreen.data.overlay import overlay
from mskscreen.errors import DataError

STUDIES = [Study("XR_HAND", "patient00001", 1, 0, 3), Study("XR_HAND", "patient00002", 1, 0, 4)]
STUDIES.append(Study("XR_ELBOW", "patient00003", 2, 1, 2))
FIRST, SECOND, THIRD = (f"MURA-v1.1/{study.folder}" for study in STUDIES)


@pytest.fixture
def manifest(tmp_path):
    return index_mura(write_lists(tmp_path, STUDIES))[0]


@pytest.fixture
def apply(manifest, tmp_path):
    def run(text, **how):
        file = tmp_path / "list.csv"
        file.write_bytes(text.encode())
        return overlay(manifest, file, name="better", **how)

    return run


def test_a_list_of_images_as_better_mura_has_it(apply, manifest):
    text = f"{FIRST}/image1.png\n{FIRST}/image2.png\n{FIRST}/image3.png\n"
    result, findings, split = apply(text, listed_as=1)
    assert list(result["label_better"]) == [1, 1, 1, 0, 0, 0, 0, 1, 1]
    assert result["label"] == manifest["label"]
    assert len(findings) == len(split) == 0
    assert result.notes["overlays"]["better"]["to_abnormal"] == 3


def test_lines_without_label_are_refused_unless_it_is_declared(apply, manifest):
    result, findings, _ = apply(f"{FIRST}/image1.png\n")
    assert result["label_better"] == manifest["label"]
    assert [item.place for item in findings if item.refused] == ["list.csv:1"]


def test_a_list_of_studies_under_their_new_names(apply):
    renamed = FIRST.replace("negative", "positive")
    result, findings, _ = apply(f"{renamed}/,1\r\n{SECOND}/,0\r\n{THIRD}/,0\r\n")
    assert list(result["label_better"]) == [1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert len(findings) == 0
    assert result.notes["overlays"]["better"]["to_normal"] == 2


@pytest.mark.parametrize(
    ("rule", "labels", "resolved"),
    [
        ("any", [1, 1, 1, 1, 1, 1, 1], [1, 1]),
        ("majority", [0, 0, 0, 1, 1, 1, 1], [0, 1]),
        ("image", [1, 0, 0, 1, 1, 0, 0], [None, None]),
    ],
)
def test_split_studies_are_listed_and_resolved_by_the_rule(apply, rule, labels, resolved):
    text = f"path,label\n{SECOND}/image2.png,1\n{FIRST}/image1.png,1\n{SECOND}/image1.png,1\n"
    result, _, split = apply(text, rule=rule)
    assert list(result["label_better"][:7]) == labels
    assert split == [("list.csv:2", 4, 2, resolved[1]), ("list.csv:3", 3, 1, resolved[0])]


def test_a_line_about_an_image_outweighs_one_about_its_study(apply):
    result, _, _ = apply(f"{FIRST}/image2.png,0\n{FIRST}/,1\n", rule="image")
    assert list(result["label_better"][:3]) == [1, 0, 1]


def test_lines_that_fit_nothing_or_contradict_are_refused(apply, manifest):
    text = f"{FIRST}/image1.png,1\n{FIRST}/image1.png,0\nMURA-v1.1/train/x,1\n../../etc/passwd,1\n{SECOND}/,2\n"
    result, findings, _ = apply(text)
    assert result["label_better"] == manifest["label"]
    assert sorted(item.place for item in findings if item.refused) == [f"list.csv:{line}" for line in (2, 3, 4, 5)]


def test_two_overlays_stand_side_by_side(apply, tmp_path):
    first, _, _ = apply(f"{FIRST}/,1\n")
    (tmp_path / "b.csv").write_text(f"{THIRD}/,0\n")
    both, _, _ = overlay(first, tmp_path / "b.csv", name="mine")
    assert set(both.notes["overlays"]) == {"better", "mine"}
    assert both["label_better"] == first["label_better"]
    assert list(both["label_mine"]) == [0] * 9


def test_unusable_names_rules_and_files_are_refused(apply, manifest, tmp_path):
    with pytest.raises(DataError, match="rule 'vote'"):
        apply("", rule="vote")
    with pytest.raises(DataError, match="no such file"):
        overlay(manifest, tmp_path / "absent.csv", name="x")
    (tmp_path / "l.csv").write_text("")
    with pytest.raises(DataError, match="cannot be called"):
        overlay(manifest, tmp_path / "l.csv", name="a b")
    once, _, _ = overlay(manifest, tmp_path / "l.csv", name="x")
    with pytest.raises(DataError, match="cannot be called"):
        overlay(once, tmp_path / "l.csv", name="x")
