"""`mskscreen explain score`: maps measured beside maps that know no image."""

import json
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from judged_maps import RUN, SHAPE, change, development, joined, run, score, value

from mskscreen.cli.main import app
from mskscreen.evaluation.explain import masks
from mskscreen.evaluation.explain.cases import right_cases
from mskscreen.evaluation.explain.explainer import Explainer
from mskscreen.evaluation.explain.files import Request, explain_files
from mskscreen.evaluation.explain.score import development_levels, location_priors, measure, table
from mskscreen.evaluation.explain.truth import read_truth
from mskscreen.inference import Screener
from mskscreen.predictions import Predictions
from mskscreen.saliency.maps import MapRecord, read_records, write_values


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


def test_every_map_is_read_once_and_few_are_held(judged, bright_model, monkeypatch):
    read, held, most = [], weakref.WeakSet(), []
    values = MapRecord.values

    class Held(np.ndarray):
        __hash__ = object.__hash__

    def noted(self, folder):
        found = values(self, folder).view(Held)
        read.append(self.map)
        held.add(found)
        most.append(len(held))
        return found

    monkeypatch.setattr(MapRecord, "values", noted)
    score(judged, "--model", bright_model(), "--images", "18")
    # The two that were missed are not judged.
    assert sorted(read) == sorted(f"{k}.{method}.png" for k in range(18) for method in ("hirescam", "rise"))
    assert max(most) <= 4


def test_every_mask_is_drawn_once_and_few_are_held(judged, monkeypatch):
    drawn, filled = [], masks._filled
    monkeypatch.setattr(masks, "_filled", lambda *outline: drawn.append(outline) or filled(*outline))
    known = joined(judged)
    held, most = weakref.WeakSet(), []

    class Held(np.ndarray):
        __hash__ = object.__hash__

    def noted(mask):
        def draw(*size):
            found = mask(*size).view(Held)
            held.add(found)
            most.append(len(held))
            return found

        return draw

    cases = [replace(case, truth=replace(case.truth, mask=noted(case.truth.mask))) for case in known.cases]
    measure(replace(known, cases=cases), judged / "maps")
    assert len(drawn) == 20
    assert max(most) <= 4


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


def test_images_that_moved_are_found_below_the_root(judged, bright_model):
    change(judged, "*", file=lambda record: f"/gone/{Path(record['file']).name}")
    (judged / "p.json").write_text((judged / "p.json").read_text().replace(str(judged), "/gone"))
    found = run(judged, "--model", bright_model(), "--images", "2")
    assert "image0.png: the image is not there; name the folder of the images with --root" in str(found.exception)
    elsewhere = run(judged, "--model", bright_model(), "--images", "2", "--root", judged / "maps")
    assert f"the image is not below {judged / 'maps'}; name" in str(elsewhere.exception)
    rows = score(judged, "--model", bright_model(), "--images", "2", "--root", judged)
    assert rows["hirescam"]["measures"]["deletion"]["images"] == 2
    assert run(judged, "--model", bright_model(), "--root", judged, "--max-pixels", "100").exit_code != 0


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


def test_pictures_that_cannot_be_read_are_left_out_of_the_gallery(judged):
    (judged / "maps" / "cut.png").write_bytes(b"no picture")
    Image.new("RGB", (90, 60)).save(judged / "maps" / "whole.png")
    change(judged, "hirescam", overlay=lambda record: "cut.png" if "image3." in record["file"] else "whole.png")
    score(judged, "--report", judged / "out.html")
    assert (judged / "out.html").read_text().count("<img ") == 17


def test_without_a_truth_the_model_alone_is_asked_and_the_report_says_so(judged, bright_model):
    chosen = ["explain", "score", judged / "p.json", judged / "maps", "--format", "json"]
    model = ["--model", bright_model(), "--images", 2, "--report", judged / "out.html"]
    found = RUN.invoke(app, list(map(str, [*chosen, *model])))
    assert found.exit_code == 0, found.output
    rows = {row["method"]: row for row in json.loads(found.stdout) if row["part"] == "all"}
    assert set(rows["hirescam"]["measures"]) == {"insertion", "deletion", "road", "infidelity"}
    assert rows["hirescam"]["images"] == 2
    assert value(rows["hirescam"], "infidelity") < value(rows["random map"], "infidelity")
    assert "18 scored, 2 called normal; no truth; intervals" in found.stderr
    page = (judged / "out.html").read_text()
    assert "agreement with the truth was not measured" in page
    assert "called right, " not in page
    assert RUN.invoke(app, list(map(str, chosen))).exit_code == 2
    scored = {record.file for record in read_records(judged / "maps") if record.map}
    for path in (judged / "maps").glob("*.map.json"):
        if MapRecord.read(path).file == min(scored):
            path.unlink()
    found = RUN.invoke(app, list(map(str, [*chosen, *model])))
    assert "17 scored, 2 called normal; no truth; 1 more images called abnormal have no map" in found.stderr


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


def test_the_counterfactual_of_phantom_twins_is_compared_by_rank(judged, bright_model):
    from mskscreen.evaluation.explain.faithful import COUNTERFACTUAL, asking

    twin = judged / "twin.png"
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(twin)
    predictions, truths = Predictions.read(judged / "p.json"), read_truth(judged / "truth.csv")
    for truth in truths._known.values():
        object.__setattr__(truth, "twin", Path(twin))
    known = right_cases(predictions, read_records(judged / "maps"), truths)
    values = measure(known, judged / "maps", asked=asking(Screener.load(bright_model()), known.cases, 2))
    found = {method: np.nanmean(measured[COUNTERFACTUAL]) for method, measured in values.found.items()}
    # The map's blur past the square's edges costs rank where most places are nought.
    assert found["hirescam"] > 0.5
    assert found["hirescam"] > found["random map"] + 0.3
