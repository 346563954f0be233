"""Calibration written into a model file, disturbed images predicted again, and the card: with a real ONNX file."""

import copy
import dataclasses

import numpy as np
import onnx
import pytest
from PIL import Image

from mskscreen.contract import METADATA_KEY, Calibration, Gate, MapOutput, Provenance, Variant
from mskscreen.errors import DataError, ModelError
from mskscreen.evaluation.as_json import to_json
from mskscreen.evaluation.assess import assess
from mskscreen.evaluation.card import model_card, read_evaluation
from mskscreen.evaluation.cases import join
from mskscreen.evaluation.contract_update import calibrated_contract, require_same_model, write_contract
from mskscreen.evaluation.disturb import DISTURBANCES
from mskscreen.evaluation.labels import labels_from_paths
from mskscreen.evaluation.repredict import find_image, finished, repredict, some_studies, write_disturbed
from mskscreen.evaluation.table import Table
from mskscreen.inference import Screener
from mskscreen.inference.catalogue import read_contract

from .conftest import CONTRACT, make_cases, make_predictions, write_tiny_model

SMALL = dataclasses.replace(
    CONTRACT, input_size=(32, 32), preprocessing="decode|grayscale|resize(32,32,bilinear,antialias)|unit"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx", SMALL)


def test_only_the_contract_changes(model, tmp_path):
    updated, _ = calibrated_contract(SMALL, make_cases(200, scale=2.0))
    out = tmp_path / "calibrated.onnx"
    write_contract(model, updated, out)
    assert read_contract(out) == updated
    assert updated.calibration.abnormality_temperature > 1
    before, after = onnx.load(model), onnx.load(out)
    assert before.graph == after.graph
    assert sorted((p.key, p.value) for p in after.metadata_props) == [
        ("author", "somebody"),
        (METADATA_KEY, updated.to_json()),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["calibrated.onnx"]


def test_gates_of_the_old_thresholds_are_dropped():
    gated = dataclasses.replace(
        SMALL, approved={"openvino/bf16": Gate(True)}, variants={"int8": Variant("m.int8.onnx", 1, "")}
    )
    updated, _ = calibrated_contract(gated, make_cases(200, scale=2.0))
    assert updated.approved == updated.variants == {}


def test_the_engine_obeys_the_new_contract(model, tmp_path):
    cooler = dataclasses.replace(SMALL, calibration=Calibration(4.0, 1.0), operating_points={"balanced": 0.2})
    write_contract(model, cooler, tmp_path / "cooler.onnx")
    image = np.full((40, 40), 90, np.uint8)
    before, after = (Screener.load(path).predict([image]).images[0] for path in (model, tmp_path / "cooler.onnx"))
    assert before.pred1 == pytest.approx(after.pred1)
    assert 0 < before.p_abnormal < after.p_abnormal < 0.5
    assert (before.abnormal, after.abnormal) == (False, True)


def test_a_broken_model_leaves_nothing_behind(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="not an ONNX file"):
        write_contract(tmp_path / "no.onnx", SMALL, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_a_table_of_another_model_is_refused():
    cases = make_cases(20)
    require_same_model(cases, SMALL)
    made = dataclasses.replace(cases, table=dataclasses.replace(cases.table, model={"contract": CONTRACT.digest}))
    require_same_model(made, CONTRACT)
    with pytest.raises(DataError, match="was not made by model"):
        require_same_model(made, SMALL)


def test_the_table_of_a_training_run_fits_the_model_exported_from_it_alone():
    cases = make_cases(20)
    checkpoint = dataclasses.replace(
        SMALL,
        calibration=Calibration(),
        operating_points={"balanced": 0.5},
        provenance=Provenance(protocol={"seed": 3}),
    )
    made = dataclasses.replace(
        cases, table=dataclasses.replace(cases.table, model={"checkpoint": checkpoint.digest})
    )
    added = {"precisions": {"job": "a"}, "calibration": {"studies": 20}}
    exported = dataclasses.replace(
        checkpoint,
        map=MapOutput("hirescam", "last feature map", 32),
        content_sha256="ab",
        calibration=Calibration(2.0, 1.0),
        operating_points={"balanced": 0.4, "sensitive": 0.2},
        provenance=Provenance(protocol={"seed": 3, **added}),
    )
    require_same_model(made, exported)
    with pytest.raises(DataError, match="was not made by model"):
        require_same_model(made, dataclasses.replace(exported, provenance=Provenance(protocol={"seed": 4})))


@pytest.fixture(scope="module")
def screened(model, tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for k in range(4):
        folder = root / f"XR_HAND/patient0000{k}/study1_{'positive' if k % 2 else 'negative'}"
        folder.mkdir(parents=True)
        pixels = np.clip(rng.normal(60 + 40 * (k % 2), 30, (50, 40)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "image1.png")
    (root / "XR_HAND/patient00000/study1_negative/image2.png").write_bytes(b"broken")
    screener = Screener.load(model, engine="onnxruntime")
    return root, screener, screener.predict(root)


def test_disturbing_nothing_gives_the_same_row(screened):
    root, screener, base = screened
    again = list(repredict(screener, base, root, {"nothing": lambda pixels: pixels}))
    assert [rows["nothing"].file for rows in again] == [row.file for row in base]
    for row, rows in zip(base, again, strict=True):
        if row.error:
            assert rows["nothing"].error
        else:
            assert rows["nothing"].pred1 == pytest.approx(row.pred1, abs=1e-5)
            assert rows["nothing"].joint == row.joint


def test_disturbed_images_are_called_at_the_threshold_of_their_table(screened):
    root, screener, base = screened
    at = max(row.p_abnormal for row in base if not row.error) - 1e-4
    higher = dataclasses.replace(base, threshold=at)
    found = [rows["nothing"] for rows in repredict(screener, higher, root, {"nothing": lambda pixels: pixels})]
    calls = {row.p_abnormal >= at: row.abnormal for row in found if not row.error}
    assert calls == {True: True, False: False}


def test_every_disturbance_keeps_pixels_in_range_and_inversion_turns_the_call(screened):
    root, screener, base = screened
    pixels = np.linspace(0, 1, 60 * 40, dtype=np.float32).reshape(60, 40)
    for name, disturb in DISTURBANCES.items():
        found = disturb(pixels)
        assert found.dtype == np.float32, name
        assert found.min() >= 0, name
        assert found.max() <= 1, name
        assert np.abs(found - pixels).mean() > 1e-4 if found.shape == pixels.shape else True, name
        np.testing.assert_array_equal(found, disturb(pixels), err_msg=name)
    for rows, row in zip(repredict(screener, base, root), base, strict=True):
        if not row.error:
            assert rows["polarity inverted"].p_abnormal == pytest.approx(1 - row.p_abnormal, abs=1e-3)


def test_a_killed_run_goes_on_and_a_finished_one_predicts_nothing(screened, tmp_path):
    root, screener, base = screened
    seen = []
    chosen = {"inverted": lambda pixels: seen.append(1) or 1 - pixels, "JPEG": DISTURBANCES["JPEG, quality 40"]}
    whole = list(write_disturbed(screener, base, root, tmp_path / "whole", chosen))
    assert sum(whole) == 1
    run = write_disturbed(screener, base, root, tmp_path / "killed", chosen)
    assert [next(run), next(run)] == whole[:2]
    run.close()
    assert not (tmp_path / "killed" / "index.json").exists()
    assert not finished(screener, base, tmp_path / "killed", chosen)
    seen.clear()
    assert list(write_disturbed(screener, base, root, tmp_path / "killed", chosen)) == whole
    assert len(seen) == len(base) - 2 - sum(whole[2:])
    for name in ("index.json", "disturbed-00.json", "disturbed-01.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(list((tmp_path / "killed").iterdir())) == 3
    seen.clear()
    assert finished(screener, base, tmp_path / "killed", chosen)
    assert list(write_disturbed(screener, base, root, tmp_path / "killed", chosen)) == whole
    assert not seen
    assert not finished(screener, some_studies(base, 2), tmp_path / "killed", chosen)


def on_server(screener, address, version="1", digest=""):
    """The model as one on a server."""
    backend = copy.copy(screener.engine.backend)
    backend.source = {"address": address, "versions": [version]}
    return Screener(dataclasses.replace(screener.engine, digest=digest, backend=backend))


@pytest.mark.parametrize("other", [("http://b/v2/models/m",), ("http://a/v2/models/m", "2")])
def test_a_run_does_not_go_on_with_another_model_on_a_server(screened, tmp_path, other):
    root, screener, base = screened
    seen = []
    chosen = {"inverted": lambda pixels: seen.append(1) or 1 - pixels}
    first = on_server(screener, "http://a/v2/models/m")
    run = write_disturbed(first, base, root, tmp_path, chosen)
    next(run)
    run.close()
    seen.clear()
    list(write_disturbed(on_server(screener, *other), base, root, tmp_path, chosen))
    assert len(seen) == sum(row.error is None for row in base)


def test_only_a_server_that_tells_the_digest_of_its_model_lets_a_run_be_finished(screened, tmp_path):
    root, screener, base = screened
    chosen = {"inverted": DISTURBANCES["polarity inverted"]}
    for digest in ("", "00"):
        model = on_server(screener, "http://a/v2/models/m", digest=digest)
        list(write_disturbed(model, base, root, tmp_path / digest, chosen))
        assert finished(model, base, tmp_path / digest, chosen) == bool(digest)


def test_a_run_with_the_wrong_folder_is_put_right_by_one_with_the_right(screened, tmp_path):
    root, screener, base = screened
    chosen = {"inverted": DISTURBANCES["polarity inverted"]}
    (tmp_path / "wrong").mkdir()
    assert all(write_disturbed(screener, base, tmp_path / "wrong", tmp_path / "out", chosen))
    assert not finished(screener, base, tmp_path / "out", chosen)
    assert list(write_disturbed(screener, base, root, tmp_path / "out", chosen)) == [bool(r.error) for r in base]
    assert finished(screener, base, tmp_path / "out", chosen)


@pytest.mark.parametrize("window", ["window(auto)|", ""])
def test_pixels_are_disturbed_as_the_model_sees_them(window, tmp_path):
    contract = dataclasses.replace(SMALL, preprocessing=SMALL.preprocessing.replace("|resize", f"|{window}resize"))
    screener = Screener.load(write_tiny_model(tmp_path / "m.onnx", contract), engine="onnxruntime")
    y, x = np.mgrid[:50, :40]
    Image.fromarray(((x + y) ** 2 // 2).astype(np.uint16)).save(tmp_path / "dim.png")
    inputs = []
    chosen = {
        "nothing": lambda pixels: inputs.append(pixels) or pixels,
        "contrast": DISTURBANCES["contrast x 0.7"],
    }
    base = screener.predict(tmp_path / "dim.png")
    (rows,) = repredict(screener, base, tmp_path, chosen)
    assert rows["nothing"].pred1 == pytest.approx(next(iter(base)).pred1, abs=1e-5)
    assert (np.ptp(inputs[0]) > 0.9) == bool(window)
    p = rows["nothing"].pred1[1], rows["contrast"].pred1[1]
    # The score is 8 x mean - 4, and contrast draws the mean to 0.5.
    assert p[1] == pytest.approx(0.7 * p[0], abs=0.02)


def test_images_are_found_below_the_folder_only(tmp_path):
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "x.png").write_bytes(b"1")
    (tmp_path / "y.png").write_bytes(b"2")
    (root / "link.png").symlink_to(tmp_path / "y.png")
    found = (root / "a" / "x.png").resolve()
    assert (
        find_image(root, "a/x.png")
        == find_image(root, "/elsewhere/a/x.png")
        == find_image(root, str(found))
        == found
    )
    for name in ("../y.png", str(tmp_path / "y.png"), "link.png", "b\0.png", "", "z.png"):
        assert find_image(root, name) is None, name


def test_the_image_of_a_mura_name_is_never_that_of_another_patient_or_study(tmp_path):
    study = "XR_HAND/patient11185/study1_positive"
    image = tmp_path / "tree" / "valid" / study / "image1.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"1")
    for root in (image.parent, *image.parent.parents[:4]):
        assert find_image(root, f"MURA-v1.1/valid/{study}/image1.png") == image.resolve()
        for other in (
            "valid/XR_HAND/patient11186/study1_positive",
            "valid/XR_HAND/patient11185/study2_positive",
            "valid/XR_WRIST/patient11185/study1_positive",
            "train/XR_HAND/patient11185/study1_positive",
        ):
            assert find_image(root, f"/data/MURA-v1.1/{other}/image1.png") is None, (root, other)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "image1.png").write_bytes(b"2")
    assert find_image(tmp_path / "flat", f"MURA-v1.1/valid/{study}/image1.png") is None
    assert find_image(tmp_path / "flat", "clinic/image1.png") == (tmp_path / "flat" / "image1.png").resolve()


def test_the_card_has_the_sections_of_the_paper_and_quotes_the_evaluation(model, tmp_path):
    table = Table.of(make_predictions(80))
    evaluation = assess(join(table, labels_from_paths(table)), contract=SMALL, resamples=20)
    (tmp_path / "evaluation.json").write_text(to_json(evaluation))
    card = model_card(SMALL, model, read_evaluation(tmp_path / "evaluation.json"))
    sections = [line.removeprefix("## ") for line in card.splitlines() if line.startswith("## ")]
    assert sections == [
        "Model details",
        "Intended use",
        "Factors",
        "Metrics",
        "Evaluation data",
        "Training data",
        "Quantitative analyses",
        "Ethical considerations",
        "Caveats and recommendations",
    ]
    assert f"{evaluation.study.overall.abnormality['auroc']}" in card
    assert "Called abnormal at a probability of 0.5000 or more" in card
    assert SMALL.digest in card
    assert "To be written by the author" in card


def test_figures_of_the_contract_stand_on_one_line_with_their_limits(model):
    figures = {"studies": 1400.0, "auroc": 0.7157, "auroc_high": 0.7427, "auroc_low": 0.6886, "ece": 0.06}
    card = model_card(
        dataclasses.replace(SMALL, provenance=dataclasses.replace(SMALL.provenance, figures=figures)), model
    )
    lines = card.split("Figures in the contract:")[1].strip().splitlines()
    assert lines[:3] == ["- studies: 1400", "- auroc: 0.716 (0.689 to 0.743)", "- ece: 0.060"]
    assert "_low" not in card


def test_a_card_does_not_quote_another_model_and_hostile_text_stays_text(model, tmp_path):
    table = Table.of(make_predictions(40))
    evaluation = assess(join(table, labels_from_paths(table)), contract=CONTRACT, resamples=20)
    (tmp_path / "evaluation.json").write_text(to_json(evaluation))
    with pytest.raises(DataError, match="another model"):
        model_card(SMALL, model, read_evaluation(tmp_path / "evaluation.json"))
    (tmp_path / "other.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="not the JSON of an evaluation"):
        read_evaluation(tmp_path / "other.json")
    hostile = dataclasses.replace(
        SMALL, name="a\n# b <script>", provenance=dataclasses.replace(SMALL.provenance, data="x\n## y")
    )
    card = model_card(hostile, model)
    assert "<script>" not in card.replace("\\<script\\>", "")
    assert sum(line.startswith("#") for line in card.splitlines()) == 10
