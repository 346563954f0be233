"""Each reader gives what its source says and nulls for the rest."""

import json

import pytest
from pydicom.data import get_testdata_file

from mskscreen.data.kinds import Kind
from mskscreen.data.sources import READERS, detect, read_source, with_hashes
from mskscreen.errors import DataError


def rows(manifest, *names):
    return list(zip(*(manifest[name] for name in names), strict=True))


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


FRACATLAS = (
    "image_id,hand,leg,hip,shoulder,mixed,hardware,multiscan,fractured,fracture_count,frontal,lateral,oblique"
)


def test_fracatlas(tmp_path):
    coco = {"images": [{"id": 7, "file_name": "IMG2.jpg"}], "annotations": [{"image_id": 7, "bbox": [1, 2, 3, 4]}]}
    write(
        tmp_path,
        {
            "dataset.csv": f"{FRACATLAS}\n"
            "IMG1.jpg,1,0,0,0,0,0,0,0,0,1,0,0\nIMG2.jpg,0,0,0,1,0,0,1,1,1,1,0,0\n"
            "IMG3.jpg,1,1,0,0,1,0,0,1,1,1,0,0\nIMG4.jpg,0,1,0,0,0,0,0,maybe,0,1,0,0\n",
            "Annotations/COCO JSON/COCO_fracture_masks.json": json.dumps(coco),
            "Utilities/Fracture Split/train.csv": "image_id\nIMG2.jpg\n",
            "images/Non_fractured/IMG1.jpg": "a",
            "images/Fractured/IMG2.jpg": "bb",
        },
    )
    manifest, findings = read_source(tmp_path)
    assert manifest.source == "fracatlas"
    assert rows(manifest, "image", "joint", "label", "split", "bytes") == [
        ("images/Non_fractured/IMG1.jpg", "hand", 0, None, 1),
        ("images/Fractured/IMG2.jpg", "shoulder", 1, "train", 2),
        ("images/Fractured/IMG3.jpg", None, 1, None, None),
        ("images/Non_fractured/IMG4.jpg", "leg", None, None, None),
    ]
    assert set(manifest["patient"]) == set(manifest["study"]) == set(manifest["view"]) == {None}
    assert {(item.kind, item.line) for item in findings} == {
        ("label contradicts the fracture masks", 4),
        ("label other than 0 or 1", 5),
        ("image missing on disk", 4),
        ("image missing on disk", 5),
    }


def test_a_broken_coco_file_is_named(tmp_path):
    path = "Annotations/COCO JSON/COCO_fracture_masks.json"
    write(tmp_path, {"dataset.csv": f"{FRACATLAS}\n", path: "[" * 100_000})
    with pytest.raises(DataError, match="COCO_fracture_masks"):
        read_source(tmp_path)


def test_grazpedwri(tmp_path):
    header = "filestem,patient_id,study_number,timehash,projection,diagnosis_uncertain,fracture_visible,metal"
    write(
        tmp_path,
        {
            "dataset.csv": f"{header}\n0001_a,1,1,9,1,,1,\n0001_b,1,2,9,2,,,1\n0002_c,2,1,9,1,1,,\n",
            "images_part2/0001_b.png": "xx",
            "images_part1/0001_a.png": "x",
        },
    )
    manifest, findings = read_source(tmp_path)
    assert manifest.source == "grazpedwri-dx"
    assert rows(manifest, "image", "patient", "study", "joint", "label", "bytes") == [
        ("images_part1/0001_a.png", "1", "1/1", "wrist", 1, 1),
        ("images_part2/0001_b.png", "1", "1/2", "wrist", 0, 2),
        ("images/0002_c.png", "2", "2/1", "wrist", None, None),
    ]
    assert [(item.kind, item.line) for item in findings] == [("image missing on disk", 4)]


def test_lera(tmp_path):
    write(
        tmp_path,
        {
            "labels.csv": "1297,XR KNEE,1\r\n1300,XR FOOT,0\r\n1301,XR HIP,x\r\n../1302,XR HIP,0\r\n",
            "1297/ST-1/b.png": "x",
            "1297/ST-1/a.png": "x",
            "1297/ST-1/._a.png": "x",
            "1300/ST-1/a.png": "x",
        },
    )
    manifest, findings = read_source(tmp_path)
    assert manifest.source == "lera"
    assert rows(manifest, "image", "patient", "study", "joint", "label") == [
        ("1297/ST-1/a.png", "1297", "1297/ST-1", "knee", 1),
        ("1297/ST-1/b.png", "1297", "1297/ST-1", "knee", 1),
        ("1300/ST-1/a.png", "1300", "1300/ST-1", "foot", 0),
    ]
    assert {(item.kind, item.line, item.refused) for item in findings} == {
        ("file that is no image, or a linked folder, ignored", 1, False),
        ("folder without images", 3, False),
        ("label other than 0 or 1", 3, True),
        ("path leaves the root", 4, True),
    }


def test_plain_csv(tmp_path):
    write(
        tmp_path,
        {
            "list.csv": "Path,patient,joint,label,note\n"
            "a.png,7,XR_ELBOW,1,hm\nb.png,,Thumb,,\n/etc/passwd,7,hand,1,\na.png,7,elbow,0,\nb,7\n",
            "a.png": "x",
        },
    )
    manifest, findings = read_source(tmp_path / "list.csv")
    assert rows(manifest, "image", "patient", "study", "joint", "label", "split", "view") == [
        ("a.png", "7", None, "elbow", 1, None, None),
        ("b.png", None, None, "finger", None, None, None),
    ]
    assert [item.place for item in findings if item.refused] == ["list.csv:4", "list.csv:5", "list.csv:6"]


def test_a_study_that_is_named_within_its_patient_is_none_of_another_patient(tmp_path):
    lines = ("a.png,7,1", "b.png,7,1", "c.png,8,1", "d.png,8,2", "e.png,,2", "f.png,9,")
    write(tmp_path, {"list.csv": "\n".join(["path,patient,study", *lines])})
    manifest, _ = read_source(tmp_path / "list.csv")
    assert list(manifest["study"]) == ["7/1", "7/1", "8/1", "2", "2", None]


def test_every_word_for_an_evaluation_split_is_held_out_and_others_are_refused(tmp_path):
    words = ("val", "validation", "Valid", "Test", "TRAIN", "")
    write(tmp_path, {"list.csv": "path,split\n" + "".join(f"{i}.png,{word}\n" for i, word in enumerate(words))})
    manifest, _ = read_source(tmp_path / "list.csv")
    assert manifest["split"] == ["valid", "valid", "valid", "test", "train", None]
    write(tmp_path, {"list.csv": "path,split\na.png,train\nb.png,holdout\n"})
    with pytest.raises(DataError, match=r"list\.csv:3: split 'holdout' is none of train, valid, test; .*empty"):
        read_source(tmp_path / "list.csv")


def test_plain_csv_loses_no_cell_in_silence(tmp_path):
    write(tmp_path, {"list.csv": "path,label,\na.png,1,\nb,c.png,1,0\n"})
    manifest, findings = read_source(tmp_path / "list.csv")
    assert rows(manifest, "image", "label") == [("a.png", 1)]
    assert ("line has too many fields", "list.csv:3", True) in [
        (item.kind, item.place, item.refused) for item in findings
    ]
    write(tmp_path, {"list.csv": "path,label,Label\na.png,1,0\n"})
    with pytest.raises(DataError, match=r"list\.csv:1: two columns are named 'label'; keep one"):
        read_source(tmp_path / "list.csv")


def test_plain_csv_needs_a_path_column(tmp_path):
    write(tmp_path, {"list.csv": "file,label\na.png,1\n"})
    with pytest.raises(DataError, match=r"list\.csv:1: the header lacks the column 'path'"):
        read_source(tmp_path / "list.csv")


def test_dicom_folder(tmp_path):
    data = get_testdata_file("CT_small.dcm", read=False)
    import pydicom

    header = pydicom.dcmread(data)
    header.BodyPartExamined, header.PatientID, header.InstanceNumber = "WRIST", "SECRET-4711", "3"
    header.save_as(tmp_path / "b")
    header.PatientID, header.BodyPartExamined = "", "SKULL"
    header.save_as(tmp_path / "c.dcm")
    write(tmp_path, {"notes.txt": "no", ".hidden": "no"})
    manifest, findings = read_source(tmp_path)
    assert manifest.source == "dicom"
    assert rows(manifest, "image", "joint", "view", "label") == [
        ("b", "wrist", 3, None),
        ("c.dcm", "skull", 3, None),
    ]
    assert manifest["study"][0] == header.StudyInstanceUID
    assert manifest["patient"][0] is not None
    assert manifest["patient"][1] is None
    assert "4711" not in str(manifest.columns)
    assert findings.table()[0]["count"] == 2


def dicom(path, syntax=None):
    import pydicom

    header = pydicom.dcmread(get_testdata_file("CT_small.dcm", read=False))
    if syntax:
        header.file_meta.TransferSyntaxUID = syntax
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path)


@pytest.mark.parametrize(
    ("number", "view"), [(b"7", 7), (b"20231123101010", None), (b"1\\2 ", None), (b"left", None)]
)
def test_an_instance_number_that_is_none_costs_no_image(tmp_path, number, view):
    dicom(tmp_path / "a.dcm")
    data = (tmp_path / "a.dcm").read_bytes()
    at = data.index(b"\x20\x00\x13\x00IS")
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    value = number + b" " * (len(number) % 2)
    (tmp_path / "a.dcm").write_bytes(
        data[: at + 6] + len(value).to_bytes(2, "little") + value + data[at + 8 + length :]
    )
    manifest, findings = read_source(tmp_path)
    manifest.write(tmp_path / "index.parquet")
    assert rows(manifest, "image", "view") == [("a.dcm", view)]
    assert len(findings) == 0


def test_a_file_that_fails_when_it_is_read_is_not_taken_for_another_kind(tmp_path):
    dicom(tmp_path / "a.dcm")
    # A regular file by its status, which nobody can read from its beginning.
    (tmp_path / "b.dcm").symlink_to("/proc/self/mem")
    manifest, findings = read_source(tmp_path, links=True)
    assert manifest["image"] == ["a.dcm"]
    assert [(item.kind, item.refused) for item in findings] == [("file cannot be read (Input/output error)", True)]


def test_a_deflated_dicom_file_is_refused_before_it_is_inflated(tmp_path):
    dicom(tmp_path / "a.dcm")
    dicom(tmp_path / "b.dcm", "1.2.840.10008.1.2.1.99")
    manifest, findings = read_source(tmp_path)
    assert manifest["image"] == ["a.dcm"]
    assert [(item.kind.partition(";")[0], item.refused) for item in findings] == [
        ("the deflated transfer syntax is refused", True)
    ]


def test_a_dicom_file_without_preamble_is_found(tmp_path):
    dicom(tmp_path / "a.dcm")
    data = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "old").write_bytes(data[132:])
    manifest, _ = read_source(tmp_path)
    assert manifest["image"] == ["a.dcm", "old"]
    assert manifest["study"][0] == manifest["study"][1] is not None


@pytest.mark.parametrize("source", ["dicom", "lera"])
def test_linked_folders_are_followed_only_where_it_is_allowed_and_never_in_circles(tmp_path, source):
    root, outside = tmp_path / "root", tmp_path / "outside"
    dicom(root / "1/a.dcm")
    dicom(outside / "b.dcm")
    write(root, {"labels.csv": "1,XR KNEE,1\n"} if source == "lera" else {})
    (root / "1/link").symlink_to(outside)
    (outside / "back").symlink_to(root / "1")
    manifest, findings = read_source(root)
    assert manifest["image"] == ["1/a.dcm"]
    assert len(findings) == 1
    manifest, findings = read_source(root, links=True)
    assert manifest["image"] == ["1/a.dcm", "1/link/b.dcm"]
    assert len(findings) == 0


def test_hashes_are_of_the_files_and_only_of_those_there(tmp_path):
    import hashlib

    write(tmp_path, {"list.csv": "path\na.png\nb.png\n", "a.png": "content"})
    calls = []
    manifest = with_hashes(read_source(tmp_path / "list.csv")[0], calls.append)
    assert manifest["sha256"] == [hashlib.sha256(b"content").hexdigest(), None]
    assert sum(calls) == 2


def test_every_kind_of_data_set_that_can_be_named_has_a_reader():
    assert {*READERS} == {*Kind} - {Kind.AUTO}


def test_unknown_sources_and_roots_are_named(tmp_path):
    with pytest.raises(DataError, match="'mri' is unknown"):
        read_source(tmp_path, "mri")
    with pytest.raises(DataError, match="no such file"):
        read_source(tmp_path / "absent")
    with pytest.raises(DataError, match="no image"):
        read_source(tmp_path)
    assert detect(tmp_path) == "dicom"


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    import os
    import shutil

    shutil.copy(get_testdata_file("CT_small.dcm", read=False), os.fsencode(tmp_path) + b"/\xff.dcm")
    shutil.copy(get_testdata_file("CT_small.dcm", read=False), tmp_path / "\u00e4.dcm")
    manifest, findings = read_source(tmp_path)
    assert manifest["image"] == ["\u00e4.dcm"]
    assert [(item.kind, item.refused) for item in findings] == [("path is not UTF-8", True)]
    manifest.write(tmp_path / "index.parquet")
