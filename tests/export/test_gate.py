"""Which images calibrate and judge, and when a precision may stand for f32."""

import dataclasses
import json
import logging
from collections import Counter

import numpy as np
import pytest
from precision_data import with_folds, write_plates

from mskscreen.contract import ModelContract, Provenance
from mskscreen.errors import DataError
from mskscreen.export.gate import Scores, judge, worst
from mskscreen.export.images import (
    Images,
    calibration_rows,
    development_fold,
    development_rows,
    load_images,
    require_apart,
)

CONTRACT = ModelContract(
    "m",
    "a",
    "decode|grayscale|resize(32,32,bilinear,antialias)|unit",
    (32, 32),
    operating_points={"balanced": 0.5, "sensitive": 0.3},
)
STUDIES = 200
IMAGES = Images(
    label=np.repeat(np.arange(STUDIES) % 2, 2),
    joint=np.repeat(np.arange(STUDIES) // 2 % 3, 2),
    study=np.repeat(np.arange(STUDIES), 2),
    pixels=np.zeros((2 * STUDIES, 1, 1, 1), np.float32),
)


def f32():
    rng = np.random.default_rng(0)
    p_joint = rng.random((2 * STUDIES, 7)) + 3 * np.eye(7)[IMAGES.joint]
    p = np.clip(0.4 + 0.2 * IMAGES.label + rng.normal(0, 0.15, 2 * STUDIES), 0.01, 0.99)
    return Scores(p, p_joint / p_joint.sum(axis=1, keepdims=True), rng.normal(0, 1, (2 * STUDIES, 49)))


def changed(**fields):
    return dataclasses.replace(f32(), **fields)


def crossing(share):
    """Scores in which a share of the studies crosses 0.5 by the least step."""
    p = np.full(2 * STUDIES, 0.5)
    p[: round(2 * STUDIES * share)] = np.nextafter(0.5, 0)
    return p


def test_the_same_scores_pass_with_nothing_changed():
    gate = judge(CONTRACT, IMAGES, f32(), f32(), 2.0)
    assert gate.passed
    assert gate.measures["map_correlation"] == pytest.approx(1)
    assert all(v == 0 for k, v in gate.measures.items() if k.endswith("_change") or k.startswith("flipped_"))
    assert (gate.measures["images"], gate.measures["studies"], gate.measures["speed"]) == (400, 200, 2.0)


@pytest.mark.parametrize(("shift", "passed"), [(0.0099, True), (0.0101, False)])
def test_mean_change_of_p_has_a_limit(shift, passed):
    before = np.where(IMAGES.label, 0.8, 0.1)
    one, other = changed(p=before), changed(p=before + shift)
    gate = judge(CONTRACT, IMAGES, one, other, 1.0)
    assert gate.measures["p_change"] == pytest.approx(shift)
    assert gate.passed == passed


@pytest.mark.parametrize(("share", "passed"), [(0.01, True), (0.015, False)])
@pytest.mark.parametrize("point", ["balanced", "sensitive"])
def test_flipped_decisions_have_a_limit_at_each_operating_point(point, share, passed):
    contract = dataclasses.replace(CONTRACT, operating_points={"balanced": 0.9, point: 0.5})
    # AUROC falls when ties are broken, so only the flips are looked at.
    gate = judge(contract, IMAGES, changed(p=crossing(0)), changed(p=crossing(share)), 1.0)
    assert gate.measures[f"flipped_{point}"] == pytest.approx(share)
    assert (gate.measures[f"flipped_{point}"] <= 0.01) == passed


def test_a_change_of_either_auroc_alone_fails():
    scores = f32()
    near = scores.p.copy()
    middle = np.abs(near - 0.8) < 0.15  # far from both thresholds
    near[middle] += np.where(IMAGES.label[middle], -0.02, 0.02)
    gate = judge(CONTRACT, IMAGES, scores, changed(p=near), 1.0)
    assert gate.measures["auroc_change"] > 0
    swapped = scores.p_joint.copy()
    swapped[:40] = swapped[:40, ::-1]
    gate = judge(CONTRACT, IMAGES, scores, changed(p_joint=swapped), 1.0)
    assert not gate.passed
    assert gate.measures["joint_auroc_change"] > 0.005
    assert gate.measures["auroc_change"] == gate.measures["p_change"] == 0


def test_maps_must_correlate_and_flat_ones_are_equal():
    scores = f32()
    noisy = scores.maps + np.random.default_rng(1).normal(0, 0.5, scores.maps.shape)
    gate = judge(CONTRACT, IMAGES, scores, changed(maps=noisy), 1.0)
    assert 0.8 < gate.measures["map_correlation"] < 0.95
    assert not gate.passed
    scaled = judge(CONTRACT, IMAGES, scores, changed(maps=7 * scores.maps + 3), 1.0)
    assert scaled.passed
    flat = changed(maps=np.ones((400, 49)))
    assert judge(CONTRACT, IMAGES, flat, flat, 1.0).measures["map_correlation"] == 1
    assert judge(CONTRACT, IMAGES, flat, scores, 1.0).measures["map_correlation"] == 0
    none = changed(maps=None)
    assert "map_correlation" not in judge(CONTRACT, IMAGES, none, none, 1.0).measures


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["p", "p_joint", "maps"])
def test_scores_that_are_not_numbers_fail_and_can_be_written(field, value):
    values = getattr(f32(), field).copy()
    values[0] = value
    broken = changed(**{field: values})
    for one, other in ((f32(), broken), (broken, f32()), (broken, broken)):
        gate = judge(CONTRACT, IMAGES, one, other, 1.0)
        assert not gate.passed
        assert worst(gate.measures) > 1
        json.dumps(gate.measures, allow_nan=False)


def test_fewer_studies_than_one_flip_in_a_hundred_needs_are_no_gate():
    """One flipped decision may be a hundredth of a hundred studies, and of fewer none may flip."""

    def first(studies):
        images = Images(*(values[: 2 * studies] for values in dataclasses.astuple(IMAGES)))
        scores = Scores(*(values[: 2 * studies] for values in dataclasses.astuple(f32())))
        return judge(CONTRACT, images, scores, scores, 1.0)

    assert first(100).passed
    with pytest.raises(DataError, match="at least 100 studies, found 99"):
        first(99)


@pytest.mark.parametrize("field", ["label", "joint"])
def test_one_class_is_no_gate(field):
    images = dataclasses.replace(IMAGES, **{field: np.ones(2 * STUDIES, int)})
    with pytest.raises(DataError, match="the gate needs"):
        judge(CONTRACT, images, f32(), f32(), 1.0)


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    return write_plates(tmp_path_factory.mktemp("plates"))


def test_calibration_is_drawn_by_patient_and_stratified(plates):
    drawn = calibration_rows(plates, 24, seed=3)
    assert len(set(drawn)) == 24
    assert max(Counter(np.array(plates.groups)[drawn]).values()) == 1
    cells = Counter((plates["joint"][i], plates["label"][i]) for i in drawn)
    assert set(cells.values()) == {6}
    assert (calibration_rows(plates, 24, seed=3) == drawn).all()
    assert (calibration_rows(plates, 24, seed=4) != drawn).any()
    everything = calibration_rows(plates, 1000)
    assert sorted(everything) == list(range(48))


def test_a_rare_stratum_is_drawn_as_often_as_it_can_be(plates):
    few = [i for i in range(48) if plates["label"][i] == 0 or i < 10]
    manifest = plates.take(few)
    drawn = calibration_rows(manifest, 12)
    cells = Counter((manifest["joint"][i], manifest["label"][i]) for i in drawn)
    assert min(cells.values()) >= 2


def test_neither_calibration_nor_gate_sees_the_evaluation_splits(plates):
    half = plates.replace({**plates.columns, "split": ["train" if i < 24 else "valid" for i in range(48)]})
    assert max(calibration_rows(half, 100)) < 24
    assert max(development_rows(half)) < 24
    held_out = plates.replace({**plates.columns, "split": ["test"] * 48})
    for rows in (lambda m: calibration_rows(m, 10), development_rows):
        with pytest.raises(DataError, match="outside the evaluation splits"):
            rows(held_out)


def test_folds_keep_calibration_and_gate_apart_and_shared_patients_are_refused(plates):
    folds = with_folds(plates)
    drawn, judged = calibration_rows(folds, 100), development_rows(folds)
    assert len(drawn) == len(judged) == 24
    require_apart(folds, drawn, folds, judged)
    with pytest.raises(DataError, match="12 patients or images are both"):
        require_apart(plates, np.arange(24), plates, np.arange(24))


def test_a_model_is_judged_on_the_fold_that_it_held_out(plates):
    folds = with_folds(plates)
    provenance = Provenance(data_digest=folds.digest, protocol={"fold": 1})
    second = dataclasses.replace(CONTRACT, provenance=provenance)
    judged = development_rows(folds, development_fold(folds, second))
    drawn = calibration_rows(folds, 100, fold=development_fold(folds, second))
    assert set(folds.numbers("fold")[judged]) == {1}
    assert set(folds.numbers("fold")[drawn]) == {0}
    # Of other data nothing is known but what `data split` calls the development fold.
    assert development_fold(folds, CONTRACT) == development_fold(plates, second) == 0


def test_two_data_sets_may_name_patients_alike_but_not_hold_the_same_files(plates, tmp_path):
    other = dataclasses.replace(plates, root=tmp_path)
    require_apart(plates, np.arange(24), other, np.arange(24))
    known = [m.replace({**m.columns, "sha256": [f"{i:064x}" for i in range(48)]}) for m in (plates, other)]
    with pytest.raises(DataError, match="1 patients or images are both"):
        require_apart(known[0], np.array([3]), known[1], np.array([3, 4]))


def test_an_image_that_cannot_be_read_is_left_out(tmp_path, monkeypatch):
    # The verbs of other tests replace the handlers of the root logger, and with them those of caplog.
    said = []
    monkeypatch.setattr(logging.getLogger("mskscreen.export.images"), "handlers", [_Kept(said)])
    (tmp_path / "work").mkdir()
    manifest = write_plates(tmp_path, 4)
    (tmp_path / manifest["image"][3]).write_bytes(b"no image")
    images = load_images(manifest, np.arange(8), CONTRACT, tmp_path / "work")
    assert images.pixels.shape == (7, 1, 32, 32)
    assert images.study.tolist() == [0, 0, 1, 2, 2, 3, 3]
    assert images.label.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert len(said) == 1
    assert "row 3" in said[0]
    assert str(manifest["image"][3]) not in said[0]


class _Kept(logging.Handler):
    def __init__(self, said):
        super().__init__()
        self.said = said

    def emit(self, record):
        self.said.append(record.getMessage())


@pytest.mark.parametrize("learned", ["abnormality", "joint"])
def test_a_task_that_was_not_learned_is_not_judged(learned):
    contract = dataclasses.replace(CONTRACT, provenance=Provenance(protocol={"tasks": learned}))
    noise = np.random.default_rng(1).random((2 * STUDIES, 7))
    other = {"p_joint": noise} if learned == "abnormality" else {"p": noise[:, 0], "maps": -f32().maps}
    assert not judge(CONTRACT, IMAGES, f32(), changed(**other), 1.0).passed
    gate = judge(contract, IMAGES, f32(), changed(**other), 1.0)
    assert gate.passed
    assert ("joint_auroc_change" in gate.measures) == (learned == "joint")
    assert ("flipped_balanced" in gate.measures) == (learned == "abnormality")
    alike = {"joint": np.zeros_like} if learned == "abnormality" else {"label": np.zeros_like}
    images = dataclasses.replace(IMAGES, **{name: make(getattr(IMAGES, name)) for name, make in alike.items()})
    assert judge(contract, images, f32(), f32(), 1.0).passed
    with pytest.raises(DataError, match="the gate needs"):
        judge(CONTRACT, images, f32(), f32(), 1.0)
