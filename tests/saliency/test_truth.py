"""Truth of every source: found for the right image, read whole, and refused by file, line and column."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mskscreen.errors import DataError
from mskscreen.evaluation.explain.truth import read_truth
from mskscreen.phantom.manifest import FILE, Row, write_manifest

SHAPE = (50, 40)
GRAZ = "0001_1297860395_01_WRI-L1_M014"


def marked(place):
    mask = np.zeros(SHAPE, np.uint8)
    mask[place[0] : place[0] + 10, place[1] : place[1] + 10] = 255
    return mask


def phantom_tree(folder, images):
    """A manifest of images of the hand and their masks, by patient and number."""
    rows = []
    for patient, number in images:
        study = f"valid/XR_HAND/patient{patient:05}/study1_positive"
        mask = folder / "masks" / f"{patient}-{number}.png"
        mask.parent.mkdir(exist_ok=True)
        Image.fromarray(marked((number, patient))).save(mask)
        rows.append(
            Row(
                *(f"{study}/image{number}.png", f"masks/{mask.name}", None, None, study, f"patient{patient:05}"),
                *(
                    "hand",
                    "pa",
                    "valid",
                    1,
                    "fracture",
                    None,
                    None,
                    "{}",
                    "",
                    "L",
                    "adult",
                    "{}",
                    9.0,
                    False,
                    False,
                ),
                *(*SHAPE, 1),
            )
        )
    write_manifest(folder / FILE, rows)


def test_an_image_of_a_mura_tree_never_takes_the_truth_of_another_patient(tmp_path):
    phantom_tree(tmp_path, [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)])
    truths = read_truth(tmp_path)
    other = "/data/valid/XR_HAND/patient00002/study1_negative"
    assert truths.get(f"{other}/image1.png") is not None
    for file in (f"{other}/image3.png", "/elsewhere/image3.png", "image3.png"):
        assert truths.get(file) is None
    own = truths.get("/data/valid/XR_HAND/patient00001/study1_positive/image3.png")
    assert own.patient == "patient00001"


def test_a_truth_is_found_by_the_end_of_one_path_and_by_no_less(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("image,x,y,width,height\na/one.png,7,12,10,10\nb/two.png,7,12,10,10\nc/two.png,7,12,10,10\n")
    truths = read_truth(path)
    for file in ("/data/a/one.png", "one.png"):
        assert truths.get(file) is not None
    # In another folder, of a longer name, or in either of two.
    for file in ("/data/b/one.png", "/data/a/bone.png", "two.png"):
        assert truths.get(file) is None


def test_labels_of_yolo_are_found_in_folders_and_named_by_their_classes(tmp_path):
    labels = tmp_path / "labels" / "train"
    labels.mkdir(parents=True)
    (labels / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (labels / "b.txt").write_text("0 0.5 0.5 0.2 0.2\n1 0.2 0.2 0.1 0.1\n")
    bare = read_truth(tmp_path / "labels").get("/data/images/train/a.jpg")
    assert (bare.kind, bare.joint) == (None, None)
    for place, name, text in (
        (labels.parent, "classes.txt", "cyst\nnail\n"),
        (tmp_path, "data.yaml", "nc: 2\nnames: ['cyst', nail]\n"),
        (tmp_path, "data.yaml", "names:\n  0: cyst\n  1: nail\nnc: 2\n"),
        (tmp_path, "data.yaml", "names:\n- cyst\n- 'nail'\n"),
    ):
        (place / name).write_text(text)
        for folder in (tmp_path, labels.parent, labels):
            truths = read_truth(folder)
            assert truths.get("/data/images/train/a.jpg").kind == "cyst", text
            both = truths.get("/data/images/train/b.png")
            assert both.kind is None
            assert both.mask(*SHAPE).sum() > truths.get("images/train/a.png").mask(*SHAPE).sum()
        (place / name).unlink()


def test_labels_of_grazpedwri_are_known_by_the_names_of_its_files(tmp_path):
    (tmp_path / f"{GRAZ}.txt").write_text("3 0.5 0.5 0.2 0.2\n8 0.1 0.1 0.1 0.1\n")
    found = read_truth(tmp_path).get(f"/data/{GRAZ}.png")
    assert (found.kind, found.joint, found.view, found.patient) == ("fracture", "wrist", "ap", "0001")
    (tmp_path / f"{GRAZ.replace('L1', 'R2')}.txt").write_text("3 0.5 0.5 0.2 0.2\n")
    assert read_truth(tmp_path).get(f"{GRAZ.replace('L1', 'R2')}.png").view == "lateral"
    assert found.mask(*SHAPE).sum() == pytest.approx(0.04 * SHAPE[0] * SHAPE[1], rel=0.1)


def test_corners_say_the_same_as_sides_and_a_row_without_a_box_says_nothing(tmp_path):
    one, other = tmp_path / "sides.csv", tmp_path / "corners.csv"
    one.write_text("image,x,y,width,height\na.png,7,12,10,20\n")
    other.write_text("image,xmin,ymin,xmax,ymax\na.png,7,12,17,32\nb.png,,,,\n")
    masks = [read_truth(path).get("a.png").mask(*SHAPE) for path in (one, other)]
    assert np.array_equal(*masks)
    assert read_truth(other).get("b.png") is None
    one.write_text(
        "image,x,y,width,height,kind,joint\na.png , 7 ,12,10,20, cyst , hand \na.png,7,12,10,20,cyst,hand\n"
    )
    found = read_truth(one).get("a.png")
    assert (found.kind, found.joint) == ("cyst", "hand")


def coco(path, *size, **annotation):
    """The truth of one image of COCO with one annotation."""
    image = {"id": 1, "file_name": "a.png"} | dict(zip(("height", "width"), size, strict=False))
    annotations = [{"image_id": 1, "category_id": 1, "bbox": [7, 12, 10, 10]} | annotation]
    (path / "t.json").write_text(json.dumps({"images": [image], "annotations": annotations}))
    return read_truth(path / "t.json").get("a.png")


def test_a_truth_of_coco_is_never_stretched_to_another_shape(tmp_path):
    truth = coco(tmp_path, *SHAPE)
    # Reduced by a factor that leaves no whole pixels.
    assert truth.mask(33, 27).any()
    with pytest.raises(DataError, match="50 x 40 pixels and the radiograph has 40 x 50"):
        truth.mask(40, 50)
    with pytest.raises(DataError, match="0 x 40 pixels are no size"):
        coco(tmp_path, 0, 40)


def test_run_lengths_of_coco_mark_what_they_say_and_not_the_box(tmp_path):
    mask = marked((12, 7)) > 0
    mask[14, 9] = False
    pixels = mask.T.ravel()
    edges = np.flatnonzero(np.diff(pixels)) + 1
    counts = np.diff(np.r_[0, edges, pixels.size]).tolist()
    rle = {"size": list(SHAPE), "counts": counts}
    assert np.array_equal(coco(tmp_path, *SHAPE, segmentation=rle).mask(*SHAPE), mask)
    assert coco(tmp_path, segmentation=rle).mask(100, 80).sum() == 4 * mask.sum()
    for wrong, said in (
        ({"counts": counts[:-1]}, "do not fill"),
        ({"counts": [999.5, 500.5, 500]}, "do not fill"),
        ({"size": [-50, -40]}, "do not fill"),
        ({"counts": "04l1"}, "compressed"),
    ):
        with pytest.raises(DataError, match=said) as raised:
            coco(tmp_path, *SHAPE, segmentation=rle | wrong)
        assert "Error" not in str(raised.value)


def marking(**marked) -> str:
    """A COCO file whose one annotation holds what is given."""
    return json.dumps({"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, **marked}]})


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "image,x,y,width,height\na.png,1,2,3,4\nb.png,1,,3,4\n", "line 3, column 'y'"),
        ("a.csv", "image,x,y,width,height\na.png,1,2,three,4\n", "line 2, column 'width'"),
        ("a.csv", "file,x,y,width,height\na.png,1,2,3,4\n", "image"),
        ("a.csv", "image,left,top\na.png,1,2\n", "xmin, ymin, xmax, ymax"),
        ("a.json", '{"images": []}', "lacks the field 'annotations'"),
        ("a.json", marking(bbox=[]), "image 'a.png': its bbox is not x, y, width and height"),
        ("a.json", marking(bbox=[1, 2, float("nan"), 4]), "image 'a.png': its bbox"),
        ("a.json", marking(bbox=["left", 2, 3, 4]), "image 'a.png': its bbox"),
        ("a.json", marking(bbox=[1, 2, 3, 10**400]), "image 'a.png': its bbox"),
        ("a.json", marking(segmentation=[[1, 2, 3]]), "image 'a.png': a polygon is not x and y in turn"),
        ("labels/a.txt", "0 0.5 0.5 0.2\n", r"a\.txt.*line 1"),
        ("labels/notes.txt", "see the paper\n", r"notes\.txt.*line 1"),
    ],
)
def test_a_truth_with_a_fault_is_refused_where_it_is(tmp_path, name, text, said):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises(DataError, match=said) as raised:
        read_truth(path.parent if name.startswith("labels") else path)
    assert "Error" not in str(raised.value)
    assert Path(name).name in str(raised.value)


def test_truths_of_every_source_give_the_same_mask(tmp_path):
    mask = marked((12, 7)) > 0
    (tmp_path / "boxes.csv").write_text("image,x,y,width,height\na.png,7,12,10,4\na.png,7,16,10,6\n")
    Image.fromarray(marked((12, 7))).save(tmp_path / "m.png")
    (tmp_path / "masks.csv").write_text("image,mask,kind\na.png,m.png,lesion\n")
    polygon = [7, 12, 17, 12, 17, 22, 7, 22]
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 50}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 0, "name": "fractured"}],
        "annotations": [{"image_id": 1, "category_id": 0, "bbox": [7, 12, 10, 10], "segmentation": [polygon]}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    (tmp_path / "yolo").mkdir()
    names = ["cyst", "lesion", "nail", "fracture", "metal", "reaction", "sign", "tissue", "text"]
    (tmp_path / "yolo" / "classes.txt").write_text("\n".join(names))
    (tmp_path / "yolo" / "a.txt").write_text(f"3 {12 / 40} {17 / 50} {10 / 40} {10 / 50}\n8 0.5 0.5 1 1\n")
    for name in ("boxes.csv", "masks.csv", "coco.json", "yolo"):
        found = read_truth(tmp_path / name).get("/somewhere/else/a.png")
        assert np.array_equal(found.mask(*SHAPE), mask), name
        assert read_truth(tmp_path / name).get("b.png") is None
    assert read_truth(tmp_path / "yolo").get("a.png").kind == "fracture"
    # COCO and YOLO say the size or shares of it, so their masks follow an image that was stored anew.
    assert read_truth(tmp_path / "coco.json").get("a.png").mask(100, 80).sum() == 400


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "image,mask\na.png,../../secret.png\n"),
        ("b.csv", "image,x\na.png,1\n"),
        ("c.json", "[]"),
        ("d.json", "{"),
        ("d.json", '{"images": [{"id": 1, "file_name": "a", "width": 9, "height": Infinity}], "annotations": []}'),
        ("e.xml", ""),
    ],
)
def test_truths_that_are_none_are_refused_by_name(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError):
        read_truth(path)
