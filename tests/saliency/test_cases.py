"""`mskscreen explain score`: maps joined with predictions and truth, and what becomes of every image."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from judged_maps import SHAPE, change, development, joined, run, score

from mskscreen.errors import DataError
from mskscreen.evaluation.explain.cases import refuse_shared, right_cases
from mskscreen.evaluation.explain.truth import read_truth
from mskscreen.inference import Screener
from mskscreen.predictions import Prediction, Predictions
from mskscreen.saliency.maps import read_records


def test_the_same_image_by_another_path_is_the_same_image(judged, monkeypatch):
    monkeypatch.chdir(judged / "maps")
    change(judged, "*", file=lambda record: f"../{Path(record['file']).name}")
    assert score(judged)["hirescam"]["images"] == 18
    monkeypatch.chdir("/")
    change(judged, "*", file=lambda record: Path(record["file"]).name)
    assert score(judged)["hirescam"]["images"] == 18


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
    assert run(judged, "--of", "joint", "--report", judged / "out.html").exit_code == 0
    assert "<dt>class explained</dt><dd>the joint that was predicted</dd>" in (judged / "out.html").read_text()
    change(judged, "rise", of="normal")
    assert "rise" not in score(judged, "--of", "abnormal"), "of the class 'normal' no truth is told"


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
    assert "20 images: 18 scored, 2 missed by the classifier; 0 truths of other images" in found.stderr
    for number in (3, 5):
        sentence = "the map holds values that are not finite numbers; delete it and run explain again"
        assert f"left out: {judged / 'maps' / f'{number}.rise.npy'}: {sentence}" in said


def test_an_image_without_a_map_that_can_be_read_is_not_scored(judged):
    for path in (judged / "maps").glob("4.*.png"):
        path.write_bytes(path.read_bytes()[:-40])
    found = run(judged)
    assert found.exit_code == 3
    assert "20 images: 17 scored, 2 missed by the classifier, 1 without a map;" in found.stderr
    for path in (judged / "maps").glob("*.png"):
        path.write_bytes(b"no map")
    found = run(judged)
    assert "no image has a prediction that is right, a map and a visible truth" in str(found.exception)
    assert "20 images: 2 missed by the classifier, 18 without a map" in str(found.exception)


def test_a_truth_that_fits_two_images_is_refused(judged):
    change(judged, "rise", file=lambda record: f"/elsewhere/{Path(record['file']).name}")
    text = (judged / "p.json").read_text()
    table = json.loads(text)
    table["images"] += [row | {"file": f"/elsewhere/{Path(row['file']).name}"} for row in table["images"]]
    (judged / "p.json").write_text(json.dumps(table))
    said = str(run(judged).exception)
    assert re.fullmatch(r"truth \d+ \((\S+)\) fits map \d+ \(\1\) and map \d+ \(\1\); name more of its path", said)


def test_only_images_called_right_with_a_truth_count(judged):
    records = list(read_records(judged / "maps"))
    predictions, truths = Predictions.read(judged / "p.json"), read_truth(judged / "truth.csv")
    assert len(right_cases(predictions, records, truths).cases) == 18
    none = Predictions(tuple(Prediction(row.file, row.study, abnormal=False) for row in predictions.images))
    with pytest.raises(DataError, match="no image has a prediction that is right"):
        right_cases(none, records, truths)


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
