"""The assessment: what development studies allow, what is refused, and JSON that every reader can parse."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from mskscreen.contract import Provenance
from mskscreen.errors import DataError
from mskscreen.evaluation.as_json import to_json
from mskscreen.evaluation.assess import assess
from mskscreen.evaluation.cases import join
from mskscreen.evaluation.contract_update import calibrated_contract, fit_calibration, recalibrated
from mskscreen.evaluation.labels import labels_from_paths
from mskscreen.evaluation.operating import fingerprint
from mskscreen.evaluation.repredict import some_studies
from mskscreen.evaluation.table import Table

from .conftest import CONTRACT, make_predictions


def joined(predictions, name="predictions"):
    table = Table.of(predictions, name)
    return join(table, labels_from_paths(table))


@pytest.fixture(scope="module")
def evaluation():
    return joined(make_predictions(120, scale=2.5))


@pytest.fixture(scope="module")
def development():
    return joined(make_predictions(300, seed=7, first_patient=5000, scale=2.5), "dev")


@pytest.fixture(scope="module")
def assessment(evaluation, development):
    disturbed = joined(make_predictions(120, scale=2.5, quality=1.0), "noisy")
    return assess(
        evaluation,
        development=development,
        contract=CONTRACT,
        prevalence=0.1,
        robustness={"noise": disturbed},
        resamples=60,
    )


def refuse_constant(text):
    raise ValueError(f"{text} is not JSON")


def test_the_json_is_strict_and_holds_every_figure(assessment):
    value = json.loads(to_json(assessment), parse_constant=refuse_constant)
    assert value["study"]["overall"]["abnormality"]["auroc"]["intervals"]["bca"]["low"] > 0.5
    assert value["development"]["shared_patients"] == 0
    assert value["operating_points_reason"] is None
    assert len(value["provenance"]["code_sha256"]) == 64
    assert value["robustness"][0]["name"] == "undisturbed"
    assert value["robustness"][1]["change"]["auroc"]["value"] < 0.05
    assert value["robustness"][1]["flipped"]["intervals"]["bca"]["low"] > 0
    wrong = {what: value["errors"][what]["studies"] for what in ("false negatives", "false positives")}
    cells = value["study"]["overall"]["confusion"]
    assert (wrong["false negatives"], wrong["false positives"]) == (cells["fn"], cells["fp"])
    scores = [case["p_abnormal"] for case in value["errors"]["false positives"]["worst"]]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) >= value["study"]["threshold"]


def test_temperatures_fitted_on_development_help_on_evaluation(assessment):
    loss = {r.name: r.metrics["log_loss"].value for r in assessment.reliability}
    assert all(r.metrics[name].interval for r in assessment.reliability for name in ("brier", "log_loss", "ece"))
    assert loss["temperature"] < loss["as-is"]
    assert assessment.development.temperatures[0] > 1.2


def test_study_probabilities_follow_the_new_temperature(development):
    cases = development.cases()
    unchanged = recalibrated(cases, CONTRACT.calibration)
    np.testing.assert_allclose(unchanged.p, cases.p, atol=1e-12)
    np.testing.assert_allclose(unchanged.p_joint, cases.p_joint, atol=1e-12)
    warmer = dataclasses.replace(CONTRACT.calibration, abnormality_temperature=1.37)
    turned = make_predictions(300, seed=7, first_patient=5000, scale=2.5)
    turned = joined(dataclasses.replace(turned, images=turned.images[::-1])).cases()
    found = (recalibrated(part, warmer) for part in (cases, turned))
    one, other = (dict(zip(part.keys, part.p, strict=True)) for part in found)
    assert one == other
    softer = recalibrated(cases, dataclasses.replace(CONTRACT.calibration, abnormality_temperature=5.0))
    assert np.abs(softer.p - 0.5).max() < np.abs(cases.p - 0.5).max()


def test_isotonic_and_temperature_can_be_chosen_and_need_development(evaluation, development):
    calibrated = assess(evaluation, development=development, calibration="isotonic", resamples=20)
    assert calibrated.study.overall.abnormality["ece"].value == pytest.approx(
        next(r.metrics["ece"].value for r in calibrated.reliability if r.name == "isotonic")
    )
    with pytest.raises(DataError, match="needs development"):
        assess(evaluation, calibration="temperature", resamples=20)
    calls = dataclasses.replace(evaluation, table=dataclasses.replace(evaluation.table, hard=True))
    with pytest.raises(DataError, match="holds calls, not probabilities, which calibration 'isotonic' needs"):
        assess(calls, development=development, calibration="isotonic", resamples=20)


@pytest.mark.parametrize("calibration", ["temperature", "isotonic"])
def test_calls_after_a_calibration_are_made_on_the_new_scale(evaluation, development, calibration):
    """The table's 0.5 is as good as its scale; one of 0.12 on a squeezed scale is not."""
    table = dataclasses.replace(evaluation.table, threshold=0.12)
    low = dataclasses.replace(evaluation, table=table)
    found = assess(low, development=development, calibration=calibration, resamples=20)
    assert found.study.threshold == found.development.points["balanced"].threshold
    assert found.at == "balanced"
    assert assess(low, development=development, resamples=20).study.threshold == 0.12


def test_the_same_studies_as_development_are_refused(evaluation):
    with pytest.raises(DataError, match="120 studies are in both"):
        assess(evaluation, development=evaluation, resamples=20)


def test_points_of_a_contract_are_refused_on_the_studies_that_chose_them(evaluation, development):
    contract, points = calibrated_contract(CONTRACT, development.cases())
    assert contract.provenance.protocol["calibration"]["fingerprint"] == fingerprint(development.cases())
    assert contract.operating_points == {name: point.threshold for name, point in points.items()}
    with pytest.raises(DataError, match="was calibrated on exactly these studies"):
        assess(development, contract=contract, resamples=20)
    elsewhere = assess(evaluation, contract=contract, at="sensitive", resamples=20)
    assert elsewhere.study.threshold == contract.operating_points["sensitive"]
    assert set(elsewhere.study.points) == {"balanced", "sensitive", "specific"}
    with pytest.raises(DataError, match="no operating point 'cost'"):
        assess(evaluation, contract=contract, at="cost", resamples=20)


def test_one_image_that_chose_the_points_is_enough_to_refuse_whatever_it_is_called(evaluation, development):
    def with_digests(part, word):
        digest = [hashlib.sha256(f"{word} {file}".encode()).hexdigest() for file in part.table.file]
        return dataclasses.replace(part, table=dataclasses.replace(part.table, digest=digest))

    contract, _ = calibrated_contract(CONTRACT, with_digests(development, "dev").cases())
    other = with_digests(evaluation, "valid")
    assert assess(other, contract=contract, resamples=20).study.points
    same_names = with_digests(development, "another data set")
    with pytest.raises(DataError, match="exactly these studies"):
        assess(same_names, contract=contract, resamples=20)
    copied = list(other.table.digest)
    copied[5] = with_digests(development, "dev").table.digest[7]
    with pytest.raises(DataError, match="was calibrated on 1 of these images"):
        assess(
            dataclasses.replace(other, table=dataclasses.replace(other.table, digest=copied)),
            contract=contract,
            resamples=20,
        )


def test_a_temperature_needs_raw_scores(development):
    table = dataclasses.replace(development.table, pred1=np.full((len(development.table), 2), np.nan))
    with pytest.raises(DataError, match="needs the raw scores"):
        fit_calibration(join(table, labels_from_paths(table)).cases())


def test_the_digest_of_the_scores_does_not_depend_on_the_order(evaluation):
    predictions = make_predictions(120, scale=2.5)
    turned = joined(dataclasses.replace(predictions, images=predictions.images[::-1]))
    digests = [
        assess(part, resamples=20).provenance["tables"]["evaluation"] for part in (joined(predictions), turned)
    ]
    assert digests[0] == digests[1]


def test_conformal_rows_keep_their_promise_here(assessment):
    assert [section.alpha for section in assessment.conformal] == [0.05, 0.1, 0.2]
    for section in assessment.conformal:
        for name in ("normal", "abnormal"):
            assert section.covered[name].high >= 1 - section.alpha


def test_robustness_compares_with_the_undisturbed_table(evaluation):
    base, same = assess(evaluation, robustness={"nothing": evaluation}, resamples=20).robustness
    assert base.metrics["auroc"].value == same.metrics["auroc"].value
    assert same.change["auroc"].value == same.flipped.value == same.joint_flipped.value == 0
    others = joined(make_predictions(100, seed=2, first_patient=5000))
    with pytest.raises(DataError, match="different studies"):
        assess(evaluation, robustness={"others": others}, resamples=20)


def test_joints_that_were_not_learned_do_not_change_by_a_disturbance():
    contract = dataclasses.replace(CONTRACT, provenance=Provenance(protocol={"tasks": "abnormality"}))
    base, noisy = (joined(make_predictions(120, contract=contract, quality=q)) for q in (1.6, 1.0))
    found = assess(base, robustness={"noise": noisy}, resamples=20).robustness[1]
    assert found.flipped.value > 0
    assert (found.joint_flipped.value, found.joint_flipped.reason) == (
        None,
        "the table holds no probabilities of joint types",
    )


def test_robustness_of_some_studies_is_compared_with_the_same_studies(evaluation):
    some = some_studies(make_predictions(120, scale=2.5), 40, seed=1)
    assert len({row.study for row in some}) == 40
    base, same = assess(evaluation, robustness={"nothing": joined(some)}, resamples=20).robustness
    assert base.studies == same.studies == 40
    alone = assess(joined(some), resamples=20).study.overall.abnormality
    assert base.metrics["auroc"].value == alone["auroc"].value
    assert same.change["kappa"].value == same.flipped.value == 0
    fewer = some_studies(some, 20)
    with pytest.raises(DataError, match="different studies"):
        assess(evaluation, robustness={"some": joined(some), "fewer": joined(fewer)}, resamples=20)


def test_robustness_is_judged_after_the_same_calibration(evaluation, development):
    same = assess(
        evaluation,
        development=development,
        calibration="temperature",
        at="balanced",
        robustness={"nothing": evaluation},
        resamples=20,
    )
    assert same.robustness[1].flipped.value == 0
    sensitivity = same.study.points["balanced"].metrics["sensitivity"].value
    assert same.robustness[1].metrics["sensitivity"].value == pytest.approx(sensitivity)


def test_tables_of_another_model_are_refused(evaluation, development):
    def made_by(part, contract):
        return dataclasses.replace(part, table=dataclasses.replace(part.table, model={"contract": contract}))

    with pytest.raises(DataError, match="different models"):
        assess(made_by(evaluation, "a"), development=made_by(development, "b"), resamples=20)
    with pytest.raises(DataError, match="was not made by model"):
        assess(made_by(evaluation, "a"), contract=CONTRACT, resamples=20)
    assess(made_by(evaluation, CONTRACT.digest), contract=CONTRACT, resamples=20)
