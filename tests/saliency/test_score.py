"""`mskscreen explain score`: maps joined with predictions and truth, and judged beside maps that know no image."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mskscreen.cli.main import app
from mskscreen.errors import DataError
from mskscreen.evaluation.explain.sanity import cascade, label_randomisation, repeatability
from mskscreen.evaluation.explain.score import right_cases
from mskscreen.evaluation.explain.truth import read_truth
from mskscreen.inference import Screener
from mskscreen.inference.catalogue import model_path
from mskscreen.pixels import read_radiograph
from mskscreen.predictions import Prediction, Predictions
from mskscreen.saliency.maps import MapRecord, write_values

RUN = CliRunner()
EXAMPLES = Path(__file__).parents[2] / "examples"
SHAPE = (50, 40)


def box(place):
    """A square of ten pixels and its mask."""
    mask = np.zeros(SHAPE, bool)
    mask[place[0] : place[0] + 10, place[1] : place[1] + 10] = True
    return mask


@pytest.fixture
def judged(tmp_path):
    """Twenty patients with a bright square each, its boxes as CSV, predictions, and maps of two methods."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "maps"
    folder.mkdir()
    rows, lines = [], ["image,x,y,width,height,kind,joint,patient"]
    for number in range(20):
        place = int(rng.integers(0, 40)), int(rng.integers(0, 30))
        mask = box(place)
        file = tmp_path / f"image{number}.png"
        Image.fromarray((mask * 220).astype(np.uint8)).save(file)
        kind, joint = ("fracture", "wrist") if number % 2 else ("lesion", "hand")
        lines.append(f"{file.name},{place[1]},{place[0]},10,10,{kind},{joint},p{number}")
        # The last two are missed: they must not be counted.
        rows.append(Prediction(str(file), f"s{number}", joint, (1.0,) + (0.0,) * 6, 0.9, number < 18))
        for method, values in (("hirescam", mask * 1.0), ("rise", rng.random(SHAPE))):
            name = f"{number}.{method}.png"
            slope, intercept = write_values(folder / name, values.astype(np.float32))
            MapRecord(
                *(str(file), f"s{number}", joint, 0.9, number < 18, method, "abnormal", "x"),
                map=name,
                rows=SHAPE[0],
                columns=SHAPE[1],
                slope=slope,
                intercept=intercept,
                passes=1 if method == "hirescam" else 1000,
            ).write(folder / f"{number}.{method}.map.json")
    Predictions(tuple(rows), {"name": "bright"}).write(tmp_path / "p.json")
    (tmp_path / "truth.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def score(folder, *more):
    chosen = ["explain", "score", folder / "p.json", folder / "maps", "--truth", folder / "truth.csv", *more]
    found = RUN.invoke(app, [*map(str, chosen), "--format", "json", "--resamples", "200"])
    assert found.exit_code == 0, found.output
    text = found.stdout
    return {row["method"]: row for row in json.loads(text[text.index("[") : text.rindex("]") + 1])}


def value(text):
    return float(text.split(" ")[0])


def test_table_of_methods_beside_the_maps_that_know_no_image(judged):
    rows = score(judged, "--level", "0.5")
    assert list(rows) == ["HiResCAM", "RISE", "centre prior", "location prior", "random map"]
    assert {row["images"] for row in rows.values()} == {18}
    best = rows["HiResCAM"]
    assert [value(best[name]) for name in ("pointing", "iou_otsu", "iou_fixed", "pixel_ap", "energy")] == [1] * 5
    assert (best["passes"], rows["RISE"]["passes"]) == (1, 1000)
    for other in ("RISE", "centre prior", "location prior", "random map"):
        assert value(rows[other]["pixel_ap"]) < 0.3
        assert "to" in rows[other]["pixel_ap"]
    assert value(best["pointing gain"]) == pytest.approx(1 - value(rows["location prior"]["pointing"]), abs=2e-3)


def test_report_holds_methods_parts_costs_and_pictures_and_asks_no_network(judged):
    score(judged, "--report", judged / "out.html")
    page = (judged / "out.html").read_text()
    for text in (
        "HiResCAM",
        "Location prior",
        "location prior",
        "Kind: fracture",
        "Joint: hand",
        "not for diagnosis",
    ):
        assert text.lower() in page.lower()
    assert "1000" in page
    assert "http://" not in page
    assert str(judged) not in page


def test_the_level_comes_from_development_maps(judged):
    one = score(judged, "--dev-maps", judged / "maps", "--dev-predictions", judged / "p.json")
    assert value(one["HiResCAM"]["iou_fixed"]) == 1
    assert "iou_fixed" not in score(judged)["HiResCAM"]


def test_measures_that_ask_the_model_prefer_the_map_that_is_right(judged, bright_model):
    rows = score(judged, "--model", bright_model(), "--images", "2")
    assert value(rows["HiResCAM"]["deletion"]) < value(rows["RISE"]["deletion"])
    assert value(rows["HiResCAM"]["infidelity"]) < value(rows["random map"]["infidelity"])
    assert value(rows["HiResCAM"]["road"]) > value(rows["random map"]["road"])


def test_only_images_called_right_with_a_truth_count(judged):
    from mskscreen.saliency.maps import read_records

    records = list(read_records(judged / "maps"))
    table, truths = Predictions.read(judged / "p.json"), read_truth(judged / "truth.csv")
    assert len(right_cases(table, records, truths)) == 18
    none = Predictions(tuple(Prediction(row.file, row.study, abnormal=False) for row in table.images))
    with pytest.raises(DataError, match="no image has a prediction that is right"):
        right_cases(none, records, truths)


def test_truths_of_every_source_give_the_same_mask(tmp_path):
    mask = box((12, 7))
    (tmp_path / "boxes.csv").write_text("image,x,y,width,height\na.png,7,12,10,4\na.png,7,16,10,6\n")
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "m.png")
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
        ("e.xml", ""),
    ],
)
def test_truths_that_are_none_are_refused_by_name(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError):
        read_truth(path)


def test_maps_fall_apart_with_the_weights_and_stay_under_what_should_not_matter(tiny_model, tmp_path):
    path = tiny_model(tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    radiographs = [read_radiograph(rng.integers(0, 255, (40, 40)).astype(np.uint8)) for _ in range(3)]
    inputs = [np.float32(rng.random((1, 32, 32))) for _ in range(3)]
    stages = cascade(path, inputs)
    assert stages[0]["similarity"] == pytest.approx(1)
    assert stages[-1]["share"] == 1
    assert stages[-1]["similarity"] < 0.8
    other = tiny_model(tmp_path / "n.onnx", edit=_other_weights)
    assert label_randomisation(path, path, inputs) == pytest.approx(1)
    assert label_randomisation(path, other, inputs) < 0.9
    same = repeatability(path, radiographs)
    assert same["ONNX Runtime"] > 0.99
    assert set(same) >= {"JPEG of quality 90", "moved down by a pixel", "moved right by a pixel", "ONNX Runtime"}


def test_a_model_of_shuffled_weights_is_alive_and_its_maps_are_others():
    model = Screener.load("demo", precision="f32", threads=1)
    inputs = [model.preprocessing(read_radiograph(EXAMPLES / name)) for name in ("finger.png", "humerus.png")]
    first, *others = cascade(model_path("demo"), inputs, stages=3)
    assert first == {"share": 0, "similarity": pytest.approx(1), "constant": 0}
    assert [stage["constant"] for stage in others] == [0, 0, 0]
    assert others[0]["similarity"] < 0.7
    assert max(abs(stage["similarity"]) for stage in others[1:]) < 0.4


def _other_weights(model):
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        values = np.random.default_rng(1).permutation(numpy_helper.to_array(tensor).ravel())
        tensor.CopyFrom(numpy_helper.from_array(values.reshape(tuple(tensor.dims)), tensor.name))


def test_the_counterfactual_of_phantom_twins_is_compared_by_rank(judged, bright_model):
    from mskscreen.evaluation.explain.faithful import COUNTERFACTUAL, measure_faithfulness
    from mskscreen.evaluation.explain.score import measure
    from mskscreen.inference import Screener
    from mskscreen.saliency.maps import read_records

    twin = judged / "twin.png"
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(twin)
    table, truths = Predictions.read(judged / "p.json"), read_truth(judged / "truth.csv")
    for truth in truths._known.values():
        object.__setattr__(truth, "twin", Path(twin))
    values = measure(right_cases(table, read_records(judged / "maps"), truths)[:2], judged / "maps")
    measure_faithfulness(values, judged / "maps", Screener.load(bright_model()), 2)
    found = {method: np.nanmean(measured[COUNTERFACTUAL]) for method, measured in values.found.items()}
    # The map's blur past the square's edges costs rank where most places are nought.
    assert found["hirescam"] > 0.5
    assert found["hirescam"] > found["random map"] + 0.3
