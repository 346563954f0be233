"""Readers: kappa against scikit-learn, the majority, MURA's protocol, and its submission format there and back."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from mskscreen.contract import Provenance
from mskscreen.errors import DataError
from mskscreen.evaluation import codalab
from mskscreen.evaluation.agreement import Readings, agree, majority, read_readings
from mskscreen.evaluation.cases import join
from mskscreen.evaluation.labels import labels_from_paths
from mskscreen.evaluation.table import Table

from .conftest import CONTRACT, make_cases


def readings_of(cases, readers=3, error=0.15, seed=0):
    rng = np.random.default_rng(seed)
    calls = cases.labels[:, None] ^ (rng.random((len(cases), readers)) < error)
    return Readings(tuple(f"r{k + 1}" for k in range(readers)), tuple(cases.keys), calls.astype(float))


def test_kappas_agree_with_scikit_learn(cases):
    readings = readings_of(cases)
    found = {(a.one, a.other): a for a in agree(cases, readings, resamples=100) if a.joint == "all"}
    assert len(found) == 6
    model = cases.p >= 0.5
    expected = cohen_kappa_score(model, readings.calls[:, 1])
    assert found["model", "r2"].kappa.value == pytest.approx(expected, abs=1e-12)
    low, high = found["r1", "r3"].kappa.interval
    assert low < cohen_kappa_score(readings.calls[:, 0], readings.calls[:, 2]) < high


def test_a_study_that_a_reader_left_out_counts_for_the_others_only(cases):
    readings = readings_of(cases)
    readings.calls[:40, 0] = np.nan
    found = {(a.one, a.other): a.studies for a in agree(cases, readings, resamples=20) if a.joint == "all"}
    assert found["model", "r1"] == found["r1", "r2"] == len(cases) - 40
    assert found["model", "r2"] == len(cases)


def test_the_protocol_of_mura_judges_the_model_and_the_other_readers_by_the_majority(cases):
    readings = readings_of(cases, readers=5)
    found = agree(cases, readings, reference=["r1", "r2", "r3"], resamples=50)
    overall = {a.one: a for a in found if a.joint == "all"}
    assert set(overall) == {"model", "r4", "r5"}
    truth = readings.calls[:, :3].sum(axis=1) >= 2
    assert overall["r4"].kappa.value == pytest.approx(cohen_kappa_score(truth, readings.calls[:, 3]), abs=1e-12)
    hands = cases.joint == 4
    hand = next(a for a in found if a.joint == "hand" and a.one == "model")
    assert hand.studies == hands.sum()
    assert hand.kappa.value == pytest.approx(cohen_kappa_score(truth[hands], cases.p[hands] >= 0.5), abs=1e-12)
    with pytest.raises(DataError, match="no reader 'r9'"):
        agree(cases, readings, reference=["r9"])


def test_a_reader_who_calls_every_study_alike_has_no_kappa(cases):
    readings = readings_of(cases)
    readings.calls[:, 1] = 1
    found = {(a.one, a.other): a.kappa for a in agree(cases, readings, resamples=20) if a.joint == "all"}
    for pair in (("model", "r2"), ("r1", "r2"), ("r2", "r3")):
        assert found[pair].value is None
        assert found[pair].reason == "one of the two calls every study alike"
    assert found["r1", "r3"].value > 0


def test_a_reader_of_the_models_name_and_a_model_without_calls_are_refused(cases):
    readings = readings_of(cases)
    with pytest.raises(DataError, match="a reader is named 'model'"):
        agree(cases, dataclasses.replace(readings, readers=("r1", "model", "r3")))
    contract = dataclasses.replace(CONTRACT, provenance=Provenance(protocol={"tasks": "joint"}))
    with pytest.raises(DataError, match="did not learn abnormality, which agreement with readers needs"):
        agree(make_cases(contract=contract), readings)


def test_majority_of_an_even_vote_is_unknown():
    nan = np.nan
    calls = np.array([[1, 1, 0], [0, 1, nan], [nan, nan, nan], [0, 0, 1]])
    np.testing.assert_array_equal(majority(calls), [1, nan, nan, 0])


def test_long_and_wide_files_hold_the_same_calls(tmp_path):
    (tmp_path / "wide.csv").write_text("study,r1,r2\nXR_HAND/patient00001/study1_positive/,1,0\nb,,1\n")
    (tmp_path / "long.csv").write_text(
        "study,reader,call\nXR_HAND/patient00001/study1,r1,abnormal\nXR_HAND/patient00001/study1,r2,normal\nb,r2,1\n"
    )
    wide, long = read_readings(tmp_path / "wide.csv"), read_readings(tmp_path / "long.csv")
    assert wide.studies == long.studies == ("XR_HAND/patient00001/study1", "b")
    np.testing.assert_array_equal(wide.calls, long.calls)
    (tmp_path / "bad.csv").write_text("study,reader,call\na,r1,maybe\n")
    with pytest.raises(DataError, match="entry 1: label 'maybe'"):
        read_readings(tmp_path / "bad.csv")


def test_a_submission_read_back_makes_the_same_calls(predictions, cases, tmp_path):
    path = tmp_path / "submission.csv"
    path.write_text(codalab.submission(Table.of(predictions)))
    assert codalab.is_submission(path)
    lines = path.read_text().splitlines()
    assert len(lines) == len(cases)
    assert all(line.startswith("MURA-v1.1/valid/XR_") and line[-3:] in ("/,0", "/,1") for line in lines)
    table = codalab.read_submission(path)
    back = join(table, labels_from_paths(table)).cases()
    np.testing.assert_array_equal(back.keys, cases.keys)
    np.testing.assert_array_equal(back.p >= 0.5, cases.p >= 0.5)
    np.testing.assert_array_equal(back.joint, cases.joint)


def test_a_submission_needs_a_mura_tree_and_a_score_for_every_study(predictions):
    row = predictions.images[0]
    other = row.file.replace("study0", "study9")
    assert other != row.file

    def refusal(**fields):
        images = (dataclasses.replace(row, file=other), dataclasses.replace(row, **fields))
        with pytest.raises(DataError) as error:
            codalab.submission(Table.of(dataclasses.replace(predictions, images=images)))
        return str(error.value)

    assert "row 2 is not an image of a MURA tree" in refusal(file="/home/patient7_positive/a.png")
    assert "the study of row 2 has no scored image" in refusal(p_abnormal=None)
    assert "patient" not in refusal(file="/home/patient7_positive/a.png") + refusal(p_abnormal=None)


def test_a_bad_line_of_a_submission_is_named(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("MURA-v1.1/valid/XR_HAND/patient1/study1/,1\nMURA-v1.1/valid/XR_HAND/patient1/study2/,0.7\n")
    with pytest.raises(DataError, match="line 2"):
        codalab.read_submission(path)
