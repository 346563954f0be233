"""Intervals: the weighted bootstrap is the copied bootstrap, DeLong is the pairwise sum, bounds behave."""

import numpy as np
import pytest
import sklearn.metrics as sk
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from mskscreen.evaluation import intervals, metrics


def cases(seed=0, n=240, patients=150):
    rng = np.random.default_rng(seed)
    patient = np.unique(rng.integers(patients, size=n), return_inverse=True)[1]
    labels = rng.random(n) < 0.4
    return labels, 1 / (1 + np.exp(-rng.normal(labels * 1.5 - 0.7, 1))), patient


def auroc_draws(labels, p, patient, **settings):
    part = intervals.Part(np.arange(len(p)), metrics.ranking_statistic(labels, p))
    return intervals.draw({"all": part}, patient, **settings)


def test_replicates_are_those_of_copied_patients():
    labels, p, patient = cases()
    found = auroc_draws(labels, p, patient, resamples=20, seed=3).replicates["all"]["auroc"]
    rng, count = np.random.default_rng(3), patient.max() + 1
    for value in found:
        rows = np.concatenate([np.flatnonzero(patient == k) for k in rng.integers(count, size=count)])
        assert value == pytest.approx(sk.roc_auc_score(labels[rows], p[rows]), abs=1e-12)


def test_the_jackknife_leaves_out_one_patient_at_a_time():
    labels, p, patient = cases(n=60, patients=30)
    found = auroc_draws(labels, p, patient, resamples=2).jackknife["all"]["auroc"]
    expected = [sk.roc_auc_score(labels[patient != k], p[patient != k]) for k in range(patient.max() + 1)]
    np.testing.assert_allclose(np.sort(found), np.sort(expected), atol=1e-12)


def test_blocks_and_threads_do_not_change_the_draws(monkeypatch):
    labels, p, patient = cases()
    whole = auroc_draws(labels, p, patient, resamples=50, seed=1)
    monkeypatch.setattr(intervals, "_BLOCK", 700)
    monkeypatch.setattr(intervals.os, "cpu_count", lambda: 1)
    blocks = auroc_draws(labels, p, patient, resamples=50, seed=1)
    np.testing.assert_array_equal(whole.replicates["all"]["auroc"], blocks.replicates["all"]["auroc"])
    np.testing.assert_array_equal(whole.jackknife["all"]["auroc"], blocks.jackknife["all"]["auroc"])


def test_clustering_widens_the_interval_when_a_patient_repeats():
    labels, p, _ = cases(n=200)
    four_times = np.repeat(np.arange(200), 4)
    alone = auroc_draws(labels[four_times], p[four_times], np.arange(800), bca=False)
    together = auroc_draws(labels[four_times], p[four_times], four_times, bca=False)
    width = [np.ptp(intervals.percentile(d.replicates["all"]["auroc"])) for d in (alone, together)]
    assert width[1] / width[0] == pytest.approx(2, rel=0.1)


def test_bca_agrees_with_scipy():
    values = np.random.default_rng(5).gamma(1, size=60)
    part = intervals.Part(np.arange(60), lambda w: {"mean": w @ values / w.sum(axis=1)})
    draws = intervals.draw({"all": part}, np.arange(60), resamples=20_000)
    low, high = intervals.bca(values.mean(), draws.replicates["all"]["mean"], draws.jackknife["all"]["mean"])
    expected = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=20_000, rng=1).confidence_interval
    assert (low, high) == pytest.approx(tuple(expected), rel=0.01)
    plain = intervals.percentile(draws.replicates["all"]["mean"])
    assert high > plain[1]  # a right-skewed mean needs a longer right arm


def test_bca_moves_by_twice_the_bias_and_bends_with_the_skewness():
    replicates = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    level = np.array([-1.0, 1.0] * 50)
    low, high = intervals.bca(0.3, replicates, level)
    assert (low, high) == pytest.approx((0.6 - 1.96, 0.6 + 1.96), abs=0.01)
    skewed = np.r_[np.full(99, 0.0), -1.0]
    acceleration = 0.98 / 6 / 0.99**0.5
    low, high = intervals.bca(0.0, replicates, skewed)
    assert (low, high) == pytest.approx(
        (-1.96 / (1 + acceleration * 1.96), 1.96 / (1 - acceleration * 1.96)), abs=0.01
    )


def test_the_inverted_interval_forgets_noise_and_keeps_gaps():
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 0.01, (2000, 15))
    only_noise = rng.normal(0, 0.01, 15)
    low, high = intervals.inverted(only_noise, only_noise + noise)
    assert low < 0.03 < np.abs(only_noise).sum() < high
    clear = np.full(15, 0.02) * np.where(np.arange(15) % 2, 1, -1)
    low, high = intervals.inverted(clear, clear + noise / 100)
    assert (low, high) == pytest.approx((0.3, 0.3), abs=0.01)
    assert intervals.inverted(clear, np.tile(clear, (50, 1))) is None


@pytest.mark.parametrize("true_sum", [0.0, 0.05, 0.3])
def test_the_inverted_interval_holds_the_true_sum(true_sum):
    rng = np.random.default_rng(3)
    gaps = np.linspace(-1, 1, 15)
    gaps *= true_sum / np.abs(gaps).sum()
    held = 0
    for _ in range(150):
        estimate = gaps + rng.normal(0, 0.01, 15)
        low, high = intervals.inverted(estimate, estimate + rng.normal(0, 0.01, (400, 15)))
        held += low <= true_sum <= high
    assert held >= stats.binom.ppf(0.001, 150, 0.93)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 7), (95, 100), (1, 1)])
def test_wilson_agrees_with_statsmodels(successes, trials):
    expected = proportion_confint(successes, trials, method="wilson")
    assert intervals.wilson(successes, trials) == pytest.approx(expected, abs=1e-12)
    assert intervals.wilson(0, 0) is None


def pairwise_delong(labels, scores):
    """Covariance by the definition: every pair of an abnormal and a normal case."""
    x, z = scores[:, labels][:, :, None], scores[:, ~labels][:, None, :]
    wins = (x > z) + 0.5 * (x == z)
    v10, v01 = wins.mean(axis=2), wins.mean(axis=1)
    return wins.mean(axis=(1, 2)), np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]


@pytest.mark.parametrize("decimals", [1, 12])
def test_delong_agrees_with_the_pairwise_definition(decimals):
    rng = np.random.default_rng(decimals)
    labels = rng.random(150) < 0.4
    scores = np.round(rng.normal(size=(3, 150)) + labels, decimals)
    area, covariance = intervals.delong(labels, scores)
    expected_area, expected = pairwise_delong(labels, scores)
    np.testing.assert_allclose(area, expected_area, atol=1e-12)
    np.testing.assert_allclose(covariance, expected, atol=1e-12)


def test_delong_needs_two_cases_of_each_class_and_some_variance():
    assert intervals.delong_interval(np.array([True, False, False]), np.array([0.9, 0.1, 0.2])) is None
    assert intervals.delong_interval(np.array([True, True, False, False]), np.array([0.9, 0.8, 0.1, 0.2])) is None


def test_one_patient_has_an_estimate_and_no_replicates():
    labels, p, _ = cases(n=40)
    draws = auroc_draws(labels, p, np.zeros(40, int))
    assert draws.estimate["all"]["auroc"] == pytest.approx(sk.roc_auc_score(labels, p))
    assert draws.replicates == {}


def test_no_interval_where_many_resamples_are_undefined_or_all_agree():
    half = np.where(np.arange(100) % 2, np.nan, np.linspace(0, 1, 100))
    assert intervals.percentile(half) is None
    assert intervals.percentile(np.ones(100)) is None
    assert intervals.bca(1.0, np.ones(100), np.ones(10)) is None
