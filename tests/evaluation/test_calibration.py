"""Temperatures and isotonic maps do what scikit-learn and arithmetic say."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from mskscreen.errors import DataError
from mskscreen.evaluation import calibration, metrics
from mskscreen.predictions import softmax


def scored(seed=0, n=3000, k=2, stretch=1.0):
    """Raw scores whose softmax is the true probability when divided by `stretch`."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 1.2, (n, k))
    classes = (rng.random(n)[:, None] > np.cumsum(softmax(honest), axis=1)).sum(axis=1)
    return stretch * honest, classes


@pytest.mark.parametrize("k", [2, 7])
@pytest.mark.parametrize("stretch", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_known_stretch(k, stretch):
    scores, classes = scored(k=k, stretch=stretch)
    assert calibration.fit_temperature(scores, classes) == pytest.approx(stretch, rel=0.1)


def test_no_other_temperature_has_a_smaller_loss_over_studies():
    scores, image_class = scored(stretch=2.5, n=900)
    groups = np.arange(900) // 3
    classes = image_class[::3]

    def loss(t):
        p = softmax(scores, t)[:, 1].reshape(-1, 3).mean(axis=1)
        return metrics.loss_statistic(classes == 1, p)(np.ones((1, 300)))["log_loss"][0]

    best = calibration.fit_temperature(scores, classes, groups)
    assert all(loss(best) <= loss(best * factor) + 1e-12 for factor in (0.8, 0.99, 0.999, 1.001, 1.01, 1.25))


def test_an_offset_takes_up_a_shifted_score_and_the_temperature_stays():
    scores, classes = scored(stretch=2.0, n=6000)
    temperature, offset = calibration.fit_temperature_and_offset(scores + np.array([0, 1.5]), classes)
    assert temperature == pytest.approx(2.0, rel=0.1)
    assert offset == pytest.approx(-1.5, abs=0.15)


def test_a_temperature_keeps_the_order_of_images_and_lowers_the_loss():
    scores, classes = scored(stretch=3.0)
    fitted = calibration.fit_temperature(scores, classes)
    before, after = softmax(scores)[:, 1], softmax(scores, fitted)[:, 1]
    assert (np.argsort(before) == np.argsort(after)).all()
    losses = [metrics.loss_statistic(classes == 1, p)(np.ones((1, len(p)))) for p in (before, after)]
    assert losses[1]["log_loss"][0] < losses[0]["log_loss"][0]
    assert losses[1]["ece"][0] < losses[0]["ece"][0]


@pytest.mark.parametrize("decimals", [1, 12])
def test_the_isotonic_map_agrees_with_scikit_learn(decimals):
    rng = np.random.default_rng(decimals)
    p = np.round(rng.random(400), decimals)
    labels = rng.random(400) < p**2
    found = calibration.fit_isotonic(labels, p)
    expected = IsotonicRegression(out_of_bounds="clip").fit(p, labels)
    grid = np.linspace(0, 1, 201)
    np.testing.assert_allclose(found(grid), expected.predict(grid), atol=1e-12)
    assert (np.diff(found(grid)) >= 0).all()


def test_one_class_cannot_be_calibrated():
    with pytest.raises(DataError, match="two classes"):
        calibration.fit_temperature(np.zeros((5, 2)), np.zeros(5, int))
    with pytest.raises(DataError, match="none"):
        calibration.fit_isotonic(np.zeros(0, bool), np.zeros(0))


def test_reliability_bins_hold_every_case_once():
    rng = np.random.default_rng(0)
    p = np.r_[rng.random(500), 0.0, 1.0]
    bins = calibration.reliability(rng.random(502) < p, p)
    assert sum(b.cases for b in bins) == 502
    assert sum(b.cases * b.mean for b in bins) == pytest.approx(p.sum())
