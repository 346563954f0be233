"""`mskscreen explain score`: maps joined with predictions and truth, and judged beside maps that know no image."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mskscreen.cli.main import app
from mskscreen.contract import METADATA_KEY
from mskscreen.errors import DataError, ModelError
from mskscreen.evaluation.explain.cases import refuse_shared, right_cases
from mskscreen.evaluation.explain.explainer import Explainer
from mskscreen.evaluation.explain.files import Request, explain_files
from mskscreen.evaluation.explain.sanity import cascade, label_randomisation, repeatability
from mskscreen.evaluation.explain.score import development_levels, location_priors, measure, table
from mskscreen.evaluation.explain.truth import read_truth
from mskscreen.inference import Screener
from mskscreen.inference.catalogue import model_path
from mskscreen.pixels import read_radiograph
from mskscreen.predictions import Prediction, Predictions
from mskscreen.saliency.maps import MapRecord, read_records, write_values

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
        rows.append(
            Prediction(
                str(file), f"s{number}", joint, (1.0,) + (0.0,) * 6, 0.9 if number < 18 else 0.1, number < 18
            )
        )
        for method, values in (("hirescam", mask * 1.0), ("rise", rng.random(SHAPE))):
            name = f"{number}.{method}.png"
            slope, intercept = write_values(folder / name, values.astype(np.float32))
            MapRecord(
                *(
                    str(file),
                    f"s{number}",
                    joint,
                    0.9 if number < 18 else 0.1,
                    number < 18,
                    method,
                    "abnormal",
                    "x",
                ),
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


def run(folder, *more):
    chosen = ["explain", "score", folder / "p.json", folder / "maps", "--truth", folder / "truth.csv", *more]
    return RUN.invoke(app, [*map(str, chosen), "--format", "json", "--resamples", "200"])


def score(folder, *more, part="all"):
    found = run(folder, *more)
    assert found.exit_code == 0, found.output
    return {row["method"]: row for row in json.loads(found.stdout) if row["part"] == part}


def value(row, measure):
    return row["measures"][measure]["value"]


def change(folder, method, **fields):
    """Write the records of one method again with other fields; a field may be a function of the record."""
    for path in sorted((folder / "maps").glob(f"*.{method}.map.json")):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {k: v(record) if callable(v) else v for k, v in fields.items()}))


def joined(folder):
    predictions, truths = Predictions.read(folder / "p.json"), read_truth(folder / "truth.csv")
    return right_cases(predictions, read_records(folder / "maps"), truths)


def test_table_of_methods_beside_the_maps_that_know_no_image(judged):
    rows = score(judged, "--level", "0.5")
    assert list(rows) == ["hirescam", "rise", "centre prior", "location prior", "random map"]
    assert {row["images"] for row in rows.values()} == {18}
    best = rows["hirescam"]
    assert [value(best, name) for name in ("pointing", "iou_otsu", "iou_fixed", "pixel_ap", "energy")] == [1] * 5
    assert (best["passes"], rows["rise"]["passes"]) == (1, 1000)
    for other in ("rise", "centre prior", "location prior", "random map"):
        assert value(rows[other], "pixel_ap") < 0.3
        low, high = rows[other]["measures"]["pixel_ap"]["interval"]
        assert low < value(rows[other], "pixel_ap") < high


@pytest.mark.parametrize("better", ["centre prior", "location prior"])
def test_the_gain_is_over_the_better_prior(judged, better):
    values = measure(joined(judged), judged / "maps")
    for prior in ("centre prior", "location prior"):
        values.found[prior]["pointing"] = np.full(18, 0.75 if prior == better else 0.25)
    for row in table(values, resamples=20):
        if row.method in ("hirescam", "rise"):
            assert row.measures["pointing gain"].value == row.measures["pointing"].value - 0.75


def test_numbers_of_every_kind_and_joint(judged):
    parts = {row["part"] for row in json.loads(run(judged, "--report", judged / "out.html").stdout)}
    assert parts == {"all", "kind: fracture", "kind: lesion", "joint: hand", "joint: wrist"}
    assert score(judged, part="joint: hand")["rise"]["measures"]["pointing"]["images"] == 9


def test_a_measure_says_on_how_many_images_it_was_taken(judged, bright_model):
    for number in range(10, 18):
        (judged / "maps" / f"{number}.rise.map.json").unlink()
    lines = (judged / "truth.csv").read_text().splitlines()
    # A box beside the image marks nothing.
    lines[1] = "image0.png,900,900,10,10,lesion,hand,p0"
    (judged / "truth.csv").write_text("\n".join(lines))
    rows = score(judged, "--model", bright_model(), "--images", "4", "--report", judged / "out.html")
    assert {name: row["images"] for name, row in rows.items()} == {
        "hirescam": 17,
        "rise": 9,
        "centre prior": 17,
        "location prior": 17,
        "random map": 17,
    }
    assert rows["hirescam"]["measures"]["deletion"]["images"] == 4
    assert "n = 4" in (judged / "out.html").read_text()
    assert "1 whose mask is empty" in run(judged).stderr


def test_priors_are_learnt_from_the_truth_of_other_patients_judged_or_not(judged):
    known = joined(judged)
    before = location_priors(known)
    assert len(known.cases) == 18
    one = next(number for number, case in enumerate(known.cases) if case.joint == "hand")
    # Nine other squares on hands that were called right, and one that was missed.
    assert round(before[one].sum() / before[0 if one else 2].sum(), 1) == 1
    rows = (judged / "truth.csv").read_text().splitlines()
    place = [int(x) for x in next(row for row in rows if row.startswith("image18.png")).split(",")[1:3]]
    column, row = (int((start + 5) / side * 48) for start, side in zip(place, (40, 50), strict=True))
    (judged / "truth.csv").write_text("\n".join(row for row in rows if not row.startswith("image18.png")))
    after = location_priors(joined(judged))
    assert before[one][row, column] == pytest.approx(after[one][row, column] + 1, abs=0.01)
    (judged / "truth.csv").write_text(
        "\n".join(row.rsplit(",", 1)[0] + ",p" for row in rows).replace(",p", ",patient", 1)
    )
    found = run(judged)
    assert "18 images have no location prior" in found.stderr
    assert "location prior" not in found.stdout


def test_the_prior_learns_from_images_called_normal_whatever_form_their_truth_has(judged, bright_model):
    """As `explain` leaves them: a record with the size of the image and without a map."""
    model = Screener.load(bright_model(bias=-100.0))
    request = Request(("hirescam",))
    (judged / "maps" / "18.hirescam.map.json").unlink()
    (judged / "maps" / "18.rise.map.json").unlink()
    without = len(joined(judged).others)
    made = list(explain_files(model, Explainer(model.engine), request, [judged / "image18.png"], judged / "maps"))
    assert made[0].records[0].map is None
    assert len(joined(judged).others) == without + 1
    labels = judged / "labels"
    labels.mkdir()
    for number in range(20):
        (labels / f"image{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (judged / "maps" / "19.hirescam.map.json").unlink()
    (judged / "maps" / "19.rise.map.json").unlink()
    known = right_cases(Predictions.read(judged / "p.json"), read_records(judged / "maps"), read_truth(labels))
    assert len(known.others) == 2


def test_the_same_image_by_another_path_is_the_same_image(judged, monkeypatch):
    monkeypatch.chdir(judged / "maps")
    change(judged, "*", file=lambda record: f"../{Path(record['file']).name}")
    assert score(judged)["hirescam"]["images"] == 18
    monkeypatch.chdir("/")
    change(judged, "*", file=lambda record: Path(record["file"]).name)
    assert score(judged)["hirescam"]["images"] == 18


def test_images_that_moved_are_found_below_the_root(judged, bright_model):
    change(judged, "*", file=lambda record: f"/gone/{Path(record['file']).name}")
    (judged / "p.json").write_text((judged / "p.json").read_text().replace(str(judged), "/gone"))
    found = run(judged, "--model", bright_model(), "--images", "2")
    assert found.exit_code != 0
    assert "--root" in str(found.exception)
    rows = score(judged, "--model", bright_model(), "--images", "2", "--root", judged)
    assert rows["hirescam"]["measures"]["deletion"]["images"] == 2
    assert run(judged, "--model", bright_model(), "--root", judged, "--max-pixels", "100").exit_code != 0


def test_maps_of_both_heads_are_told_apart(judged):
    for path in sorted((judged / "maps").glob("*.hirescam.map.json")):
        record = json.loads(path.read_text())
        path.with_name(path.name.replace("hirescam", "hirescam.joint")).write_text(
            json.dumps(record | {"of": record["joint"], "passes": 7})
        )
    found = run(judged)
    assert found.exit_code != 0
    assert "--of" in str(found.exception)
    assert score(judged, "--of", "abnormal")["hirescam"]["passes"] == 1
    joint = score(judged, "--of", "joint")
    assert joint["hirescam"]["passes"] == 7
    # Of the joint all images are called right.
    assert joint["hirescam"]["images"] == 20


def test_predictions_maps_and_model_are_of_one_model(judged, bright_model):
    model = bright_model()
    digest = Screener.load(model).engine.contract.digest
    text = (judged / "p.json").read_text()
    for predicted, maps in ((digest, "other"), ("other", digest), ("other", "other")):
        (judged / "p.json").write_text(text.replace('"name"', f'"contract": "{predicted}", "name"', 1))
        change(judged, "rise", model={"contract": maps})
        found = run(judged, *(("--model", model, "--images", "2") if predicted == maps else ()))
        assert "is of another model" in str(found.exception)
        assert ("map 2 (image0.png)" in str(found.exception)) is (predicted != maps)
        assert str(judged) not in str(found.exception)
    (judged / "p.json").write_text(text.replace('"name"', f'"contract": "{digest}", "name"', 1))
    change(judged, "rise", model={"contract": digest})
    score(judged, "--model", model, "--images", "2")


def test_it_is_said_what_became_of_every_image(judged):
    rows = (judged / "truth.csv").read_text().splitlines()
    (judged / "truth.csv").write_text("\n".join([*rows[:-4], *rows[-2:], "unseen.png,1,1,2,2,lesion,hand,x"]))
    (judged / "maps" / "19.hirescam.map.json").unlink()
    (judged / "maps" / "19.rise.map.json").unlink()
    found = run(judged).stderr
    assert "19 images: 16 scored, 1 missed by the classifier, 2 without truth; 2 truths of other images" in found


def test_a_map_that_cannot_be_read_is_named_and_the_others_are_scored(judged):
    change(judged, "rise", map=lambda record: record["map"].replace(".png", ".npy"))
    for number in range(20):
        values = np.random.default_rng(number).random(SHAPE, np.float32)
        values[0, 0] = {3: np.nan, 5: np.inf}.get(number, 0)
        np.save(judged / "maps" / f"{number}.rise.npy", values)
    (judged / "maps" / "7.rise.map.json").write_text("{")
    for path in (judged / "maps").glob("8.*"):
        if path.suffix == ".png":
            path.write_bytes(b"no map")
    found = run(judged)
    assert found.exit_code == 3
    rows = {row["method"]: row for row in json.loads(found.stdout) if row["part"] == "all"}
    assert (rows["hirescam"]["images"], rows["rise"]["images"], rows["random map"]["images"]) == (17, 15, 18)
    said = [line for line in found.stderr.splitlines() if line.startswith("left out: ")]
    assert len(said) == 4
    for number in (3, 5):
        sentence = "the map holds values that are not finite numbers; delete it and run explain again"
        assert f"left out: {judged / 'maps' / f'{number}.rise.npy'}: {sentence}" in said


def test_a_truth_that_fits_two_images_is_refused(judged):
    change(judged, "rise", file=lambda record: f"/elsewhere/{Path(record['file']).name}")
    text = (judged / "p.json").read_text()
    table = json.loads(text)
    table["images"] += [row | {"file": f"/elsewhere/{Path(row['file']).name}"} for row in table["images"]]
    (judged / "p.json").write_text(json.dumps(table))
    said = str(run(judged).exception)
    assert re.fullmatch(r"truth \d+ \((\S+)\) fits map \d+ \(\1\) and map \d+ \(\1\); name more of its path", said)


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


def development(folder):
    """Half of the images and their maps, taken out of those that are judged."""
    (folder / "dev").mkdir()
    for path in sorted((folder / "maps").glob("1?.*")):
        path.rename(folder / "dev" / path.name)
    return folder / "dev"


def test_a_level_is_never_chosen_on_images_or_patients_that_are_judged(judged):
    chosen = ["--dev-maps", judged / "maps", "--dev-predictions", judged / "p.json"]
    assert "18 images are judged and" in str(run(judged, *chosen).exception)
    chosen[1] = development(judged)
    assert run(judged, *chosen).exit_code == 0
    text = (judged / "truth.csv").read_text()
    (judged / "truth.csv").write_text(text.replace(",p3\n", ",p13\n"))
    assert "1 patients are judged and" in str(run(judged, *chosen).exception)


def test_phantom_sets_number_their_patients_alike(judged):
    one, other = (
        joined(judged),
        right_cases(
            Predictions.read(judged / "p.json"),
            [record for record in read_records(judged / "maps") if record.method == "rise"],
            read_truth(judged / "truth.csv"),
        ),
    )
    elsewhere = replace(other, cases=[replace(case, file=f"/other/{case.file}") for case in other.cases])
    refuse_shared(one, elsewhere, patients=False)
    with pytest.raises(DataError, match="18 patients"):
        refuse_shared(one, elsewhere, patients=True)


def test_intervals_say_over_what_they_are_drawn(judged):
    assert "intervals over patients;" in run(judged).stderr
    text = (judged / "truth.csv").read_text().replace(",p3\n", ",\n")
    (judged / "truth.csv").write_text(text)
    assert "over patients, and images for the 1 images whose patient is unknown" in run(judged).stderr
    (judged / "truth.csv").write_text(re.sub(r",p\d+\n", ",\n", text))
    assert "over images, patients unknown" in run(judged, "--report", judged / "out.html").stderr
    page = (judged / "out.html").read_text()
    assert "over images, patients unknown" in page
    assert "over patients" not in page


def test_without_a_truth_the_model_alone_is_asked_and_the_report_says_so(judged, bright_model):
    chosen = ["explain", "score", judged / "p.json", judged / "maps", "--format", "json"]
    model = ["--model", bright_model(), "--images", 2, "--report", judged / "out.html"]
    found = RUN.invoke(app, list(map(str, [*chosen, *model])))
    assert found.exit_code == 0, found.output
    rows = {row["method"]: row for row in json.loads(found.stdout) if row["part"] == "all"}
    assert set(rows["hirescam"]["measures"]) == {"insertion", "deletion", "road", "infidelity"}
    assert rows["hirescam"]["images"] == 2
    assert value(rows["hirescam"], "infidelity") < value(rows["random map"], "infidelity")
    assert "18 scored, 2 called normal; no truth" in found.stderr
    page = (judged / "out.html").read_text()
    assert "agreement with the truth was not measured" in page
    assert "called right, " not in page
    assert RUN.invoke(app, list(map(str, chosen))).exit_code == 2


def test_each_method_has_the_level_of_its_own_development_maps(judged):
    chosen = ["--dev-maps", development(judged), "--dev-predictions", judged / "p.json"]
    assert value(score(judged, *chosen)["hirescam"], "iou_fixed") == 1
    assert "iou_fixed" not in score(judged)["hirescam"]["measures"]
    cone = np.float32(np.hypot(*(np.indices(SHAPE) - 30)))
    for path in (judged / "maps").glob("*.rise.png"):
        write_values(path, cone)
    levels = development_levels(joined(judged), judged / "maps")
    assert set(levels) == {"hirescam", "rise", "centre prior", "location prior", "random map"}
    assert levels["hirescam"] != levels["rise"]
    del levels["rise"]
    found = measure(joined(judged), judged / "maps", levels).found
    assert "iou_fixed" in found["hirescam"]
    assert "iou_fixed" not in found["rise"]


def test_measures_that_ask_the_model_prefer_the_map_that_is_right(judged, bright_model):
    rows = score(judged, "--model", bright_model(), "--images", "2")
    assert value(rows["hirescam"], "deletion") < value(rows["rise"], "deletion")
    assert value(rows["hirescam"], "infidelity") < value(rows["random map"], "infidelity")
    assert value(rows["hirescam"], "road") > value(rows["random map"], "road")


def test_only_images_called_right_with_a_truth_count(judged):
    records = list(read_records(judged / "maps"))
    predictions, truths = Predictions.read(judged / "p.json"), read_truth(judged / "truth.csv")
    assert len(right_cases(predictions, records, truths).cases) == 18
    none = Predictions(tuple(Prediction(row.file, row.study, abnormal=False) for row in predictions.images))
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
    unlike = tmp_path / "unlike.onnx"
    tiny_model(unlike, edit=_other_contract)
    with pytest.raises(ModelError, match="architecture is 'unlike'"):
        label_randomisation(path, unlike, inputs)
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


def _other_contract(model):
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = json.dumps(json.loads(entry.value) | {"architecture": "unlike"})


def _other_weights(model):
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        values = np.random.default_rng(1).permutation(numpy_helper.to_array(tensor).ravel())
        tensor.CopyFrom(numpy_helper.from_array(values.reshape(tuple(tensor.dims)), tensor.name))


def test_the_counterfactual_of_phantom_twins_is_compared_by_rank(judged, bright_model):
    from mskscreen.evaluation.explain.faithful import COUNTERFACTUAL, measure_faithfulness

    twin = judged / "twin.png"
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(twin)
    predictions, truths = Predictions.read(judged / "p.json"), read_truth(judged / "truth.csv")
    for truth in truths._known.values():
        object.__setattr__(truth, "twin", Path(twin))
    values = measure(right_cases(predictions, read_records(judged / "maps"), truths), judged / "maps")
    measure_faithfulness(values, judged / "maps", Screener.load(bright_model()), 2)
    found = {method: np.nanmean(measured[COUNTERFACTUAL]) for method, measured in values.found.items()}
    # The map's blur past the square's edges costs rank where most places are nought.
    assert found["hirescam"] > 0.5
    assert found["hirescam"] > found["random map"] + 0.3
