"""The summary: figures agree with their cases, small groups are too few, and nothing degenerate crashes."""

import dataclasses

import numpy as np
import pytest
import sklearn.metrics as sk

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.contract import Provenance
from mskscreen.errors import DataError
from mskscreen.evaluation.metrics import ABNORMALITY, TOO_FEW
from mskscreen.evaluation.summary import partial_averages, summarise

from .conftest import CONTRACT, make_cases


@pytest.fixture(scope="module")
def summary(cases):
    return summarise(cases, resamples=200, points={"sensitive": 0.3}, prevalence=0.1)


def test_overall_figures_are_those_of_the_cases(cases, summary):
    found = summary.overall.abnormality
    assert found["auroc"].value == pytest.approx(sk.roc_auc_score(cases.labels, cases.p), abs=1e-12)
    assert found["kappa"].value == pytest.approx(sk.cohen_kappa_score(cases.labels, cases.p >= 0.5), abs=1e-12)
    assert set(found["auroc"].intervals) == {"bca", "percentile", "delong"}
    assert set(found["sensitivity"].intervals) == {"bca", "percentile", "wilson"}
    assert sum(summary.overall.confusion.values()) == len(cases)
    for estimate in found.values():
        low, high = estimate.interval
        assert low <= estimate.value <= high or "inverted" in estimate.intervals


def test_the_average_is_the_mean_over_joints_not_over_studies(summary):
    joints = [g.abnormality["auroc"].value for g in summary.groups["joint"] if g.abnormality]
    assert summary.average["auroc"].value == pytest.approx(np.mean(joints), abs=1e-12)
    low, high = summary.average["auroc"].interval
    assert low < summary.average["auroc"].value < high


def test_groups_divide_the_cases(cases, summary):
    for groups in summary.groups.values():
        assert sum(group.cases for group in groups) == len(cases)
        assert sum(group.abnormal for group in groups) == cases.labels.sum()


def test_small_groups_are_too_few():
    cases = make_cases(60)
    summary = summarise(cases, resamples=20)
    small = [g for g in summary.groups["joint"] if g.cases < TOO_FEW]
    assert small
    assert all(not g.abnormality and g.reason.startswith("too few") for g in small)


def test_operating_points_are_judged_with_projected_predictive_values(cases, summary):
    point = summary.points["sensitive"]
    calls = cases.p >= 0.3
    assert point.metrics["sensitivity"].value == pytest.approx(calls[cases.labels].mean())
    se, sp = point.metrics["sensitivity"].value, point.metrics["specificity"].value
    assert point.projected["ppv"].value == pytest.approx(se * 0.1 / (se * 0.1 + (1 - sp) * 0.9))
    assert point.projected["ppv"].interval[0] < point.projected["ppv"].value


def test_the_seed_decides_the_intervals(cases):
    one, same, other = (summarise(cases, resamples=100, seed=s).overall.abnormality["auroc"] for s in (1, 1, 2))
    assert one == same
    assert one.interval != other.interval


def test_any_column_makes_groups_and_an_unknown_one_is_refused(cases):
    columns = {"sex": np.where(np.arange(len(cases)) % 3 == 0, "F", "M").astype(object)}
    summary = summarise(dataclasses.replace(cases, columns=cases.columns | columns), by=["sex"], resamples=20)
    assert [g.name for g in summary.groups["sex"]] == ["F", "M"]
    with pytest.raises(DataError, match="no column 'vendor'"):
        summarise(cases, by=["vendor"], resamples=20)
    many = dataclasses.replace(cases, columns=cases.columns | {"id": cases.keys})
    with pytest.raises(DataError, match="has 200 values"):
        summarise(many, by=["id"], resamples=20)


DEGENERATE = {
    "one class": lambda c: dataclasses.replace(c, labels=np.ones(len(c), bool)),
    "one patient": lambda c: dataclasses.replace(c, patient=np.zeros(len(c), int), patients=["p"]),
    "ties": lambda c: dataclasses.replace(c, p=np.full(len(c), 0.4)),
    "perfect": lambda c: dataclasses.replace(c, p=np.where(c.labels, 0.9, 0.1)),
    "certain": lambda c: dataclasses.replace(c, p=np.where(c.labels, 0.0, 1.0)),
    "no joint known": lambda c: dataclasses.replace(c, joint=np.full(len(c), -1)),
    "one case": lambda c: c.select(np.array([0])),
    "no case": lambda c: c.select(np.zeros(0, int)),
    "calls only": lambda c: dataclasses.replace(
        c,
        p=(c.p >= 0.5).astype(float),
        p_joint=np.full((len(c), 7), np.nan),
        table=dataclasses.replace(c.table, hard=True),
    ),
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.filterwarnings("error")
def test_degenerate_cases_have_a_reason_for_every_missing_value(cases, name):
    summary = summarise(DEGENERATE[name](cases), resamples=50, points={"x": 0.3}, prevalence=0.2)
    estimates = [*summary.overall.abnormality.values(), *summary.average.values(), *summary.joint.values()]
    estimates += [e for groups in summary.groups.values() for g in groups for e in g.abnormality.values()]
    estimates += [*summary.points["x"].metrics.values(), *summary.points["x"].projected.values()]
    for estimate in estimates:
        assert estimate.value is None or np.isfinite(estimate.value)
        assert estimate.value is not None or estimate.reason
        assert estimate.value is None or estimate.interval or estimate.reason


def test_the_reasons_are_the_right_ones(cases):
    def overall(name):
        return summarise(DEGENERATE[name](cases), resamples=50).overall.abnormality

    assert overall("one class")["auroc"].reason == "no normal case"
    assert overall("one patient")["auroc"].reason == "no interval: all cases are of one patient"
    assert overall("ties")["ppv"].reason == "no case called abnormal"
    assert overall("ties")["auroc"].value == 0.5
    assert "separated" in overall("perfect")["calibration_slope"].reason
    hard = overall("calls only")
    assert all(hard[name].reason.endswith("not probabilities") for name, m in ABNORMALITY.items() if m.scores)
    assert hard["kappa"].interval


def test_no_case_is_reported_as_too_few(cases):
    assert summarise(cases.select(np.zeros(0, int)), resamples=20).overall.cases == 0


def test_joint_types_with_too_few_cases_have_no_figure_and_enter_no_mean():
    cases = make_cases(130)
    summary = summarise(cases, resamples=20)
    counts = np.bincount(cases.joint, minlength=7)
    enough = [joint for joint, count in zip(JOINT_LABELS, counts, strict=True) if count >= TOO_FEW]
    assert 0 < len(enough) < 7
    assert list(summary.averaged) == enough
    areas, recalls = [], []
    for k, joint in enumerate(JOINT_LABELS):
        found = summary.joint[f"auroc_{joint}"]
        if joint in enough:
            areas.append(sk.roc_auc_score(cases.joint == k, cases.p_joint[:, k]))
            recalls.append((cases.p_joint[cases.joint == k].argmax(axis=1) == k).mean())
            assert found.value == pytest.approx(areas[-1], abs=1e-12)
        else:
            assert (found.value, found.reason) == (None, f"fewer than 20 cases of {joint}")
    assert summary.joint["auroc_macro"].value == pytest.approx(np.mean(areas), abs=1e-12)
    assert summary.joint["balanced_accuracy"].value == pytest.approx(np.mean(recalls), abs=1e-12)


def test_where_every_joint_type_has_too_few_cases_there_is_no_mean():
    summary = summarise(make_cases(40), resamples=20)
    assert (summary.averaged, summary.joint["auroc_macro"].reason) == ([], "fewer than 20 cases of any joint type")
    assert summary.joint["accuracy"].value is not None


def test_a_mean_of_fewer_joint_types_is_said():
    cases = make_cases(300)
    labels = cases.labels & (cases.joint != 2)
    cases = dataclasses.replace(cases, labels=labels)
    summary = summarise(cases, resamples=20)
    of = len(summary.averaged) - 1
    said = f"the average of AUROC is of {of} joints: it is undefined for {JOINT_LABELS[2]}"
    assert partial_averages(summary, ("auroc", "accuracy")) == [said]


def test_of_a_table_that_is_silent_on_abnormality_only_joints_are_judged():
    contract = dataclasses.replace(CONTRACT, provenance=Provenance(protocol={"tasks": "joint"}))
    cases = make_cases(200, contract=contract)
    summary = summarise(cases, resamples=20, points={})
    assert summary.joint["accuracy"].value == pytest.approx((cases.p_joint.argmax(axis=1) == cases.joint).mean())
    for found in (summary.overall.abnormality, summary.average, summary.groups["joint"][0].abnormality):
        assert set(found) == set(ABNORMALITY)
        assert {(e.value, e.reason) for e in found.values()} == {(None, "the model did not learn abnormality")}
    assert summary.overall.confusion == {}
    with pytest.raises(DataError, match="did not learn abnormality, and the truth names no joint type"):
        summarise(dataclasses.replace(cases, joint=np.full(len(cases), -1)), resamples=20)
