"""The risk-coverage curve is the mean error of the surest, and the conformal promise holds in each class."""

import numpy as np
import pytest

from mskscreen.errors import DataError
from mskscreen.evaluation import selective
from mskscreen.evaluation.curves import curve_statistic


def population(rng, n):
    labels = rng.random(n) < 0.35
    return labels, 1 / (1 + np.exp(-rng.normal(labels * 1.6 - 0.8, 1)))


def test_risk_is_the_error_rate_of_the_most_confident():
    labels, p = population(np.random.default_rng(0), 200)
    coverage = np.array([0.25, 0.5, 1.0])
    found = selective.risk_statistic(labels, p, 0.5, coverage)(np.ones((1, 200)))["risk"][0]
    order = np.argsort(-np.maximum(p, 1 - p))
    wrong = ((p >= 0.5) != labels)[order]
    assert found == pytest.approx([wrong[:50].mean(), wrong[:100].mean(), wrong.mean()])


def test_equal_confidence_shares_its_errors():
    labels = np.array([True, False, True, False])
    found = selective.risk_statistic(labels, np.full(4, 0.8), 0.5, np.array([0.25, 0.5, 1]))(np.ones((1, 4)))
    assert found["risk"][0] == pytest.approx([0.5, 0.5, 0.5])


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_conformal_calls_keep_their_promise(alpha):
    rng = np.random.default_rng(1)
    wrong = {"normal": [], "abnormal": []}
    for _ in range(400):
        rule = selective.fit_conformal(*population(rng, 150), alpha)
        result = selective.judge_conformal(rule, *population(rng, 150))
        for name in wrong:
            wrong[name].append(1 - result.covered[name] / result.cases[name])
    for name, rates in wrong.items():
        standard_error = np.std(rates) / len(rates) ** 0.5
        assert np.mean(rates) <= alpha + 3 * standard_error, name
        assert np.mean(rates) >= alpha / 3, name  # not by calling everything undetermined


def test_a_stricter_promise_leaves_more_undetermined():
    rng = np.random.default_rng(2)
    development, evaluation = population(rng, 800), population(rng, 800)
    left = [
        sum(selective.judge_conformal(selective.fit_conformal(*development, a), *evaluation).undetermined.values())
        for a in (0.3, 0.1, 0.02)
    ]
    assert left[0] < left[1] < left[2]


def test_too_few_development_studies_promise_nothing_and_call_nothing():
    labels, p = np.array([True, False] * 3), np.linspace(0.1, 0.9, 6)
    assert (selective.fit_conformal(labels, p, 0.05).outcome(p) == -1).all()
    with pytest.raises(DataError, match="abnormal and normal"):
        selective.fit_conformal(np.ones(4, bool), np.ones(4))


def test_the_roc_curve_has_the_area_of_the_auroc():
    from sklearn.metrics import roc_auc_score

    labels, p = population(np.random.default_rng(3), 4000)
    curves = curve_statistic(labels, p, np.linspace(0, 1, 5001))(np.ones((1, 4000)))
    assert np.trapezoid(curves["roc"][0], dx=1 / 5000) == pytest.approx(roc_auc_score(labels, p), abs=2e-4)
    assert curves["pr"][0, -1] == pytest.approx(labels[p >= p[labels].min()].mean())
