"""Every metric equals scikit-learn's or statsmodels' on random weighted tables, or says why it is undefined."""

from dataclasses import replace

import numpy as np
import pytest
import sklearn.metrics as sk
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.evaluation import calibration, metrics
from mskscreen.evaluation.summary import summarise

from .conftest import make_cases

THRESHOLD = 0.45


def table(seed, n=300, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < rng.uniform(0.2, 0.8)
    p = 1 / (1 + np.exp(-rng.normal(labels * 1.5 - 0.7, 1.2)))
    weights = rng.integers(0, 4, n).astype(float)
    return labels, np.round(p, 1).clip(0.01, 0.99) if ties else p, weights


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_abnormality_metrics_agree_with_scikit_learn(seed, ties):
    y, p, w = table(seed, ties=ties)
    found = metrics.abnormality_statistic(y, p, THRESHOLD)(w[None])
    calls = p >= THRESHOLD
    expected = {
        "auroc": sk.roc_auc_score(y, p, sample_weight=w),
        "auprc": sk.average_precision_score(y, p, sample_weight=w),
        "accuracy": sk.accuracy_score(y, calls, sample_weight=w),
        "sensitivity": sk.recall_score(y, calls, sample_weight=w),
        "specificity": sk.recall_score(~y, ~calls, sample_weight=w),
        "ppv": sk.precision_score(y, calls, sample_weight=w),
        "npv": sk.precision_score(~y, ~calls, sample_weight=w),
        "f1": sk.f1_score(y, calls, sample_weight=w),
        "mcc": sk.matthews_corrcoef(y, calls, sample_weight=w),
        "kappa": sk.cohen_kappa_score(y, calls, sample_weight=w),
        "brier": sk.brier_score_loss(y, p, sample_weight=w),
        "log_loss": sk.log_loss(y, p, sample_weight=w),
    }
    for name, value in expected.items():
        assert found[name][0] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("seed", range(5))
def test_recalibration_agrees_with_statsmodels(seed):
    y, p, w = table(seed)
    logit = np.log(p / (1 - p))
    found = metrics.abnormality_statistic(y, p, THRESHOLD)(w[None])
    kind = {"family": sm.families.Binomial(), "freq_weights": w}
    slope = sm.GLM(y, sm.add_constant(logit), **kind).fit(tol=1e-14).params[1]
    level = sm.GLM(y, np.ones(len(y)), offset=logit, **kind).fit(tol=1e-14).params[0]
    assert found["calibration_slope"][0] == pytest.approx(slope, abs=1e-12)
    assert found["calibration_intercept"][0] == pytest.approx(level, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_expected_calibration_error_follows_its_definition(seed):
    y, p, w = table(seed)
    expected = 0.0
    for k in range(15):
        inside = (p >= k / 15) & ((p < (k + 1) / 15) | (k == 14))
        if w[inside].sum():
            gap = np.average(y[inside], weights=w[inside]) - np.average(p[inside], weights=w[inside])
            expected += w[inside].sum() / w.sum() * abs(gap)
    assert metrics.loss_statistic(y, p)(w[None])["ece"][0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_joint_metrics_agree_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    truth = np.r_[np.arange(7), rng.integers(7, size=293)]
    p = rng.dirichlet(np.ones(7), 300) + 0.3 * np.eye(7)[truth] * rng.random((300, 1))
    p /= p.sum(axis=1, keepdims=True)
    w = np.r_[np.ones(7), rng.integers(0, 4, 293)].astype(float)
    found = {k: v[0] for k, v in metrics.joint_statistic(truth, p)(w[None]).items()}
    calls, weighted = p.argmax(1), {"sample_weight": w}
    one_vs_rest = {
        f"auroc_{joint}": sk.roc_auc_score(truth == k, p[:, k], **weighted) for k, joint in enumerate(JOINT_LABELS)
    }
    expected = {
        "accuracy": sk.accuracy_score(truth, calls, **weighted),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, calls, **weighted),
        "auroc_macro": np.mean(list(one_vs_rest.values())),
        "log_loss": sk.log_loss(truth, p, **weighted),
        "ece": metrics.loss_statistic(calls == truth, p.max(axis=1))(w[None])["ece"][0],
        **one_vs_rest,
    }
    assert set(expected) == set(metrics.JOINT)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    plain = metrics.joint_statistic(truth, p)(np.ones((1, 300)))["auroc_macro"][0]
    assert plain == pytest.approx(sk.roc_auc_score(truth, p, multi_class="ovr"), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_joint_confusion_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    truth, p = rng.integers(7, size=200), rng.dirichlet(np.ones(7), 200)
    cases = replace(make_cases(200), joint=truth, p_joint=p)
    found = summarise(cases, resamples=2).joint_confusion
    np.testing.assert_array_equal(found, sk.confusion_matrix(truth, p.argmax(1), labels=range(7)))


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 40))
@settings(max_examples=60, deadline=None)
def test_a_weight_of_k_is_the_case_k_times(seed, n):
    y, p, w = table(seed, n, ties=seed % 2 == 0)
    again = np.repeat(np.arange(n), w.astype(int))
    weighted = metrics.abnormality_statistic(y, p, 0.5)(w[None])
    copied = metrics.abnormality_statistic(y[again], p[again], 0.5)(np.ones((1, len(again))))
    for name in set(weighted) - {"calibration_slope"}:
        np.testing.assert_allclose(weighted[name], copied[name], rtol=1e-9, atol=1e-9, err_msg=name)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_auroc_knows_only_the_order_of_the_scores(seed):
    y, p, w = table(seed, 50)
    before = metrics.ranking_statistic(y, p)(w[None])
    after = metrics.ranking_statistic(y, p**3)(w[None])
    np.testing.assert_allclose(before["auroc"], after["auroc"], atol=1e-13)


def test_a_constant_score_is_a_coin():
    y = np.array([True, False, False, True, False])
    assert metrics.ranking_statistic(y, np.full(5, 0.3))(np.ones((1, 5)))["auroc"][0] == 0.5


DEGENERATE = {
    "no cases": np.zeros(0, bool),
    "no normal case": np.ones(30, bool),
    "no abnormal case": np.zeros(30, bool),
}


@pytest.mark.parametrize("why", DEGENERATE)
def test_a_missing_class_gives_no_value_and_the_reason(why):
    y = DEGENERATE[why]
    p = np.linspace(0.1, 0.9, len(y))
    found = metrics.abnormality_statistic(y, p, 0.5)(np.ones((1, len(y))))
    for name in ("auroc", "auprc", "mcc", "kappa", "calibration_slope", "calibration_intercept"):
        assert np.isnan(found[name][0]), name
    occurs = metrics.present(y, p >= 0.5)
    assert metrics.reason(metrics.ABNORMALITY["auroc"], occurs, len(y)) == why


def test_separated_classes_have_no_slope():
    y = np.repeat([False, True], 20)
    p = np.linspace(0.01, 0.99, 40)
    assert np.isnan(calibration.recalibration_statistic(y, p)(np.ones((1, 40)))["calibration_slope"][0])


def test_one_joint_type_has_accuracy_but_no_auroc():
    p = np.full((30, 7), 1 / 7)
    found = metrics.joint_statistic(np.full(30, 3), p)(np.ones((1, 30)))
    assert np.isnan(found["auroc_macro"][0])
    assert found["accuracy"][0] == 0
    assert metrics.reason(metrics.JOINT["auroc_macro"], metrics.present_joints(np.full(30, 3)), 30) == (
        "no second joint type"
    )


def test_every_metric_of_the_tables_is_computed():
    y, p, _ = table(0)
    found = set(metrics.abnormality_statistic(y, p, 0.5)(np.ones((1, 300))))
    assert found == {*metrics.ABNORMALITY, "ece_gaps"}
    joint = metrics.joint_statistic(np.arange(300) % 7, np.full((300, 7), 1 / 7))(np.ones((1, 300)))
    assert set(joint) == {*metrics.JOINT, "ece_gaps"}
