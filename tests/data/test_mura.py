"""Every copy of MURA in the field gives the same manifest; what is wrong is named by file and line."""

from pathlib import Path

import pytest
from mura_lists import Study, published_studies, write_lists

from mskscreen.data.counts import compare, count, describe
from mskscreen.data.mura import index_mura
from mskscreen.errors import DataError

BACKSLASH = "path holds a backslash or a control character; write it with /"
STUDIES = [
    Study("XR_ELBOW", "patient00011", 1, 0, 2),
    Study("XR_ELBOW", "patient00011", 2, 1, 1),
    Study("XR_WRIST", "patient00011", 1, 1, 3),
    Study("XR_SHOULDER", "patient11185", 1, 1, 12, "valid"),
]


def kinds(findings) -> dict[str, int]:
    return {row["finding"]: row["count"] for row in findings.table()}


def test_rows_say_what_the_lists_say(tmp_path):
    manifest, findings = index_mura(write_lists(tmp_path, STUDIES))
    assert len(findings) == 0
    assert list(manifest["label"]) == [0, 0, 1, 1, 1, 1] + [1] * 12
    assert manifest["study"][2] == "train/XR_ELBOW/patient00011/study2"
    assert manifest["image"][2] == "train/XR_ELBOW/patient00011/study2_positive/image1.png"
    assert set(manifest["joint"]) == {"elbow", "wrist", "shoulder"}
    assert list(manifest["view"][-3:]) == [10, 11, 12]
    assert set(manifest["bytes"]) == {1}
    assert set(manifest["sha256"]) == {None}


@pytest.mark.parametrize(
    ("release", "end", "inner"),
    [("MURA-v1.0", "\n", True), ("MURA-v1.1", "\r\n", True), ("MURA-v1.1", "\n", False), ("mura", "\n\n", True)],
)
def test_the_manifest_does_not_depend_on_the_shape_of_the_copy(tmp_path, release, end, inner):
    folder = write_lists(tmp_path / "copy", STUDIES, release="MURA-v1.1", end=end)
    for file in folder.glob("*.csv"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"MURA-v1.1", release.encode()))
    folder = folder.rename(folder.with_name("MURA-v1.0")) if release == "MURA-v1.0" else folder
    if release == "mura":
        for file in folder.glob("*.csv"):
            file.write_bytes(file.read_bytes().replace(b"mura/", b""))
    manifest, findings = index_mura(folder if inner else folder.parent)
    plain, _ = index_mura(write_lists(tmp_path / "plain", STUDIES))
    assert manifest.digest == plain.digest
    assert len(findings) == 0


def test_lists_of_studies_alone_find_their_images(tmp_path):
    folder = write_lists(tmp_path, STUDIES)
    plain, _ = index_mura(folder)
    for split in ("train", "valid"):
        (folder / f"{split}_image_paths.csv").unlink()
        (folder / f"{split}_labeled_studies.csv").rename(folder / f"{split}.csv")
    (folder / STUDIES[0].folder / "._image1.png").write_bytes(b"")
    assert index_mura(folder)[0].digest == plain.digest


def test_the_label_comes_from_the_list_and_needs_no_suffix(tmp_path):
    hidden = [Study("XR_HAND", "patient12000", 1, 1, 2, "valid", suffix=False)]
    manifest, findings = index_mura(write_lists(tmp_path / "a", hidden))
    assert list(manifest["label"]) == [1, 1]
    folder = write_lists(tmp_path / "b", hidden)
    (folder / "valid_labeled_studies.csv").unlink()
    manifest, findings = index_mura(folder)
    assert list(manifest["label"]) == [None, None]
    assert kinds(findings) == {"image without label": 2}


def test_a_suffix_never_stands_in_for_a_missing_label(tmp_path):
    folder = write_lists(tmp_path, STUDIES)
    (folder / "train_labeled_studies.csv").unlink()
    manifest, _ = index_mura(folder)
    assert set(manifest["label"][:6]) == {None}


def test_renamed_study_folders_are_found_on_disk(tmp_path):
    folder = write_lists(tmp_path, STUDIES[:1])
    (folder / "train/XR_ELBOW/patient00011/study1_negative").rename(folder / "train/XR_ELBOW/patient00011/study1")
    manifest, findings = index_mura(folder)
    assert manifest["image"][0] == "train/XR_ELBOW/patient00011/study1/image1.png"
    assert manifest["study"][0] == "train/XR_ELBOW/patient00011/study1"
    assert list(manifest["bytes"]) == [1, 1]
    assert "study folder has another label suffix than the list" in kinds(findings)


def test_two_listed_folders_of_one_number_keep_their_own_files_and_labels(tmp_path):
    both = [Study("XR_HAND", "patient00001", 1, 0, 1), Study("XR_HAND", "patient00001", 1, 1, 1)]
    folder = write_lists(tmp_path, both)
    (folder / both[1].files[0]).unlink()
    (folder / both[1].folder).rmdir()
    manifest, _ = index_mura(folder)
    assert list(manifest["bytes"]) == [1, None]
    assert list(manifest["label"]) == [0, 1]
    assert manifest["study"][0] == manifest["study"][1]


def test_a_list_of_images_without_suffixes_has_no_label_where_two_studies_share_a_number(tmp_path):
    both = [Study("XR_HAND", "patient00001", 1, label, 1) for label in (0, 1)]
    folder = write_lists(tmp_path, both)
    images, labels = folder / "train_image_paths.csv", folder / "train_labeled_studies.csv"
    images.write_text(images.read_text().splitlines()[0].replace("_negative", ""))
    for repeated in (0, 1):
        labels.write_text(labels.read_text() + labels.read_text().splitlines(keepends=True)[repeated])
        assert index_mura(folder)[0]["label"] == [None]


def test_what_lies_on_disk_but_not_on_the_list_is_ignored_and_said(tmp_path):
    folder = write_lists(tmp_path, STUDIES)
    plain, _ = index_mura(folder)
    (folder / STUDIES[0].folder / "._image1.png").write_bytes(b"mac")
    (folder / STUDIES[0].folder / "image9.png").write_bytes(b"extra")
    (tmp_path / "__MACOSX").mkdir()
    manifest, findings = index_mura(tmp_path)
    assert manifest.digest == plain.digest
    assert kinds(findings) == {"macOS file ignored": 2, "file on disk but not on the list, ignored": 1}


def test_findings_come_in_the_order_of_the_names(tmp_path):
    folder = write_lists(tmp_path, STUDIES[:1])
    for k in range(5):
        (folder / STUDIES[0].folder / f"{'._' * (k % 2)}image{k + 3}.png").write_bytes(b"")
        (folder / f"{'._' * (k % 2)}other{k}").mkdir()
        (folder / "train" / f"{'._' * (k % 2)}other{k}").mkdir()
    found = [item.kind for item in index_mura(folder)[1]]
    assert found[:5] == ["macOS file ignored"] * 2 + ["file on disk but not on the list, ignored"] * 3
    assert found[-5:] == ["macOS file ignored"] * 2 + ["folder on no list, ignored"] * 3


def test_what_macos_left_anywhere_and_folders_on_no_list_are_said_without_the_patient(tmp_path):
    folder = write_lists(tmp_path, STUDIES)
    plain, _ = index_mura(folder)
    patient = folder / "train/XR_ELBOW/patient00011"
    names = "._train_image_paths.csv", "train/.DS_Store", "train/._XR_ELBOW", "valid/XR_SHOULDER/._patient11185"
    for name in names:
        (folder / name).write_bytes(b"mac")
    (patient / "study9_positive").mkdir()
    (patient.with_name("patient00012")).mkdir()
    with (folder / "train_labeled_studies.csv").open("a") as stream:
        stream.write("MURA-v1.1/train/XR_ELBOW/patient00011/._study1_negative/,0\n")
        stream.write("MURA-v1.1/__MACOSX/study1_negative/,0\n")
    manifest, findings = index_mura(folder)
    assert manifest.digest == plain.digest
    assert kinds(findings) == {"macOS file ignored": 6, "folder on no list, ignored": 2}
    assert findings.refused == 0
    assert {item.place for item in findings} == {
        *(".", "train", "train/XR_ELBOW", "valid/XR_SHOULDER"),
        *("train_labeled_studies.csv:4", "train_labeled_studies.csv:5"),
    }


def test_missing_files_keep_their_row(tmp_path):
    folder = write_lists(tmp_path, STUDIES)
    (folder / STUDIES[0].files[1]).unlink()
    manifest, findings = index_mura(folder)
    assert list(manifest["bytes"][:3]) == [1, None, 1]
    assert [item.place for item in findings] == ["train_image_paths.csv:2"]
    assert findings.refused == 0


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("MURA-v1.1/../../etc/passwd", "path leaves the root"),
        ("/etc/passwd", "path leaves the root"),
        ("C:/secret.png", "path leaves the root"),
        ("MURA-v1.1/train/XR_HAND\\..\\..\\x.png", BACKSLASH),
        ("MURA-v1.1/train/notes.txt", "not a path of the release"),
        ("MURA-v1.1/train/XR_ELBOW/patient00011/study1_negative/image1.png", "image listed twice"),
    ],
)
def test_a_bad_line_is_refused_by_file_and_line(tmp_path, line, kind):
    folder = write_lists(tmp_path, STUDIES)
    plain, _ = index_mura(folder)
    with (folder / "train_image_paths.csv").open("a") as stream:
        stream.write(f"{line}\n")
    manifest, findings = index_mura(folder)
    assert manifest.digest == plain.digest
    assert [(item.kind, item.place, item.refused) for item in findings] == [
        (kind, "train_image_paths.csv:7", True)
    ]


def test_a_quote_that_is_never_closed_is_an_error_and_swallows_nothing(tmp_path):
    folder = write_lists(tmp_path, STUDIES)
    file = folder / "train_image_paths.csv"
    lines = file.read_text().splitlines()
    lines[2] = '"' + lines[2]
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"train_image_paths\.csv:3: not a line of CSV"):
        index_mura(folder)


def test_a_list_of_images_that_lacks_a_study_is_said(tmp_path):
    folder = write_lists(tmp_path, STUDIES)
    (folder / "train_image_paths.csv").write_text("")
    manifest, findings = index_mura(folder)
    assert set(manifest["split"]) == {"valid"}
    assert [item.place for item in findings if item.kind == "study without images"] == [
        f"train_labeled_studies.csv:{line}" for line in (1, 2, 3)
    ]


def test_labels_other_than_zero_and_one_are_listed_and_null(tmp_path):
    folder = write_lists(tmp_path, STUDIES)
    file = folder / "train_labeled_studies.csv"
    file.write_text(file.read_text().replace("/,0\n", "/,2\n", 1))
    manifest, findings = index_mura(folder)
    assert list(manifest["label"][:3]) == [None, None, 1]
    assert ("label other than 0 or 1", "train_labeled_studies.csv:1", True) in [
        (item.kind, item.place, item.refused) for item in findings
    ]


def test_links_out_of_the_root_are_refused_unless_allowed(tmp_path):
    folder = write_lists(tmp_path / "copy", STUDIES)
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"xyz")
    for file in STUDIES[0].files:
        (folder / file).unlink()
    (folder / STUDIES[0].files[0]).symlink_to(outside)
    (folder / STUDIES[0].files[1]).symlink_to(folder / STUDIES[1].files[0])
    manifest, findings = index_mura(folder)
    assert len(manifest) == 17
    assert manifest["image"][0] == STUDIES[0].files[1]
    assert [(item.kind, item.place) for item in findings if item.refused] == [
        ("link leads out of the root", "train_image_paths.csv:1")
    ]
    allowed, findings = index_mura(folder, links=True)
    assert allowed["bytes"][0] == 3
    assert len(findings) == 0


@pytest.mark.parametrize("links", [True, False])
def test_links_that_lead_in_circles_are_named_and_stop_nothing(tmp_path, links):
    folder = write_lists(tmp_path / "copy", STUDIES)
    image, study = folder / STUDIES[0].files[0], folder / STUDIES[2].folder
    image.unlink()
    image.symlink_to(image)
    study.rename(tmp_path / "elsewhere")
    study.symlink_to(study)
    manifest, findings = index_mura(folder, links=links)
    assert list(manifest["bytes"][:5]) == [1, 1, None, None, None]
    assert {(item.kind, item.line) for item in findings if "followed" in item.kind} == {
        ("path cannot be followed (Too many levels of symbolic links)", line) for line in (1, 4)
    }
    assert "patient" not in str(findings.table())


def test_a_path_longer_than_any_file_is_named_and_stops_nothing(tmp_path):
    folder = write_lists(tmp_path, STUDIES)
    with (folder / "train_image_paths.csv").open("a") as stream:
        stream.write(f"MURA-v1.1/train/XR_HAND/patient{'1' * 9000}/study1_negative/image1.png\n")
    manifest, findings = index_mura(folder)
    assert list(manifest["bytes"][5:7]) == [1, None]
    assert "path cannot be followed (File name too long)" in kinds(findings)


def test_a_linked_folder_out_of_the_root_is_refused(tmp_path):
    folder = write_lists(tmp_path / "copy", STUDIES)
    (folder / STUDIES[2].folder).rename(tmp_path / "elsewhere")
    (folder / STUDIES[2].folder).symlink_to(tmp_path / "elsewhere")
    manifest, findings = index_mura(folder)
    assert len(manifest) == 15
    assert findings.refused == 3


def test_a_link_put_in_after_indexing_is_refused_when_the_image_is_opened(tmp_path):
    folder = write_lists(tmp_path / "copy", STUDIES)
    manifest, _ = index_mura(folder)
    (tmp_path / "outside.png").write_bytes(b"xyz")
    (folder / STUDIES[0].files[0]).unlink()
    (folder / STUDIES[0].files[0]).symlink_to(tmp_path / "outside.png")
    with pytest.raises(DataError, match="leads out of the root"):
        manifest.tree.file(manifest["image"][0])


def test_findings_name_no_patient_and_no_label(tmp_path):
    folder = write_lists(tmp_path, STUDIES, files=None)
    with (folder / "train_image_paths.csv").open("a") as stream:
        stream.write("MURA-v1.1/../patient77777_positive\n")
    _, findings = index_mura(folder)
    text = str(findings.table())
    assert "patient" not in text
    assert "positive" not in text


def test_a_folder_without_lists_is_an_error_that_names_them(tmp_path):
    with pytest.raises(DataError, match=r"train_image_paths\.csv"):
        index_mura(tmp_path)


def test_the_published_lists_are_exact_and_any_change_is_named(published):
    def differing(manifest):
        return {
            (row.split, row.joint, row.measure): row.difference
            for row in compare(count(manifest))
            if row.difference and row.measure != "missing_files"
        }

    assert len(published) == 40005
    assert differing(published) == {}
    first = published.take(range(1, len(published)))
    assert set(differing(first).values()) == {-1}
    labels = list(published["label"])
    row = published["joint"].index("wrist")
    labels[row] = None
    changed = differing(published.replace({**published.columns, "label": labels}))
    assert changed["train", "wrist", "unlabelled_images"] == 1
    assert changed["train", "wrist", "negative_images"] == -1
    assert ("train", "elbow", "negative_images") not in changed


def test_the_hidden_test_set_is_compared_as_a_whole_and_only_where_it_is_there(tmp_path):
    hidden = [study for study in published_studies(hidden=True) if study.split == "test"]
    manifest, _ = index_mura(write_lists(tmp_path, hidden, files=None))
    assert len(manifest) == 556
    assert set(manifest["label"]) == {None}
    of_test = [row for row in compare(count(manifest)) if row.split == "test"]
    assert {row.joint for row in of_test} == {"all"}
    assert {row.measure: row.found for row in of_test if row.difference} == {"missing_files": 556}
    assert not any("test" in sentence or "no label" in sentence for sentence in describe(compare(count(manifest))))
    fewer = compare(count(manifest.take(range(555))))
    assert [row.difference for row in fewer if row.split == "test" and row.measure == "unlabelled_images"] == [-1]


def test_the_published_table_adds_up():
    from mskscreen.data.counts import ALL, HIDDEN, PUBLISHED

    images = studies = patients = 0
    for split, joints in PUBLISHED.items():
        for i, name in enumerate(joints[ALL]._fields[:4]):
            parts = [counts[i] for joint, counts in joints.items() if joint != ALL]
            assert split == HIDDEN or joints[ALL][i] == sum(parts), name
        studies += sum(joints[ALL][:2]) + joints[ALL].unlabelled_studies
        images += sum(joints[ALL][2:4]) + joints[ALL].unlabelled_images
        patients += joints[ALL].patients
    assert (images, studies, patients) == (40561, 14863, 12173)


def test_partial_copies_are_described(published):
    rows = [
        i
        for i, (split, joint) in enumerate(zip(published["split"], published["joint"], strict=True))
        if split == "train" and joint not in ("hand", "wrist")
    ]
    sentences = describe(compare(count(published.take(rows))))
    assert "the split valid is absent" in sentences
    assert "the split train lacks hand, wrist" in sentences
    assert f"{len(rows):,} listed images are not on disk" in sentences
    assert all("hand" not in line for line in describe(compare(count(published))))


def test_no_such_root(tmp_path):
    with pytest.raises(DataError):
        index_mura(Path(tmp_path / "absent"))
